//! The messages between supervisor and launcher.

use std::{ffi::OsString, path::PathBuf};

use rustix::process::Resource;
use serde::{Deserialize, Serialize};

use crate::host::limits::Limits;

/// Both are the same program, unless the user of the library has mixed two versions.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The launcher's first byte: all steps are done, and only the job's program is left to start.
pub(super) const READY: u8 = b'!';

/// What a launcher has to do, in this order. The job's arguments and environment are those of the launcher itself.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LaunchPlan {
    pub(super) version: String,
    /// `cgroup.procs` of the cgroup to join.
    pub(super) cgroup: Option<PathBuf>,
    pub(super) nice: Option<i32>,
    pub(super) rlimits: Vec<Rlimit>,
    pub(super) user: Option<String>,
    pub(super) group: Option<String>,
    pub(super) working_dir: Option<PathBuf>,
    /// The job's program. A name without a slash is searched in PATH.
    pub(super) file: OsString,
}

/// One limit, soft and hard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Rlimit {
    pub(super) what: Limited,
    pub(super) soft: u64,
    pub(super) hard: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Limited {
    OpenFiles,
    AddressSpace,
    CpuTime,
    Core,
}

impl Limited {
    pub(super) fn resource(self) -> Resource {
        match self {
            Self::OpenFiles => Resource::Nofile,
            Self::AddressSpace => Resource::As,
            Self::CpuTime => Resource::Cpu,
            Self::Core => Resource::Core,
        }
    }

    /// The name of the limit in the configuration.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::OpenFiles => "open_files",
            Self::AddressSpace => "address_space",
            Self::CpuTime => "cpu_time",
            Self::Core => "core",
        }
    }
}

/// A step that failed in the launcher.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LaunchStepError {
    /// The step, for a person. Empty if the job's program could not be started.
    pub(super) what: String,
    pub(super) errno: Option<i32>,
}

impl LaunchPlan {
    pub(crate) fn new(
        limits: &Limits,
        cgroup: Option<PathBuf>,
        working_dir: Option<PathBuf>,
        file: OsString,
    ) -> Self {
        Self {
            version: VERSION.to_owned(),
            cgroup,
            nice: limits.nice,
            rlimits: rlimits(limits),
            user: limits.user.clone(),
            group: limits.group.clone(),
            working_dir,
            file,
        }
    }
}

fn rlimits(limits: &Limits) -> Vec<Rlimit> {
    let rlimits = &limits.rlimits;
    let both = |what, limit: Option<u64>| {
        limit.map(|limit| Rlimit {
            what,
            soft: limit,
            hard: limit,
        })
    };
    let cpu_time = rlimits.cpu_time.map(|time| Rlimit {
        what: Limited::CpuTime,
        soft: time.as_secs(),
        // The soft limit sends XCPU, which names the cause. The hard limit sends KILL, which does not.
        hard: time.as_secs() + 1,
    });
    [
        both(Limited::OpenFiles, rlimits.open_files),
        both(Limited::AddressSpace, rlimits.address_space),
        cpu_time,
        both(Limited::Core, rlimits.core),
    ]
    .into_iter()
    .flatten()
    .collect()
}
