//! A cluster of three nodes, as `scripts/with-cluster` provides it: a node is killed in mid-tide, and the leader moves.

use std::{
    collections::BTreeMap,
    env, fs,
    path::PathBuf,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;
use tidegate::{
    adapters::amqp::AmqpDriver,
    config::{BrokerSettings, BrokerUrl},
    decide::QueueName,
    queue::{Outgoing, QueueDriver as _, QueueErrorKind, QueueKind, QueueSpec},
};
use tokio::task::block_in_place;

use crate::needs::Need;
use crate::support::daemon::{DEADLINE, Daemon, poll};

trials! {
    threads(Need::Cluster): [
        a_node_that_dies_and_a_leader_that_moves_in_mid_tide_cost_no_job,
    ],
}

const MAX: u64 = 8;
/// Jobs before the node dies.
const TIDE: usize = 400;

/// The cluster of `scripts/with-cluster`.
struct Cluster {
    folder: PathBuf,
    nodes: Vec<Node>,
}

struct Node {
    name: String,
    url: String,
    address: String,
    group: Pid,
}

impl Cluster {
    fn new() -> Self {
        let folder = PathBuf::from(env::var_os("TIDEGATE_TEST_CLUSTER").unwrap());
        let urls = env::var("AMQP_URLS").unwrap();
        let lines = fs::read_to_string(folder.join("nodes")).unwrap();
        let node = |(url, line): (&str, &str)| {
            let words: Vec<&str> = line.split(' ').collect();
            Node {
                name: words[0].to_owned(),
                url: url.to_owned(),
                address: format!("localhost:{}", words[1]),
                group: Pid::from_raw(words[2].parse().unwrap()),
            }
        };
        Self {
            nodes: urls.split(' ').zip(lines.lines()).map(node).collect(),
            folder,
        }
    }

    /// Runs `rabbitmqctl` on a node, and returns its output.
    fn ctl(&self, node: usize, arguments: &[&str]) -> String {
        let output = Command::new(self.folder.join("tool"))
            .args(["rabbitmqctl", &self.nodes[node].name])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {text}{error}");
        text
    }

    /// The node that leads a quorum queue, as this node sees it.
    fn leader(&self, queue: &QueueName, at: usize) -> Option<usize> {
        let list = self.ctl(at, &["list_queues", "name", "leader"]);
        let of_queue = |line: &&str| line.split('\t').next() == Some(queue.as_str());
        let leader = list.lines().find(of_queue)?.split('\t').nth(1)?;
        self.nodes.iter().position(|node| node.name == leader)
    }

    fn move_leader(&self, queue: &QueueName, to: usize) {
        let (queue, node) = (queue.as_str(), &self.nodes[to].name);
        let move_it = format!(
            "{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<\"/\">>, queue, <<\"{queue}\">>)), \
             rabbit_quorum_queue:transfer_leadership(Q, '{node}')."
        );
        self.ctl(to, &["eval", &move_it]);
    }

    /// A client of these nodes.
    async fn client(&self, nodes: &[usize]) -> Arc<AmqpDriver> {
        let mut urls = nodes
            .iter()
            .map(|node| BrokerUrl::new(&*self.nodes[*node].url));
        let mut settings = BrokerSettings::from(urls.next().unwrap());
        settings.others = urls.collect();
        let client = AmqpDriver::connect_lazily(&settings).unwrap();
        client.until_connected(DEADLINE).await.unwrap();
        client
    }
}

/// The runs of each job: for each the attempt, and whether it was told that it may be a repeat.
type Runs = BTreeMap<String, Vec<(u32, bool)>>;

fn runs(ledger: &std::path::Path) -> Runs {
    let mut runs = Runs::new();
    for line in fs::read_to_string(ledger).unwrap_or_default().lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let run = (words[1].parse().unwrap(), words[2] == "true");
        runs.entry(words[0].to_owned()).or_default().push(run);
    }
    runs
}

fn pools(queue: &QueueName, ledger: &std::path::Path) -> String {
    // `once` fails at its first attempt, `bad` is refused.
    let script = "job=$(cat); echo $job $TIDEGATE_ATTEMPT $TIDEGATE_REDELIVERED >> $0; sleep 0.15; \
                  case $job$TIDEGATE_ATTEMPT in *once*1) exit 75;; bad*) exit 65;; esac";
    format!(
        "[pools.jobs]\nqueue = \"{queue}\"\npoll_interval = \"200ms\"\n\
         policy = {{kind = \"backlog\", jobs_per_worker = 1, max = {MAX}}}\n\
         retry.backoff = \"200ms\"\n\
         runner.command = [\"sh\", \"-c\", '{script}', \"{}\"]\n",
        ledger.display()
    )
}

async fn publish(client: &AmqpDriver, queue: &QueueName, kind: &str, count: usize) {
    for number in 0..count {
        let job = Outgoing {
            routing_key: queue.as_str().to_owned(),
            // The attempt is appended, so a letter ends the number.
            body: format!("{kind}{number}x").into(),
            ..Outgoing::default()
        };
        client.publish(job).await.unwrap();
    }
}

