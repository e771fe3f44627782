//! Adapters: implementations of a seam, except the kinds of runners that a configuration file can name. They never
//! import each other. Those kinds are in [`runners`](crate::runners).

pub mod amqp;
pub mod handler;
pub mod memory;
