//! Who a pool's jobs are, and what they may use: the keys that kinds share.

use std::{fmt, time::Duration};

use toml::de::DeValue;

use super::{
    runner::{Named, only_for},
    schema::{Choice, Item, Key, Kind, OrWord, Size, Span, Spot, Table, Text, Whole},
};

/// Who a process is, and what it may use. What is `None` is as the supervisor has it.
///
/// Anything but the default has a process started by way of a launcher; in a program of your own, see
/// [`launcher`](crate::adapters::launcher). `memory_max`, `cpu_max` and `pids_max` work under `tidegate run` alone.
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
    const LEAST: u32 = 10;
    const MOST: u32 = 10_000_000;

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

/// Reads them.
pub(super) fn limits(runner: &mut Table<'_, '_>, kind: &Key<Named>) -> Limits {
    let user = runner.optional(
        "user",
        "User that its processes run as, by name or id, with the groups and the HOME, USER and LOGNAME of a login. \
         Takes root. When absent, the daemon's own. Of `container`: one of the image's, or the image's own.",
        NAME,
        "\"thumbnails\"",
    );
    let group = runner.optional(
        "group",
        "Group that its processes run as, instead of the user's own. Of `container`, with `user` beside it.",
        NAME,
        "\"media\"",
    );
    let nice = runner.optional(
        "nice",
        "Niceness of its processes: -20 is served first, 19 last. Lower than the daemon's own takes root.",
        Whole(-20..=19),
        "10",
    );
    let memory_max = runner.optional(
        "memory_max",
        "Memory, swap included, that a job may use with all of its processes together; at more the kernel ends it, \
         and it has failed. This and the next two are kept by cgroups (v2): under systemd, `Delegate=yes`. Of `warm`, \
         they hold a process over all of its jobs; of `container`, it is the engine that keeps them.",
        Size,
        "\"512MiB\"",
    );
    let cpu_max = runner.optional(
        "cpu_max",
        "Processors' worth of time that a job may use with all of its processes together.",
        CORES,
        "1.5",
    );
    let pids_max = runner.optional(
        "pids_max",
        "Processes and threads that a job may have at a time.",
        Whole(1..=4_194_304),
        "64",
    );
    let cgroup = runner.key(
        "cgroup",
        "Which processes get a cgroup of their own, in which all that descends from them is ended in one stroke. \
         `auto`: where cgroups can be written to, those of `warm` and those with limits. `always`: each job too, at \
         the cost of a launcher's start. `never`: none.",
        Choice(&[
            ("auto", CgroupUse::Auto),
            ("always", CgroupUse::Always),
            ("never", CgroupUse::Never),
        ]),
        CgroupUse::default(),
    );
    if cgroup.is_sound() && cgroup.value == CgroupUse::Never {
        let fix = "remove it, or cgroup = \"never\": it is a cgroup that keeps it";
        if memory_max.is_given() {
            runner.refuse(&memory_max, fix);
        }
        if cpu_max.is_given() {
            runner.refuse(&cpu_max, fix);
        }
        if pids_max.is_given() {
            runner.refuse(&pids_max, fix);
        }
    }
    only_for(runner, kind, &PROCESSES, &nice);
    only_for(runner, kind, &PROCESSES, &cgroup);
    if kind.value == Named::Container
        && memory_max
            .value
            .is_some_and(|bytes| bytes < LEAST_OF_ENGINES)
    {
        runner.refuse(&memory_max, "write at least \"6MiB\": engines take no less");
    }
    if kind.value == Named::Container && group.is_given() && !user.is_given() {
        let fix = "write user beside it: for a group alone engines take root, whatever user the image has";
        runner.refuse(&group, fix);
    }
    Limits {
        user: user.value,
        group: group.value,
        nice: nice.value,
        memory_max: memory_max.value,
        cpu_max: cpu_max.value,
        pids_max: pids_max.value,
        cgroup: cgroup.value,
        rlimits: rlimits(runner, kind),
    }
}

