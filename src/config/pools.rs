//! The `[pools.NAME]` tables, and the conflicts between pools.

use std::{collections::BTreeMap, time::Duration};

use toml::de::DeValue;

use super::{
    arguments::{
        Declaration, declaration, lowest_delivery_limit, warn_of_few_deliveries,
        warn_of_lost_dead_letters,
    },
    by_hand::origins,
    consuming::refuse_meaningless,
    deadlines::{refuse_outliving_jobs, warn_of_long_waits},
    inputs::ConfigInputs,
    order_keys::order_keys,
    policy::{policy, scaling},
    problem::{Place, Problem},
    reply::{reply, warn_of_no_answers},
    schedule::schedule,
    schema::{
        Choice, Flag, Item, Key, KeyKind, KeyPresence, OrWord, Span, Spelling, Table, Text,
        ValuePosition, WholeNumber,
    },
    settings::{
        BreakerRules, DeadLetter, Declare, DrainAfter, MAX_WORKERS, PoolSettings, RetrySettings,
    },
    whole::PoolConfig,
};
use crate::{
    decide::{
        NAME_BYTES, NAME_BYTES_BEYOND_ASCII, Policy, PolicyKind, QueueName, Schedule, name_room,
    },
    runners::{
        RunnerKind, RunnerSettings,
        keys::{RunnerKeys, runner},
    },
};

/// A pool's name is used as a metric label and as an argument on the command line.
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
    let mut table = pools.table(name, "A pool. You choose its name.");
    check_name(&mut table, name);
    let keys = queue_keys(&mut table, &default);
    let order = order_keys(&mut table);
    let (reply, reply_allow) = reply(&mut table);
    let Declaration {
        arguments,
        bindings,
        delivery_limit,
    } = declaration(&mut table, &keys.declare);
    let policy = policy(&mut table);
    let scaling = scaling(&mut table);
    let policy_origins = origins(&table);
    let schedule = schedule(&mut table, &policy);
    let sharing = sharing_keys(&mut table, &default);
    refuse_local_max_beyond_all(&mut table, &sharing, &policy, &schedule);
    order.check(&mut table, &keys.prefetch, &sharing.share, &policy);
    let RunnerKeys {
        runner,
        job,
        within_max,
    } = runner(&mut table, inputs, kinds);
    let (retry, dead_letter) = retry(&mut table);

    refuse_beyond_max(&mut table, &policy, &keys.keep_warm, &within_max);
    if let Some(job) = job {
        refuse_outliving_jobs(&mut table, &job, &keys.ack_deadline);
        warn_of_long_waits(&mut table, &job, &keys.ack_deadline, &keys.prefetch);
    }
    refuse_meaningless(&mut table, &runner, &policy);
    if !runner.consumes() {
        let lowest = lowest_delivery_limit(policy.value.max, order.settings().as_ref());
        warn_of_few_deliveries(&mut table, delivery_limit.as_ref(), &policy, lowest);
    }
    warn_of_no_answers(&mut table, &reply, &reply_allow, &runner);
    warn_of_lost_dead_letters(
        &mut table,
        keys.queue.value.as_str(),
        &dead_letter,
        &keys.declare,
        &arguments,
    );
    refuse_long_name(&mut table, &keys.queue, &retry);
    let pool = PoolSettings {
        name: default.name,
        queue: keys.queue.value.clone(),
        declare: keys.declare.value,
        arguments,
        bindings,
        prefetch: keys.prefetch.value,
        key: order.settings(),
        poll_interval: keys.poll_interval.value,
        drain_after: drain_after(&keys.drain_after, &policy.value.kind, &runner),
        keep_warm: keys.keep_warm.value,
        preempt: keys.preempt.value,
        shutdown_grace: keys.shutdown_grace.value,
        ack_deadline: keys.ack_deadline.value,
        policy: policy.value,
        scaling,
        schedule,
        weight: sharing.weight.value,
        share: sharing.share.value,
        local_max: sharing.local_max.value,
        own_policy: None,
        policy_origins,
        retry,
        reply,
    };
    (PoolConfig { pool, runner }, keys.queue)
}

/// The keys of a pool about its queue: how it is read, and how its messages are held.
struct QueueKeys {
    queue: Key<QueueName>,
    declare: Key<Declare>,
    prefetch: Key<u16>,
    poll_interval: Key<Duration>,
    /// `None` is `never`.
    drain_after: Key<Option<Duration>>,
    keep_warm: Key<u32>,
    preempt: Key<bool>,
    shutdown_grace: Key<Duration>,
    ack_deadline: Key<Duration>,
}

