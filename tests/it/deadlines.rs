//! Deadlines with real processes, on the in-memory queue.

use std::{sync::Arc, time::Duration};

use tidegate::{
    ExecSettings, Policy, PoolStatus, Supervisor, WarmSettings,
    adapters::memory::MemoryBroker,
    config::PoolSettings,
    queue::{HeaderValue, QueueKind},
    run::PoolSpec,
    runner::RunnerManager,
    runners::{exec::ExecManager, warm::WarmManager},
};
use tokio::time::Instant;

const QUEUE: &str = "jobs";
const ACK_DEADLINE: Duration = Duration::from_secs(2);

/// Runs one job of this kind until its delivery is given back. Returns the time until then.
async fn given_back(runners: impl RunnerManager) -> Duration {
    let broker = MemoryBroker::new();
    broker.declare_queue(QUEUE, QueueKind::Classic);
    broker.send(QUEUE, "one");
    let pool = PoolSpec {
        settings: PoolSettings {
            policy: Policy::fixed(1),
            poll_interval: Duration::from_millis(20),
            ack_deadline: ACK_DEADLINE,
            ..PoolSettings::new(QUEUE)
        },
        runners: Arc::new(runners),
    };
    let supervisor = Supervisor::start(Arc::new(broker.clone()), vec![pool], None).unwrap();
    until(&supervisor, |pool| pool.runners.busy == 1).await;
    let begun = Instant::now();
    // Otherwise the next look at the queue would take it again.
    supervisor.pause(&QUEUE.into()).await.unwrap();
    let status = until(&supervisor, |pool| pool.jobs.requeued == 1).await;
    let took = begun.elapsed();
    assert_eq!(
        (status.jobs.retried, status.jobs.dead, status.jobs.lost),
        (0, 0, 0)
    );
    let messages = broker.take(QUEUE);
    let sum = messages[0].headers.get("x-tidegate-give-backs");
    assert_eq!(sum.and_then(HeaderValue::as_integer), Some(1));
    supervisor.drain(Duration::from_secs(10)).await.unwrap();
    took
}

async fn until(supervisor: &Supervisor, looks: impl Fn(&PoolStatus) -> bool) -> PoolStatus {
    let time_limit = Instant::now() + Duration::from_secs(60);
    loop {
        let status = supervisor.pool(&QUEUE.into()).unwrap();
        if looks(&status) {
            return status;
        }
        assert!(Instant::now() < time_limit, "{status:#?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_process_that_needs_more_time_than_there_is_is_stopped_in_time() {
    let mut settings = ExecSettings::new(["sleep", "3600"]);
    settings.kill_grace = Duration::from_secs(1);
    let took = given_back(ExecManager::new(settings)).await;
    // It dies of TERM and does not use its grace: 2 s, minus 1 s of grace, minus 100 ms for settlement.
    assert!(took < ACK_DEADLINE, "{took:?}");
}

#[tokio::test]
async fn a_process_that_ignores_term_is_killed_in_time() {
    let script = "trap '' TERM; while :; do sleep 0.05; done";
    let mut settings = ExecSettings::new(["sh", "-c", script]);
    settings.kill_grace = Duration::from_millis(500);
    let took = given_back(ExecManager::new(settings)).await;
    assert!(took >= Duration::from_millis(1500), "{took:?}");
    assert!(took < Duration::from_secs(4), "{took:?}");
}

#[tokio::test]
async fn progress_extends_a_warm_jobs_timeout_but_not_beyond_the_deadline() {
    let script = r#"
        echo '{"ready":true,"protocol":1}'
        read -r line
        id=$(printf '%s\n' "$line" | sed 's/^{"id":\("[^"]*"\).*/\1/')
        while :; do
            echo "{\"id\":$id,\"progress\":\"on and on\"}"
            sleep 0.05
        done
    "#;
    let mut settings = WarmSettings::new(["sh", "-c", script]);
    settings.process.timeout = Duration::from_millis(700);
    settings.process.kill_grace = Duration::from_millis(200);
    let took = given_back(WarmManager::new(settings)).await;
    assert!(took >= Duration::from_millis(1000), "{took:?}");
    assert!(took < Duration::from_secs(4), "{took:?}");
}
