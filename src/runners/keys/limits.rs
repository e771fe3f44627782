//! Who a pool's jobs are, and what they may use: the keys that kinds share.

use std::time::Duration;

use toml::de::DeValue;

use crate::{
    config::schema::{
        Choice, Item, Key, KeyKind, OrWord, Size, Span, Table, Text, ValuePosition, WholeNumber,
    },
    host::limits::{CgroupUse, Cores, Limits, Rlimits},
    runners::facts::Known,
};

/// What the keys say, and those of them that a kind may have more to say of.
pub(crate) struct LimitKeys {
    pub(crate) user: Key<Option<String>>,
    pub(crate) group: Key<Option<String>>,
    pub(crate) memory_max: Key<Option<u64>>,
    pub(crate) values: Limits,
}

/// Reads them.
pub(super) fn limits(runner: &mut Table<'_, '_>, known: &Known<'_>) -> LimitKeys {
    let user = runner.optional(
        "user",
        known.doc(
            "user",
            "User that its processes run as, by name or id, with the groups and the HOME, USER and LOGNAME of a login. \
             Takes root. When absent, the daemon's own.",
        ),
        NAME,
        "\"thumbnails\"",
    );
    let group = runner.optional(
        "group",
        known.doc(
            "group",
            "Group that its processes run as, instead of the user's own.",
        ),
        NAME,
        "\"media\"",
    );
    let nice = runner.optional(
        "nice",
        known.doc(
            "nice",
            "Niceness of its processes: -20 is served first, 19 last. Lower than the daemon's own takes root.",
        ),
        WholeNumber(-20..=19),
        "10",
    );
    let memory_max = runner.optional(
        "memory_max",
        known.doc(
            "memory_max",
            "Memory, swap included, that a job may use with all of its processes together; at more the kernel ends it, \
             and it has failed. This and the next two are kept by cgroups (v2): under systemd, `Delegate=yes`.",
        ),
        Size,
        "\"512MiB\"",
    );
    let cpu_max = runner.optional(
        "cpu_max",
        known.doc(
            "cpu_max",
            "Processors' worth of time that a job may use with all of its processes together.",
        ),
        CORES,
        "1.5",
    );
    let pids_max = runner.optional(
        "pids_max",
        known.doc(
            "pids_max",
            "Processes and threads that a job may have at a time.",
        ),
        WholeNumber(1..=4_194_304),
        "64",
    );
    let cgroup = runner.key(
        "cgroup",
        known.doc(
            "cgroup",
            "Which processes get a cgroup of their own, in which all that descends from them is ended in one stroke. \
             `auto`: where cgroups can be written to, those that stay for job after job and those with limits. `always`: \
             each job too, at the cost of a launcher's start. `never`: none.",
        ),
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
    known.refuse_shared(runner, "user", &user);
    known.refuse_shared(runner, "group", &group);
    known.refuse_shared(runner, "nice", &nice);
    known.refuse_shared(runner, "memory_max", &memory_max);
    known.refuse_shared(runner, "cpu_max", &cpu_max);
    known.refuse_shared(runner, "pids_max", &pids_max);
    known.refuse_shared(runner, "cgroup", &cgroup);
    let values = Limits {
        user: user.value.clone(),
        group: group.value.clone(),
        nice: nice.value,
        memory_max: memory_max.value,
        cpu_max: cpu_max.value,
        pids_max: pids_max.value,
        cgroup: cgroup.value,
        rlimits: rlimits(runner, known),
    };
    LimitKeys {
        user,
        group,
        memory_max,
        values,
    }
}

fn rlimits(runner: &mut Table<'_, '_>, known: &Known<'_>) -> Rlimits {
    let mut table = runner.table(
        "rlimits",
        "Limits of each single process, soft and hard (setrlimit). When absent, as the daemon has them.",
    );
    let open_files = table.optional(
        "open_files",
        "Open files.",
        WholeNumber(MIN_FILES..=MAX_FILES),
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
    known.refuse_shared(&mut table, "rlimits", &open_files);
    known.refuse_shared(&mut table, "rlimits", &address_space);
    known.refuse_shared(&mut table, "rlimits", &cpu_time);
    known.refuse_shared(&mut table, "rlimits", &core);
    Rlimits {
        open_files: open_files.value,
        address_space: address_space.value,
        cpu_time: cpu_time.value,
        core: core.value.map(|size| size.unwrap_or(0)),
    }
}

/// What it takes to find one's own libraries, with something to spare.
const MIN_FILES: u64 = 16;

/// The kernel's own bound for `fs.nr_open`.
const MAX_FILES: u64 = 2_147_483_584;

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

impl KeyKind for CoresKind {
    type Value = Cores;
    const IS_TEXT: bool = false;

    fn wants(&self) -> String {
        "a number of processors, such as 0.5 or 2".to_owned()
    }

    fn read(&self, item: &Item<'_>, spot: &mut ValuePosition<'_>) -> Option<Cores> {
        let number = match item.get_ref() {
            DeValue::Integer(number) => number.as_str().parse::<f64>().ok(),
            DeValue::Float(number) => number.as_str().parse().ok(),
            _ => None,
        };
        let bounds = f64::from(Cores::MIN)..=f64::from(Cores::MAX);
        let thousandths = number.map(|number| (number * 1000.0).round());
        match thousandths.filter(|thousandths| bounds.contains(thousandths)) {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "whole, and within bounds"
            )]
            Some(thousandths) => Some(Cores::from_thousandths(thousandths as u32)),
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

impl KeyKind for Seconds {
    type Value = Duration;
    const IS_TEXT: bool = true;

    fn wants(&self) -> String {
        "a duration of whole seconds".to_owned()
    }

    fn read(&self, item: &Item<'_>, spot: &mut ValuePosition<'_>) -> Option<Duration> {
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
