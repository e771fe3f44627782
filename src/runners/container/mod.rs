//! The `container` runner: a container for each job, made through the Docker Engine API, which Podman speaks too.
//!
//! Owns the containers of its jobs from their making to their removal, and finds those that a supervisor which died
//! has left behind. It settles nothing and decides no retry: it reports.
//!
//! # A job, as its container sees it
//! As with [`exec`](super::exec): the body on standard input, byte for byte, then end of file; the same `TIDEGATE_*`
//! variables, but for `TIDEGATE_RUN_ID`; the same exit codes, and the same
//! log or, with `reply = true`, answer. The image's own variables stay, and
//! of the supervisor's a job is given none but those that the pool lists.
//!
//! A first process that a signal ended is one whose exit code is 128 and the signal's number, which is what an engine
//! tells. A process that the kernel killed for the container's memory makes the job's failure `out_of_memory`, where the
//! engine has heard of it before the exit.
//!
//! # How it ends
//! At its timeout, and when the supervisor stops it: the image's stop signal, and KILL after `stop_timeout`. The
//! container, and its anonymous volumes, are removed once its job is over, while nobody waits for it but the pool's
//! end. The engine is told to keep no log.
//!
//! # What is the runner's fault
//! No engine that answers, an image that cannot be had, a network or a mount that is not there, a program that the
//! image does not have, a limit that the engine drops: nothing was started, so the pool backs off, and no attempt is
//! spent. An engine that is lost while a job runs is looked for again for two minutes; then that job's attempt has
//! failed.
//!
//! # What is left behind
//! Labels on a container name its pool, its job and its supervisor, with the [lock](crate::host::instance) that the latter
//! holds while it lives. Containers of supervisors that are gone are removed at the start, and then once a minute;
//! those whose supervisor cannot be seen from here, on another machine or in another container, are left alone, and
//! said so once. A library's supervisor has no such lock unless it is [given](ContainerManager::owned_by) one.

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
