//! Adapters: the two seams' implementations. They never import each other; what kinds of runner share is in modules
//! of their own (`process`, `launcher`, `cgroup`, `children`).

pub mod amqp;
pub(crate) mod cgroup;
pub(crate) mod children;
pub mod exec;
pub mod handler;
pub mod launcher;
pub mod memory;
pub(crate) mod process;
pub mod warm;
