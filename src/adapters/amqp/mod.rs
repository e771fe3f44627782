//! The AMQP 0-9-1 adapter: RabbitMQ through lapin.
//!
//! Owns the connections, their channels and everything that is lapin's; no type of it leaves this module. It
//! decides nothing about pools, and it emits no metrics: what it knows of the link it says through
//! [`connectivity`](crate::queue::QueueDriver::connectivity).
//!
//! # Theory of operation
//!
//! ```text
//!   AmqpDriver ── consume lanes ── Link "consume 1", "consume 2", ...   one channel and consumer per worker
//!              ├─ publish pool ─── Link "publish"                      confirmed, one publish in flight per channel
//!              └─ probe pool ───── Link "probe"                        passive and active declares, deletes
//! ```
//!
//! Connections are apart because the broker blocks those that publish (memory or disk alarm), and lapin writes
//! *nothing* on a blocked connection: an acknowledgement would wait with the publishes.
//!
//! Each link has one keeper task, the only one that connects. A thousand workers that ask at once
//! make no connection attempt; they read what the keeper last saw, and fail at once while it is down. lapin's own
//! recovery stays off: it invalidates prefetched deliveries unseen and leaves streams pending, where the reconcile
//! loop wants to hear of the loss.

mod address;
mod browser;
mod consumer;
mod convert;
mod declare;
mod driver;
mod error;
mod facts;
mod lanes;
mod link;
mod pool;
mod publish;
mod tls;

pub use self::{driver::AmqpDriver, facts::ServerFacts};
