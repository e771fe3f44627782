//! The user of a process and the limits on its resources: the values for a cgroup and a launcher.

use std::{fmt, time::Duration};

/// The user of a process and the limits on its resources. With `None` a process has the supervisor's own value.
///
/// A process with any value other than the default is started through a launcher. In a program of your own, see
/// [`launcher`](crate::host::launcher). `memory_max`, `cpu_max` and `pids_max` work only under `tidegate run`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// User, by name or id. The process gets the groups of a login of this user.
    pub user: Option<String>,
    /// Group, by name or id, instead of the user's own.
    pub group: Option<String>,
    /// Niceness: -20 is the highest priority, 19 the lowest.
    pub nice: Option<i32>,
    /// Limits of each single process.
    pub rlimits: Rlimits,
    /// Bytes of memory for all processes of a job together. A job that needs more is killed.
    pub memory_max: Option<u64>,
    /// Processor time for all processes of a job together.
    pub cpu_max: Option<Cores>,
    /// Processes and threads that a job may have at the same time.
    pub pids_max: Option<u32>,
    /// Whether each process is put into its own cgroup.
    pub cgroup: CgroupUse,
}

/// Limits of each single process (setrlimit(2)).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rlimits {
    /// Open files.
    pub open_files: Option<u64>,
    /// Bytes of address space.
    pub address_space: Option<u64>,
    /// Processor time in whole seconds. After it the process is sent XCPU and, one second later, KILL.
    pub cpu_time: Option<Duration>,
    /// Bytes of a core dump. 0 turns core dumps off.
    pub core: Option<u64>,
}

impl Limits {
    /// Whether one of these limits needs a cgroup.
    pub fn wants_cgroup(&self) -> bool {
        self.memory_max.is_some()
            || self.cpu_max.is_some()
            || self.pids_max.is_some()
            || self.cgroup == CgroupUse::Always
    }

    /// Whether the process needs settings before its program starts, besides those of a cgroup.
    pub fn changes_process(&self) -> bool {
        self.user.is_some()
            || self.group.is_some()
            || self.nice.is_some()
            || self.rlimits != Rlimits::default()
    }
}

/// Whether processes are put into their own cgroups.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CgroupUse {
    /// If a writable cgroup exists and the cost is small: for warm processes, and for jobs that have limits.
    #[default]
    Auto,
    /// Every process.
    Always,
    /// No process.
    Never,
}

/// Processor time, as a number of processors in thousandths, at least 10.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cores(u32);

impl Cores {
    pub(crate) const MIN: u32 = 10;
    pub(crate) const MAX: u32 = 10_000_000;

    /// This many thousandths of a processor. The kernel accepts no less than 10.
    pub fn from_thousandths(thousandths: u32) -> Self {
        Self(thousandths.max(Self::MIN))
    }

    /// In thousandths of a processor.
    pub fn thousandths(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.0 / 1000, self.0 % 1000);
        match part {
            0 => write!(f, "{whole}"),
            part => {
                let digits = format!("{part:03}");
                write!(f, "{whole}.{}", digits.trim_end_matches('0'))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_processor_limits_as_they_are_written() {
        let table = [(10, "0.01"), (500, "0.5"), (1000, "1"), (2250, "2.25")];
        for (thousandths, shown) in table {
            assert_eq!(Cores::from_thousandths(thousandths).to_string(), shown);
        }
        assert_eq!(Cores::from_thousandths(0).thousandths(), 10);
    }
}
