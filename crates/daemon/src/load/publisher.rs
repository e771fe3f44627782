//! The publisher: the messages of a run and their destination. `load`, `publish` and the demo send through it.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{
    FutureExt as _, StreamExt as _,
    future::{BoxFuture, Either},
    stream::FuturesUnordered,
};
use jiff::Timestamp;
use tokio::time::timeout;

use tidegate::{
    adapters::{
        amqp::bulk::{BulkPublisher, InFlight, PublishOutcome},
        memory::MemoryBroker,
    },
    decide::QueueName,
    queue::{HeaderValue, Headers, Outgoing, Properties, QueueDriver, QueueError, QueueErrorKind},
};

/// Header with the time of publishing, in milliseconds since the epoch. RabbitMQ uses the same name.
const SENT_AT: &str = "timestamp_in_ms";

/// Longest silence of a broker that has messages to confirm. A quorum queue confirms once most of its nodes have written.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(30);

/// The filler of a body.
const FILLER: u8 = b'.';

/// Gives the messages of a run their ids.
///
/// An id is a number of 19 digits: the nanosecond in which the run began, and one more for each message. So ids rise within
/// a run, and no two runs share one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ids {
    first: u64,
}

impl Ids {
    /// The ids of a run that begins now.
    pub(crate) fn new() -> Self {
        let now = Timestamp::now().as_nanosecond();
        Self {
            first: u64::try_from(now).unwrap_or_default(),
        }
    }

    /// The id of the message with this number of messages before it.
    pub(crate) fn id(self, number: u64) -> String {
        format!("{:019}", self.first.saturating_add(number))
    }

    /// The number of messages before the one with this id, if the id belongs to this run.
    pub(crate) fn number(self, id: &str) -> Option<u64> {
        id.parse::<u64>().ok()?.checked_sub(self.first)
    }
}

/// A message to a queue: persistent, with its id, and with the time at which it is sent.
pub(crate) fn message(queue: &QueueName, id: String, body: impl Into<Bytes>) -> Outgoing {
    let now = Timestamp::now();
    let sent_at = HeaderValue::I64(now.as_millisecond());
    Outgoing {
        routing_key: queue.as_str().to_owned(),
        properties: Properties {
            message_id: Some(id),
            timestamp: u64::try_from(now.as_second()).ok(),
            delivery_mode: Some(2),
            ..Properties::default()
        },
        headers: Headers::from([(SENT_AT.to_owned(), sent_at)]),
        body: body.into(),
        ..Outgoing::default()
    }
}

/// A body of this size in bytes: the id on a line of its own, then dots.
pub(crate) fn body(id: &str, size: usize) -> Vec<u8> {
    let mut body = Vec::with_capacity(size);
    body.extend_from_slice(id.as_bytes());
    body.push(b'\n');
    body.resize(size, FILLER);
    // A program that reads lines needs a newline at the end.
    if size > id.len() + 1 {
        body[size - 1] = b'\n';
    }
    body
}

/// The destination of messages.
#[derive(Debug)]
pub(crate) enum Outlet {
    /// A broker.
    Broker(Box<BulkPublisher>),
    /// A queue in memory.
    Memory(MemoryBroker),
}

/// A message that is being published.
pub(crate) type Publishing = Either<InFlight, BoxFuture<'static, PublishOutcome>>;

impl Outlet {
    /// Sends a message, after those that were sent before.
    ///
    /// # Errors
    /// The message cannot be encoded.
    pub(crate) fn send(&self, message: Outgoing) -> Result<Publishing, QueueError> {
        match self {
            Self::Broker(publisher) => publisher.send(&message).map(Either::Left),
            Self::Memory(broker) => {
                let broker = broker.clone();
                let publish = async move {
                    let message_id = message.properties.message_id.clone();
                    match broker.publish(message).await {
                        Ok(()) => PublishOutcome::Confirmed,
                        Err(error) if error.kind == QueueErrorKind::Unroutable => {
                            PublishOutcome::Returned { message_id }
                        }
                        Err(error) => PublishOutcome::Unknown(error),
                    }
                };
                Ok(Either::Right(publish.boxed()))
            }
        }
    }

