//! The broker that the demo publishes to, and the queue that the demo declares there.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;

use super::error::DemoError;
use crate::load::publisher::Outlet;
use tidegate::{
    adapters::{
        amqp::{AmqpDriver, bulk::BulkPublisher},
        memory::MemoryBroker,
    },
    builder::{Builder, Pool, broker_driver, reach},
    config::{BrokerSettings, BrokerUrl, TlsSettings},
    decide::QueueName,
    queue::{QueueDriver, QueueError, QueueKind, QueueSpec},
    run::Supervisor,
};

/// How long the broker may take to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the deletion of the demo's queue may take.
const DELETE_TIMEOUT: Duration = Duration::from_secs(5);

/// A broker, and a queue that only this demo uses.
#[derive(Debug)]
pub(super) struct DemoBroker {
    place: DemoBrokerKind,
    /// The demo's own connection. A supervisor closes its connections when it ends, and the queue must be deleted after
    /// that.
    driver: Arc<dyn QueueDriver>,
    queue: QueueName,
}

#[derive(Debug)]
enum DemoBrokerKind {
    Broker(BrokerUrl, Arc<AmqpDriver>),
    Memory(MemoryBroker),
}

impl DemoBroker {
    pub(super) fn open(url: Option<BrokerUrl>) -> Result<Self, DemoError> {
        let (place, driver) = match url {
            Some(url) => {
                let driver = broker_driver(&settings(&url)).map_err(DemoError::Launch)?;
                (
                    DemoBrokerKind::Broker(url, driver.clone()),
                    driver as Arc<dyn QueueDriver>,
                )
            }
            None => {
                let broker = MemoryBroker::new();
                let driver: Arc<dyn QueueDriver> = Arc::new(broker.clone());
                (DemoBrokerKind::Memory(broker), driver)
            }
        };
        let queue = format!("tidegate-demo-{:08x}", rand::random::<u32>());
        Ok(Self {
            place,
            driver,
            queue: queue.into(),
        })
    }

    pub(super) fn queue(&self) -> &QueueName {
        &self.queue
    }

    /// The broker; `None` for the queue in memory.
    pub(super) fn url(&self) -> Option<&BrokerUrl> {
        match &self.place {
            DemoBrokerKind::Broker(url, _) => Some(url),
            DemoBrokerKind::Memory(_) => None,
        }
    }

    /// Waits for the connection for a limited time. Returns the publisher of the jobs.
    pub(super) async fn reach(&self) -> Result<Outlet, DemoError> {
        let (url, driver) = match &self.place {
            DemoBrokerKind::Broker(url, driver) => (url, driver),
            DemoBrokerKind::Memory(broker) => return Ok(Outlet::Memory(broker.clone())),
        };
        let reached = async {
            reach(driver, CONNECT_TIMEOUT).await?;
            BulkPublisher::connect(&settings(url), "demo").await
        };
        reached
            .await
            .map(|publisher| Outlet::Broker(Box::new(publisher)))
            .map_err(|source| DemoError::Unreachable {
                url: url.clone(),
                source,
            })
    }

    pub(super) async fn make_queue(&self) -> Result<(), QueueError> {
        self.driver
            .declare(&QueueSpec::new(self.queue.clone(), QueueKind::Classic))
            .await
    }

    /// The builder of a supervisor on this broker.
    pub(super) fn supervise(&self, pool: Pool) -> Builder {
        let builder = Supervisor::builder().pool(pool);
        match &self.place {
            DemoBrokerKind::Broker(url, _) => builder.broker(url.expose()),
            DemoBrokerKind::Memory(broker) => builder.driver(broker.clone()),
        }
    }

    /// Deletes the queue, and the queues that the pool has declared for it.
    pub(super) async fn close(&self) {
        let queue = &self.queue;
        // A queue in memory ends with the process.
        if let DemoBrokerKind::Broker(..) = self.place {
            let beside = [".dead", ".retry.1000", ".retry.2000", ".retry.4000"];
            let beside = beside.map(|suffix| QueueName::from(format!("{queue}{suffix}")));
            for queue in std::iter::once(queue).chain(&beside) {
                let _ = timeout(DELETE_TIMEOUT, self.driver.delete(queue)).await;
            }
        }
        self.driver.close().await;
    }
}

fn settings(url: &BrokerUrl) -> BrokerSettings {
    BrokerSettings {
        url: url.clone(),
        tls: TlsSettings::default(),
    }
}
