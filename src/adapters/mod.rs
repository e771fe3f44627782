//! Adapters: the two seams' implementations. They never import each other; what kinds of runner share is in modules
//! of their own (`process`, `launcher`, `cgroup`, `children`, `instance`).

pub mod amqp;
#[doc(hidden)]
pub mod cgroup;
#[doc(hidden)]
pub mod children;
#[cfg(feature = "container")]
pub mod container;
pub mod exec;
pub mod handler;
#[cfg_attr(
    not(feature = "container"),
    allow(
        dead_code,
        unused_imports,
        reason = "some of it is for containers alone"
    )
)]
pub mod instance;
pub mod launcher;
pub mod memory;
#[doc(hidden)]
#[cfg_attr(
    not(feature = "container"),
    allow(
        dead_code,
        unused_imports,
        reason = "some of it is for containers alone"
    )
)]
pub mod process;
pub mod warm;
