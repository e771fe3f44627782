//! Five daemons on one queue under faults: one is killed, one is suspended, one is behind a network that breaks.

use std::{
    cell::Cell,
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    broker::broker_url,
    daemon::{Daemon, poll},
    proxy::{Network, Proxy},
    queue::Queue,
};

/// The policy's number for the whole group.
const WHOLE: u64 = 10;
const KILLED: usize = 0;
const SUSPENDED: usize = 1;
const BEHIND_PROXY: usize = 2;

struct Scene {
    queue: Queue,
    daemons: Vec<Daemon>,
    ledger: PathBuf,
    published: Cell<u32>,
}

/// What a daemon says of its pool.
struct Seen {
    live: u64,
    expected: u64,
    members: Vec<Value>,
    cause: String,
}

impl Scene {
    fn start(proxy: &Proxy, dir: &Path) -> Self {
        let (url, queue) = (broker_url(), Queue::new());
        let ledger = dir.join("ledger");
        let pools = |number: usize| {
            format!(
                "[pools.jobs]\nqueue = \"{}\"\nshare = true\npoll_interval = \"200ms\"\n\
                 policy = {{kind = \"backlog\", jobs_per_worker = 1, max = {WHOLE}}}\n\
                 runner.command = [\"sh\", \"-c\", \
                 'job=$(cat); echo start $job {number} >> $0; sleep 0.4; echo end $job {number} >> $0', \"{}\"]\n",
                queue.name(),
                ledger.display()
            )
        };
        let start = |number| match number {
            BEHIND_PROXY => Daemon::start(&proxy.url(&url), &pools(number)),
            _ => Daemon::start(&url, &pools(number)),
        };
        Self {
            daemons: (0..5).map(start).collect(),
            queue,
            ledger,
            published: Cell::default(),
        }
    }

    /// The backlog never ends while a test waits for workers.
    fn publish_enough(&self) {
        while self.queue.ready("") < 60 {
            for _ in 0..60 {
                let number = self.published.get();
                self.queue.publish(&number.to_string());
                self.published.set(number + 1);
            }
        }
    }

    fn look(&self, daemon: usize) -> Seen {
        let (status, body) = self.daemons[daemon].get("/api/v1/pools/jobs");
        assert_eq!(status, 200, "{body}");
        let pool: Value = serde_json::from_str(&body).unwrap();
        let members = pool["members"].as_array().cloned().unwrap_or_default();
        Seen {
            live: pool["workers"]["live"].as_u64().unwrap(),
            expected: pool["expected"].as_u64().unwrap(),
            members,
            cause: pool["cause"].as_str().unwrap_or_default().to_owned(),
        }
    }

    /// Waits until these daemons see `members` daemons, each has its share, and they have `WHOLE` workers together.
    /// Returns how long that took.
    fn until_whole(&self, daemons: &[usize], members: usize, what: &str) -> Duration {
        let begun = Instant::now();
        let is_whole = || {
            self.publish_enough();
            let seen: Vec<Seen> = daemons.iter().map(|each| self.look(*each)).collect();
            let agree = seen.iter().all(|seen| {
                let shares = seen
                    .members
                    .iter()
                    .filter_map(|each| each["share"].as_u64());
                seen.members.len() == members
                    && seen.live == seen.expected
                    && shares.sum::<u64>() == WHOLE
            });
            let sum: u64 = seen.iter().map(|seen| seen.live).sum();
            (agree && sum == WHOLE).then_some(())
        };
        if poll(is_whole).is_none() {
            let said: Vec<_> = daemons.iter().map(|&at| self.daemons[at].said()).collect();
            let seen: Vec<_> = daemons
                .iter()
                .map(|&at| self.look(at))
                .map(|seen| format!("{} of {}: {:#?}", seen.live, seen.expected, seen.members))
                .collect();
            panic!("{what}: {}\n{}", seen.join("\n"), said.join("\n"));
        }
        let took = begun.elapsed();
        eprintln!(
            "{what}: {WHOLE} workers again after {:.1} s",
            took.as_secs_f64()
        );
        took
    }

