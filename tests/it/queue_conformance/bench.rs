//! Helpers of the suite: a driver, queues of its own, and waits with a timeout.

use std::{fmt::Debug, future::poll_fn, sync::Arc, time::Duration};

use bytes::Bytes;
use tidegate::{
    adapters::{amqp::AmqpDriver, memory::MemoryBroker},
    decide::QueueName,
    queue::{
        Browser, ConsumeRequest, Consumer, Delivery, HeaderValue, Headers, Outgoing, QueueDepth,
        QueueDriver, QueueError, QueueKind, QueueSpec,
    },
};
use tokio::time::timeout;

use crate::support::broker::{TestQueue, broker_url, settings};

/// Longest wait of a test. Turns a hang into a failure.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A driver under test and the test's queues.
pub(super) struct Bench {
    pub(super) driver: Arc<dyn QueueDriver>,
    /// The kind of queue for tests that do not choose one.
    pub(super) kind: QueueKind,
    queues: Vec<TestQueue>,
    names: u32,
    url: Option<String>,
}

impl Bench {
    pub(super) fn memory(kind: QueueKind) -> Self {
        Self {
            driver: Arc::new(MemoryBroker::new()),
            kind,
            queues: Vec::new(),
            names: 0,
            url: None,
        }
    }

    pub(super) async fn amqp(kind: QueueKind) -> Self {
        let url = broker_url();
        Self {
            driver: connect(&url).await,
            kind,
            queues: Vec::new(),
            names: 0,
            url: Some(url),
        }
    }

    /// Another driver to the same broker.
    pub(super) async fn newcomer(&self) -> Newcomer {
        Newcomer {
            driver: match &self.url {
                Some(url) => connect(url).await,
                None => self.driver.clone(),
            },
            is_another_connection: self.url.is_some(),
        }
    }

    /// A name that no queue has.
    pub(super) fn name(&mut self) -> QueueName {
        self.names += 1;
        match &self.url {
            Some(url) => {
                let queue = TestQueue::at(url, "conformance");
                let name = queue.name();
                self.queues.push(queue);
                name
            }
            None => QueueName::from(format!("queue-{}", self.names)),
        }
    }

    pub(super) async fn queue(&mut self, kind: QueueKind) -> QueueName {
        self.declare(|spec| QueueSpec { kind, ..spec }).await
    }

    pub(super) async fn declare(
        &mut self,
        adjust: impl FnOnce(QueueSpec) -> QueueSpec,
    ) -> QueueName {
        let spec = adjust(QueueSpec::new(self.name(), self.kind));
        within("a declare", self.driver.declare(&spec))
            .await
            .expect("a declare");
        spec.name
    }

    pub(super) async fn send(&self, queue: &QueueName, body: impl Into<Bytes>) {
        self.publish_to(queue, body).await.expect("a publish");
    }

    pub(super) async fn publish_to(
        &self,
        queue: &QueueName,
        body: impl Into<Bytes>,
    ) -> Result<(), QueueError> {
        within("a publish", self.driver.publish(outgoing(queue, body))).await
    }

    pub(super) async fn probe(&self, queue: &QueueName) -> QueueDepth {
        within("a probe", self.driver.probe(queue))
            .await
            .expect("a probe")
    }

    pub(super) async fn consume(&self, queue: &QueueName, prefetch: u16) -> Box<dyn Consumer> {
        self.try_consume(queue, prefetch).await.expect("a consumer")
    }

    pub(super) async fn try_consume(
        &self,
        queue: &QueueName,
        prefetch: u16,
    ) -> Result<Box<dyn Consumer>, QueueError> {
        consume(&*self.driver, queue, prefetch).await
    }

    pub(super) async fn browse(&self, queue: &QueueName) -> Box<dyn Browser> {
        within("a look", self.driver.browse(queue))
            .await
            .expect("a look")
    }

    /// A broker counts a returned message as ready only after some time.
    pub(super) async fn until_ready(&self, queue: &QueueName, ready: u64) {
        let what = format!("{ready} ready messages");
        self.until(&what, queue, |depth| depth.ready == ready).await;
    }

    /// A broker still counts a consumer for some time after the consumer has ended.
    pub(super) async fn until_consumers(&self, queue: &QueueName, consumers: u32) {
        let what = format!("{consumers} consumers");
        self.until(&what, queue, |depth| depth.consumers == consumers)
            .await;
    }

