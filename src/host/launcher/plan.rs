//! What supervisor and launcher tell each other.

use std::{ffi::OsString, path::PathBuf};

use rustix::process::Resource;
use serde::{Deserialize, Serialize};

use crate::host::limits::Limits;

/// Both are the same program, unless a library's user has mixed two versions.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The launcher's first word: it has done everything, and nothing is left but to start the job's program.
pub(super) const READY: u8 = b'!';

/// What a launcher is to do, in this order. The job's arguments and environment are the launcher's own.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(super) version: String,
    /// `cgroup.procs` of the cgroup to join.
    pub(super) cgroup: Option<PathBuf>,
    pub(super) nice: Option<i32>,
    pub(super) rlimits: Vec<Rlimit>,
    pub(super) user: Option<String>,
    pub(super) group: Option<String>,
    pub(super) working_dir: Option<PathBuf>,
    /// The job's program. A name without a slash is looked for along PATH.
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

    /// As the configuration calls it.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::OpenFiles => "open_files",
            Self::AddressSpace => "address_space",
            Self::CpuTime => "cpu_time",
            Self::Core => "core",
        }
    }
}

/// What a launcher could not do.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failure {
    /// What, for a person. Empty where it was the job's program that could not be started.
    pub(super) what: String,
    pub(super) errno: Option<i32>,
}

impl Plan {
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
        // At the soft limit comes a signal that says what it is; at the hard one KILL, which does not.
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
