//! The in-memory queue: a broker inside the process.
//!
//! A real implementation of the queue traits, for library users' tests, for doc tests and for simulation. A daemon
//! does not use it. It behaves like RabbitMQ as far as the traits can show: round-robin delivery within each
//! consumer's prefetch, redelivery at the head of the queue, a delivery count on quorum queues, dead-lettering after
//! a reject and after expiry of the head, and the end of consumers whose queue is deleted.
//!
//! Time is tokio's, so tests with a paused clock move messages through retry queues without waiting.

mod broker;
mod consumer;
mod core;
mod driver;
mod group;
mod stored;

pub use self::broker::MemoryBroker;