    async fn until(&self, what: &str, queue: &QueueName, wanted: impl Fn(&QueueDepth) -> bool) {
        let reached = async {
            while !wanted(&self.driver.probe(queue).await.expect("a probe")) {
                tokio::task::yield_now().await;
            }
        };
        within(what, reached).await;
    }
}

pub(super) struct Newcomer {
    pub(super) driver: Arc<dyn QueueDriver>,
    is_another_connection: bool,
}

impl Newcomer {
    pub(super) fn if_another_connection(self) -> Option<Arc<dyn QueueDriver>> {
        self.is_another_connection.then_some(self.driver)
    }
}

impl std::ops::Deref for Newcomer {
    type Target = dyn QueueDriver;

    fn deref(&self) -> &Self::Target {
        &*self.driver
    }
}

pub(super) async fn connect(url: &str) -> Arc<dyn QueueDriver> {
    let driver = AmqpDriver::connect_lazily(&settings(url)).expect("a good url");
    driver.until_connected(TIMEOUT).await.expect("a broker");
    driver
}

pub(super) async fn consume(
    driver: &dyn QueueDriver,
    queue: &QueueName,
    prefetch: u16,
) -> Result<Box<dyn Consumer>, QueueError> {
    let request = ConsumeRequest {
        queue: queue.clone(),
        prefetch,
        tag: format!("test-{:08x}", rand::random::<u32>()),
    };
    within("a consumer", driver.consume(request)).await
}

pub(super) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(TIMEOUT, future)
        .await
        .unwrap_or_else(|_| panic!("{what} did not happen in time"))
}

pub(super) async fn next(consumer: &mut Box<dyn Consumer>) -> Delivery {
    match within("a delivery", poll_fn(|cx| consumer.poll_next(cx))).await {
        Some(Ok(delivery)) => delivery,
        other => panic!("not a delivery: {other:?}"),
    }
}

pub(super) async fn is_at_its_end(consumer: &mut Box<dyn Consumer>) -> bool {
    let next: Option<Result<Delivery, QueueError>> =
        within("the end", poll_fn(|cx| consumer.poll_next(cx))).await;
    is_none(next)
}

pub(super) fn is_none<T: Debug>(option: Option<T>) -> bool {
    assert!(option.is_none(), "not the end: {option:?}");
    true
}

/// Whether no message can be taken. Use it only after an event that comes later than any wrong message would.
pub(super) async fn is_quiet(consumer: &mut Box<dyn Consumer>) -> bool {
    poll_fn(|cx| std::task::Poll::Ready(consumer.poll_next(cx).is_pending())).await
}

pub(super) fn outgoing(queue: &QueueName, body: impl Into<Bytes>) -> Outgoing {
    Outgoing {
        routing_key: queue.as_str().to_owned(),
        body: body.into(),
        ..Outgoing::default()
    }
}

pub(super) fn text(delivery: &Delivery) -> String {
    String::from_utf8_lossy(&delivery.message().body).into_owned()
}

/// One header of each type. Numbers are at the limits of their ranges.
pub(super) fn every_header() -> Headers {
    let all = [
        HeaderValue::Bool(true),
        HeaderValue::I8(i8::MIN),
        HeaderValue::U8(u8::MAX),
        HeaderValue::I16(i16::MIN),
        HeaderValue::U16(u16::MAX),
        HeaderValue::I32(i32::MIN),
        HeaderValue::U32(u32::MAX),
        HeaderValue::I64(i64::MIN),
        HeaderValue::F32(1.5e-30),
        HeaderValue::F64(f64::MIN_POSITIVE),
        HeaderValue::Decimal {
            scale: 2,
            value: 31_415,
        },
        HeaderValue::from("text with a newline\n and a nul \0"),
        HeaderValue::Text(Bytes::from_static(b"\xff not utf-8")),
        HeaderValue::Binary(Bytes::from_static(b"\0\xff")),
        HeaderValue::Timestamp(u64::from(u32::MAX) + 1),
        HeaderValue::List(Vec::new()),
        HeaderValue::Table(Headers::new()),
        HeaderValue::Void,
    ];
    let mut headers: Headers = all
        .iter()
        .enumerate()
        .map(|(n, value)| (format!("header {n}"), value.clone()))
        .collect();
    headers.insert("list".to_owned(), HeaderValue::List(all.to_vec()));
    headers.insert("table".to_owned(), HeaderValue::Table(headers.clone()));
    headers
}
