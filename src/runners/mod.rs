//! Kinds of runner that a configuration file can name, each in a folder of its own: its settings, its keys, its checks and
//! its manager.
//!
//! This file is the registry: only this file and the folder itself name a kind's module, and no kind names another's.
//! Code that kinds share is next to them: `process` (child processes), `keys` (the `runner` table) and, below,
//! [`host`](crate::host). To add a kind, make its folder, and name it twice here: as a module, and in `KINDS`.
//! ARCHITECTURE.md describes the parts of a kind.

mod facts;
pub(crate) mod keys;
mod kind;
#[doc(hidden)]
#[cfg_attr(
    not(feature = "container"),
    allow(
        dead_code,
        unused_imports,
        reason = "some items are used only by containers"
    )
)]
pub mod process;

pub mod consumer;
pub mod container;
pub mod exec;
pub mod warm;

#[cfg(test)]
mod tests;

pub(crate) use self::kind::RunnerKind;
pub use self::{consumer::ConsumerSettings, container::ContainerSettings, warm::WarmSettings};
pub use self::{
    kind::{Dependency, RunnerSettings},
    process::ExecSettings,
};

/// All kinds that a configuration file can name, in the order in which texts name them. The first is the default.
pub(crate) static KINDS: [&RunnerKind; 4] =
    [&exec::KIND, &warm::KIND, &container::KIND, &consumer::KIND];
