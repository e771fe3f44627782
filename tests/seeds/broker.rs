//! The in-memory broker with slow and lost answers.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tidegate::{
    adapters::memory::MemoryBroker,
    decide::QueueName,
    queue::{
        Browser, Connectivity, ConsumeRequest, Consumer, Delivery, Outgoing, QueueDepth,
        QueueDriver, QueueError, QueueErrorKind, QueueSpec, Settle, SettleError,
    },
};
use tokio::{sync::watch, time};

/// The faults between a supervisor and its broker. One for each run.
#[derive(Debug)]
pub(crate) struct Wire {
    dice: Mutex<StdRng>,
    latency: Duration,
    pub(crate) loses_answers: AtomicBool,
    /// Every queue that was declared.
    declared: Mutex<BTreeSet<QueueName>>,
}

impl Wire {
    pub(crate) fn new(seed: u64, latency: Duration) -> Self {
        Self {
            // Other random numbers than those of the plan.
            dice: Mutex::new(StdRng::seed_from_u64(!seed)),
            latency,
            loses_answers: AtomicBool::new(false),
            declared: Mutex::default(),
        }
    }

    pub(crate) fn declared(&self) -> Vec<QueueName> {
        self.declared.lock().unwrap().iter().cloned().collect()
    }

    async fn delay(&self) {
        let delay = self.latency.mul_f64(self.dice().random());
        if !delay.is_zero() {
            time::sleep(delay).await;
        }
    }

    fn outcome_of_request(&self) -> RequestOutcome {
        if !self.loses_answers.load(Ordering::Relaxed) {
            return RequestOutcome::Answered;
        }
        match self.dice().random_range(0..3) {
            0 => RequestOutcome::Answered,
            1 => RequestOutcome::AnswerLost,
            _ => RequestOutcome::RequestLost,
        }
    }

    fn dice(&self) -> MutexGuard<'_, StdRng> {
        self.dice.lock().unwrap()
    }
}

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RequestOutcome {
    Answered,
    /// The broker carries it out, but the answer is lost.
    AnswerLost,
    /// The broker does not receive it.
    RequestLost,
}

/// The broker as one supervisor sees it.
pub(crate) struct FaultyBroker {
    pub(crate) broker: MemoryBroker,
    pub(crate) wire: Arc<Wire>,
}

impl fmt::Debug for FaultyBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultyBroker")
    }
}

#[async_trait]
impl QueueDriver for FaultyBroker {
    async fn probe(&self, queue: &QueueName) -> Result<QueueDepth, QueueError> {
        self.wire.delay().await;
        self.broker.probe(queue).await
    }

    async fn declare(&self, queue: &QueueSpec) -> Result<(), QueueError> {
        self.wire.delay().await;
        self.wire
            .declared
            .lock()
            .unwrap()
            .insert(queue.name.clone());
        self.broker.declare(queue).await
    }

    async fn delete(&self, queue: &QueueName) -> Result<(), QueueError> {
        self.broker.delete(queue).await
    }

    async fn consume(&self, request: ConsumeRequest) -> Result<Box<dyn Consumer>, QueueError> {
        self.wire.delay().await;
        let consumer = self.broker.consume(request).await?;
        Ok(Box::new(FaultyConsumer {
            consumer,
            wire: self.wire.clone(),
        }))
    }

    async fn browse(&self, queue: &QueueName) -> Result<Box<dyn Browser>, QueueError> {
        self.wire.delay().await;
        self.broker.browse(queue).await
    }

    async fn prepare_to_publish(&self) -> Result<(), QueueError> {
        self.wire.delay().await;
        self.broker.prepare_to_publish().await
    }

    async fn publish(&self, message: Outgoing) -> Result<(), QueueError> {
        self.wire.delay().await;
        match self.wire.outcome_of_request() {
            RequestOutcome::Answered => return self.broker.publish(message).await,
            RequestOutcome::AnswerLost => self.broker.publish(message).await?,
            RequestOutcome::RequestLost => {}
        }
        let what = "publish: the answer is lost";
        Err(QueueError::new(QueueErrorKind::Disconnected, what))
    }

    fn header_limit(&self) -> usize {
        self.broker.header_limit()
    }

    fn blocked(&self) -> watch::Receiver<bool> {
        self.broker.blocked()
    }

    fn connectivity(&self) -> watch::Receiver<Connectivity> {
        self.broker.connectivity()
    }

    /// Ends nothing: another supervisor of the run may use the broker.
    async fn close(&self) {
        self.wire.delay().await;
    }
}

struct FaultyConsumer {
    consumer: Box<dyn Consumer>,
    wire: Arc<Wire>,
}

#[async_trait]
impl Consumer for FaultyConsumer {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Delivery, QueueError>>> {
        self.consumer.poll_next(cx).map(|next| {
            next.map(|delivery| {
                let delivery = delivery?;
                let message = (**delivery.message()).clone();
                let settle = FaultySettle {
                    delivery,
                    wire: self.wire.clone(),
                };
                Ok(Delivery::new(message, Box::new(settle)))
            })
        })
    }

    async fn cancel(&mut self) -> Result<(), QueueError> {
        self.wire.delay().await;
        self.consumer.cancel().await
    }

    async fn close(self: Box<Self>) {
        self.wire.delay().await;
        self.consumer.close().await;
    }
}

struct FaultySettle {
    delivery: Delivery,
    wire: Arc<Wire>,
}

impl FaultySettle {
    async fn settle(
        self,
        how: impl AsyncFnOnce(Delivery) -> Result<(), SettleError>,
    ) -> Result<(), SettleError> {
        self.wire.delay().await;
        match self.wire.outcome_of_request() {
            RequestOutcome::Answered => return how(self.delivery).await,
            RequestOutcome::AnswerLost => how(self.delivery).await?,
            // It goes back, as when its channel is lost.
            RequestOutcome::RequestLost => drop(self.delivery),
        }
        Err(SettleError { source: None })
    }
}

#[async_trait]
impl Settle for FaultySettle {
    async fn ack(self: Box<Self>) -> Result<(), SettleError> {
        self.settle(async |delivery| delivery.ack().await).await
    }

    async fn requeue(self: Box<Self>) -> Result<(), SettleError> {
        self.settle(async |delivery| delivery.requeue().await).await
    }

    async fn reject(self: Box<Self>) -> Result<(), SettleError> {
        self.settle(async |delivery| delivery.reject().await).await
    }

    fn abandon(self: Box<Self>) {
        drop(self.delivery);
    }
}