fn queue_keys(table: &mut Table<'_, '_>, default: &PoolSettings) -> QueueKeys {
    let queue = table.derived(
        "queue",
        "The queue it consumes. When absent, the queue with the pool's name.",
        QUEUE,
        default.queue.clone(),
        "\"thumbnails\"",
    );
    let declare = table.key(
        "declare",
        "Whether to declare the queue. It is always durable. With `no`, another program declares it, and the pool \
        waits until it exists. If the queue exists with another declaration, it is used unchanged, with a warning.",
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
        "How long the queue must be empty before all workers drain. \"0s\" means at once. When absent with \
         `target_wait`, a third of `target`, from 5s to 1m, and six times as long while messages come often. When absent \
         with a runner of kind `consumer`, 15s.",
        OrWord(Span::from(Duration::ZERO), "never"),
        match default.drain_after {
            DrainAfter::After(time) | DrainAfter::ByArrivals(time) => Some(time),
            DrainAfter::Never => None,
        },
    );
    let keep_warm = table.key(
        "keep_warm",
        "Workers, with their runners, that are kept while the queue is empty.",
        WholeNumber(0..=MAX_WORKERS),
        default.keep_warm,
    );
    let preempt = table.key(
        "preempt",
        "Whether scaling down may stop running jobs. Stopped jobs return to the queue.",
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
        "Longest time that a delivery is held unsettled. At most the broker's own consumer timeout, which is 30 \
        minutes by default. After that timeout the broker would close the channel and deliver the message again. A job \
        that still runs shortly before the deadline is stopped and returns to the queue without using up an attempt. \
        After 21 such stops its message is dead-lettered.",
        Span::from(Duration::from_secs(1)),
        default.ack_deadline,
    );
    QueueKeys {
        queue,
        declare,
        prefetch,
        poll_interval,
        drain_after,
        keep_warm,
        preempt,
        shutdown_grace,
        ack_deadline,
    }
}

/// How long the queue must be empty before all workers drain. The policy or the runner decides it if the pool does not.
fn drain_after(
    key: &Key<Option<Duration>>,
    policy: &PolicyKind,
    runner: &RunnerSettings,
) -> DrainAfter {
    match key.value {
        _ if key.given == KeyPresence::Absent => policy.drain_after(runner.consumes()),
        Some(quiet) => DrainAfter::After(quiet),
        None => DrainAfter::Never,
    }
}

/// The keys of a pool that divides workers with other pools, or with other daemons.
struct SharingKeys {
    weight: Key<u32>,
    share: Key<bool>,
    local_max: Key<Option<u32>>,
}

fn sharing_keys(table: &mut Table<'_, '_>, default: &PoolSettings) -> SharingKeys {
    let weight = table.key(
        "weight",
        "The pool's weight when pools share the workers of `[supervisor] max_workers`.",
        WholeNumber(1..=1_000_000),
        default.weight,
    );
    let share = table.key(
        "share",
        "Whether the policy is about the whole queue, and the daemons that consume it with `share = true` take shares \
         of its number. They exchange messages through the exchange `<queue>.share`. Their `policy`, `scaling`, \
         `drain_after` and `keep_warm` must be the same.",
        Flag,
        default.share,
    );
    let local_max = table.optional(
        "local_max",
        "Maximum number of workers of this daemon, if the queue is shared. The shares are in proportion to it. When \
         absent, `policy.max`.",
        WholeNumber(1..=MAX_WORKERS),
        "20",
    );
    if share.is_sound() && !share.value && local_max.is_given() {
        table.refuse(
            &local_max,
            "remove it, or write share = true: without it policy.max is this daemon's own",
        );
    }
    SharingKeys {
        weight,
        share,
        local_max,
    }
}

/// Refuses more workers for this daemon than all daemons may have together.
fn refuse_local_max_beyond_all(
    table: &mut Table<'_, '_>,
    sharing: &SharingKeys,
    policy: &Key<Policy>,
    schedule: &Schedule,
) {
    let local_max = &sharing.local_max;
    let most = schedule
        .entries()
        .iter()
        .filter_map(|entry| entry.bounds.max);
    let most = most.fold(policy.value.max, u32::max);
    if policy.is_sound() && local_max.value.is_some_and(|own| own > most) {
        let fix = format!(
            "write at most policy.max, which is {most}: that is the most workers of all daemons together"
        );
        table.refuse(local_max, fix);
    }
}

