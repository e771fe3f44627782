//! A broker that stops answering while its connections stay open, and a driver that panics.

use std::{
    pin::Pin,
    sync::atomic::AtomicBool,
    task::{Context, Poll},
};

use tidegate::queue::{Consumer, Delivery, QueueError, Settle, SettleError};

use super::{
    hooked::{Hook, Hooked, Request},
    *,
};

/// A broker that answers until it is frozen.
#[derive(Debug, Default)]
struct Freezing {
    frozen: Arc<AtomicBool>,
    /// Whether opening a consumer panics.
    breaks: AtomicBool,
    opened: AtomicU32,
}

impl Freezing {
    fn freeze(&self) {
        self.frozen.store(true, Ordering::Relaxed);
    }

    async fn thawed(frozen: &AtomicBool) {
        if frozen.load(Ordering::Relaxed) {
            std::future::pending().await
        }
    }
}

#[async_trait::async_trait]
impl Hook for Freezing {
    async fn before(&self, request: Request<'_>) -> Result<(), QueueError> {
        Self::thawed(&self.frozen).await;
        if matches!(request, Request::Consume) {
            self.opened.fetch_add(1, Ordering::Relaxed);
            assert!(!self.breaks.load(Ordering::Relaxed), "a bug of a driver");
        }
        Ok(())
    }

    fn opened(&self, consumer: Box<dyn Consumer>) -> Box<dyn Consumer> {
        Box::new(FreezingConsumer {
            consumer,
            frozen: self.frozen.clone(),
        })
    }
}

struct FreezingConsumer {
    consumer: Box<dyn Consumer>,
    frozen: Arc<AtomicBool>,
}

#[async_trait::async_trait]
impl Consumer for FreezingConsumer {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Delivery, QueueError>>> {
        if self.frozen.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        let next = self.consumer.poll_next(cx);
        next.map_ok(|delivery| {
            let message = delivery.message().as_ref().clone();
            let settle = FreezingSettle {
                delivery,
                frozen: self.frozen.clone(),
            };
            Delivery::new(message, Box::new(settle))
        })
    }

    async fn cancel(&mut self) -> Result<(), QueueError> {
        Freezing::thawed(&self.frozen).await;
        self.consumer.cancel().await
    }

    async fn close(self: Box<Self>) {
        Freezing::thawed(&self.frozen).await;
        self.consumer.close().await;
    }
}

struct FreezingSettle {
    delivery: Delivery,
    frozen: Arc<AtomicBool>,
}

#[async_trait::async_trait]
impl Settle for FreezingSettle {
    async fn ack(self: Box<Self>) -> Result<(), SettleError> {
        Freezing::thawed(&self.frozen).await;
        self.delivery.ack().await
    }

    async fn requeue(self: Box<Self>) -> Result<(), SettleError> {
        Freezing::thawed(&self.frozen).await;
        self.delivery.requeue().await
    }

    async fn reject(self: Box<Self>) -> Result<(), SettleError> {
        Freezing::thawed(&self.frozen).await;
        self.delivery.reject().await
    }

    fn abandon(self: Box<Self>) {
        drop(self.delivery);
    }
}

type Handler = Box<dyn Fn(Job) -> Pin<Box<JobResult>> + Send + Sync>;
type JobResult = dyn Future<Output = Result<Outcome, BoxError>> + Send;

/// Two busy workers and an idle one, at a broker that has stopped answering.
async fn frozen() -> (Supervisor, Held) {
    let broker = broker();
    let hook = Arc::new(Freezing::default());
    let (mut held, handler) = Held::new();
    let handler: Handler = Box::new(handler);
    let settings = PoolSettings {
        drain_after: DrainAfter::Never,
        ..settings(Policy::fixed(3))
    };
    let runners = HandlerManager::new(handler).kill_grace(Duration::from_secs(5));
    let supervisor = Hooked::start(&broker, &hook, settings, runners);
    broker.send(QUEUE, "one");
    broker.send(QUEUE, "two");
    held.started().await;
    held.started().await;
    until(&supervisor, "up", |pool| pool.workers.live == 3).await;
    hook.freeze();
    (supervisor, held)
}

/// Waits for an end that may never come.
async fn ends<T>(end: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(3600), end)
        .await
        .expect("it ends")
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_a_broker_that_does_not_answer() {
    let (supervisor, _held) = frozen().await;
    let begun = Instant::now();
    let report = ends(supervisor.stop_now()).await;
    assert_eq!(report.given_back, 2);
    assert!(
        begun.elapsed() <= Duration::from_millis(1600),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(status(&supervisor).jobs.lost, 2);
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_within_its_grace_and_the_jobs_grace_whatever_the_broker_does() {
    let (supervisor, _held) = frozen().await;
    let begun = Instant::now();
    let drained = ends(supervisor.drain(Duration::from_secs(1))).await;
    assert!(
        matches!(drained, Err(DrainError::DeadlinePassed { given_back: 2 })),
        "{drained:?}"
    );
    let took = begun.elapsed();
    assert!(took <= Duration::from_secs(1 + 5 + 4), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stop_overtakes_a_drain_that_waits_for_a_silent_broker() {
    let (supervisor, held) = frozen().await;
    held.let_go(2);
    let drain = tokio::spawn({
        let supervisor = supervisor.clone();
        async move { supervisor.drain(Duration::from_secs(3600)).await }
    });
    until(&supervisor, "draining", |pool| {
        pool.state == PoolState::Draining
    })
    .await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let begun = Instant::now();
    ends(supervisor.stop_now()).await;
    assert!(begun.elapsed() <= Duration::from_millis(1600));
    let _ = drain.await.unwrap();
    assert_eq!(status(&supervisor).jobs.lost, 2);
}

#[tokio::test(start_paused = true)]
async fn workers_that_panic_as_they_open_are_started_with_backoff() {
    let broker = broker();
    let hook = Arc::new(Freezing::default());
    hook.breaks.store(true, Ordering::Relaxed);
    let runners = HandlerManager::new(done);
    let supervisor = Hooked::start(&broker, &hook, settings(Policy::fixed(3)), runners);
    for n in 0..3 {
        broker.send(QUEUE, format!("job {n}"));
    }
    let faulted = until(&supervisor, "faulted", |pool| {
        pool.state == PoolState::Faulted
    })
    .await;
    assert_eq!(
        faulted.cause.as_deref(),
        Some("a worker panicked: a bug of a driver")
    );
    tokio::time::sleep(Duration::from_secs(600)).await;
    let opened = hook.opened.load(Ordering::Relaxed);
    assert!(opened < 30, "{opened} workers");
    hook.breaks.store(false, Ordering::Relaxed);
    let after = until(&supervisor, "done", |pool| pool.jobs.done == 3).await;
    assert_eq!(after.jobs.requeued, 0);
}
