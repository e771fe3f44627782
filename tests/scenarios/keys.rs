//! Scenarios of pools whose jobs have keys: jobs of one key run one at a time and in order.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize},
    },
};

use tidegate::config::KeySettings;

use super::*;

/// One worker for each key, and one more.
fn keyed(workers: u32) -> PoolSettings {
    PoolSettings {
        key: Some(KeySettings::header("tenant")),
        ..settings(Policy::fixed(workers).max(workers))
    }
}

fn on(kind: QueueKind) -> MemoryBroker {
    let broker = MemoryBroker::new();
    broker.declare_queue(QUEUE, kind);
    broker
}

/// Sends a message of a key. Its body is the key and a number.
fn send(broker: &MemoryBroker, key: &str, n: usize) {
    let header = (!key.is_empty()).then(|| (String::from("tenant"), key.into()));
    broker.send_message(Outgoing {
        routing_key: QUEUE.to_owned(),
        body: format!("{key}{n}").into(),
        headers: header.into_iter().collect(),
        ..Outgoing::default()
    });
}

fn key_of(job: &Job) -> String {
    text(job.headers(), "tenant")
}

fn body(job: &Job) -> String {
    String::from_utf8_lossy(job.body()).into_owned()
}

/// What ran, and the most jobs of one key that ran at the same time.
#[derive(Debug, Default)]
struct Ledger {
    running: BTreeMap<String, usize>,
    most: BTreeMap<String, usize>,
    started: Vec<String>,
}

impl Ledger {
    /// The started jobs of a key, in their order.
    fn of(&self, key: &str) -> Vec<&str> {
        let started = self.started.iter().map(String::as_str);
        started.filter(|body| body.starts_with(key)).collect()
    }
}

/// Jobs that run for a time that depends on their body, and are entered in a ledger.
fn entered(
    ledger: &Arc<Mutex<Ledger>>,
    takes: impl Fn(&Job) -> Duration + Send + Sync + 'static,
) -> impl RunnerManager {
    let ledger = ledger.clone();
    HandlerManager::new(move |job: Job| {
        let (ledger, takes) = (ledger.clone(), takes(&job));
        async move {
            let key = key_of(&job);
            let guard = Entered::begin(&ledger, key, body(&job));
            tokio::select! {
                () = tokio::time::sleep(takes) => {}
                () = job.cancelled().cancelled() => std::future::pending().await,
            }
            drop(guard);
            Ok(Outcome::Done)
        }
    })
}

/// A job that runs.
struct Entered {
    ledger: Arc<Mutex<Ledger>>,
    key: String,
}

