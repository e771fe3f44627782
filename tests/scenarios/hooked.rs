//! The in-memory broker behind a hook, through which a test sees or delays or fails what a pool asks of its broker.

use std::fmt;

use async_trait::async_trait;
use tidegate::{
    decide::QueueName,
    queue::{
        Browser, Connectivity, ConsumeRequest, Consumer, QueueDepth, QueueDriver, QueueError,
        QueueSpec,
    },
};
use tokio::sync::watch;

use super::*;

/// A request to the broker.
#[derive(Debug)]
pub(crate) enum Request<'a> {
    Probe,
    Declare,
    Delete,
    Consume,
    Browse,
    PrepareToPublish,
    Publish(&'a Outgoing),
    Close,
}

/// The interventions of a test. Each method lets everything pass unless the test says otherwise.
#[async_trait]
pub(crate) trait Hook: fmt::Debug + Send + Sync + 'static {
    /// Before the broker has it. An error is the answer, and the broker never has it.
    async fn before(&self, _: Request<'_>) -> Result<(), QueueError> {
        Ok(())
    }

    fn probed(&self, _: &QueueName, _: &Result<QueueDepth, QueueError>) {}

    fn opened(&self, consumer: Box<dyn Consumer>) -> Box<dyn Consumer> {
        consumer
    }
}

/// The broker and the hook before it.
#[derive(Debug)]
pub(crate) struct Hooked<H> {
    broker: MemoryBroker,
    hook: Arc<H>,
}

impl<H: Hook> Hooked<H> {
    /// A supervisor of one pool, at `broker` behind `hook`.
    pub(crate) fn start(
        broker: &MemoryBroker,
        hook: &Arc<H>,
        settings: PoolSettings,
        runners: impl RunnerManager,
    ) -> Supervisor {
        let driver = Self {
            broker: broker.clone(),
            hook: hook.clone(),
        };
        let pool = PoolSpec {
            settings,
            runners: Arc::new(runners),
        };
        Supervisor::start(Arc::new(driver), vec![pool], None).unwrap()
    }
}

#[async_trait]
impl<H: Hook> QueueDriver for Hooked<H> {
    async fn probe(&self, queue: &QueueName) -> Result<QueueDepth, QueueError> {
        self.hook.before(Request::Probe).await?;
        let answer = self.broker.probe(queue).await;
        self.hook.probed(queue, &answer);
        answer
    }

    async fn declare(&self, queue: &QueueSpec) -> Result<(), QueueError> {
        self.hook.before(Request::Declare).await?;
        self.broker.declare(queue).await
    }

    async fn delete(&self, queue: &QueueName) -> Result<(), QueueError> {
        self.hook.before(Request::Delete).await?;
        self.broker.delete(queue).await
    }

    async fn consume(&self, request: ConsumeRequest) -> Result<Box<dyn Consumer>, QueueError> {
        self.hook.before(Request::Consume).await?;
        Ok(self.hook.opened(self.broker.consume(request).await?))
    }

    async fn browse(&self, queue: &QueueName) -> Result<Box<dyn Browser>, QueueError> {
        self.hook.before(Request::Browse).await?;
        self.broker.browse(queue).await
    }

    async fn prepare_to_publish(&self) -> Result<(), QueueError> {
        self.hook.before(Request::PrepareToPublish).await?;
        self.broker.prepare_to_publish().await
    }

    async fn publish(&self, message: Outgoing) -> Result<(), QueueError> {
        self.hook.before(Request::Publish(&message)).await?;
        self.broker.publish(message).await
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

    async fn close(&self) {
        // An error has no receiver.
        let _ = self.hook.before(Request::Close).await;
        self.broker.close().await;
    }
}
