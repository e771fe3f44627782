//! The registry: what a kind provides, and that a new kind changes no other kind.

mod count;

use std::{path::Path, sync::Arc, time::Duration};

use tokio::time::timeout;

use self::count::Count;
use super::{
    KINDS, RunnerKind, RunnerSettings, consumer, container, exec, facts::SHARED_KEYS, warm,
};
use crate::{
    adapters::memory::MemoryBroker,
    config::{Loaded, Problems, Surroundings, parse_with},
    host::instance::InstanceLock,
    queue::QueueKind,
    run::{PoolSpec, Supervisor},
};

/// The registry with one more kind.
static WITH_COUNT: [&RunnerKind; 5] = [
    &exec::KIND,
    &warm::KIND,
    &container::KIND,
    &consumer::KIND,
    &count::KIND,
];

fn read(kinds: &[&'static RunnerKind], text: &str) -> (Loaded, Vec<String>) {
    let nothing = |_: &Path| Err(std::io::ErrorKind::NotFound.into());
    let around = Surroundings::default();
    let (loaded, problems) = parse_with(kinds, text, "t", &[], &around, &nothing);
    let problems = Problems::new(problems).into_vec();
    let fixes = problems
        .iter()
        .map(|problem| format!("{}: {}", problem.key, problem.fix));
    (loaded, fixes.collect())
}

fn fixes(kinds: &[&'static RunnerKind], runner: &str) -> Vec<String> {
    let (_, fixes) = read(kinds, &format!("[pools.a.runner]\n{runner}\n"));
    fixes
}

#[tokio::test(start_paused = true)]
async fn a_new_kind_is_configured_by_its_own_keys_and_runs_jobs() {
    let text = "[pools.a]\npolicy = { max = 50 }\n[pools.a.runner]\nkind = \"count\"\nfrom = 41\n";
    let (loaded, fixes) = read(&WITH_COUNT, text);
    assert_eq!(fixes, [""; 0]);
    let pool = loaded.settings.pools[0].clone();
    assert_eq!(pool.runner, RunnerSettings::new(Count::from(41)));
    assert_ne!(pool.runner, RunnerSettings::new(Count::from(1)));

    let state = tempfile::tempdir().unwrap();
    let lock = InstanceLock::take(state.path()).unwrap();
    let broker = MemoryBroker::new();
    broker.declare_queue("a", QueueKind::Classic);
    let mut seen = pool.runner.get::<Count>().unwrap().seen.subscribe();
    let spec = PoolSpec {
        settings: pool.pool,
        runners: pool.runner.manager(lock.instance()),
    };
    let supervisor = Supervisor::start(Arc::new(broker.clone()), vec![spec], None).unwrap();
    broker.send("a", "one");
    broker.send("a", "two");
    let two = timeout(Duration::from_secs(60), seen.wait_for(|count| *count == 43));
    two.await.expect("two jobs are counted").unwrap();
    supervisor.drain(Duration::from_secs(10)).await.unwrap();
}

#[test]
fn a_new_kinds_keys_are_known_to_every_pool() {
    let count = |keys: &str| fixes(&WITH_COUNT, &format!("kind = \"count\"\n{keys}"));
    let exec = |keys: &str| fixes(&WITH_COUNT, &format!("command = [\"true\"]\n{keys}"));
    let table = [
        // Its own keys, and their problems, alone and together with others.
        (
            count("from = 1001"),
            "from: write a whole number from 0 to 1000",
        ),
        (
            count("from = 1\nimage = \"cat.gif\""),
            "image: write the name of a PNG",
        ),
        (count("image = \"cat.png\""), "image: write from beside it"),
        (count("form = 1"), "form: did you mean pools.a.runner.from?"),
        // Those of others.
        (
            count("command = [\"true\"]"),
            "command: remove it, or write kind = \"exec\" or \"warm\" or \"container\" or \"consumer\": it has no effect for \"count\"",
        ),
        (
            count("kill_grace = \"1s\""),
            "kill_grace: remove it, or write kind = \"exec\" or \"warm\": it has no effect for \"count\"",
        ),
        (
            count("stop_timeout = \"1s\""),
            "stop_timeout: remove it, or write kind = \"container\" or \"consumer\": it has no effect for \"count\"",
        ),
        (
            count("max_jobs = 1"),
            "max_jobs: remove it, or write kind = \"warm\": it has no effect for \"count\"",
        ),
        // Its own, in another kind's pool.
        (
            exec("from = 1"),
            "from: remove it, or write kind = \"count\": it has no effect for \"exec\"",
        ),
        (
            exec("image = \"a\""),
            "image: remove it, or write kind = \"container\" or \"count\": it has no effect for \"exec\"",
        ),
        (
            fixes(&WITH_COUNT, "kind = \"cuont\""),
            "kind: write \"exec\", \"warm\", \"container\", \"consumer\" or \"count\"",
        ),
    ];
    for (found, expected) in table {
        assert_eq!(found, [format!("pools.a.runner.{expected}")]);
    }
    // Without it, nothing of it is known.
    assert_eq!(
        fixes(&KINDS, "command = [\"true\"]\nfrom = 1"),
        ["pools.a.runner.from: remove it"]
    );
    let beyond = "[pools.a]\npolicy.max = 5\nrunner = { kind = \"count\", from = 6 }\n";
    let (_, fixes) = read(&WITH_COUNT, beyond);
    assert_eq!(
        fixes,
        ["pools.a.runner.from: write at most policy.max, which is 5, or raise policy.max"]
    );
}

#[test]
fn entries_of_the_registry_are_consistent() {
    for (at, kind) in WITH_COUNT.iter().enumerate() {
        let facts = &kind.facts;
        let mut others = WITH_COUNT[..at].iter();
        assert!(
            others.all(|other| other.facts.name != facts.name),
            "{facts:?}"
        );
        let noted = facts.notes.iter().map(|(key, _)| key);
        for key in facts.takes.iter().chain(noted) {
            assert!(SHARED_KEYS.contains(key), "{}: {key}", facts.name);
        }
    }
    for key in SHARED_KEYS {
        assert!(KINDS.iter().any(|kind| kind.facts.takes(key)), "{key}");
    }
}

#[cfg(not(feature = "container"))]
#[tokio::test]
async fn a_pool_of_containers_says_what_is_not_built_in() {
    let (loaded, fixes) = read(
        &KINDS,
        "[pools.a.runner]\nkind = \"container\"\nimage = \"a\"\n",
    );
    assert_eq!(fixes, [""; 0]);
    let state = tempfile::tempdir().unwrap();
    let lock = InstanceLock::take(state.path()).unwrap();
    let manager = loaded.settings.pools[0].runner.manager(lock.instance());
    let request = crate::runner::CreateRunner {
        id: crate::decide::RunnerId(1),
        pool: "a".into(),
    };
    let Err(error) = manager.create(request).await else {
        panic!("a runner without an engine's client");
    };
    assert!(error.what.contains("`container`"), "{error}");
}
