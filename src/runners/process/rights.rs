//! Checks whether this machine can apply a pool's limits: users, rights, and cgroups.

use nix::unistd::{Pid, Uid};
use rustix::process::{Resource, getpriority_process, getrlimit};

use crate::{
    config::problem::Refuse,
    host::{
        cgroup::{Controller, Home, NoCgroupHome},
        limits::{CgroupUse, Limits},
        rights::{self, Right},
        users::{IdentityError, identity},
    },
};

/// The facts of this machine that limits depend on.
pub(crate) struct Machine {
    /// The cgroup for the jobs, if a pool needs one.
    home: Option<Result<Home, NoCgroupHome>>,
    guard: Option<Pid>,
    may: fn(Right) -> bool,
}

impl Machine {
    /// Reads these facts, as far as these limits need them. `guard` is the guard process, which is in the same cgroup
    /// as this process.
    pub(crate) fn look<'l>(
        mut limits: impl Iterator<Item = &'l Limits>,
        guard: Option<Pid>,
    ) -> Self {
        Self {
            home: limits.any(Limits::wants_cgroup).then(Home::find),
            guard,
            may: rights::has,
        }
    }
}

/// Reports the limits that this machine cannot apply.
pub(crate) fn inspect(limits: &Limits, machine: &Machine, refuse: &mut Refuse<'_>) {
    inspect_identity(limits, machine.may, refuse);
    inspect_nice(limits, machine.may, refuse);
    inspect_rlimits(limits, machine.may, refuse);
    if let Some(home) = &machine.home {
        inspect_cgroup(limits, home, machine.guard, refuse);
    }
}

fn inspect_identity(limits: &Limits, may: fn(Right) -> bool, refuse: &mut Refuse<'_>) {
    let (user, group) = (limits.user.as_deref(), limits.group.as_deref());
    let (key, name) = match (user, group) {
        (Some(user), _) => ("user", user),
        (None, Some(group)) => ("group", group),
        (None, None) => return,
    };
    match identity(user, group) {
        Err(error @ IdentityError::NoGroup(_)) => {
            let found = format!("{:?}, but {error}", group.unwrap_or_default());
            refuse("group", found, "write a group of this machine".to_owned());
        }
        Err(error @ IdentityError::NoAccount(_)) => {
            let fix = "write a group too, or a user of this machine";
            refuse(key, format!("{name:?}, but {error}"), fix.to_owned());
        }
        Err(error) => {
            let found = format!("{name:?}, but {error}");
            refuse(key, found, "write a user of this machine".to_owned());
        }
        Ok(identity) => {
            let is_other = identity.uid != Uid::effective();
            if !may(Right::SetGroup) || (is_other && !may(Right::SetUser)) {
                let found = format!("{name:?}, which only root can set");
                let fix = "run tidegate as root, with CAP_SETUID and CAP_SETGID, or remove it";
                refuse(key, found, fix.to_owned());
            } else if !rights::can_be(identity.uid, identity.gid) {
                let found = format!("{name:?}, which does not exist in tidegate's user namespace");
                let fix = "map it into the namespace (subuid, subgid), or write one that is mapped";
                refuse(key, found, fix.to_owned());
            }
        }
    }
}

fn inspect_nice(limits: &Limits, may: fn(Right) -> bool, refuse: &mut Refuse<'_>) {
    let Some(nice) = limits.nice else { return };
    let own = getpriority_process(None).unwrap_or(0);
    // getrlimit(2) counts niceness in another way: 40 means -20, and 1 means 19.
    let ceiling = getrlimit(Resource::Nice)
        .current
        .unwrap_or(u64::MAX)
        .min(40);
    let floor = 20 - i32::try_from(ceiling).unwrap_or(40);
    let least = own.min(floor);
    if nice < least && !may(Right::Nice) {
        let found = format!("{nice}, which is lower than this process may set");
        let fix = format!("write at least {least}, or run tidegate as root, with CAP_SYS_NICE");
        refuse("nice", found, fix);
    }
}

