//! The AMQP 0-9-1 adapter: RabbitMQ through lapin.
//!
//! Owns the connections, their channels and all use of lapin: no type of lapin leaves this module. It makes no
//! decisions about pools and emits no metrics. It reports the state of the link through
//! [`connectivity`](crate::queue::QueueDriver::connectivity).
//!
//! # Theory of operation
//!
//! ```text
//!   AmqpDriver ── consume lanes ── Link "consume 1", "consume 2", ...   a consumer per worker, and a channel per worker or
//!              │                                                        per hundred (`joint`)
//!              ├─ publish pool ─── Link "publish"                      confirmed, one publish in flight per channel
//!              └─ probe pool ───── Link "probe"                        passive and active declares, deletes
//!              └─ groups ───────── Link "group"                      beats of the daemons that share a queue, if any do
//! ```
//!
//! The connections are separate because the broker blocks connections that publish (memory or disk alarm), and lapin
//! writes *nothing* on a blocked connection: an acknowledgement would wait with the publishes.
//!
//! In addition, [`bulk`] publishes for a load generator, on its own connections, which are not reopened.
//!
//! lapin never uses a socket directly: `wire` is between the two, and hides what lapin cannot read.
//!
//! Channels may be limited for a user or on a node. One channel above the limit ends its whole connection, with every
//! job on it. So before the driver opens more channels than ever before, it tries them on a separate connection,
//! "trial", and remembers a refusal (`quota`, `channel_counts`).
//!
//! Each link has one keeper task, the only task that connects. A thousand workers that ask at once make no connection
//! attempt: they read the keeper's last state, and fail at once while the link is down. lapin's own recovery stays off:
//! it drops prefetched deliveries silently and leaves streams pending, but the reconcile loop must see the loss.

mod address;
mod browser;
pub mod bulk;
mod channel_counts;
mod consumer;
mod convert;
mod declare;
mod driver;
mod error;
mod facts;
mod follow;
mod group;
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
mod seats;
mod tls;
#[doc(hidden)]
pub mod wire;

pub use self::{driver::AmqpDriver, facts::ServerFacts, kind::QueueFacts};