/// Refuses numbers of workers or runners above the policy's bound.
fn refuse_beyond_max(
    table: &mut Table<'_, '_>,
    policy: &Key<Policy>,
    keep_warm: &Key<u32>,
    of_runner: &[Key<Option<u32>>],
) {
    let max = policy.value.max;
    let is_beyond = |number: u32| policy.is_sound() && number > max;
    let fix = format!("write at most policy.max, which is {max}, or raise policy.max");
    if keep_warm.is_sound() && is_beyond(keep_warm.value) {
        table.refuse(keep_warm, fix.clone());
    }
    for key in of_runner {
        if key.value.is_some_and(is_beyond) {
            table.refuse(key, fix.clone());
        }
    }
}

/// Reads how failed jobs are handled. Also returns `dead_letter` as a key, because it needs a feature of the queue.
fn retry(pool: &mut Table<'_, '_>) -> (RetrySettings, Key<DeadLetter>) {
    let default = RetrySettings::default();
    let mut table = pool.table("retry", "How failed jobs are handled.");
    let max_attempts = table.key(
        "max_attempts",
        "Attempts before a job is dead-lettered.",
        WholeNumber(1..=1_000_000),
        default.max_attempts,
    );
    let at_least = Span::from(Duration::from_millis(1));
    let backoff = table.key(
        "backoff",
        "Time before the second attempt. Doubled for each further attempt, with jitter.",
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
        "Where dead letters go. `queue`: as a confirmed copy to `<queue>.dead`. `broker`: they are rejected, and lost \
        if the queue has no dead-letter exchange: see `arguments`.",
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
        "The breaker: when too many jobs fail, the pool takes no new jobs for a time. Messages stay ready in the queue \
        and use up no attempts. Running jobs are finished. After `pause`, one job at a time is tried until a job does \
        not fail. A job that asks for a retry or rejects its message (exit 75 or 65) does not count as failed, in the \
        window or in a trial. Without this table there is no breaker. An empty table turns it on.",
    );
    let failures = table.key(
        "failures",
        "Share of failed jobs in the window at which the breaker opens. A failure is an end that uses up an attempt \
        and that the job did not ask for: an exit code, a signal, a timeout, no memory, a lost runner.",
        Share,
        default.failure_percent,
    );
    let window = table.key(
        "window",
        "The time over which jobs are counted.",
        Span::from(Duration::from_millis(100)),
        default.window,
    );
    let min_jobs = table.key(
        "min_jobs",
        "With fewer jobs in the window, the breaker does not open.",
        WholeNumber(1..=1_000_000_000),
        default.min_jobs,
    );
    let pause = table.key(
        "pause",
        "How long the breaker is open before the first trial. Doubled after each failed trial, up to eight times this \
        value.",
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
            format!("write 1 to {POOL_NAME_BYTES} of the characters A-Z, a-z, 0-9, - and _, and the queue's own name \
            as queue"),
        ));
    }
}

/// The names of the retry queues must also fit. The name of the last level is the longest.
fn refuse_long_name(table: &mut Table<'_, '_>, queue: &Key<QueueName>, retry: &RetrySettings) {
    let suffix = format!(".retry.{}", retry.backoff_max.as_millis());
    let room = name_room(queue.value.as_str(), &suffix);
    if queue.is_sound() && queue.value.as_str().len() > room {
        let why = match queue.value.as_str().is_ascii() {
            true => format!("<queue>{suffix} must fit in {NAME_BYTES}"),
            false => format!(
                "RabbitMQ 4.0 fails to write errors about <queue>{suffix} if it has more than \
                {NAME_BYTES_BEYOND_ASCII} bytes and is not all ASCII, and closes the connection"
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
                "{:?}, which is also the queue of pool {other} ({place})",
                queue.value.as_str()
            ),
            format!("give {name} its own queue, or make one pool of {other} and {name}"),
        ));
    }
}

/// Warns of a pool that consumes a queue of another pool. A dead-letter queue may be intended. A retry queue most
/// likely is not.
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
                ".dead" => ("dead letters", "check that this is intended"),
                _ if suffix.starts_with(".retry.") => ("retries in waiting", "write another queue"),
                _ => continue,
            };
            table.warn(Problem::new(
                queue.place.clone(),
                queue.path.clone(),
                format!(
                    "{:?}, in which pool {owner} keeps its {what}",
                    queue.value.as_str()
                ),
                fix,
            ));
        }
    }
}
