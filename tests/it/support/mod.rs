//! Helpers that the tests share.

pub(crate) mod broker;
pub(crate) mod certificates;
pub(crate) mod collector;
pub(crate) mod daemon;
pub(crate) mod engine;
pub(crate) mod exec;
pub(crate) mod logged;
pub(crate) mod proxy;
pub(crate) mod queue;
pub(crate) mod raw;
pub(crate) mod watched;
pub(crate) mod witness;
