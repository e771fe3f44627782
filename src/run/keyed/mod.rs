//! The deliveries of a pool with keys, and the part of each worker.
//!
//! The order of a queue is known only if its messages come over one consumer. So a pool with keys has one, and its workers
//! take deliveries from the table of keys (`intake`) instead of from consumers of their own. To a worker its part looks
//! like a consumer (`consumer`). `run::keyed_intake` opens the consumer, and its task fills the table.
//!
//! An *opening* is one consumer, from its start to its end (`opening`). The table of keys outlives it: after a lost
//! connection, a message waits for the job of its key that still runs. The next opening begins only when the one before
//! has given back what it had taken ahead. Otherwise it would get later messages first.

mod consumer;
mod intake;
mod opening;

pub(crate) use self::{
    consumer::KeyedConsumer,
    intake::{KeyedIntake, ParkedDelivery},
    opening::{ConsumerEnd, KeyedOpening, OpeningPhase},
};
