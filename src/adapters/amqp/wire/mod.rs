//! A stream of our own between the socket and lapin, so that no message costs more than itself.
//!
//! lapin gives up the connection over a text that is not UTF-8, and its parser recurses: a header nested a few thousand
//! deep overflows its stack. AMQP allows both. So whatever comes is walked before lapin sees it, without recursion and
//! without a copy; a content header that lapin cannot take goes past it as the start of the body, and `message` reads
//! it there. What goes the other way likewise, so that copies and replies carry the bytes that came. A frame that is
//! larger than agreed is refused before there is memory for it.
//!
//! ```text
//!   socket ──► Incoming ──► lapin ──► message()        properties with texts escaped, and the bytes they are
//!   socket ◄── Outgoing ◄── lapin ◄── properties()     the same bytes
//! ```
//!
//! Public for benches and fuzzing alone; nothing here is part of the library's interface.

mod grammar;
mod incoming;
mod list;
mod mark;
mod outgoing;
mod stream;

use bytes::Bytes;
use lapin::BasicProperties;

use self::incoming::Preface;
pub(super) use self::stream::{WireRuntime, runtime};
pub use self::{
    incoming::{Incoming, Look, Refused},
    outgoing::Outgoing,
    stream::Wire,
};
pub(super) use crate::config::FRAME_MAX;
use crate::queue::{Headers, Message, Properties, QueueError, QueueErrorKind, RawTexts};

const FRAME_METHOD: u8 = 1;
const FRAME_HEADER: u8 = 2;
const FRAME_BODY: u8 = 3;
const FRAME_HEARTBEAT: u8 = 8;
const FRAME_END: u8 = 0xce;
/// Type, channel and size.
const HEAD: usize = 7;

/// Smallest size that frames may be agreed to have.
const FRAME_MIN: u32 = 4096;

/// Whether bytes begin with a table that lapin's parser can take.
pub(super) fn begins_with_table(bytes: &[u8]) -> bool {
    grammar::Cursor(bytes).long().is_some_and(|content| {
        grammar::is_container(content, grammar::Kind::Table, grammar::LAPINS)
    })
}

/// How much of a delivery's body is not the body's, where lapin could not read its content header.
pub(super) fn preface(delivery: &lapin::message::Delivery) -> Option<usize> {
    mark::preface(&delivery.properties)
}

/// The message of a delivery that has such a preface.
pub(super) fn message(delivery: lapin::message::Delivery, length: usize) -> Message {
    // Both are there: the walk wrote them.
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

/// Properties that lapin can write, and a body, which become these ones on the wire; `None` where lapin can write these.
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