/// Waits until the pool works with all its workers on nodes of the broker that are right, and `more` further jobs are
/// done.
fn until_it_works(daemon: &Daemon, is_right: impl Fn(&str) -> bool, more: u64) -> Value {
    let done = |pool: &Value| pool["jobs"]["done"].as_u64().unwrap_or_default();
    let before = done(&daemon.pool("jobs"));
    daemon.wait_for_pool("jobs", |pool| {
        let nodes = pool["nodes"].as_array();
        let are_right = |nodes: &Vec<Value>| {
            !nodes.is_empty() && nodes.iter().all(|node| is_right(node.as_str().unwrap()))
        };
        nodes.is_some_and(are_right)
            && pool["workers"]["live"] == MAX
            && done(pool) >= before + more
    })
}

async fn a_node_that_dies_and_a_leader_that_moves_in_mid_tide_cost_no_job() {
    let cluster = Cluster::new();
    let dir = TempDir::new().unwrap();
    let ledger = dir.path().join("ledger");
    let queue = QueueName::from(format!(
        "tidegate-test-cluster-{:08x}",
        rand::random::<u32>()
    ));

    // The leader is on the node of the client that declares.
    let spec = QueueSpec::new(queue.clone(), QueueKind::Quorum);
    let first = cluster.client(&[0]).await;
    first.declare(&spec).await.unwrap();
    let classic = QueueName::from(format!("{queue}-classic"));
    let spec = QueueSpec::new(classic.clone(), QueueKind::Classic);
    first.declare(&spec).await.unwrap();
    first.close().await;
    let client = cluster.client(&[2, 1]).await;
    publish(&client, &queue, "once", 20).await;
    publish(&client, &queue, "job", TIDE).await;
    assert_eq!(cluster.leader(&queue, 2), Some(0));

    let urls: Vec<&str> = cluster.nodes.iter().map(|node| &*node.url).collect();
    let variable = format!("TIDEGATE_BROKER__URLS={urls:?}");
    let nowhere = "amqp://guest:guest@127.0.0.1:9/%2f";
    let way = ["env", variable.as_str()];
    let daemon = block_in_place(|| Daemon::start_by(&way, nowhere, &pools(&queue, &ledger)));
    block_in_place(|| {
        let dead = &cluster.nodes[0];
        let is_alive = |node: &str| node != dead.address;
        until_it_works(&daemon, |node| node == dead.address, 50);

        let begun = Instant::now();
        killpg(dead.group, Signal::SIGKILL).unwrap();
        until_it_works(&daemon, is_alive, 5);
        report("a node was killed", begun);

        let leader = poll(|| cluster.leader(&queue, 1)).unwrap();
        let other = 3 - leader;
        let begun = Instant::now();
        cluster.move_leader(&queue, other);
        poll(|| (cluster.leader(&queue, 1) == Some(other)).then_some(())).unwrap();
        until_it_works(&daemon, is_alive, 5);
        report("the leader was moved", begun);
    });

    // A classic queue is down with its node, and not missing. RabbitMQ 4.0 takes a minute to say so.
    let down = client.probe(&classic).await.unwrap_err();
    let is_right = matches!(down.kind, QueueErrorKind::Refused | QueueErrorKind::Timeout);
    assert!(is_right, "{down:?}");

    // Retries and dead letters are published on the new node.
    publish(&client, &queue, "later-once", 20).await;
    publish(&client, &queue, "bad", 5).await;
    let sent = 20 + TIDE + 20 + 5;
    block_in_place(|| {
        let idle = |pool: &Value| {
            pool["workers"]["live"] == 0 && pool["delayed"] == 0 && pool["depth"]["ready"] == 0
        };
        poll(|| (runs(&ledger).len() == sent).then_some(())).expect("each job runs");
        let pool = daemon.wait_for_pool("jobs", idle);
        assert_eq!(pool["dead_waiting"], 5, "{pool:#}");
    });
    assert_eq!(client.probe(&queue).await.unwrap().ready, 0);

    let mut repeats = 0;
    for (job, runs) in runs(&ledger) {
        let of_attempt = |number: u32| {
            let told = runs.iter().filter(|(attempt, _)| *attempt == number);
            told.map(|(_, told)| *told).collect::<Vec<bool>>()
        };
        let first = of_attempt(1);
        assert!(!first.is_empty(), "{job}: {runs:?}");
        // Each run after the first is told that it may be a repeat.
        assert!(first.iter().skip(1).all(|told| *told), "{job}: {runs:?}");
        let mut again = first.len() - 1;
        if job.contains("once") {
            // What was repeated may have been sent to the retry queue twice.
            let second = of_attempt(2);
            let untold = second.iter().skip(1).filter(|told| !**told).count();
            assert!(!second.is_empty() && untold <= again, "{job}: {runs:?}");
            again += second.len() - 1;
        }
        repeats += again;
    }
    eprintln!("{sent} jobs, {repeats} runs again");
    // What the workers held when the node died, and what they had acknowledged a moment before.
    assert!(repeats as u64 <= 2 * MAX, "{repeats}");
    for name in [format!("{queue}.dead"), format!("{queue}.retry.200")] {
        client.delete(&QueueName::from(name)).await.unwrap();
    }
    client.delete(&queue).await.unwrap();
    client.close().await;
}

fn report(what: &str, begun: Instant) {
    let took: Duration = begun.elapsed();
    eprintln!(
        "{what}: all {MAX} workers work again after {:.1} s",
        took.as_secs_f64()
    );
}