fn inspect_rlimits(limits: &Limits, may: fn(Right) -> bool, refuse: &mut Refuse<'_>) {
    let rlimits = &limits.rlimits;
    let wanted = [
        ("open_files", Resource::Nofile, rlimits.open_files),
        ("address_space", Resource::As, rlimits.address_space),
        (
            "cpu_time",
            Resource::Cpu,
            rlimits.cpu_time.map(|time| time.as_secs()),
        ),
        ("core", Resource::Core, rlimits.core),
    ];
    for (name, resource, wanted) in wanted {
        let Some(wanted) = wanted else { continue };
        let key = format!("rlimits.{name}");
        let hard = getrlimit(resource).maximum;
        if let Some(hard) = hard.filter(|hard| wanted > *hard)
            && !may(Right::Resources)
        {
            let found = format!("{wanted}, which is above the daemon's own hard limit");
            let fix = format!("write at most {hard}, or raise the daemon's own limit");
            refuse(&key, found, fix);
        } else if resource == Resource::Nofile
            && let Some(most) = most_open_files().filter(|most| wanted > *most)
        {
            let found = format!("{wanted}, which is above the system's own limit");
            let fix = format!("write at most {most}, or raise fs.nr_open (sysctl)");
            refuse(&key, found, fix);
        }
    }
}

/// The limit on open files that holds for root too.
fn most_open_files() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/sys/fs/nr_open").ok()?;
    text.trim().parse().ok()
}

fn inspect_cgroup(
    limits: &Limits,
    home: &Result<Home, NoCgroupHome>,
    guard: Option<Pid>,
    refuse: &mut Refuse<'_>,
) {
    let wanted = [
        (
            "memory_max",
            limits.memory_max.is_some(),
            Controller::Memory,
        ),
        ("cpu_max", limits.cpu_max.is_some(), Controller::Cpu),
        ("pids_max", limits.pids_max.is_some(), Controller::Pids),
    ];
    let home = match home {
        Ok(home) => home,
        Err(none) => {
            let found = format!("a limit that needs a cgroup, but {none}");
            let keys = wanted.into_iter().filter(|(_, is_wanted, _)| *is_wanted);
            for (key, ..) in keys {
                refuse(key, found.clone(), fix_for(none).to_owned());
            }
            if limits.cgroup == CgroupUse::Always {
                refuse(
                    "cgroup",
                    format!("\"always\", but {none}"),
                    fix_for(none).to_owned(),
                );
            }
            return;
        }
    };
    let ours: Vec<_> = [Pid::this()].into_iter().chain(guard).collect();
    let others = home.other_processes(&ours);
    for (key, _, controller) in wanted.into_iter().filter(|(_, is_wanted, _)| *is_wanted) {
        let (name, dir) = (controller.name(), home.dir.display());
        if !home.has(controller) {
            let has = home.controllers();
            refuse(
                key,
                format!(
                    "a limit that needs the {name} controller, but cgroup v2 has only {has:?} in {dir}"
                ),
                format!(
                    "enable it for cgroup v2: Delegate=yes (or {name}) under systemd; if cgroup v1 uses it, boot with \
                     systemd.unified_cgroup_hierarchy=1 or cgroup_no_v1={name}"
                ),
            );
        } else if let Some(other) = others.first() {
            refuse(
                key,
                format!("a limit that needs a cgroup of our own, but process {other} is in {dir} too"),
                "start tidegate in a cgroup of its own: as a service with Delegate=yes, or by systemd-run --scope -p \
                 Delegate=yes"
                    .to_owned(),
            );
        }
    }
}

