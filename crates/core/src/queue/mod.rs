//! What travels through a queue, and what can go wrong there, as data. The seam itself, which does I/O, is the
//! library's `queue`.

mod error;
mod message;
mod origin;
mod size;
mod spec;

pub use self::{
    error::{QueueError, QueueErrorKind, SettleError},
    message::{
        HeaderValue, Headers, Message, NoRoute, Outgoing, Properties, RawTexts, UnreadValue,
    },
    origin::{ORIGINAL_EXCHANGE, ORIGINAL_ROUTING_KEY, Origin},
    size::{entry_size, header_size, short_texts_fit},
    spec::{QueueBinding, QueueKind, QueueSpec},
};
