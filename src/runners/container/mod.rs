//! The `container` runner: a container for each job, made through the Docker Engine API, which Podman speaks too.
//!
//! Owns the containers of its jobs from creation to removal, and finds containers that a dead supervisor has left
//! behind. It settles nothing and decides no retry: it only reports.
//!
//! # A job, as its container sees it
//! As with [`exec`](super::exec): the body on standard input, byte for byte, then end of file; the same `TIDEGATE_*`
//! variables, except `TIDEGATE_RUN_ID`; the same exit codes; and the same log or, with `reply = true`, answer. The
//! image's own variables stay. From the supervisor's environment a job gets only the variables that the pool lists.
//!
//! If a signal ended the first process, the exit code is 128 plus the number of the signal: that is how an engine
//! reports it. If the kernel killed a process because of the container's memory, the job's failure is `out_of_memory`,
//! provided that the engine has learned of it before the exit.
//!
//! # How it ends
//! At its timeout, and when the supervisor stops it: the image's stop signal, and KILL after `stop_timeout`. The
//! container and its anonymous volumes are removed in the background when its job is over. The pool waits for removals
//! only at its own end. The engine is told to keep no log.
//!
//! # Failures of the runner
//! No engine that answers, an image that is not available, a missing network or mount, a program that the image does
//! not have, a limit that the engine drops: nothing was started, so the pool backs off, and no attempt is spent. If the
//! engine is lost while a job runs, it is searched for two minutes. After that, the job's attempt has failed.
//!
//! # Orphaned containers
//! Labels on a container name its pool, its job and its supervisor, with the [lock](crate::host::instance) that the
//! supervisor holds while it lives. Containers of dead supervisors are removed at the start, and then once a minute. If
//! it cannot be seen from here whether a supervisor is alive (on another machine or in another container), its
//! containers are not removed, and this is logged once. A library's supervisor has no such lock unless
//! [`owned_by`](ContainerManager::owned_by) gives it one.

#[cfg(not(feature = "container"))]
mod absent;
#[cfg(feature = "container")]
mod engine;
#[cfg(feature = "container")]
mod image;
mod keys;
mod kind;
#[cfg(feature = "container")]
mod making;
#[cfg(feature = "container")]
mod manager;
#[cfg(feature = "container")]
mod ours;
#[cfg(feature = "container")]
mod run;
mod settings;
#[cfg(feature = "container")]
mod shared;
#[cfg(feature = "container")]
mod stray;

pub(crate) use self::kind::KIND;
pub use self::settings::{ContainerSettings, EngineAddress, Mount, MountSource, Pull};
#[cfg(feature = "container")]
pub use self::{engine::find_engine, manager::ContainerManager};