fn fix_for(none: &NoCgroupHome) -> &'static str {
    match none {
        NoCgroupHome::NoHierarchy => {
            "mount one (mount -t cgroup2 none /sys/fs/cgroup), or boot with systemd.unified_cgroup_hierarchy=1"
        }
        NoCgroupHome::NotVisible(_) | NoCgroupHome::NotWritable(_) => {
            "write Delegate=yes into tidegate's systemd unit, or run it as root; a container needs /sys/fs/cgroup \
             mounted writable"
        }
        NoCgroupHome::NotDelegated(_) => "write Delegate=yes into tidegate's systemd unit",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::limits::Cores;

    /// The refusals of these limits, each as key, found and fix.
    fn refused(
        limits: &Limits,
        may: bool,
        home: Result<Home, NoCgroupHome>,
    ) -> Vec<(String, String, String)> {
        let machine = Machine {
            home: Some(home),
            guard: None,
            may: if may { |_| true } else { |_| false },
        };
        let mut refused = Vec::new();
        inspect(limits, &machine, &mut |key, found, fix| {
            refused.push((key.to_owned(), found, fix));
        });
        refused
    }

    fn keys(refused: &[(String, String, String)]) -> Vec<&str> {
        refused.iter().map(|(key, ..)| key.as_str()).collect()
    }

    fn home(dir: &std::path::Path) -> Result<Home, NoCgroupHome> {
        Ok(Home {
            dir: dir.to_owned(),
            is_root: false,
        })
    }

    #[test]
    fn a_limit_that_only_root_can_set_is_an_error_without_root() {
        let mut limits = Limits {
            user: Some("daemon".into()),
            nice: Some(-20),
            ..Limits::default()
        };
        limits.rlimits.core = getrlimit(Resource::Core).maximum.map(|hard| hard + 1);
        let nowhere = || Err(NoCgroupHome::NoHierarchy);
        let without = refused(&limits, false, nowhere());
        let known: Vec<_> = ["user", "nice", "rlimits.core"]
            .into_iter()
            .filter(|key| *key != "rlimits.core" || limits.rlimits.core.is_some())
            .collect();
        assert_eq!(keys(&without), known);
        assert_eq!(without[0].1, "\"daemon\", which only root can set");
        assert_eq!(refused(&limits, true, nowhere()), []);
    }

    #[test]
    fn names_the_user_or_group_that_does_not_exist() {
        let limits = |user: Option<&str>, group: Option<&str>| Limits {
            user: user.map(str::to_owned),
            group: group.map(str::to_owned),
            ..Limits::default()
        };
        let table = [
            (
                limits(Some("no-such"), None),
                "user",
                "there is no user \"no-such\"",
            ),
            (
                limits(Some("0"), Some("no-such")),
                "group",
                "there is no group \"no-such\"",
            ),
            (
                limits(Some("1234567"), None),
                "user",
                "no user has the id 1234567",
            ),
        ];
        for (limits, key, found) in table {
            let refused = refused(&limits, true, Err(NoCgroupHome::NoHierarchy));
            assert_eq!(keys(&refused), [key]);
            assert!(refused[0].1.contains(found), "{refused:?}");
        }
        // Not even root goes beyond this one.
        let mut limits = Limits::default();
        limits.rlimits.open_files = most_open_files().map(|most| most + 1);
        let refused = refused(&limits, true, Err(NoCgroupHome::NoHierarchy));
        assert_eq!(keys(&refused), ["rlimits.open_files"]);
        assert!(refused[0].2.contains("fs.nr_open"), "{refused:?}");
    }

    #[test]
    fn names_each_limit_that_needs_a_cgroup_if_there_is_none() {
        let limits = Limits {
            memory_max: Some(1),
            cpu_max: Some(Cores::from_thousandths(500)),
            pids_max: Some(1),
            cgroup: CgroupUse::Always,
            ..Limits::default()
        };
        let every = ["memory_max", "cpu_max", "pids_max", "cgroup"];
        for none in [
            NoCgroupHome::NoHierarchy,
            NoCgroupHome::NotVisible("/x".into()),
            NoCgroupHome::NotWritable("/x".into()),
            NoCgroupHome::NotDelegated("/x".into()),
        ] {
            let refused = refused(&limits, true, Err(none.clone()));
            assert_eq!(keys(&refused), every);
            assert!(refused[0].1.ends_with(&none.to_string()), "{refused:?}");
        }
        assert_eq!(
            refused(&Limits::default(), true, Err(NoCgroupHome::NoHierarchy)),
            []
        );
    }

    #[test]
    fn names_the_controller_that_is_missing_and_the_process_that_is_in_the_way() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |file: &str, text: &str| {
            std::fs::write(folder.path().join(file), text).expect("a file");
        };
        let limits = Limits {
            memory_max: Some(1),
            pids_max: Some(1),
            ..Limits::default()
        };
        write("cgroup.controllers", "hugetlb pids\n");
        write("cgroup.procs", &format!("{}\n", Pid::this()));
        let without = refused(&limits, true, home(folder.path()));
        assert_eq!(keys(&without), ["memory_max"]);
        assert!(
            without[0].1.contains("only \"hugetlb pids\""),
            "{without:?}"
        );
        assert!(without[0].2.contains("Delegate=yes"), "{without:?}");

        write("cgroup.controllers", "memory pids\n");
        assert_eq!(refused(&limits, true, home(folder.path())), []);
        write("cgroup.procs", "1\n");
        let shared = refused(&limits, true, home(folder.path()));
        assert_eq!(keys(&shared), ["memory_max", "pids_max"]);
        assert!(shared[0].1.contains("process 1 is in"), "{shared:?}");
    }
}
