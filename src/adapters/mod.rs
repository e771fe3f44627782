//! Adapters: what implements a seam and is no kind of runner that a configuration file can name. They never import each
//! other. Those kinds are in [`runners`](crate::runners).

pub mod amqp;
pub mod handler;
pub mod memory;
