//! The `[pools.NAME]` tables, and the conflicts between pools.

use std::{collections::BTreeMap, time::Duration};

use toml::de::DeValue;

use super::{
    arguments::{Declaration, declaration, warn_of_few_deliveries, warn_of_lost_dead_letters},
    by_hand::origins,
    deadlines::{refuse_outliving_jobs, warn_of_long_waits},
    inputs::ConfigInputs,
    policy::{MAX_WORKERS, policy, scaling},
    problem::{Place, Problem},
    reply::{reply, warn_of_no_answers},
    schema::{
        Choice, Flag, Item, Key, KeyKind, KeyPresence, OrWord, Span, Spelling, Table, Text,
        ValuePosition, WholeNumber,
    },
    settings::{
        BreakerRules, DeadLetter, Declare, DrainAfter, PoolConfig, PoolSettings, RetrySettings,
    },
};
use crate::{
    decide::{NAME_BYTES, NAME_BYTES_BEYOND_ASCII, PolicyKind, QueueName, name_room},
    runners::{
        RunnerKind,
        keys::{RunnerKeys, runner},
    },
};

/// A pool's name is a metric label and a word of the command line.
const POOL_NAME_BYTES: usize = 64;

/// Reads all pools.
pub(super) fn pools(
    root: &mut Table<'_, '_>,
    inputs: &ConfigInputs<'_>,
    kinds: &[&'static RunnerKind],
) -> Vec<PoolConfig> {
    let mut table = root.table(
        "pools",
        "One table for each pool: a queue, its policy and its runner.",
    );
    let names = table.names(Spelling::Folded);
    if names.is_empty() {
        table.missing(
            "pools",
            "write a pool: [pools.NAME], and [pools.NAME.runner] with its command",
        );
    }
    let pools: Vec<_> = names
        .iter()
        .map(|name| pool(&mut table, name, inputs, kinds))
        .collect();
    refuse_shared_queues(&mut table, &pools);
    warn_of_derived_queues(&mut table, &pools);
    pools.into_iter().map(|(config, _)| config).collect()
}

/// Reads one pool. Also returns its queue as a key, to compare it with the queues of other pools.
fn pool(
    pools: &mut Table<'_, '_>,
    name: &str,
    inputs: &ConfigInputs<'_>,
    kinds: &[&'static RunnerKind],
) -> (PoolConfig, Key<QueueName>) {
    let default = PoolSettings::new(name);
    let mut table = pools.table(name, "A pool. Its name is yours to choose.");
    check_name(&mut table, name);
    let queue = table.key("queue", "The queue it consumes.", QUEUE, default.queue);
    let declare = table.key(
        "declare",
        "Whether to declare the queue, always durable. With `no` someone else does, and until then the pool waits. One \
         that is there in another way stays as it is, which is said.",
        Choice(&[
            ("no", Declare::No),
            ("classic", Declare::Classic),
            ("quorum", Declare::Quorum),
        ]),
        default.declare,
    );
    let prefetch = table.key(
        "prefetch",
        "Deliveries that each worker may hold.",
        WholeNumber(1..=u16::MAX),
        default.prefetch,
    );
    let poll_interval = table.key(
        "poll_interval",
        "Time between two readings of the queue's depth.",
        Span::from(Duration::from_millis(10)),
        default.poll_interval,
    );
    let drain_after = table.key(
        "drain_after",
        "How long the queue is empty before all workers drain. \"0s\" is at once. When absent with `target_wait`, a third \
         of `target`, from 5 s to 1 minute.",
        OrWord(Span::from(Duration::ZERO), "never"),
        match default.drain_after {
            DrainAfter::After(time) => Some(time),
            DrainAfter::Never => None,
        },
    );
    let keep_warm = table.key(
        "keep_warm",
        "Workers, with their runners, kept on an empty queue.",
        WholeNumber(0..=MAX_WORKERS),
        default.keep_warm,
    );
    let preempt = table.key(
        "preempt",
        "Whether scaling down may stop running jobs. They are given back.",
        Flag,
        default.preempt,
    );
    let shutdown_grace = table.key(
        "shutdown_grace",
        "How long a drain waits for running jobs.",
        Span::from(Duration::ZERO),
        default.shutdown_grace,
    );
    let ack_deadline = table.key(
        "ack_deadline",
        "Longest that a delivery is held unsettled. At most the broker's own consumer timeout, 30 minutes as it \
         comes: past that the broker cuts the channel, and runs the job again elsewhere. A job that would still run \
         is stopped before, spends no attempt, and is given back; one that is stopped so 21 times is \
         dead-lettered.",
        Span::from(Duration::from_secs(1)),
        default.ack_deadline,
    );
    let (reply, reply_allow) = reply(&mut table);
    let Declaration {
        arguments,
        bindings,
        delivery_limit,
    } = declaration(&mut table, &declare);
    let policy = policy(&mut table);
    let scaling = scaling(&mut table);
    let policy_origins = origins(&table);
    let RunnerKeys {
        runner,
        job,
        within_max,
    } = runner(&mut table, inputs, kinds);
    let (retry, dead_letter) = retry(&mut table);

    if policy.is_sound() && keep_warm.is_sound() && keep_warm.value > policy.value.max {
        let max = policy.value.max;
        table.refuse(
            &keep_warm,
            format!("write at most policy.max, which is {max}, or raise policy.max"),
        );
    }
    let max = policy.value.max;
    let is_beyond = |number| policy.is_sound() && number > max;
    for key in within_max {
        if key.value.is_some_and(is_beyond) {
            table.refuse(
                &key,
                format!("write at most policy.max, which is {max}, or raise policy.max"),
            );
        }
    }
    if let Some(job) = job {
        refuse_outliving_jobs(&mut table, &job, &ack_deadline);
        warn_of_long_waits(&mut table, &job, &ack_deadline, &prefetch);
    }
    warn_of_few_deliveries(&mut table, delivery_limit.as_ref(), &policy);
    warn_of_no_answers(&mut table, &reply, &reply_allow, &runner);
    warn_of_lost_dead_letters(
        &mut table,
        queue.value.as_str(),
        &dead_letter,
        &declare,
        &arguments,
    );
    refuse_long_name(&mut table, &queue, &retry);
    let pool = PoolSettings {
        name: default.name,
        queue: queue.value.clone(),
        declare: declare.value,
        arguments,
        bindings,
        prefetch: prefetch.value,
        poll_interval: poll_interval.value,
        drain_after: match (drain_after.value, &policy.value.kind) {
            (_, PolicyKind::TargetWait(wait)) if drain_after.given == KeyPresence::Absent => {
                DrainAfter::After(wait.drain_after())
            }
            (Some(quiet), _) => DrainAfter::After(quiet),
            (None, _) => DrainAfter::Never,
        },
        keep_warm: keep_warm.value,
        preempt: preempt.value,
        shutdown_grace: shutdown_grace.value,
        ack_deadline: ack_deadline.value,
        policy: policy.value,
        scaling,
        schedule: default.schedule,
        own_policy: None,
        policy_origins,
        retry,
        reply,
    };
    (PoolConfig { pool, runner }, queue)
}

/// Reads how failed jobs are handled. Also returns `dead_letter` as a key, because it needs a feature of the queue.
fn retry(pool: &mut Table<'_, '_>) -> (RetrySettings, Key<DeadLetter>) {
    let default = RetrySettings::default();
    let mut table = pool.table("retry", "What becomes of jobs that fail.");
    let max_attempts = table.key(
        "max_attempts",
        "Attempts before a job is dead-lettered.",
        WholeNumber(1..=1_000_000),
        default.max_attempts,
    );
    let at_least = Span::from(Duration::from_millis(1));
    let backoff = table.key(
        "backoff",
        "Time before the second attempt. Doubled for each further one, with jitter.",
        at_least,
        default.backoff,
    );
    let at_least = Span::from(Duration::from_millis(1));
    let backoff_max = table.key(
        "backoff_max",
        "Longest time between two attempts.",
        at_least,
        default.backoff_max,
    );
    let dead_letter = table.key(
        "dead_letter",
        "Where dead letters go. `queue`: as a confirmed copy to `<queue>.dead`. `broker`: rejected, and lost where \
         the queue has no dead-letter exchange: see `arguments`.",
        Choice(&[("queue", DeadLetter::Queue), ("broker", DeadLetter::Broker)]),
        default.dead_letter,
    );
    if backoff.is_sound() && backoff_max.is_sound() && backoff.value > backoff_max.value {
        match backoff.is_given() {
            true => table.refuse(&backoff, "write at most backoff_max, or raise backoff_max"),
            false => table.refuse(&backoff_max, "write at least backoff, or lower backoff"),
        }
    }
    let breaker = breaker(&mut table);
    let settings = RetrySettings {
        max_attempts: max_attempts.value,
        backoff: backoff.value,
        backoff_max: backoff_max.value,
        dead_letter: dead_letter.value,
        breaker,
    };
    (settings, dead_letter)
}

fn breaker(retry: &mut Table<'_, '_>) -> Option<BreakerRules> {
    let default = BreakerRules::default();
    let mut table = retry.optional_table(
        "breaker",
        "When too many jobs fail, take no more for a while: messages stay ready in the queue instead of using up \
         their attempts, jobs that run are finished, and after `pause` one job at a time is tried until one does not \
         fail. A job that answers later or never (exit 75 or 65) has not failed, in the window as in a trial. Without \
         this table there is no breaker; with it, empty or not, there is.",
    );
    let failures = table.key(
        "failures",
        "Share of failed jobs in the window from which it opens. A failure is what spends an attempt without the job \
         having asked for it: an exit code, a signal, a timeout, no memory, a runner that was lost.",
        Share,
        default.failure_percent,
    );
    let window = table.key(
        "window",
        "How far back it looks.",
        Span::from(Duration::from_millis(100)),
        default.window,
    );
    let min_jobs = table.key(
        "min_jobs",
        "Fewest jobs in the window that it may open at.",
        WholeNumber(1..=1_000_000_000),
        default.min_jobs,
    );
    let pause = table.key(
        "pause",
        "How long it is open before the first trial. Doubled with each trial that fails, up to eight times as long.",
        Span::from(Duration::from_millis(1)),
        default.pause,
    );
    table.is_given().then_some(BreakerRules {
        failure_percent: failures.value,
        window: window.value,
        min_jobs: min_jobs.value,
        pause: pause.value,
    })
}

/// A share in whole percent: written as a number up to 1, or in percent.
#[derive(Debug)]
struct Share;

impl KeyKind for Share {
    type Value = u8;
    const IS_TEXT: bool = false;

    fn wants(&self) -> String {
        "a share from 0.01 to 1, or from \"1%\" to \"100%\"".to_owned()
    }

    fn read(&self, item: &Item<'_>, spot: &mut ValuePosition<'_>) -> Option<u8> {
        let percent = match item.get_ref() {
            DeValue::Float(share) => share.as_str().parse().ok().and_then(in_percent),
            DeValue::Integer(share) => share.as_str().parse().ok().and_then(in_percent),
            DeValue::String(text) => {
                let number = text.trim().strip_suffix('%').map(str::trim_end);
                number.and_then(|number| number.parse().ok())
            }
            _ => None,
        };
        let percent = percent.filter(|percent| (1..=100).contains(percent));
        if percent.is_none() {
            spot.wrong(item, format!("write {}, in hundredths", self.wants()));
        }
        percent
    }

    fn toml(&self, percent: &u8) -> String {
        format!("{:?}", f64::from(*percent) / 100.0)
    }
}

/// A share as whole percent; `None` if it is invalid.
fn in_percent(share: f64) -> Option<u8> {
    let is_close = |percent: &u8| (f64::from(*percent) - share * 100.0).abs() < 1e-9;
    (1..=100).find(is_close)
}

const QUEUE: Text<QueueName> = Text {
    wants: "a queue's name",
    parse: |text| match text {
        "" => Err("write the queue's name".to_owned()),
        text if text.starts_with("amq.") => {
            Err("write another name: amq. is the broker's own prefix".to_owned())
        }
        text if text.len() > NAME_BYTES => Err(format!("write at most {NAME_BYTES} bytes")),
        text => Ok(text.into()),
    },
    show: QueueName::to_string,
};

fn check_name(table: &mut Table<'_, '_>, name: &str) {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !(1..=POOL_NAME_BYTES).contains(&name.len()) || !name.chars().all(is_word) {
        table.problem(Problem::new(
            table.place().clone(),
            table.path(),
            format!("the name {name:?}"),
            format!("write 1 to {POOL_NAME_BYTES} of the characters A-Z, a-z, 0-9, - and _, and the queue's own name as queue"),
        ));
    }
}

/// The names of the retry queues must fit too. The name of the last level is the longest.
fn refuse_long_name(table: &mut Table<'_, '_>, queue: &Key<QueueName>, retry: &RetrySettings) {
    let suffix = format!(".retry.{}", retry.backoff_max.as_millis());
    let room = name_room(queue.value.as_str(), &suffix);
    if queue.is_sound() && queue.value.as_str().len() > room {
        let why = match queue.value.as_str().is_ascii() {
            true => format!("<queue>{suffix} must fit in {NAME_BYTES}"),
            false => format!(
                "RabbitMQ 4.0 fails at errors about <queue>{suffix} with more than {NAME_BYTES_BEYOND_ASCII} where not \
                 all are ASCII, and closes the connection"
            ),
        };
        table.refuse(queue, format!("write at most {room} bytes: {why}"));
    }
}

fn refuse_shared_queues(table: &mut Table<'_, '_>, pools: &[(PoolConfig, Key<QueueName>)]) {
    let mut first: BTreeMap<&QueueName, (&PoolConfig, &Place)> = BTreeMap::new();
    for (config, queue) in pools.iter().filter(|(_, queue)| queue.is_sound()) {
        let Some((other, place)) = first.get(&queue.value) else {
            first.insert(&queue.value, (config, &queue.place));
            continue;
        };
        let (name, other) = (&config.pool.name, &other.pool.name);
        table.problem(Problem::new(
            queue.place.clone(),
            queue.path.clone(),
            format!(
                "{:?}, the queue of pool {other} too ({place})",
                queue.value.as_str()
            ),
            format!("give {name} a queue of its own, or make one pool of {other} and {name}"),
        ));
    }
}

/// Warns of a pool that consumes queues of another pool. Its dead letters may be intended, its retry queues most likely
/// not.
fn warn_of_derived_queues(table: &mut Table<'_, '_>, pools: &[(PoolConfig, Key<QueueName>)]) {
    for (_, queue) in pools
        .iter()
        .filter(|(_, queue)| queue.given == KeyPresence::Valid)
    {
        for (owner, _) in pools {
            let Some(suffix) = queue.value.as_str().strip_prefix(owner.pool.queue.as_str()) else {
                continue;
            };
            let owner = &owner.pool.name;
            let (what, fix) = match suffix {
                ".dead" => ("dead letters", "make sure that it is meant"),
                _ if suffix.starts_with(".retry.") => ("retries in waiting", "write another queue"),
                _ => continue,
            };
            table.warn(Problem::new(
                queue.place.clone(),
                queue.path.clone(),
                format!(
                    "{:?}, where pool {owner} keeps its {what}",
                    queue.value.as_str()
                ),
                fix,
            ));
        }
    }
}
