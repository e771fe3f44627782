//! The place of this process in the cgroup (v2) hierarchy, and what the process may do there.
//!
//! Our processes stay below the cgroup of this process. So limits on this cgroup, and a kill of the whole cgroup,
//! include our processes. This process may create cgroups below only if the cgroup was delegated to it: by systemd
//! (`Delegate=yes`), by a container engine, or because no other program manages cgroups.

use std::{
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use nix::unistd::{AccessFlags, Pid, access};
use thiserror::Error;

/// The cgroup of guard and supervisor, below the cgroup in which they were started. They move there because a cgroup
/// that has processes cannot give controllers to the cgroups below it.
pub const SUPERVISOR: &str = "tidegate-supervisor";

/// The cgroup in which systemd starts the command of `ExecReload=`, below the cgroup of a delegated unit. A successor
/// is started there.
const CONTROL: &str = ".control";

/// A controller: limits one resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Controller {
    Cpu,
    Memory,
    Pids,
}

impl Controller {
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Pids => "pids",
        }
    }
}

/// A cgroup below which this process may make others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    pub dir: PathBuf,
    /// The root of the hierarchy. It may have processes and give controllers at the same time.
    pub is_root: bool,
}

/// There is no cgroup that this process may manage.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NoCgroupHome {
    #[error("there is no cgroup v2 hierarchy")]
    NoHierarchy,
    #[error("our cgroup {0} is outside of the hierarchy that is mounted here")]
    NotVisible(String),
    #[error("this process may not write to {}", .0.display())]
    NotWritable(PathBuf),
    #[error("systemd has not delegated {} to us", .0.display())]
    NotDelegated(PathBuf),
}

impl Home {
    /// Finds the cgroup.
    pub fn find() -> Result<Self, NoCgroupHome> {
        let dir = dir_of("self")?;
        let dir = match dir.file_name() {
            Some(name) if name == SUPERVISOR || name == CONTROL => {
                dir.parent().unwrap_or(&dir).to_owned()
            }
            _ => dir,
        };
        // The kernel has this file in every cgroup except the root. The root of a cgroup namespace has it too.
        let is_root = !dir.join("cgroup.type").exists();
        let is_writable = [".", "cgroup.procs", "cgroup.subtree_control"]
            .iter()
            .all(|file| access(&dir.join(file), AccessFlags::W_OK).is_ok());
        if !is_writable {
            return Err(NoCgroupHome::NotWritable(dir));
        }
        // If we own the cgroup and are not root, it was delegated to us. Root can write everywhere, so for root this
        // check is not enough.
        let is_managed = Path::new("/run/systemd/system").exists();
        let is_mount = mount().is_some_and(|mount| mount.point == dir);
        if is_managed && nix::unistd::Uid::effective().is_root() && !is_mount && !is_delegated(&dir)
        {
            return Err(NoCgroupHome::NotDelegated(dir));
        }
        Ok(Self { dir, is_root })
    }

    /// Whether this controller is available in cgroups below.
    pub fn has(&self, controller: Controller) -> bool {
        self.controllers()
            .split_ascii_whitespace()
            .any(|name| name == controller.name())
    }

    /// All controllers that are available in cgroups below, as the kernel lists them.
    pub fn controllers(&self) -> String {
        let text = fs::read_to_string(self.dir.join("cgroup.controllers")).unwrap_or_default();
        text.trim().to_owned()
    }

    /// Processes, other than `ours`, that prevent this cgroup from giving a controller to the cgroups below.
    pub fn other_processes(&self, ours: &[Pid]) -> Vec<Pid> {
        if self.is_root {
            return Vec::new();
        }
        let text = fs::read_to_string(self.dir.join("cgroup.procs")).unwrap_or_default();
        text.lines()
            .filter_map(|pid| pid.parse().ok().map(Pid::from_raw))
            .filter(|pid| !ours.contains(pid))
            .collect()
    }
}

