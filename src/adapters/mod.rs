//! Adapters: the two seams' implementations. They never import each other.

pub mod amqp;
pub(crate) mod children;
pub mod exec;
pub mod handler;
pub mod memory;
