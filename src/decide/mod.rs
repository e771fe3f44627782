//! Decide: everything that is a pure function.
mod model;
mod policy;
mod stabiliser;

pub use self::{
    model::{JobId, Moment, PoolName, QueueName, RunnerId, WorkerId},
    policy::{DEFAULT_MAX, Policy, PolicyKind, Step},
    stabiliser::Scaling,
};
