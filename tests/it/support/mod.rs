//! What the tests share.

pub(crate) mod broker;
pub(crate) mod certificates;
pub(crate) mod witness;
