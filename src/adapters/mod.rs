//! Adapters: the two seams' implementations. They never import each other; what kinds of runner share is in modules
//! of their own (`process`, `launcher`, `cgroup`, `children`, `instance`).

pub mod amqp;
pub(crate) mod cgroup;
pub(crate) mod children;
pub mod container;
pub mod exec;
pub mod handler;
pub mod instance;
pub mod launcher;
pub mod memory;
pub(crate) mod process;
pub mod warm;
