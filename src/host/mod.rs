//! Everything that uses the operating system on behalf of runners: cgroups, users, rights, child processes, the lock of
//! an instance, and the launcher of jobs with limits.
//!
//! Knows no configuration and no kind of runner. `check`, the daemon, the guard and the launcher use the same code, so
//! they see the same state.

#[doc(hidden)]
pub mod cgroup;
#[doc(hidden)]
pub mod children;
#[cfg_attr(
    not(feature = "container"),
    allow(
        dead_code,
        unused_imports,
        reason = "some items are used only by containers"
    )
)]
pub mod instance;
pub mod launcher;
pub(crate) mod limits;
#[doc(hidden)]
pub(crate) mod pressure;
pub mod rights;
pub(crate) mod sockets;
#[doc(hidden)]
pub mod users;
