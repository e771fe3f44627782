//! The AMQP 0-9-1 adapter: RabbitMQ through lapin.
//!
//! Owns the connections, their channels and everything that is lapin's; no type of it leaves this module. It
//! decides nothing about pools, and it emits no metrics: what it knows of the link it says through
//! [`connectivity`](crate::queue::QueueDriver::connectivity).
//!
//! # Theory of operation
//!
//! ```text
//!   AmqpDriver ── consume lanes ── Link "consume 1", "consume 2", ...   a consumer per worker, and a channel per worker or
//!              │                                                        per hundred (`joint`)
//!              ├─ publish pool ─── Link "publish"                      confirmed, one publish in flight per channel
//!              └─ probe pool ───── Link "probe"                        passive and active declares, deletes
//! ```
//!
//! Connections are apart because the broker blocks those that publish (memory or disk alarm), and lapin writes
//! *nothing* on a blocked connection: an acknowledgement would wait with the publishes.
//!
//! Beside these, [`bulk`] publishes for a load generator, on connections of its own that nobody keeps up.
//!
//! lapin never sees a socket: between the two is `wire`, which keeps from it what it cannot read.
//!
//! Channels may be limited, for a user or on a node, and the one that is too many costs its whole connection, with
//! every job on it. So more of them than ever before are first tried on a connection of their own, "trial", and what
//! was refused is remembered (`quota`).
//!
//! Each link has one keeper task, the only one that connects. A thousand workers that ask at once
//! make no connection attempt; they read what the keeper last saw, and fail at once while it is down. lapin's own
//! recovery stays off: it invalidates prefetched deliveries unseen and leaves streams pending, where the reconcile
//! loop wants to hear of the loss.

mod address;
mod browser;
pub mod bulk;
mod consumer;
mod convert;
mod declare;
mod driver;
mod error;
mod facts;
mod joint;
mod joint_consumer;
mod kind;
mod kinds;
mod lanes;
mod link;
mod pool;
mod publish;
mod quota;
mod refusal;
mod tls;
#[doc(hidden)]
pub mod wire;

pub use self::{driver::AmqpDriver, facts::ServerFacts, kind::QueueFacts};
