//! Who a process is, and what it may use: the values that a cgroup and a launcher are told.

use std::{fmt, time::Duration};

/// Who a process is, and what it may use. What is `None` is as the supervisor has it.
///
/// Anything but the default has a process started by way of a launcher; in a program of your own, see
/// [`launcher`](crate::host::launcher). `memory_max`, `cpu_max` and `pids_max` work under `tidegate run` alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// User, by name or id. Its groups are those of a login.
    pub user: Option<String>,
    /// Group, by name or id, instead of the user's own.
    pub group: Option<String>,
    /// Niceness: -20 is served first, 19 last.
    pub nice: Option<i32>,
    /// Limits of each single process.
    pub rlimits: Rlimits,
    /// Bytes of memory that a job may use with all of its processes together; at more it is ended.
    pub memory_max: Option<u64>,
    /// Processor time that a job may use with all of its processes together.
    pub cpu_max: Option<Cores>,
    /// Processes and threads that a job may have at a time.
    pub pids_max: Option<u32>,
    /// Whether each process is put into a cgroup of its own.
    pub cgroup: CgroupUse,
}

/// Limits of each single process (setrlimit(2)).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rlimits {
    /// Open files.
    pub open_files: Option<u64>,
    /// Bytes of address space.
    pub address_space: Option<u64>,
    /// Processor time in whole seconds, after which it is sent XCPU and, a second later, KILL.
    pub cpu_time: Option<Duration>,
    /// Bytes of a core dump; 0 for none.
    pub core: Option<u64>,
}

impl Limits {
    /// Whether a cgroup is what holds it to some of these.
    pub fn wants_cgroup(&self) -> bool {
        self.memory_max.is_some()
            || self.cpu_max.is_some()
            || self.pids_max.is_some()
            || self.cgroup == CgroupUse::Always
    }

    /// Whether there is anything to do in a process before its program starts, besides what a cgroup takes.
    pub fn changes_process(&self) -> bool {
        self.user.is_some()
            || self.group.is_some()
            || self.nice.is_some()
            || self.rlimits != Rlimits::default()
    }
}

/// Whether processes are put into cgroups of their own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CgroupUse {
    /// Where there is a cgroup that can be written to and it costs next to nothing: warm processes, and jobs that have
    /// limits anyway.
    #[default]
    Auto,
    /// Each.
    Always,
    /// None.
    Never,
}

/// Processor time, as a number of processors: in thousandths, at least 10 of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cores(u32);

impl Cores {
    pub(crate) const LEAST: u32 = 10;
    pub(crate) const MOST: u32 = 10_000_000;

    /// So many thousandths of a processor. The kernel takes no less than 10.
    pub fn from_thousandths(thousandths: u32) -> Self {
        Self(thousandths.max(Self::LEAST))
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
    fn shows_processors_as_they_are_written() {
        let table = [(10, "0.01"), (500, "0.5"), (1000, "1"), (2250, "2.25")];
        for (thousandths, shown) in table {
            assert_eq!(Cores::from_thousandths(thousandths).to_string(), shown);
        }
        assert_eq!(Cores::from_thousandths(0).thousandths(), 10);
    }
}
