//! Gauges: their values for a pool, and their removal when a pool or a kind of runner was removed.

use std::collections::BTreeMap;

use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

use super::*;

/// The gauges of the pool as they were set since the last snapshot, which sets them to 0: as `name{other labels}`.
fn gauges(snapshots: &Snapshotter) -> BTreeMap<String, f64> {
    let all = snapshots.snapshot().into_vec().into_iter();
    all.filter_map(|(key, _, _, value)| {
        let DebugValue::Gauge(value) = value else {
            return None;
        };
        let key = key.key();
        let labels: BTreeMap<_, _> = (key.labels()).map(|l| (l.key(), l.value())).collect();
        if labels.get("pool") != Some(&QUEUE) {
            return None;
        }
        let others = labels.iter().filter(|(name, _)| **name != "pool");
        let others: Vec<_> = others
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        Some((format!("{}{{{}}}", key.name(), others.join(",")), value.0))
    })
    .collect()
}

/// Lets paused time pass until the gauges match.
async fn until_gauges(
    snapshots: &Snapshotter,
    what: &str,
    looks: impl Fn(&BTreeMap<String, f64>) -> bool,
) -> BTreeMap<String, f64> {
    let time_limit = Instant::now() + Duration::from_secs(3600);
    loop {
        let gauges = gauges(snapshots);
        if looks(&gauges) {
            return gauges;
        }
        assert!(Instant::now() < time_limit, "never {what}: {gauges:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn state(gauges: &BTreeMap<String, f64>) -> Vec<&str> {
    gauges
        .iter()
        .filter(|(_, value)| **value == 1.0)
        .filter_map(|(name, _)| {
            let state = name.strip_prefix("tidegate_pool_state{state=")?;
            state.strip_suffix('}')
        })
        .collect()
}

/// Handlers under another name.
#[derive(Debug)]
struct Renamed<M>(M);

#[async_trait::async_trait]
impl<M: RunnerManager> RunnerManager for Renamed<M> {
    fn kind(&self) -> &'static str {
        "renamed"
    }

    async fn create(&self, request: CreateRunner) -> Result<Box<dyn Runner>, StartError> {
        self.0.create(request).await
    }
}

/// Settings of a pool with two workers on an empty queue.
fn warm() -> PoolSettings {
    PoolSettings {
        keep_warm: 2,
        ..settings(Policy::fixed(2))
    }
}

fn spec(runners: impl RunnerManager) -> PoolSpec {
    PoolSpec {
        settings: warm(),
        runners: Arc::new(runners),
    }
}

#[tokio::test(start_paused = true)]
async fn gauges_of_a_removed_pool_and_of_a_replaced_kind_of_runner_are_gone() {
    let recorder = DebuggingRecorder::new();
    let snapshots = recorder.snapshotter();
    let _recorder = metrics::set_default_local_recorder(&recorder);
    let broker = broker();
    let supervisor = start(&broker, warm(), HandlerManager::new(done));
    until_gauges(&snapshots, "up", |gauges| {
        gauges.get("tidegate_workers{state=waiting}") == Some(&2.0)
            && gauges.contains_key("tidegate_runners{kind=handler,state=idle}")
    })
    .await;

    let renamed = spec(Renamed(HandlerManager::new(done)));
    supervisor.reconfigure(vec![renamed]).await.unwrap();
    let gauges = until_gauges(&snapshots, "of the new kind", |gauges| {
        gauges.contains_key("tidegate_runners{kind=renamed,state=idle}")
    })
    .await;
    for state in ["idle", "busy"] {
        let old = gauges[&format!("tidegate_runners{{kind=handler,state={state}}}")];
        assert!(old.is_nan(), "{gauges:#?}");
    }
    assert_eq!(gauges["tidegate_workers{state=waiting}"], 2.0);

    supervisor.reconfigure(Vec::new()).await.unwrap();
    until_gauges(&snapshots, "gone", |gauges| {
        let mut left = gauges.iter().filter(|(_, value)| !value.is_nan());
        left.all(|(name, _)| name.contains("kind=handler"))
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_gauge_says_the_state_of_a_pool_and_another_for_how_long_it_is_stuck() {
    let recorder = DebuggingRecorder::new();
    let snapshots = recorder.snapshotter();
    let _recorder = metrics::set_default_local_recorder(&recorder);
    let broker = MemoryBroker::new();
    let supervisor = start(
        &broker,
        settings(Policy::fixed(1)),
        HandlerManager::new(done),
    );
    let is = |wanted: &'static str| move |gauges: &BTreeMap<String, f64>| state(gauges) == [wanted];
    until_gauges(&snapshots, "waiting", is("waiting")).await;
    broker.declare_queue(QUEUE, QueueKind::Quorum);
    let idle = until_gauges(&snapshots, "idle", is("idle")).await;
    assert_eq!(idle["tidegate_pool_stuck_seconds{}"], 0.0);

    broker.set_withholds(true);
    broker.send(QUEUE, "kept");
    until_gauges(&snapshots, "stuck", is("stuck")).await;
    let stuck = until_gauges(&snapshots, "stuck for a while", |gauges| {
        gauges["tidegate_pool_stuck_seconds{}"] > 60.0
    })
    .await;
    assert!(stuck["tidegate_pool_stuck_seconds{}"] < 62.0, "{stuck:#?}");
    assert_eq!(stuck["tidegate_pool_stuck{}"], 1.0);

    broker.set_withholds(false);
    until_gauges(&snapshots, "well", |gauges| {
        gauges["tidegate_pool_stuck_seconds{}"] == 0.0 && state(gauges) == ["idle"]
    })
    .await;
    supervisor.pause(&name()).await.unwrap();
    until_gauges(&snapshots, "paused", is("paused")).await;
}

#[tokio::test(start_paused = true)]
async fn messages_that_wait_for_their_key_have_a_gauge() {
    let recorder = DebuggingRecorder::new();
    let snapshots = recorder.snapshotter();
    let _recorder = metrics::set_default_local_recorder(&recorder);
    let settings = PoolSettings {
        key: Some(tidegate::config::KeySettings::routing_key()),
        ..settings(Policy::fixed(2))
    };
    let (broker, _supervisor, _held) = busy(1, settings).await;
    for n in 0..3 {
        broker.send(QUEUE, format!("later {n}"));
    }
    let gauges = until_gauges(&snapshots, "three wait", |gauges| {
        gauges.get("tidegate_key_blocked_messages{}") == Some(&3.0)
    })
    .await;
    assert_eq!(gauges["tidegate_taken_ahead_messages{}"], 3.0);
}
