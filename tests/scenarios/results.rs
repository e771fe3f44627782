//! Results of reconciles, as events and as return values of calls that requested one.

use std::sync::Mutex;

use super::*;
use tidegate::{
    decide::TermName,
    run::{Fate, JobFailure},
    runner::{CleanupReport, Failure, FailureKind},
};

/// Runners that are lost with their job if the body says so, and that die idle when they are told to.
#[derive(Debug, Clone, Default)]
struct Mortal {
    die_idle: Arc<std::sync::atomic::AtomicBool>,
    cleanups: Arc<AtomicU32>,
}

struct MortalRunner(Mortal);

#[async_trait::async_trait]
impl RunnerManager for Mortal {
    fn kind(&self) -> &'static str {
        "mortal"
    }

    async fn create(&self, _: CreateRunner) -> Result<Box<dyn Runner>, StartError> {
        Ok(Box::new(MortalRunner(self.clone())))
    }

    async fn cleanup(&self) -> CleanupReport {
        self.cleanups.fetch_add(1, Ordering::Relaxed);
        CleanupReport::default()
    }
}

#[async_trait::async_trait]
impl Runner for MortalRunner {
    async fn run(&mut self, job: &Job, control: JobControl) -> RunReport {
        control.started.notify();
        if job.body() == "fatal" {
            return RunReport {
                end: JobEnd::Failed(Failure {
                    kind: FailureKind::RunnerLost,
                    message: String::from("it fell over"),
                    stderr_tail: None,
                }),
                reusable: false,
            };
        }
        RunReport {
            end: JobEnd::Done { reply: None },
            reusable: true,
        }
    }

    fn is_alive(&mut self) -> bool {
        !self.0.die_idle.load(Ordering::Relaxed)
    }

    async fn stop(self: Box<Self>) {}
}

#[derive(Debug, Default)]
struct Crashed(Mutex<u32>);

