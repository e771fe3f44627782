//! Cgroups (v2) of jobs: made, joined by way of a launcher, ended in one stroke, and removed.
//!
//! ```text
//! home                          the cgroup that we were started in
//! ├── tidegate-supervisor       guard and supervisor, unless home is the hierarchy's root
//! └── tidegate-<lock>           this instance's
//!     ├── <supervisor>-<run>    a job, or a warm process
//!     └── ...
//! ```
//!
//! `<lock>` names the file whose lock makes a supervisor the one of its state directory. Whoever holds that lock owns
//! this cgroup: what is found in it then was left by an instance that is dead, and other instances have other files.
//!
//! Global, because the cgroup that a process is in is.

use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Mutex, OnceLock, PoisonError},
    thread,
    time::{Duration, Instant},
};

use nix::{errno::Errno, unistd::Pid};
use thiserror::Error;

use super::home::{self, Controller, Home, SUPERVISOR};
use crate::host::{children::Run, limits::Limits};

/// How the cgroups of instances are called.
const PREFIX: &str = "tidegate-";

/// Period over which processor time is counted, in microseconds.
const CPU_PERIOD: u64 = 100_000;

/// How long a cgroup that was ended may take to become empty.
const PATIENCE: Duration = Duration::from_secs(2);

/// Between two attempts to remove it.
const PAUSE: Duration = Duration::from_millis(2);

static GROUPS: OnceLock<Groups> = OnceLock::new();

/// The kernel refused something about a cgroup.
#[derive(Debug, Error)]
#[error("{what} {}", path.display())]
pub struct CgroupError {
    what: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CgroupError {
    move |source| CgroupError {
        what,
        path: path.to_owned(),
        source,
    }
}

/// The cgroup of this instance, where there is one.
pub fn groups() -> Option<&'static Groups> {
    GROUPS.get()
}

/// Removes the cgroups of jobs that are over, which may have been busy dying when they ended. Cheap where there are none.
pub(crate) fn sweep() {
    if let Some(groups) = groups() {
        groups.sweep();
    }
}

/// Makes the cgroup of this instance, with what jobs have in `home` for theirs. Ends and removes what an instance that
/// died has left there. `lock` identifies the lock that this process holds, and `movers` go to where they are out of the
/// way. Does nothing the second time.
///
/// Blocks for as long as the dead take to go.
pub fn set_up(home: Home, lock: (u64, u64), movers: &[Pid]) -> Result<(), CgroupError> {
    if GROUPS.get().is_some() {
        return Ok(());
    }
    let dir = home.dir.join(format!("{PREFIX}{:x}-{:x}", lock.0, lock.1));
    if dir.exists() {
        end(&dir);
        remove_patiently(&dir);
    }
    match fs::create_dir(&dir) {
        // What does not die is in the kernel's hands; our own cgroups go beside it.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => made.map_err(failed("make the cgroup", &dir))?,
    }
    if !home.is_root {
        let aside = home.dir.join(SUPERVISOR);
        match fs::create_dir(&aside) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made.map_err(failed("make the cgroup", &aside))?,
        }
        for pid in movers {
            write(&aside, "cgroup.procs", &pid.to_string())
                .map_err(failed("move guard and supervisor to the cgroup", &aside))?;
        }
    }
    let groups = Groups {
        home,
        dir,
        leaving: Mutex::new(Vec::new()),
    };
    let _ = GROUPS.set(groups);
    Ok(())
}

/// The cgroup of this instance.
#[derive(Debug)]
pub struct Groups {
    home: Home,
    dir: PathBuf,
    /// Ended, and not empty yet when they were to be removed. Written by leaves on their way out.
    leaving: Mutex<Vec<PathBuf>>,
}

impl Groups {
    /// Has the cgroups of jobs counted and limited by a controller.
    pub fn enable(&self, controller: Controller) -> Result<(), CgroupError> {
        let word = format!("+{}", controller.name());
        for dir in [&self.home.dir, &self.dir] {
            let file = dir.join("cgroup.subtree_control");
            write(dir, "cgroup.subtree_control", &word)
                .map_err(failed("get a controller from", &file))?;
        }
        Ok(())
    }

    /// Makes a cgroup for one run, with its limits.
    pub(crate) fn leaf(&'static self, run: Run, limits: &Limits) -> Result<Leaf, CgroupError> {
        self.sweep();
        let dir = self.dir.join(run.id());
        fs::create_dir(&dir).map_err(failed("make the cgroup", &dir))?;
        // Removed on drop, where something goes wrong with the rest.
        let leaf = Leaf { groups: self, dir };
        if let Some(bytes) = limits.memory_max {
            self.limit(&leaf, Controller::Memory, "memory.max", &bytes.to_string())?;
            // What would be swapped out counts as well. A kernel without swap has no such file.
            let _ = write(&leaf.dir, "memory.swap.max", "0");
        }
        if let Some(cores) = limits.cpu_max {
            let quota = u64::from(cores.thousandths()) * CPU_PERIOD / 1000;
            let value = format!("{quota} {CPU_PERIOD}");
            self.limit(&leaf, Controller::Cpu, "cpu.max", &value)?;
        }
        if let Some(count) = limits.pids_max {
            self.limit(&leaf, Controller::Pids, "pids.max", &count.to_string())?;
        }
        // A job that has lost a process to the kernel is no job to wait for. Where memory is not counted there is no
        // such file.
        let _ = write(&leaf.dir, "memory.oom.group", "1");
        Ok(leaf)
    }

