//! Where in the cgroup (v2) hierarchy this process is, and what it may do there.
//!
//! Processes of ours stay below the cgroup that we are in ourselves, so that whatever limits it, and whoever ends
//! it as a whole, has them too. Below it is ours to arrange only where it was handed to us: by systemd
//! (`Delegate=yes`), by a container engine, or by there being nobody else who arranges cgroups.

use std::{
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use nix::unistd::{AccessFlags, Pid, access};
use thiserror::Error;

/// The cgroup that guard and supervisor go to, below the one that they were started in: a cgroup with processes of
/// its own cannot give controllers to those below it.
pub const SUPERVISOR: &str = "tidegate-supervisor";

/// What limits a resource.
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

/// A cgroup below which we may make others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    pub dir: PathBuf,
    /// The hierarchy's own root, which may have processes and give controllers both.
    pub is_root: bool,
}

/// There is no cgroup that is ours to arrange.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NoHome {
    #[error("there is no cgroup v2 hierarchy")]
    NoHierarchy,
    #[error("our cgroup {0} is outside of what is mounted here")]
    OutOfSight(String),
    #[error("this process may not write to {}", .0.display())]
    NotWritable(PathBuf),
    #[error("systemd has not handed {} to us", .0.display())]
    NotDelegated(PathBuf),
}

impl Home {
    /// Looks for it.
    pub fn find() -> Result<Self, NoHome> {
        let dir = dir_of("self")?;
        let dir = match dir.file_name() {
            Some(name) if name == SUPERVISOR => dir.parent().unwrap_or(&dir).to_owned(),
            _ => dir,
        };
        // The kernel has this file in every cgroup but the root. A cgroup namespace's root has it too.
        let is_root = !dir.join("cgroup.type").exists();
        let is_writable = [".", "cgroup.procs", "cgroup.subtree_control"]
            .iter()
            .all(|file| access(&dir.join(file), AccessFlags::W_OK).is_ok());
        if !is_writable {
            return Err(NoHome::NotWritable(dir));
        }
        // Where we own the cgroup without being root, it was handed to us. Root can write everywhere.
        let is_managed = Path::new("/run/systemd/system").exists();
        let is_mount = mount().is_some_and(|mount| mount.point == dir);
        if is_managed && nix::unistd::Uid::effective().is_root() && !is_mount && !is_delegated(&dir)
        {
            return Err(NoHome::NotDelegated(dir));
        }
        Ok(Self { dir, is_root })
    }

    /// Whether this controller can be had in cgroups below.
    pub fn has(&self, controller: Controller) -> bool {
        self.controllers()
            .split_ascii_whitespace()
            .any(|name| name == controller.name())
    }

    /// All controllers that can be had in cgroups below, as the kernel lists them.
    pub fn controllers(&self) -> String {
        let text = fs::read_to_string(self.dir.join("cgroup.controllers")).unwrap_or_default();
        text.trim().to_owned()
    }

    /// Processes that keep this cgroup from giving a controller to those below, other than `ours`.
    pub fn strangers(&self, ours: &[Pid]) -> Vec<Pid> {
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

/// The directory of the cgroup that a process is in. `process` is an id, or "self".
pub fn dir_of(process: &str) -> Result<PathBuf, NoHome> {
    let mount = mount().ok_or(NoHome::NoHierarchy)?;
    let text = fs::read(format!("/proc/{process}/cgroup")).unwrap_or_default();
    let path = own_path(&text).ok_or(NoHome::NoHierarchy)?;
    let out_of_sight = || NoHome::OutOfSight(path.display().to_string());
    let below = path.strip_prefix(&mount.root).map_err(|_| out_of_sight())?;
    Ok(match below.as_os_str().is_empty() {
        true => mount.point,
        false => mount.point.join(below),
    })
}

/// systemd writes it on what it hands over: `user.` since its version 251, `trusted.`, which root alone can see,
/// before.
fn is_delegated(dir: &Path) -> bool {
    ["user.delegate", "trusted.delegate"].iter().any(|name| {
        let mut value = [0; 1];
        rustix::fs::getxattr(dir, *name, &mut value[..]).is_ok_and(|_| value == *b"1")
    })
}

/// Where the hierarchy is to be seen.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    point: PathBuf,
    /// The cgroup that is seen there.
    root: PathBuf,
}

fn mount() -> Option<Mount> {
    find_mount(&fs::read("/proc/self/mountinfo").ok()?)
}

/// Of several mounts it takes the last, which may hide the others. See proc_pid_mountinfo(5).
fn find_mount(text: &[u8]) -> Option<Mount> {
    let mut mounts = text.split(|byte| *byte == b'\n').filter_map(|line| {
        let fields: Vec<_> = line.split(|byte| *byte == b' ').collect();
        let separator = fields.iter().position(|field| *field == b"-")?;
        (*fields.get(separator + 1)? == b"cgroup2").then_some(())?;
        Some(Mount {
            root: unescape(fields.get(3)?),
            point: unescape(fields.get(4)?),
        })
    });
    mounts.next_back()
}

/// Spaces and the like are `\040` there.
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

/// The path in the v2 hierarchy, of a `/proc/PID/cgroup`.
fn own_path(text: &[u8]) -> Option<PathBuf> {
    let line = text
        .split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(b"0::"))?;
    // Of a cgroup that was removed while a dead process is still in it.
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
        let expected = Mount {
            point: "/sys/fs/cgroup/unified".into(),
            root: "/".into(),
        };
        assert_eq!(find_mount(text.as_bytes()), Some(expected));
        let text = b"31 22 0:27 /../a /mnt/b\\040c ro - cgroup2 none rw\n";
        let expected = Mount {
            point: "/mnt/b c".into(),
            root: "/../a".into(),
        };
        assert_eq!(find_mount(text), Some(expected));
        assert_eq!(find_mount(b"22 1 0:20 / /proc rw - proc proc rw\n"), None);
    }

    #[test]
    fn finds_its_own_path_beside_those_of_v1() {
        let text = b"4:memory:/a\n1:name=systemd:/b\n0::/system.slice/tidegate.service\n";
        let path = own_path(text).expect("a path");
        assert_eq!(path, Path::new("/system.slice/tidegate.service"));
        let gone = own_path(b"0::/gone (deleted)\n").expect("a path");
        assert_eq!(gone, Path::new("/gone"));
        assert_eq!(own_path(b"4:memory:/a\n"), None);
    }
}
