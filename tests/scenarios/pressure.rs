//! The host's pressure: above its limit no pool grows, and no running job is stopped.

use std::sync::atomic::AtomicU64;

use tidegate::{
    config::SupervisorSettings,
    decide::TermName,
    run::{PressureSource, StartOptions},
};

use super::*;

#[tokio::test(start_paused = true)]
async fn a_host_without_room_stops_growth_and_no_running_job() {
    let percent = Arc::new(AtomicU64::new(0));
    let read = Arc::clone(&percent);
    let options = StartOptions {
        limits: SupervisorSettings {
            max_cpu_pressure: Some(50),
            ..SupervisorSettings::default()
        },
        pressure: PressureSource::new(move |_| Ok(read.load(Ordering::Relaxed) as f64)),
        ..StartOptions::default()
    };
    let (mut held, handler) = Held::new();
    let broker = broker();
    let pool = PoolSpec {
        settings: settings(Policy::backlog(1).max(20)),
        runners: Arc::new(HandlerManager::new(handler)),
    };
    let supervisor = Supervisor::start_with(Arc::new(broker.clone()), vec![pool], options).unwrap();
    for n in 0..5 {
        broker.send(QUEUE, format!("job {n}"));
    }
    for _ in 0..5 {
        held.started().await;
    }

    percent.store(90, Ordering::Relaxed);
    // The next reading is at most two seconds away.
    tokio::time::sleep(Duration::from_secs(3)).await;
    for n in 5..15 {
        broker.send(QUEUE, format!("job {n}"));
    }
    throughout(
        &supervisor,
        Duration::from_secs(60),
        "kept at five",
        |pool| pool.workers.live == 5 && pool.runners.busy == 5,
    )
    .await;
    let decision = supervisor.explain(&name()).unwrap();
    assert_eq!(decision.won, TermName::Pressure);
    assert!(
        decision.to_string().contains("cpu pressure is 90 %"),
        "{decision}"
    );

    percent.store(20, Ordering::Relaxed);
    until(&supervisor, "grown", |pool| pool.runners.busy == 15).await;
    held.let_go(15);
    let end = until(&supervisor, "done", |pool| pool.jobs.done == 15).await;
    assert_eq!(end.jobs.requeued, 0);
}