    fn limit(
        &self,
        leaf: &Leaf,
        controller: Controller,
        file: &str,
        value: &str,
    ) -> Result<(), CgroupError> {
        let mut written = write(&leaf.dir, file, value);
        if written
            .as_ref()
            .is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
        {
            self.enable(controller)?;
            written = write(&leaf.dir, file, value);
        }
        written.map_err(failed("limit by", &leaf.dir.join(file)))
    }

    /// Removes what has become empty.
    fn sweep(&self) {
        self.leaving().retain(|dir| remove(dir).is_err());
    }

    fn leaving(&self) -> std::sync::MutexGuard<'_, Vec<PathBuf>> {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes the instance's cgroup, when no job is left. Blocks for a moment where some have just been ended.
    pub fn leave(&self) {
        remove_patiently(&self.dir);
    }
}

/// A run's cgroup. **On drop** everything in it is killed, and it is removed once that is dead.
#[derive(Debug)]
pub(crate) struct Leaf {
    groups: &'static Groups,
    dir: PathBuf,
}

impl Leaf {
    /// The file that a process joins it by.
    pub(crate) fn procs(&self) -> PathBuf {
        self.dir.join("cgroup.procs")
    }

    /// Kills everything in it. Whoever forks meanwhile does not get away.
    pub(crate) fn kill(&self) {
        end(&self.dir);
    }

    /// Whether the kernel has ended something in it for want of memory.
    pub(crate) fn ran_out_of_memory(&self) -> bool {
        let events = fs::read_to_string(self.dir.join("memory.events"));
        events.is_ok_and(|events| oom_kills(&events) > 0)
    }
}

impl Drop for Leaf {
    fn drop(&mut self) {
        self.kill();
        if remove(&self.dir).is_err() {
            self.groups.leaving().push(std::mem::take(&mut self.dir));
        }
        self.groups.sweep();
    }
}

fn oom_kills(events: &str) -> u64 {
    let count = events
        .lines()
        .find_map(|line| line.strip_prefix("oom_kill "));
    count.and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// The cgroup of a run of this supervisor that a process is in.
pub fn leaf_of(process: Pid, supervisor: Pid) -> Option<PathBuf> {
    let dir = home::dir_of(&process.to_string()).ok()?;
    leaf_above(&dir, supervisor).map(Path::to_owned)
}

fn leaf_above(dir: &Path, supervisor: Pid) -> Option<&Path> {
    let name = |dir: &Path| {
        dir.file_name()
            .map(|name| name.to_string_lossy().into_owned())
    };
    dir.ancestors().find(|dir| {
        let is_instance = dir
            .parent()
            .and_then(name)
            .is_some_and(|name| name.starts_with(PREFIX));
        is_instance && name(dir).is_some_and(|name| name.starts_with(&format!("{supervisor}-")))
    })
}

/// Kills everything in a cgroup and below it (Linux 5.14 and later).
pub fn end(dir: &Path) {
    let _ = write(dir, "cgroup.kill", "1");
}

/// Removes the cgroups of a supervisor that is dead, as are all that were in them: `leaves`, and what is beside them.
pub fn remove_leaves(leaves: &BTreeSet<PathBuf>, supervisor: Pid) {
    for leaf in leaves {
        remove_patiently(leaf);
    }
    let instances: BTreeSet<_> = leaves.iter().filter_map(|leaf| leaf.parent()).collect();
    for instance in instances {
        // Those of another supervisor are of one that has come in the meantime.
        let entries = fs::read_dir(instance).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()) {
            if leaf_above(&path, supervisor) == Some(&path) {
                let _ = remove(&path);
            }
        }
        let _ = fs::remove_dir(instance);
    }
}

/// Waits until it is empty, for a while.
fn remove_patiently(dir: &Path) {
    let deadline = Instant::now() + PATIENCE;
    while remove(dir).is_err() && Instant::now() < deadline {
        thread::sleep(PAUSE);
    }
}

/// Removes a cgroup with those that a job has made in it.
fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir(dir) {
        Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32) => {
            for entry in fs::read_dir(dir)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    remove(&entry.path())?;
                }
            }
            fs::remove_dir(dir)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Writes to a file of a cgroup, in one piece. Never makes one.
fn write(dir: &Path, file: &str, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(dir.join(file))?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_cgroups_of_its_own_supervisors_runs() {
        let supervisor = Pid::from_raw(42);
        let leaf = Path::new("/sys/fs/cgroup/a/tidegate-1-2/42-7");
        let table = [
            ("/sys/fs/cgroup/a/tidegate-1-2/42-7", Some(leaf)),
            ("/sys/fs/cgroup/a/tidegate-1-2/42-7/made/by/it", Some(leaf)),
            ("/sys/fs/cgroup/a/tidegate-1-2/421-7", None),
            ("/sys/fs/cgroup/a/tidegate-1-2", None),
            ("/sys/fs/cgroup/a/42-7", None),
            ("/sys/fs/cgroup", None),
        ];
        for (dir, expected) in table {
            assert_eq!(leaf_above(Path::new(dir), supervisor), expected, "{dir}");
        }
    }

    #[test]
    fn counts_what_the_kernel_has_ended() {
        assert_eq!(oom_kills("low 0\noom 3\noom_kill 2\noom_group_kill 1\n"), 2);
        assert_eq!(oom_kills("low 0\n"), 0);
        assert_eq!(oom_kills(""), 0);
    }
}