impl EventSink for Crashed {
    fn emit(&self, event: Event) {
        if let Event::Reconciliation {
            crashed_runners, ..
        } = event
        {
            *self.0.lock().unwrap() += crashed_runners;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn runners_that_died_with_a_job_count_as_crashed_like_those_that_died_idle() {
    let broker = broker();
    let runners = Mortal::default();
    let crashed = Arc::new(Crashed::default());
    let settings = PoolSettings {
        keep_warm: 2,
        retry: RetrySettings {
            max_attempts: 1,
            ..RetrySettings::default()
        },
        ..settings(Policy::fixed(2))
    };
    let pool = PoolSpec {
        settings,
        runners: Arc::new(runners.clone()),
    };
    let supervisor =
        Supervisor::start(Arc::new(broker.clone()), vec![pool], Some(crashed.clone())).unwrap();
    for _ in 0..3 {
        broker.send(QUEUE, "fatal");
    }
    until(&supervisor, "dead", |pool| pool.jobs.dead == 3).await;
    supervisor.reconcile(&name()).await.unwrap();
    assert_eq!(*crashed.0.lock().unwrap(), 3);

    broker.send(QUEUE, "fine");
    until(&supervisor, "done", |pool| {
        pool.jobs.done == 1 && pool.runners.idle == 1
    })
    .await;
    runners.die_idle.store(true, Ordering::Relaxed);
    let result = supervisor.reconcile(&name()).await.unwrap();
    assert_eq!(result.metric_stats, [(EventKind::RunnerStop, 1)].into());
    assert_eq!(*crashed.0.lock().unwrap(), 4);
}

#[tokio::test(start_paused = true)]
async fn scaling_runs_a_whole_reconcile_and_returns_its_result() {
    let broker = broker();
    let runners = Mortal::default();
    let supervisor = start(&broker, settings(Policy::fixed(2).max(5)), runners.clone());
    until(&supervisor, "idle", |pool| pool.depth.age_ms.is_some()).await;
    // No tick and no other cause starts a reconcile at the same instant.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let cleanups = runners.cleanups.load(Ordering::Relaxed);
    broker.send(QUEUE, "unseen so far");
    let result = supervisor.scale(&name(), Some(9)).await.unwrap();
    assert_eq!(result.workers_diff, 5);
    assert_eq!(runners.cleanups.load(Ordering::Relaxed), cleanups + 1);
    let decision = supervisor.explain(&name()).unwrap();
    assert_eq!((decision.rule, decision.won), (Rule::Pin, TermName::Max));
    assert_eq!(
        decision.inputs.ready, 1,
        "the depth was read for this reconcile"
    );
    until(&supervisor, "done", |pool| {
        pool.jobs.done == 1 && pool.runners.idle == 1
    })
    .await;
    let result = supervisor.scale(&name(), Some(0)).await.unwrap();
    // Four have no runner. The fifth is removed together with its runner.
    assert_eq!(result.workers_diff, -4);
    assert_eq!(result.metric_stats, [(EventKind::RunnerStop, 1)].into());
}

#[tokio::test(start_paused = true)]
async fn scaling_returns_its_own_result_during_another_reconcile() {
    let broker = broker();
    let supervisor = start(&broker, settings(Policy::fixed(5)), Mortal::default());
    // The pool's first look begins when its task runs.
    tokio::task::yield_now().await;
    let result = supervisor.scale(&name(), Some(3)).await.unwrap();
    assert_eq!(result.workers_diff, 3);
    let again = supervisor.scale(&name(), Some(3)).await.unwrap();
    assert_eq!(again.workers_diff, 0);
}

#[tokio::test(start_paused = true)]
async fn a_flush_of_all_stops_running_jobs_and_gives_them_back() {
    let (broker, supervisor, mut held) = busy(2, settings(Policy::fixed(2))).await;
    let result = supervisor.flush(&name(), FlushMode::Idle).await.unwrap();
    assert!(result.metric_stats.is_empty());
    assert_eq!(result.jobs_told, 0);
    throughout(&supervisor, Duration::from_secs(20), "still busy", |pool| {
        pool.runners.busy == 2
    })
    .await;

    supervisor.pause(&name()).await.unwrap();
    let result = supervisor.flush(&name(), FlushMode::All).await.unwrap();
    assert_eq!(result.jobs_told, 2);
    let again = supervisor.flush(&name(), FlushMode::All).await.unwrap();
    assert_eq!(again.jobs_told, 0, "each job was told once");
    let after = until(&supervisor, "flushed", |pool| {
        pool.runners.busy == 0 && pool.workers.draining == 0
    })
    .await;
    assert_eq!((after.jobs.requeued, after.jobs.retried), (2, 0));
    assert_eq!(broker.ready(QUEUE), Some(2));
    supervisor.resume(&name()).await.unwrap();
    held.started().await;
    held.started().await;
    held.let_go(2);
    until(&supervisor, "done", |pool| pool.jobs.done == 2).await;
}

#[tokio::test(start_paused = true)]
async fn deliveries_that_wait_behind_a_running_job_are_counted_and_explained() {
    let broker = broker();
    let (mut held, handler) = Held::new();
    let settings = PoolSettings {
        prefetch: 10,
        ..settings(Policy::fixed(1))
    };
    let supervisor = start(&broker, settings, HandlerManager::new(handler));
    for n in 0..5 {
        broker.send(QUEUE, format!("job {n}"));
    }
    held.started().await;
    until(&supervisor, "holding five", |pool| pool.demand == 5).await;
    supervisor.reconcile(&name()).await.unwrap();
    let decision = supervisor.explain(&name()).unwrap();
    assert_eq!((decision.inputs.held, decision.inputs.behind), (5, 4));
    let text = decision.to_string();
    let wanted = "4  of the held messages wait behind a running job; prefetch = 1 avoids that";
    assert!(text.contains(wanted), "{text}");
    let json = serde_json::to_value(&decision).unwrap();
    assert_eq!(json["inputs"]["behind"], 4);
}

/// The attempt of each failure, and how its message is settled.
#[derive(Debug, Default)]
struct Failed(Mutex<Vec<(u32, Fate)>>);

impl EventSink for Failed {
    fn emit(&self, _: Event) {}

    fn job_failed(&self, failure: JobFailure) {
        assert_eq!(failure.pool, name());
        assert_eq!(failure.error, "it fell over");
        assert!(failure.job_id.is_some());
        let mut failed = self.0.lock().unwrap();
        failed.push((failure.attempt, failure.fate));
    }
}

#[tokio::test(start_paused = true)]
async fn a_sink_gets_each_failure_with_the_settlement_of_its_message() {
    let broker = broker();
    let failed = Arc::new(Failed::default());
    let settings = PoolSettings {
        retry: RetrySettings {
            max_attempts: 2,
            ..RetrySettings::default()
        },
        ..settings(Policy::fixed(1))
    };
    let pool = PoolSpec {
        settings,
        runners: Arc::new(Mortal::default()),
    };
    let supervisor =
        Supervisor::start(Arc::new(broker.clone()), vec![pool], Some(failed.clone())).unwrap();
    broker.send(QUEUE, "fine");
    broker.send(QUEUE, "fatal");
    until(&supervisor, "dead", |pool| pool.jobs.dead == 1).await;
    let failed = failed.0.lock().unwrap();
    assert!(
        matches!(
            failed[..],
            [(1, Fate::Retried(_)), (2, Fate::Dead("attempts"))]
        ),
        "{failed:?}"
    );
}