    /// The guard of a daemon, and its supervisor.
    fn signal_all(&self, daemon: usize, signal: Signal) {
        let guard = self.daemons[daemon].pid();
        let children = fs::read_to_string(format!("/proc/{guard}/task/{guard}/children")).unwrap();
        let children = children.split_whitespace().map(|pid| pid.parse().unwrap());
        for pid in children.map(Pid::from_raw).chain([guard]) {
            kill(pid, signal).unwrap();
        }
    }

    /// The runs of each job: which daemon began it, in order, and whether a run came to its end.
    fn runs(&self) -> BTreeMap<u32, (Vec<usize>, bool)> {
        let mut runs: BTreeMap<u32, (Vec<usize>, bool)> = BTreeMap::new();
        for line in fs::read_to_string(&self.ledger).unwrap().lines() {
            let mut words = line.split(' ');
            let (what, job, daemon) = (words.next(), words.next(), words.next());
            let run = runs.entry(job.unwrap().parse().unwrap()).or_default();
            match what {
                Some("start") => run.0.push(daemon.unwrap().parse().unwrap()),
                _ => run.1 = true,
            }
        }
        runs
    }
}

#[test]
fn five_daemons_have_the_policys_number_again_soon_after_each_fault_and_no_job_is_lost() {
    let dir = TempDir::new().unwrap();
    let proxy = Proxy::new(&broker_url());
    let scene = Scene::start(&proxy, dir.path());
    let all = [0, 1, 2, 3, 4];
    let (left, healthy) = (&all[1..], &all[3..]);
    scene.until_whole(&all, 5, "start");

    scene.daemons[KILLED].signal(Signal::SIGKILL);
    scene.signal_all(SUSPENDED, Signal::SIGSTOP);
    proxy.set(Network::Partitioned);
    let what = "one killed, one suspended and one partitioned at once";
    scene.until_whole(healthy, 2, what);
    // The partitioned daemon keeps to its share among those that it knew, and says why.
    let alone = scene.look(BEHIND_PROXY);
    assert!(alone.live <= WHOLE / 5, "{}", alone.live);
    assert_eq!(alone.members.len(), 5, "{:#?}", alone.members);
    let why = "this daemon's beats do not come back through the broker";
    assert!(alone.cause.starts_with(why), "{:?}", alone.cause);

    scene.signal_all(SUSPENDED, Signal::SIGCONT);
    proxy.set(Network::Up);
    scene.until_whole(left, 4, "one continued and the partition healed");

    proxy.set(Network::DeafBroker);
    let others = [SUSPENDED, 3, 4];
    scene.until_whole(&others, 3, "the broker does not hear one");
    proxy.set(Network::Up);
    scene.until_whole(left, 4, "it hears it again");

    proxy.set(Network::Cut);
    scene.until_whole(&others, 3, "one cut off");
    proxy.set(Network::Up);
    scene.until_whole(left, 4, "one connected again");

    let published = scene.published.get();
    let all_ended = || {
        let ended = scene.runs().values().filter(|(_, ended)| *ended).count();
        (ended == published as usize && scene.queue.ready("") == 0).then_some(())
    };
    if poll(all_ended).is_none() {
        panic!("of {published} jobs ended: {:?}", scene.runs());
    }
    // A job runs again only if a run of a faulty daemon was not settled.
    let mut repeats = 0;
    for (job, (daemons, _)) in scene.runs() {
        let faulty = |daemon: &&usize| [KILLED, SUSPENDED, BEHIND_PROXY].contains(daemon);
        let sound = daemons.len() - daemons.iter().filter(faulty).count();
        assert!(sound <= 1, "job {job} ran on {daemons:?}");
        repeats += daemons.len() - 1;
    }
    eprintln!("{published} jobs, {repeats} of them again");
    assert!(repeats <= 3 * WHOLE as usize, "{repeats}");
    assert!(
        !Queue::exists(&format!("{}.dead", scene.queue.name())) || scene.queue.ready(".dead") == 0
    );
}
