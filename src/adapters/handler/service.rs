//! A tower service as a handler.

use std::future;

use tower_service::Service;

use crate::runner::{BoxError, Job, Outcome};

/// Waits until `service` is ready for a job, and calls it.
///
/// The service is a clone for this job only. A service that waits for a permit, such as behind a concurrency limit,
/// returns the permit when it is dropped. So an idle runner must not keep a service.
pub(crate) async fn call_service<S>(mut service: S, job: Job) -> Result<Outcome, BoxError>
where
    S: Service<Job, Response = Outcome>,
    S::Error: Into<BoxError>,
{
    future::poll_fn(|cx| service.poll_ready(cx))
        .await
        .map_err(Into::into)?;
    service.call(job).await.map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        time::Duration,
    };

    use tokio::time::{self, Instant};
    use tower::{ServiceBuilder, service_fn};

    use super::*;
    use crate::{
        Policy, Pool, RetrySettings, Supervisor,
        adapters::{handler::HandlerManager, memory::MemoryBroker},
        queue::QueueKind,
        runner::{CreateRunner, JobControl, JobEnd, RunnerManager as _},
    };

    const SECOND: Duration = Duration::from_secs(1);

    /// Jobs that take a second each, and the highest number that ran at the same time.
    #[derive(Clone, Default)]
    struct Crowd {
        now: Arc<AtomicUsize>,
        most: Arc<AtomicUsize>,
    }

    impl Crowd {
        async fn job(self, _: Job) -> Result<Outcome, BoxError> {
            let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
            self.most.fetch_max(now, Ordering::Relaxed);
            time::sleep(SECOND).await;
            self.now.fetch_sub(1, Ordering::Relaxed);
            Ok(Outcome::Done)
        }
    }

    /// Runs this many messages on a service with five workers until all are done or dead. Returns the time that it
    /// took.
    async fn run<S>(messages: u64, service: S) -> (Duration, MemoryBroker)
    where
        S: Service<Job, Response = Outcome> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
    {
        let broker = MemoryBroker::new();
        broker.declare_queue("jobs", QueueKind::Classic);
        for n in 0..messages {
            broker.send("jobs", n.to_string());
        }
        let once = RetrySettings {
            max_attempts: 1,
            ..RetrySettings::default()
        };
        let pool = Pool::new("jobs")
            .policy(Policy::fixed(5))
            .retry(once)
            .service(service);
        let builder = Supervisor::builder().driver(broker.clone()).pool(pool);
        let supervisor = builder.start().await.unwrap();
        let began = Instant::now();
        let ended = async {
            let ended = || {
                let jobs = supervisor.pool(&"jobs".into()).unwrap().jobs;
                jobs.done + jobs.dead
            };
            while ended() < messages {
                time::sleep(Duration::from_millis(10)).await;
            }
        };
        time::timeout(600 * SECOND, ended).await.expect("an end");
        let took = began.elapsed();
        supervisor.drain(SECOND).await.unwrap();
        (took, broker)
    }

    #[tokio::test(start_paused = true)]
    async fn a_concurrency_limit_holds_for_all_runners_together() {
        let crowd = Crowd::default();
        let service = ServiceBuilder::new().concurrency_limit(2).service_fn({
            let crowd = crowd.clone();
            move |job| crowd.clone().job(job)
        });
        let (took, broker) = run(10, service).await;
        assert_eq!(crowd.most.load(Ordering::Relaxed), 2);
        assert!(took >= 5 * SECOND, "{took:?}");
        assert_eq!(broker.ready("jobs.dead"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_runner_does_not_keep_a_permit_of_the_service() {
        let begun = Arc::new(AtomicUsize::new(0));
        let service = ServiceBuilder::new().concurrency_limit(1).service_fn({
            let begun = begun.clone();
            move |_| {
                begun.fetch_add(1, Ordering::Relaxed);
                std::future::pending::<Result<Outcome, BoxError>>()
            }
        });
        let service = std::sync::Mutex::new(service);
        let manager =
            HandlerManager::new(move |job| call_service(service.lock().unwrap().clone(), job))
                .timeout(SECOND)
                .kill_grace(Duration::ZERO);
        let request = CreateRunner {
            id: crate::decide::RunnerId(1),
            pool: "p".into(),
        };
        let mut first = manager.create(request.clone()).await.unwrap();
        let mut second = manager.create(request).await.unwrap();
        let job = Job::new("p".into(), "q".into(), Arc::default(), 1, || "j".into());
        let control = JobControl::default;
        // One job begins and the other waits. Both reach their timeout.
        tokio::join!(first.run(&job, control()), second.run(&job, control()));
        assert_eq!(begun.load(Ordering::Relaxed), 1);
        for runner in [&mut first, &mut second] {
            let report = runner.run(&job, control()).await;
            assert!(matches!(report.end, JobEnd::Failed(_)), "{report:?}");
        }
        assert_eq!(begun.load(Ordering::Relaxed), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_limit_behind_a_buffer_makes_jobs_wait() {
        let service = ServiceBuilder::new()
            .buffer(16)
            .rate_limit(1, 10 * SECOND)
            .service(service_fn(|_: Job| async {
                Ok::<_, BoxError>(Outcome::Done)
            }));
        let (took, broker) = run(4, service).await;
        assert!(took >= 30 * SECOND, "{took:?}");
        assert_eq!(broker.ready("jobs.dead"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_error_of_a_layer_is_the_failure_of_its_job() {
        let service = ServiceBuilder::new()
            .timeout(SECOND)
            .service_fn(|_: Job| std::future::pending::<Result<Outcome, BoxError>>());
        let (took, broker) = run(1, service).await;
        assert!(took >= SECOND, "{took:?}");
        let dead = broker.take("jobs.dead");
        let error = dead[0].headers.get("x-tidegate-error");
        assert!(format!("{error:?}").contains("timed out"), "{error:?}");
    }
}
