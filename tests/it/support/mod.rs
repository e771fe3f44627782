//! What the tests share.

pub(crate) mod daemon;
pub(crate) mod queue;
pub(crate) mod witness;
