//! Runners that take long to start.

use tokio::time::sleep;

use super::*;

/// Runners that need ten seconds to start, and no time to work.
#[derive(Debug, Default)]
struct Slow {
    created: Arc<AtomicU32>,
}

#[async_trait::async_trait]
impl RunnerManager for Slow {
    fn kind(&self) -> &'static str {
        "slow"
    }

    fn prestart(&self) -> u32 {
        1
    }

    async fn create(&self, _: CreateRunner) -> Result<Box<dyn Runner>, StartError> {
        self.created.fetch_add(1, Ordering::Relaxed);
        sleep(Duration::from_secs(10)).await;
        Ok(Box::new(Quick))
    }
}

struct Quick;

#[async_trait::async_trait]
impl Runner for Quick {
    async fn run(&mut self, _: &Job, _: JobControl) -> RunReport {
        RunReport {
            end: JobEnd::Done { reply: None },
            reusable: true,
        }
    }

    async fn stop(self: Box<Self>) {}
}

#[tokio::test(start_paused = true)]
async fn a_job_waits_for_a_runner_that_is_starting_and_starts_no_other() {
    let manager = Slow::default();
    let created = manager.created.clone();
    let settings = PoolSettings {
        drain_after: DrainAfter::Never,
        keep_warm: 1,
        ..settings(Policy::fixed(1))
    };
    let broker = broker();
    let supervisor = start(&broker, settings, manager);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(created.load(Ordering::Relaxed), 1);
    let sent = Instant::now();
    broker.send(QUEUE, "work");
    until(&supervisor, "done", |pool| pool.jobs.done == 1).await;
    assert!(sent.elapsed() < Duration::from_secs(6));
    assert_eq!(created.load(Ordering::Relaxed), 1);
}
