//! Messages, queue declarations and queue errors, as data. The trait for a queue, which does I/O, is in the library's
//! `queue` module.

mod error;
mod message;
mod origin;
mod size;
mod spec;
mod trace_context;

pub use self::{
    error::{QueueError, QueueErrorKind, SettleError},
    message::{
        HeaderValue, Headers, Message, NoRoute, Outgoing, Properties, RawTexts, UnreadValue,
    },
    origin::{MessageOrigin, ORIGINAL_EXCHANGE, ORIGINAL_ROUTING_KEY},
    size::{entry_size, header_size, short_texts_fit},
    spec::{QueueBinding, QueueKind, QueueSpec},
    trace_context::{TRACEPARENT, TRACESTATE, TraceContext},
};