fn rlimits(runner: &mut Table<'_, '_>, kind: &Key<Named>) -> Rlimits {
    let mut table = runner.table(
        "rlimits",
        "Limits of each single process, soft and hard (setrlimit). When absent, as the daemon has them.",
    );
    let open_files = table.optional(
        "open_files",
        "Open files.",
        Whole(LEAST_FILES..=MOST_FILES),
        "1024",
    );
    let address_space = table.optional("address_space", "Address space.", Size, "\"4GiB\"");
    let cpu_time = table.optional(
        "cpu_time",
        "Processor time, in whole seconds. Then XCPU, and KILL a second later.",
        Seconds,
        "\"10m\"",
    );
    let core = table.optional(
        "core",
        "Size of a core dump.",
        OrWord(Size, "none"),
        "\"none\"",
    );
    only_for(&mut table, kind, &PROCESSES, &open_files);
    only_for(&mut table, kind, &PROCESSES, &address_space);
    only_for(&mut table, kind, &PROCESSES, &cpu_time);
    only_for(&mut table, kind, &PROCESSES, &core);
    Rlimits {
        open_files: open_files.value,
        address_space: address_space.value,
        cpu_time: cpu_time.value,
        core: core.value.map(|size| size.unwrap_or(0)),
    }
}

/// The kinds whose jobs are processes of this machine's.
const PROCESSES: [Named; 2] = [Named::Exec, Named::Warm];

/// Bytes.
const LEAST_OF_ENGINES: u64 = 6 << 20;

/// What it takes to find one's own libraries, with something to spare.
const LEAST_FILES: u64 = 16;

/// The kernel's own bound for `fs.nr_open`.
const MOST_FILES: u64 = 2_147_483_584;

/// Accounts' names differ between systems; these have no place in any.
const NAME: Text<String> = Text {
    wants: "a name or an id",
    parse: |text| match text.is_empty() || text.contains([':', '\0', '\n', ' ']) {
        true => Err("write a name or an id, in quotes".to_owned()),
        false => Ok(text.to_owned()),
    },
    show: String::clone,
};

/// A number of processors.
#[derive(Debug)]
struct CoresKind;

const CORES: CoresKind = CoresKind;

impl Kind for CoresKind {
    type Value = Cores;
    const IS_TEXT: bool = false;

    fn wants(&self) -> String {
        "a number of processors, such as 0.5 or 2".to_owned()
    }

    fn read(&self, item: &Item<'_>, spot: &mut Spot<'_>) -> Option<Cores> {
        let number = match item.get_ref() {
            DeValue::Integer(number) => number.as_str().parse::<f64>().ok(),
            DeValue::Float(number) => number.as_str().parse().ok(),
            _ => None,
        };
        let bounds = f64::from(Cores::LEAST)..=f64::from(Cores::MOST);
        let thousandths = number.map(|number| (number * 1000.0).round());
        match thousandths.filter(|thousandths| bounds.contains(thousandths)) {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "whole, and within bounds"
            )]
            Some(thousandths) => Some(Cores(thousandths as u32)),
            None => {
                let fix = "write a number of processors from 0.01 to 10000, such as 0.5 or 2";
                spot.wrong(item, fix);
                None
            }
        }
    }

    fn toml(&self, value: &Cores) -> String {
        value.to_string()
    }
}

/// A length of time that the kernel counts in seconds.
#[derive(Debug)]
struct Seconds;

impl Kind for Seconds {
    type Value = Duration;
    const IS_TEXT: bool = true;

    fn wants(&self) -> String {
        "a duration of whole seconds".to_owned()
    }

    fn read(&self, item: &Item<'_>, spot: &mut Spot<'_>) -> Option<Duration> {
        let time = Span::from(Duration::from_secs(1)).read(item, spot)?;
        if time.subsec_nanos() != 0 {
            spot.wrong(item, "write whole seconds");
            return None;
        }
        Some(time)
    }

    fn toml(&self, value: &Duration) -> String {
        Span::from(Duration::ZERO).toml(value)
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
