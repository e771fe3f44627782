//! The shared keys for the user and group of a pool's jobs, and for the resources that jobs may use.

use std::time::Duration;

use toml::de::DeValue;

use crate::{
    config::schema::{
        Choice, Item, Key, KeyKind, OrWord, Size, Span, Table, Text, ValuePosition, WholeNumber,
    },
    host::limits::{CgroupUse, Cores, Limits, Rlimits},
    runners::facts::Known,
};

/// The limits from the keys, and the keys that a kind may check further.
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
            "User of its processes, by name or id, with the groups and the HOME, USER and LOGNAME of a login. Needs \
            root. When absent, the daemon's own.",
        ),
        NAME,
        "\"thumbnails\"",
    );
    let group = runner.optional(
        "group",
        known.doc(
            "group",
            "Group of its processes, instead of the user's own.",
        ),
        NAME,
        "\"media\"",
    );
    let nice = runner.optional(
        "nice",
        known.doc(
            "nice",
            "Niceness of its processes, from -20 (highest priority) to 19 (lowest). A value below the daemon's own \
            needs root.",
        ),
        WholeNumber(-20..=19),
        "10",
    );
    let memory_max = runner.optional(
        "memory_max",
        known.doc(
            "memory_max",
            "Memory and swap that all processes of a job together may use. Above this the kernel ends the job, and the \
            job has failed. This key and the next two need cgroups (v2): under systemd, `Delegate=yes`.",
        ),
        Size,
        "\"512MiB\"",
    );
    let cpu_max = runner.optional(
        "cpu_max",
        known.doc(
            "cpu_max",
            "Number of processors whose time all processes of a job together may use.",
        ),
        CORES,
        "1.5",
    );
    let pids_max = runner.optional(
        "pids_max",
        known.doc(
            "pids_max",
            "Processes and threads that a job may have at the same time.",
        ),
        WholeNumber(1..=4_194_304),
        "64",
    );
    let cgroup = runner.key(
        "cgroup",
        known.doc(
            "cgroup",
            "Which processes get their own cgroup, so that all their descendants can be killed together. `auto`: if \
            cgroups are writable, processes that serve many jobs and processes with limits. `always`: every process, \
            at the cost of starting a launcher for each job. `never`: no process.",
        ),
        Choice(&[
            ("auto", CgroupUse::Auto),
            ("always", CgroupUse::Always),
            ("never", CgroupUse::Never),
        ]),
        CgroupUse::default(),
    );
    if cgroup.is_sound() && cgroup.value == CgroupUse::Never {
        let fix = "remove it, or cgroup = \"never\": this limit needs a cgroup";
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
        "Limits of each process, soft and hard (setrlimit). When absent, the daemon's own.",
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
        "Processor time, in whole seconds. At the limit the process gets XCPU, and KILL a second later.",
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

/// A process needs some files to load its libraries. This number is slightly higher.
const MIN_FILES: u64 = 16;

/// The kernel's limit for `fs.nr_open`.
const MAX_FILES: u64 = 2_147_483_584;

/// Names of accounts differ between systems. These characters are not allowed on any of them.
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

/// A duration that the kernel counts in seconds.
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
