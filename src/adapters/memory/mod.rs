//! The in-memory queue: a broker within the process.
//!
//! A real implementation of the queue seam, for library users' own tests, for doc tests and for simulation; it is
//! not what a daemon runs on. It does what RabbitMQ does as far as the seam can see: round-robin dispatch within
//! each consumer's prefetch, redelivery at the head of the queue, a delivery count on quorum queues, dead-lettering
//! on reject and on expiry of the head, and the end of consumers whose queue is deleted.
//!
//! Time is tokio's, so a paused clock moves messages through retry queues without waiting.

mod core;
mod driver;

pub use self::driver::MemoryBroker;