/// The directory of the cgroup of a process. `process` is an id, or "self".
pub fn dir_of(process: &str) -> Result<PathBuf, NoCgroupHome> {
    let mount = mount().ok_or(NoCgroupHome::NoHierarchy)?;
    let text = fs::read(format!("/proc/{process}/cgroup")).unwrap_or_default();
    let path = own_path(&text).ok_or(NoCgroupHome::NoHierarchy)?;
    let not_visible = || NoCgroupHome::NotVisible(path.display().to_string());
    let below = path.strip_prefix(&mount.root).map_err(|_| not_visible())?;
    Ok(match below.as_os_str().is_empty() {
        true => mount.point,
        false => mount.point.join(below),
    })
}

/// systemd marks a delegated cgroup with an attribute: `user.` since its version 251, before that `trusted.`, which
/// only root can read.
fn is_delegated(dir: &Path) -> bool {
    ["user.delegate", "trusted.delegate"].iter().any(|name| {
        let mut value = [0; 1];
        rustix::fs::getxattr(dir, *name, &mut value[..]).is_ok_and(|_| value == *b"1")
    })
}

/// The mount point of the hierarchy.
#[derive(Debug, PartialEq, Eq)]
struct CgroupMount {
    point: PathBuf,
    /// The cgroup that the mount shows.
    root: PathBuf,
}

fn mount() -> Option<CgroupMount> {
    find_mount(&fs::read("/proc/self/mountinfo").ok()?)
}

/// If there are several mounts, takes the last, because it may hide the others. See proc_pid_mountinfo(5).
fn find_mount(text: &[u8]) -> Option<CgroupMount> {
    let mut mounts = text.split(|byte| *byte == b'\n').filter_map(|line| {
        let fields: Vec<_> = line.split(|byte| *byte == b' ').collect();
        let separator = fields.iter().position(|field| *field == b"-")?;
        (*fields.get(separator + 1)? == b"cgroup2").then_some(())?;
        Some(CgroupMount {
            root: unescape(fields.get(3)?),
            point: unescape(fields.get(4)?),
        })
    });
    mounts.next_back()
}

/// In this file, a space is `\040`; other special characters are written in the same way.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let octal = tail
            .first_chunk::<3>()
            .filter(|_| *first == b'\\')
            .and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(octal.unwrap_or(*first));
        rest = if octal.is_some() { &tail[3..] } else { tail };
    }
    PathBuf::from(OsStr::from_bytes(&bytes))
}

/// The path in the v2 hierarchy, from a `/proc/PID/cgroup`.
fn own_path(text: &[u8]) -> Option<PathBuf> {
    let line = text
        .split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(b"0::"))?;
    // The kernel adds this to a removed cgroup that still has a dead process.
    let line = line.strip_suffix(b" (deleted)").unwrap_or(line);
    Some(PathBuf::from(OsStr::from_bytes(line)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_hierarchy_where_it_is_mounted() {
        let text = "22 1 0:20 / /proc rw - proc proc rw\n\
                    31 22 0:27 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n\
                    32 22 0:28 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n";
        let expected = CgroupMount {
            point: "/sys/fs/cgroup/unified".into(),
            root: "/".into(),
        };
        assert_eq!(find_mount(text.as_bytes()), Some(expected));
        let text = b"31 22 0:27 /../a /mnt/b\\040c ro - cgroup2 none rw\n";
        let expected = CgroupMount {
            point: "/mnt/b c".into(),
            root: "/../a".into(),
        };
        assert_eq!(find_mount(text), Some(expected));
        assert_eq!(find_mount(b"22 1 0:20 / /proc rw - proc proc rw\n"), None);
    }

    #[test]
    fn finds_its_own_cgroup_path_among_those_of_version_1() {
        let text = b"4:memory:/a\n1:name=systemd:/b\n0::/system.slice/tidegate.service\n";
        let path = own_path(text).expect("a path");
        assert_eq!(path, Path::new("/system.slice/tidegate.service"));
        let gone = own_path(b"0::/gone (deleted)\n").expect("a path");
        assert_eq!(gone, Path::new("/gone"));
        assert_eq!(own_path(b"4:memory:/a\n"), None);
    }
}
