//! Publishing: mandatory unless a message may be dropped, confirmed, and never on a connection that the broker blocks.
//! If the broker blocks the connection after the message was sent, the publish waits.

use std::time::Duration;

use lapin::{Confirmation, options::BasicPublishOptions};
use tokio::time;

use super::{
    convert::{short, to_lapin},
    error::classify,
    link::Live,
    pool::{ChannelPool, Lease},
    wire,
};
use crate::queue::{NoRoute, Outgoing, QueueError, QueueErrorKind, header_size};

/// Time limit for the broker's confirm. It is long because a quorum queue confirms only after most of its nodes have
/// written.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of a content header frame without properties and headers: type, channel and size, then class, weight and the
/// body's size, then the end mark.
const FRAME_OVERHEAD: usize = 7 + 12 + 1;

/// The default of RabbitMQ and lapin.
const DEFAULT_FRAME_MAX: usize = 128 * 1024;

/// Limit on the encoded bytes of properties and headers on a connection. Without a connection, the default limit.
pub(super) fn header_limit(live: Option<&Live>) -> usize {
    let negotiated = live.map_or(0, |live| live.connection.configuration().frame_max());
    let frame_max = match usize::try_from(negotiated) {
        Ok(0) | Err(_) => DEFAULT_FRAME_MAX,
        Ok(frame_max) => frame_max,
    };
    frame_max.saturating_sub(FRAME_OVERHEAD)
}

/// Publishes, and waits until the broker has stored the message in a queue.
pub(super) async fn publish(pool: &ChannelPool, message: &Outgoing) -> Result<(), QueueError> {
    let operation = format!("publish to {:?}", target(message));
    let live = pool.link().live(&operation).await?;
    // A content header cannot be split over frames, and lapin would write one that is too large. The broker would then
    // end the connection, and every publish on it.
    let size = header_size(&message.properties, &message.headers);
    if size > header_limit(Some(&live)) {
        let what = format!("{operation}: its headers of {size} bytes do not fit a frame");
        return Err(QueueError::new(QueueErrorKind::TooLarge, what));
    }
    // Nothing is sent yet, so the publish can fail at once.
    let lease = tokio::select! {
        biased;
        () = live.until_blocked() => return Err(blocked(&operation)),
        lease = pool.lease(&operation) => lease.map_err(not_the_queues_fault)?,
    };
    let mut confirmed = std::pin::pin!(confirmed(lease, message, &operation));
    let mut is_blocked = live.blocked();
    // A sent message may already be in its queue when the broker blocks us, and its confirm comes late. So the publish
    // waits: if the message were published again, it would exist twice.
    loop {
        let blocked_now = *is_blocked.borrow_and_update();
        let time_limit = async {
            match blocked_now {
                true => std::future::pending().await,
                false => time::sleep(CONFIRM_TIMEOUT).await,
            }
        };
        tokio::select! {
            biased;
            outcome = &mut confirmed => return outcome,
            () = time_limit => return Err(QueueError::new(QueueErrorKind::Timeout, &operation)),
            () = live.blocks_or_unblocks(&mut is_blocked) => {}
        }
    }
}

/// The same error, but a missing channel is not reported as a problem of the queue.
fn not_the_queues_fault(mut error: QueueError) -> QueueError {
    if error.kind == QueueErrorKind::Timeout {
        error.kind = QueueErrorKind::Disconnected;
    }
    error
}

async fn confirmed(
    lease: Lease<'_>,
    message: &Outgoing,
    operation: &str,
) -> Result<(), QueueError> {
    let exchange = short("name of an exchange", &message.exchange)?;
    let routing_key = short("routing key", &message.routing_key)?;
    let marked = wire::properties(&message.properties, &message.headers, &message.body)?;
    let (properties, body) = match &marked {
        Some((properties, body)) => (properties.clone(), body.as_slice()),
        None => (
            to_lapin(&message.properties, &message.headers)?,
            message.body.as_ref(),
        ),
    };
    let options = BasicPublishOptions {
        mandatory: message.no_route == NoRoute::Fail,
        immediate: false,
    };
    let publish = async {
        lease
            .channel
            .basic_publish(exchange, routing_key, options, body, properties)
            .await?
            .await
    };
    let confirmation = publish.await.map_err(|error| classify(operation, error))?;
    lease.give_back();
    let failed = |kind, why: &str| Err(QueueError::new(kind, format!("{operation}: {why}")));
    match confirmation {
        Confirmation::Ack(None) => Ok(()),
        Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_)) => {
            failed(QueueErrorKind::Unroutable, "no queue takes it")
        }
        Confirmation::Nack(None) => failed(QueueErrorKind::Refused, "the broker refused it"),
        Confirmation::NotRequested => failed(QueueErrorKind::Other, "confirms are off"),
    }
}

fn blocked(operation: &str) -> QueueError {
    let what = format!("{operation}: the broker blocks publishers");
    QueueError::new(QueueErrorKind::Blocked, what)
}

fn target(message: &Outgoing) -> &str {
    if message.exchange.is_empty() {
        &message.routing_key
    } else {
        &message.exchange
    }
}