impl Entered {
    fn begin(ledger: &Arc<Mutex<Ledger>>, key: String, body: String) -> Self {
        let mut entry = ledger.lock().unwrap();
        let running = entry.running.entry(key.clone()).or_default();
        *running += 1;
        let running = *running;
        let most = entry.most.entry(key.clone()).or_default();
        *most = running.max(*most);
        entry.started.push(body);
        Self {
            ledger: ledger.clone(),
            key,
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut entry = self.ledger.lock().unwrap();
        *entry.running.get_mut(&self.key).unwrap() -= 1;
    }
}

/// The bodies of `n` messages of a key.
fn numbered(key: &str, n: usize) -> Vec<String> {
    (0..n).map(|n| format!("{key}{n}")).collect()
}

#[tokio::test(start_paused = true)]
async fn jobs_of_one_key_run_one_at_a_time_and_in_order() {
    for (kind, per_key) in [
        (QueueKind::Classic, 1),
        (QueueKind::Quorum, 1),
        (QueueKind::Quorum, 3),
    ] {
        let broker = on(kind);
        for n in 0..20 {
            for key in ["a", "b", "c", "d"] {
                send(&broker, key, n);
            }
        }
        let ledger = Arc::default();
        let runners = entered(&ledger, |job| {
            Duration::from_millis(job.body().iter().map(|byte| u64::from(*byte) % 7).sum())
        });
        let settings = PoolSettings {
            key: Some(KeySettings::header("tenant").per_key(per_key).window(11)),
            ..keyed(20)
        };
        let supervisor = start(&broker, settings, runners);
        let after = until(&supervisor, "done", |pool| {
            let ahead = pool.taken_ahead.unwrap();
            assert!(
                ahead.taken() + u64::from(pool.runners.busy) <= 11,
                "{pool:#?}"
            );
            pool.jobs.done == 80
        })
        .await;
        let ledger = ledger.lock().unwrap();
        for key in ["a", "b", "c", "d"] {
            assert_eq!(ledger.of(key), numbered(key, 20), "{kind:?}");
        }
        let most = ledger.most.values().max().unwrap();
        assert_eq!(*most, per_key as usize, "{kind:?}");
        assert_eq!((after.jobs.requeued, after.jobs.lost), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_key_does_not_hold_back_others_and_the_pool_is_not_stuck() {
    let broker = on(QueueKind::Quorum);
    for n in 0..5 {
        send(&broker, "slow", n);
    }
    for n in 0..20 {
        send(&broker, "a", n);
        send(&broker, "", n);
    }
    let ledger = Arc::default();
    let runners = entered(&ledger, |job| match body(job).starts_with("slow") {
        true => Duration::from_secs(600),
        false => Duration::from_millis(100),
    });
    let supervisor = start(&broker, keyed(4), runners);
    let begun = Instant::now();
    let others = until(&supervisor, "the others done", |pool| pool.jobs.done == 40).await;
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    let ahead = others.taken_ahead.unwrap();
    assert_eq!((ahead.ready, ahead.blocked), (0, 4));
    assert_eq!(others.demand, 5, "what waits for its key is demand");
    // No worker is kept for messages that cannot start.
    let one = until(&supervisor, "one worker", |pool| pool.workers.live == 1).await;
    assert_eq!(one.expected, 1);
    throughout(&supervisor, Duration::from_secs(300), "active", |pool| {
        pool.state == PoolState::Active && pool.cause.is_none()
    })
    .await;
    let why = supervisor.explain(&name()).unwrap().to_string();
    assert!(why.contains("4 wait for a job of the same key"), "{why}");
    until(&supervisor, "done", |pool| pool.jobs.done == 45).await;
    assert_eq!(ledger.lock().unwrap().of("slow"), numbered("slow", 5));
}

#[tokio::test(start_paused = true)]
async fn a_window_that_is_full_of_one_key_holds_back_others_and_says_so() {
    let broker = on(QueueKind::Classic);
    for n in 0..10 {
        send(&broker, "slow", n);
    }
    send(&broker, "a", 0);
    let ledger = Arc::default();
    let runners = entered(&ledger, |_| Duration::from_secs(100));
    let settings = PoolSettings {
        key: Some(KeySettings::header("tenant").window(4)),
        ..keyed(4)
    };
    let supervisor = start(&broker, settings, runners);
    let full = until(&supervisor, "full", |pool| {
        pool.depth.ready == 7 && pool.taken_ahead.is_some_and(|ahead| ahead.blocked == 3)
    })
    .await;
    assert_eq!(full.taken_ahead.unwrap().room, 0);
    throughout(&supervisor, Duration::from_secs(90), "active", |pool| {
        pool.state == PoolState::Active && pool.cause.is_none()
    })
    .await;
    let why = supervisor.explain(&name()).unwrap().to_string();
    assert!(why.contains("room for 0 more"), "{why}");
    until(&supervisor, "done", |pool| pool.jobs.done == 11).await;
}

#[tokio::test(start_paused = true)]
async fn a_hostile_key_costs_only_its_own_messages() {
    let broker = on(QueueKind::Quorum);
    let hostile = [
        HeaderValue::from("x".repeat(100_000)),
        HeaderValue::Binary(vec![0xff; 300].into()),
        HeaderValue::Table(Headers::new()),
        HeaderValue::F64(f64::NAN),
        HeaderValue::Void,
        HeaderValue::from(""),
    ];
    for value in hostile {
        broker.send_message(Outgoing {
            routing_key: QUEUE.to_owned(),
            headers: [(String::from("tenant"), value)].into(),
            ..Outgoing::default()
        });
    }
    send(&broker, "a", 0);
    let supervisor = start(&broker, keyed(2), HandlerManager::new(slow));
    until(&supervisor, "done", |pool| pool.jobs.done == 7).await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_gives_back_what_has_not_started_in_its_order_and_without_an_attempt() {
    for kind in [QueueKind::Classic, QueueKind::Quorum] {
        let broker = on(kind);
        for n in 0..6 {
            send(&broker, "a", n);
        }
        let ledger = Arc::default();
        let runners = entered(&ledger, |_| Duration::from_secs(10));
        let supervisor = start(&broker, keyed(3), runners);
        until(&supervisor, "taken", |pool| {
            pool.taken_ahead.is_some_and(|ahead| ahead.blocked == 5)
        })
        .await;
        for n in 6..9 {
            send(&broker, "a", n);
        }
        let drained = supervisor.drain(Duration::from_secs(60)).await.unwrap();
        assert_eq!(drained.finished, 1);
        broker.reconnect();
        assert_eq!(ledger.lock().unwrap().of("a"), ["a0"]);
        assert_eq!(broker.ready(QUEUE), Some(8), "{kind:?}");

        // The next daemon runs them in the same order, at their first attempt.
        let again = entered(&ledger, |job| {
            assert_eq!(job.attempt(), 1);
            Duration::from_millis(10)
        });
        let supervisor = start(&broker, keyed(3), again);
        until(&supervisor, "done", |pool| pool.jobs.done == 8).await;
        assert_eq!(ledger.lock().unwrap().of("a"), numbered("a", 9), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_at_once_gives_everything_back() {
    for kind in [QueueKind::Classic, QueueKind::Quorum] {
        let broker = on(kind);
        for n in 0..6 {
            send(&broker, "a", n);
        }
        let ledger = Arc::default();
        let runners = entered(&ledger, |_| Duration::from_secs(1000));
        let supervisor = start(&broker, keyed(3), runners);
        until(&supervisor, "taken", |pool| {
            pool.taken_ahead.is_some_and(|ahead| ahead.blocked == 5)
        })
        .await;
        supervisor.stop_now().await;
        broker.reconnect();
        assert_eq!(broker.ready(QUEUE), Some(6), "{kind:?}");
        let supervisor = start(&broker, keyed(3), entered(&ledger, |_| Duration::ZERO));
        until(&supervisor, "done", |pool| pool.jobs.done == 6).await;
        let ran = ledger.lock().unwrap().of("a").join(" ");
        assert_eq!(ran, "a0 a0 a1 a2 a3 a4 a5", "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_paused_pool_gives_back_what_has_not_started_and_goes_on_in_order_when_it_is_resumed() {
    for kind in [QueueKind::Classic, QueueKind::Quorum] {
        let broker = on(kind);
        for n in 0..6 {
            send(&broker, "a", n);
        }
        let ledger = Arc::default();
        let runners = entered(&ledger, |_| Duration::from_secs(100));
        let supervisor = start(&broker, keyed(3), runners);
        until(&supervisor, "taken", |pool| {
            pool.taken_ahead.is_some_and(|ahead| ahead.blocked == 5)
        })
        .await;
        supervisor.pause(&name()).await.unwrap();
        let paused = until(&supervisor, "given back", |_| {
            broker.ready(QUEUE) == Some(5)
        })
        .await;
        assert_eq!(
            (paused.jobs.done, paused.runners.busy),
            (1, 0),
            "its job has ended"
        );
        supervisor.resume(&name()).await.unwrap();
        let after = until(&supervisor, "done", |pool| pool.jobs.done == 6).await;
        assert_eq!(after.jobs.lost, 0);
        let ledger = ledger.lock().unwrap();
        assert_eq!(ledger.of("a"), numbered("a", 6), "{kind:?}");
        assert_eq!(ledger.most["a"], 1, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_configuration_changes_the_key_and_removes_it() {
    let broker = on(QueueKind::Classic);
    for n in 0..6 {
        send(&broker, "a", n);
    }
    let ledger = Arc::default();
    let runners: Arc<dyn RunnerManager> = Arc::new(entered(&ledger, |_| Duration::from_secs(10)));
    let pool = |settings: PoolSettings| PoolSpec {
        settings,
        runners: runners.clone(),
    };
    let supervisor =
        Supervisor::start(Arc::new(broker.clone()), vec![pool(keyed(4))], None).unwrap();
    until(&supervisor, "one runs", |pool| {
        pool.runners.busy == 1 && pool.taken_ahead.is_some_and(|ahead| ahead.blocked == 5)
    })
    .await;
    // Two at a time, after the one that runs.
    let two = PoolSettings {
        key: Some(KeySettings::header("tenant").per_key(2)),
        ..keyed(4)
    };
    supervisor.reconfigure(vec![pool(two)]).await.unwrap();
    until(&supervisor, "two run", |pool| pool.runners.busy == 2).await;
    assert_eq!(ledger.lock().unwrap().of("a"), ["a0", "a1", "a2"]);
    // Without keys, all of them.
    let free = PoolSettings {
        key: None,
        ..keyed(4)
    };
    supervisor.reconfigure(vec![pool(free)]).await.unwrap();
    let free = until(&supervisor, "three run", |pool| pool.runners.busy == 3).await;
    assert_eq!(free.taken_ahead, None);
    // And with another key.
    let other = PoolSettings {
        key: Some(KeySettings::routing_key()),
        ..keyed(4)
    };
    supervisor.reconfigure(vec![pool(other)]).await.unwrap();
    let after = until(&supervisor, "done", |pool| pool.jobs.done == 6).await;
    assert_eq!(after.jobs.lost, 0);
    let mut ran = ledger.lock().unwrap().started.clone();
    ran.sort_unstable();
    assert_eq!(ran, numbered("a", 6));
    assert_eq!(broker.ready(QUEUE), Some(0));
}

#[tokio::test(start_paused = true)]
async fn a_new_window_takes_no_later_message_before_the_old_one_has_given_back() {
    let broker = on(QueueKind::Classic);
    for n in 0..12 {
        send(&broker, "a", n);
        send(&broker, "b", n);
    }
    let ledger = Arc::default();
    let runners: Arc<dyn RunnerManager> = Arc::new(entered(&ledger, |_| Duration::from_millis(70)));
    let pool = |window| PoolSpec {
        settings: PoolSettings {
            key: Some(KeySettings::header("tenant").window(window)),
            ..keyed(4)
        },
        runners: runners.clone(),
    };
    let supervisor = Supervisor::start(Arc::new(broker.clone()), vec![pool(5)], None).unwrap();
    for window in [6, 7, 8, 9] {
        until(&supervisor, "two run", |pool| pool.runners.busy == 2).await;
        supervisor.reconfigure(vec![pool(window)]).await.unwrap();
    }
    until(&supervisor, "done", |pool| pool.jobs.done == 24).await;
    let ledger = ledger.lock().unwrap();
    for key in ["a", "b"] {
        assert_eq!(ledger.of(key), numbered(key, 12));
        assert_eq!(ledger.most[key], 1);
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_lost_connection_a_message_waits_for_the_job_of_its_key_that_still_runs() {
    for kind in [QueueKind::Classic, QueueKind::Quorum] {
        let broker = on(kind);
        for n in 0..4 {
            send(&broker, "a", n);
            send(&broker, "b", n);
        }
        let ledger = Arc::default();
        let runners = entered(&ledger, |job| match key_of(job).as_str() {
            "a" => Duration::from_secs(60),
            _ => Duration::from_secs(1),
        });
        let supervisor = start(&broker, keyed(4), runners);
        until(&supervisor, "both run", |pool| pool.runners.busy == 2).await;
        broker.disconnect();
        tokio::time::sleep(Duration::from_millis(500)).await;
        broker.reconnect();
        until(&supervisor, "b done", |_| {
            let ledger = ledger.lock().unwrap();
            ledger.of("b").last() == Some(&"b3") && ledger.running["b"] == 0
        })
        .await;
        until(&supervisor, "done", |_| {
            let ledger = ledger.lock().unwrap();
            ledger.of("a").last() == Some(&"a3") && ledger.running["a"] == 0
        })
        .await;
        let ledger = ledger.lock().unwrap();
        for key in ["a", "b"] {
            assert_eq!(ledger.most[key], 1, "{kind:?}");
            let expected: Vec<_> = [0, 0, 1, 2, 3].map(|n| format!("{key}{n}")).into();
            assert_eq!(ledger.of(key), expected, "{kind:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_stopped_to_scale_down_keeps_its_place() {
    let broker = on(QueueKind::Quorum);
    let (mut held, handler) = Held::new();
    for n in 0..3 {
        send(&broker, "a", n);
        send(&broker, "b", n);
    }
    let settings = PoolSettings {
        preempt: true,
        ..keyed(2)
    };
    let supervisor = start(&broker, settings, HandlerManager::new(handler));
    let first = [body(&held.started().await), body(&held.started().await)];
    assert_eq!(first, ["a0", "b0"]);
    supervisor.scale(&name(), Some(1)).await.unwrap();
    until(&supervisor, "one left", |pool| {
        pool.workers.live + pool.workers.draining == 1
    })
    .await;
    // The stopped job waits in the pool, before the others of its key.
    let ahead = status(&supervisor).taken_ahead.unwrap();
    assert_eq!((ahead.ready, ahead.blocked), (1, 4));
    supervisor.scale(&name(), None).await.unwrap();
    let again = held.started().await;
    assert!(first.contains(&body(&again)), "{}", body(&again));
    assert!(again.message().redelivered);
    assert_eq!(again.attempt(), 1);
    held.let_go(6);
    until(&supervisor, "done", |pool| pool.jobs.done == 6).await;
    let mut rest = Vec::new();
    for _ in 0..4 {
        rest.push(body(&held.started().await));
    }
    for key in ["a", "b"] {
        let of: Vec<_> = rest.iter().filter(|body| body.starts_with(key)).collect();
        assert_eq!(of, [&format!("{key}1"), &format!("{key}2")]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_comes_behind_the_messages_of_its_key_that_arrived_meanwhile() {
    let broker = on(QueueKind::Quorum);
    for n in 0..3 {
        send(&broker, "a", n);
    }
    let (say, mut ran) = mpsc::unbounded_channel();
    let handler = move |job: Job| {
        say.send((body(&job), job.attempt())).unwrap();
        async move {
            match (&job.body()[..], job.attempt()) {
                (b"a0", 1) => Err("no".into()),
                _ => Ok(Outcome::Done),
            }
        }
    };
    let supervisor = start(&broker, keyed(3), HandlerManager::new(handler));
    until(&supervisor, "done", |pool| pool.jobs.done == 3).await;
    let mut all = Vec::new();
    while let Ok((body, attempt)) = ran.try_recv() {
        all.push(format!("{body}/{attempt}"));
    }
    assert_eq!(all.join(" "), "a0/1 a1/1 a2/1 a0/2");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_waits_too_long_for_its_key_is_given_back_and_taken_again_in_order() {
    let broker = on(QueueKind::Classic);
    for n in 0..10 {
        send(&broker, "a", n);
    }
    let ledger = Arc::default();
    let runners = entered(&ledger, |_| Duration::from_secs(30));
    let settings = PoolSettings {
        ack_deadline: Duration::from_secs(120),
        ..keyed(2)
    };
    let supervisor = start(&broker, settings, runners);
    let after = until(&supervisor, "done", |pool| pool.jobs.done == 10).await;
    assert!(after.jobs.requeued > 0);
    assert_eq!(after.jobs.lost, 0);
    assert_eq!(ledger.lock().unwrap().of("a"), numbered("a", 10));
}

#[tokio::test(start_paused = true)]
async fn a_fault_of_hours_loses_no_message_with_a_key() {
    for limit in [2, 3, 20] {
        let broker = on(QueueKind::Quorum);
        broker.limit_deliveries(QUEUE, limit);
        for n in 0..9 {
            send(&broker, ["a", "b", "c"][n % 3], n);
        }
        let repaired = Arc::new(AtomicBool::new(false));
        let runners = Broken {
            tries: Arc::default(),
            repaired: repaired.clone(),
        };
        let supervisor = start(&broker, keyed(3), runners);
        until(&supervisor, "faulted", |pool| {
            pool.state == PoolState::Faulted
        })
        .await;
        tokio::time::sleep(Duration::from_secs(3 * 3600)).await;
        repaired.store(true, Ordering::Relaxed);
        let after = until(&supervisor, "done", |pool| pool.jobs.done == 9).await;
        assert_eq!((after.jobs.dead, after.jobs.lost), (0, 0), "limit {limit}");
    }
}

#[tokio::test(start_paused = true)]
async fn deaths_and_drains_in_turn_lose_no_message_with_a_key() {
    for limit in [2, 20] {
        let broker = on(QueueKind::Quorum);
        broker.limit_deliveries(QUEUE, limit);
        for n in 0..9 {
            send(&broker, ["a", "b", "c"][n % 3], n);
        }
        for round in 0..12 {
            let (mut held, handler) = Held::new();
            let supervisor = start(&broker, keyed(2), HandlerManager::new(handler));
            held.started().await;
            if round % 3 == 0 {
                drop(supervisor.drain(Duration::from_secs(1)).await);
            } else {
                broker.disconnect();
                supervisor.stop_now().await;
            }
            broker.reconnect();
            assert_eq!(broker.ready(QUEUE), Some(9), "limit {limit}, round {round}");
        }
        let supervisor = start(&broker, keyed(2), HandlerManager::new(done));
        until(&supervisor, "done", |pool| pool.jobs.done == 9).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_pool_with_keys_drains_to_zero_and_starts_again() {
    let broker = on(QueueKind::Quorum);
    let count = Arc::new(AtomicUsize::new(0));
    let handler = {
        let count = count.clone();
        move |_: Job| {
            count.fetch_add(1, Ordering::Relaxed);
            async { Ok(Outcome::Done) }
        }
    };
    let supervisor = start(&broker, keyed(3), HandlerManager::new(handler));
    for round in 1..=3 {
        for n in 0..10 {
            send(&broker, "a", n);
        }
        until(&supervisor, "done", |pool| pool.jobs.done == round * 10).await;
        let idle = until(&supervisor, "idle", |pool| pool.state == PoolState::Idle).await;
        assert_eq!(idle.workers.live, 0);
        let depth = broker.probe(&QUEUE.into()).await.unwrap();
        assert_eq!((depth.ready, depth.consumers), (0, 0));
    }
    assert_eq!(count.load(Ordering::Relaxed), 30);
}
