//! A stream between the socket and lapin, so that a malformed message affects no other message.
//!
//! Lapin closes the connection when a text is not UTF-8. Its parser recurses, so a header that is nested a few
//! thousand levels deep overflows the stack. AMQP allows both. So every frame is checked before lapin sees it,
//! without recursion and without a copy. A content header that lapin cannot read is passed on as the start of the
//! body, and `message` reads it from there. In the other direction it works the same way, so that copies and replies
//! carry the received bytes. A frame that is larger than agreed is refused before memory is allocated for it.
//!
//! ```text
//!   socket ──► IncomingFrames ──► lapin ──► message()        properties with escaped texts, and their bytes
//!   socket ◄── OutgoingFrames ◄── lapin ◄── properties()     the same bytes
//! ```
//!
//! Public only for benchmarks and fuzzing. Nothing here is part of the library's interface.

mod frame;
mod grammar;
mod incoming;
mod list;
mod mark;
mod outgoing;
mod stream;

use bytes::Bytes;
use lapin::BasicProperties;

use self::incoming::Preface;
pub(super) use self::{
    frame::FRAME_MAX,
    stream::{WireRuntime, runtime},
};
pub use self::{
    incoming::{FrameAction, FrameError, IncomingFrames},
    outgoing::OutgoingFrames,
    stream::Wire,
};
use crate::queue::{Headers, Message, Properties, QueueError, QueueErrorKind, RawTexts};

/// Whether bytes begin with a table that lapin's parser can read.
pub(super) fn begins_with_table(bytes: &[u8]) -> bool {
    grammar::Cursor(bytes).long().is_some_and(|content| {
        grammar::is_container(
            content,
            grammar::ValueKind::Table,
            grammar::LAPIN_REQUIREMENTS,
        )
    })
}

/// The length of the preface in a delivery's body, or `None` if lapin could read the content header.
pub(super) fn preface(delivery: &lapin::message::Delivery) -> Option<usize> {
    mark::preface(&delivery.properties)
}

/// The message of a delivery with a preface of this length.
pub(super) fn message(delivery: lapin::message::Delivery, length: usize) -> Message {
    // Both reads succeed: our own stream wrote the preface.
    let mut body = Bytes::from(delivery.data);
    let preface = body.split_to(length.min(body.len()));
    let preface = Preface::read(&preface).unwrap_or(Preface {
        names: None,
        list: &[],
    });
    let mut raw = RawTexts::default();
    let (exchange, routing_key) = match preface.names {
        Some((exchange, routing_key)) => (raw.show(exchange), raw.show(routing_key)),
        None => (delivery.exchange.into(), delivery.routing_key.into()),
    };
    let (properties, headers) = list::read(preface.list, raw);
    Message {
        exchange,
        routing_key,
        redelivered: delivery.redelivered,
        properties,
        headers,
        body,
    }
}

/// Properties and a body that lapin can write, and that the stream turns into these properties. `None` if lapin can
/// write these properties itself.
pub(super) fn properties(
    properties: &Properties,
    headers: &Headers,
    body: &[u8],
) -> Result<Option<(BasicProperties, Vec<u8>)>, QueueError> {
    if list::is_plain(properties, headers) {
        return Ok(None);
    }
    let mut list = list::write(properties, headers)?;
    let Some(marked) = mark::properties(list.len()) else {
        return Err(QueueError::new(
            QueueErrorKind::TooLarge,
            "encode the properties",
        ));
    };
    list.extend_from_slice(body);
    Ok(Some((marked, list)))
}

#[cfg(test)]
mod tests;