    /// Sends messages, at most this number in flight, until the broker has confirmed all of them.
    ///
    /// # Errors
    /// One of them did not arrive, or nothing was confirmed for 30 s. The messages after it may not have been sent.
    pub(crate) async fn send_all(
        &self,
        messages: impl IntoIterator<Item = Outgoing>,
        window: usize,
    ) -> Result<(), QueueError> {
        let mut in_flight = FuturesUnordered::new();
        for message in messages {
            if in_flight.len() >= window {
                next_arrived(&mut in_flight).await?;
            }
            in_flight.push(self.send(message)?);
        }
        while !in_flight.is_empty() {
            next_arrived(&mut in_flight).await?;
        }
        Ok(())
    }

    /// Closes the connection, if there is one.
    pub(crate) async fn close(self) {
        match self {
            Self::Broker(publisher) => publisher.close().await,
            Self::Memory(_) => {}
        }
    }
}

/// Waits for the outcome of one of them. There must be at least one.
async fn next_arrived(in_flight: &mut FuturesUnordered<Publishing>) -> Result<(), QueueError> {
    match timeout(CONFIRM_TIMEOUT, in_flight.next()).await {
        Ok(Some(outcome)) => arrived(outcome),
        Ok(None) => Ok(()),
        Err(_) => Err(QueueError::new(
            QueueErrorKind::Timeout,
            format!("publish: no confirm within {} s", CONFIRM_TIMEOUT.as_secs()),
        )),
    }
}

/// # Errors
/// The message did not arrive.
fn arrived(outcome: PublishOutcome) -> Result<(), QueueError> {
    let failed = |kind, why: &str| Err(QueueError::new(kind, format!("publish: {why}")));
    match outcome {
        PublishOutcome::Confirmed => Ok(()),
        PublishOutcome::Returned { .. } => failed(QueueErrorKind::Unroutable, "no queue takes it"),
        PublishOutcome::Refused => failed(QueueErrorKind::Refused, "the broker refused it"),
        PublishOutcome::Unknown(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use tidegate::queue::QueueKind;

    use super::*;

    #[test]
    fn ids_increase_and_ids_of_the_run_are_recognised() {
        let ids = Ids::new();
        let all: Vec<String> = [0, 1, 9, 10, 1_000_000]
            .into_iter()
            .map(|n| ids.id(n))
            .collect();
        assert!(all.is_sorted(), "{all:?}");
        assert!(all.iter().all(|id| id.len() == 19), "{all:?}");
        assert_eq!(ids.number(&all[4]), Some(1_000_000));
        // An id of another run, or of no run.
        assert_eq!(ids.number("1"), None);
        assert_eq!(ids.number("job-1"), None);
    }

    #[test]
    fn a_body_has_the_requested_size() {
        for (size, expected) in [
            (0, ""),
            (2, "17"),
            (4, "1700"),
            (5, "1700\n"),
            (6, "1700\n\n"),
            (9, "1700\n...\n"),
        ] {
            let made = body("1700", size);
            assert_eq!(String::from_utf8_lossy(&made), expected, "{size}");
        }
    }

    #[test]
    fn a_message_has_its_id_and_its_time_of_publishing() {
        let message = message(&"work".into(), "17".to_owned(), "body");
        assert_eq!(message.properties.message_id.as_deref(), Some("17"));
        assert_eq!(message.properties.delivery_mode, Some(2));
        let Some(HeaderValue::I64(sent_at)) = message.headers.get(SENT_AT) else {
            panic!("{:?}", message.headers);
        };
        assert!(*sent_at > 1_700_000_000_000, "{sent_at}");
    }

    #[tokio::test]
    async fn publishes_to_a_queue_in_memory_and_reports_a_missing_one() {
        let broker = MemoryBroker::new();
        broker.declare_queue("work", QueueKind::Classic);
        let outlet = Outlet::Memory(broker.clone());
        let to = |queue: &str| {
            let queue = QueueName::from(queue);
            (0..10).map(move |n| message(&queue, n.to_string(), "body"))
        };
        outlet.send_all(to("work"), 3).await.unwrap();
        assert_eq!(broker.ready("work"), Some(10));
        let error = outlet.send_all(to("nowhere"), 3).await.unwrap_err();
        assert_eq!(error.kind, QueueErrorKind::Unroutable, "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn gives_up_on_a_broker_that_confirms_nothing() {
        let broker = MemoryBroker::new();
        broker.declare_queue("work", QueueKind::Classic);
        broker.set_confirms_held(true);
        let outlet = Outlet::Memory(broker);
        let message = message(&"work".into(), "17".to_owned(), "body");
        let error = outlet.send_all([message], 3).await.unwrap_err();
        assert_eq!(error.kind, QueueErrorKind::Timeout, "{error}");
    }
}
