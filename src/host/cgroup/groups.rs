//! Cgroups (v2) of jobs: created, joined through a launcher, killed as a whole, and removed.
//!
//! ```text
//! home                          the cgroup that we were started in
//! ├── tidegate-supervisor       guard and supervisor, unless home is the hierarchy's root
//! └── tidegate-<lock>           this instance's
//!     ├── <supervisor>-<run>    a job, or a warm process
//!     └── ...
//! ```
//!
//! `<lock>` names the lock file of a state directory. The supervisor that holds this lock owns this cgroup. Processes
//! that are already in it were left by an instance that is dead, because other instances have other lock files. The
//! exception: a supervisor that has handed over keeps its leaves until its last jobs are over.
//!
//! Global, because the cgroup of a process is global.

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

/// Prefix of the names of instances' cgroups.
const PREFIX: &str = "tidegate-";

/// Period over which processor time is counted, in microseconds.
const CPU_PERIOD: u64 = 100_000;

/// How long a killed cgroup may take to become empty.
const KILL_TIMEOUT: Duration = Duration::from_secs(2);

/// Time between two attempts to remove a cgroup.
const PAUSE: Duration = Duration::from_millis(2);

static GROUPS: OnceLock<Groups> = OnceLock::new();

/// The kernel refused an operation on a cgroup.
#[derive(Debug, Error)]
#[error("failed to {what} {}", path.display())]
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

/// The cgroup of this instance, if there is one.
pub fn groups() -> Option<&'static Groups> {
    GROUPS.get()
}

/// Removes the cgroups of finished jobs whose processes were still dying when the jobs ended. Cheap if there are none.
pub(crate) fn sweep() {
    if let Some(groups) = groups() {
        groups.sweep();
    }
}

/// Creates the cgroup of this instance, with the controllers that `home` offers to jobs. Kills and removes the
/// processes and cgroups that a dead instance left there. `lock` identifies the lock that this process holds. `movers`
/// are moved to a separate cgroup. `finishing` are supervisors that have handed over: their leaves are not removed. A
/// second call does nothing.
///
/// Blocks until the killed processes are dead.
pub fn set_up(
    home: Home,
    lock: (u64, u64),
    movers: &[Pid],
    finishing: &[Pid],
) -> Result<(), CgroupError> {
    if GROUPS.get().is_some() {
        return Ok(());
    }
    let dir = home.dir.join(format!("{PREFIX}{:x}-{:x}", lock.0, lock.1));
    if dir.exists() {
        end_left_over(&dir, finishing);
    }
    match fs::create_dir(&dir) {
        // The kernel could not remove processes that do not die. Our own cgroups are created next to them.
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
    /// Killed cgroups that were not empty yet when they should have been removed. Written by `Leaf` on drop, read by
    /// sweeps.
    leaving: Mutex<Vec<PathBuf>>,
}

impl Groups {
    /// Makes a controller count and limit the cgroups of jobs.
    pub fn enable(&self, controller: Controller) -> Result<(), CgroupError> {
        let word = format!("+{}", controller.name());
        for dir in [&self.home.dir, &self.dir] {
            let file = dir.join("cgroup.subtree_control");
            write(dir, "cgroup.subtree_control", &word)
                .map_err(failed("get a controller from", &file))?;
        }
        Ok(())
    }

    /// Creates a cgroup for one run, with its limits.
    pub(crate) fn leaf(&'static self, run: Run, limits: &Limits) -> Result<Leaf, CgroupError> {
        self.sweep();
        let dir = self.dir.join(run.id());
        let made = match fs::create_dir(&dir) {
            // The guard of a predecessor that was killed removes the instance's cgroup if it is empty.
            Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir_all(&dir),
            made => made,
        };
        made.map_err(failed("make the cgroup", &dir))?;
        // If a later step fails, the drop removes the cgroup.
        let leaf = Leaf { groups: self, dir };
        if let Some(bytes) = limits.memory_max {
            self.limit(&leaf, Controller::Memory, "memory.max", &bytes.to_string())?;
            // Memory that would be swapped out counts too. A kernel without swap does not have this file.
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
        // A job that has lost a process to the out-of-memory killer cannot finish, so the whole job is killed. Without
        // the memory controller this file does not exist.
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

    /// Removes cgroups that have become empty.
    fn sweep(&self) {
        self.leaving().retain(|dir| remove(dir).is_err());
    }

    fn leaving(&self) -> std::sync::MutexGuard<'_, Vec<PathBuf>> {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes this supervisor's cgroups, and the instance's if no job is left. Blocks for a moment if jobs have just
    /// been killed.
    pub fn leave(&self) {
        for leaf in leaves(&self.dir) {
            if leaf_above(&leaf, Pid::this()) == Some(&leaf) {
                remove_patiently(&leaf);
            }
        }
        // It stays if a predecessor or a successor has jobs in it.
        let _ = fs::remove_dir(&self.dir);
    }
}

/// The cgroup of one run. **On drop** all processes in it are killed, and it is removed when they are dead.
#[derive(Debug)]
pub(crate) struct Leaf {
    groups: &'static Groups,
    dir: PathBuf,
}

impl Leaf {
    /// The file through which a process joins the cgroup.
    pub(crate) fn procs(&self) -> PathBuf {
        self.dir.join("cgroup.procs")
    }

    /// Kills all processes in the cgroup. Processes that are forked at the same time are killed too.
    pub(crate) fn kill(&self) {
        end(&self.dir);
    }

    /// Whether the kernel has killed a process of this cgroup because memory ran out.
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

/// The cgroup of a run of this supervisor that contains `process`.
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

/// Kills and removes what is in an instance's cgroup, except for the leaves of supervisors that still finish their jobs.
fn end_left_over(dir: &Path, finishing: &[Pid]) {
    let is_left_over = |leaf: &PathBuf| {
        let is_of = |supervisor: &Pid| leaf_above(leaf, *supervisor) == Some(leaf);
        !finishing.iter().any(is_of)
    };
    let left_over: Vec<_> = leaves(dir).into_iter().filter(is_left_over).collect();
    for leaf in &left_over {
        end(leaf);
    }
    for leaf in &left_over {
        remove_patiently(leaf);
    }
}

/// The cgroups in an instance's cgroup.
fn leaves(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.map(|entry| entry.path()).collect()
}

/// Kills all processes in a cgroup and below it (Linux 5.14 and later).
pub fn end(dir: &Path) {
    let _ = write(dir, "cgroup.kill", "1");
}

/// Removes the cgroups of a dead supervisor whose processes are all dead: `leaves`, and the cgroups beside them.
pub fn remove_leaves(leaves: &BTreeSet<PathBuf>, supervisor: Pid) {
    for leaf in leaves {
        remove_patiently(leaf);
    }
    let instances: BTreeSet<_> = leaves.iter().filter_map(|leaf| leaf.parent()).collect();
    for instance in instances {
        // The cgroups of another supervisor belong to one that has started in the meantime.
        let entries = fs::read_dir(instance).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()) {
            if leaf_above(&path, supervisor) == Some(&path) {
                let _ = remove(&path);
            }
        }
        let _ = fs::remove_dir(instance);
    }
}

/// Waits for a limited time until the cgroup is empty.
fn remove_patiently(dir: &Path) {
    let deadline = Instant::now() + KILL_TIMEOUT;
    while remove(dir).is_err() && Instant::now() < deadline {
        thread::sleep(PAUSE);
    }
}

/// Removes a cgroup, with the cgroups that a job has made in it.
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

/// Writes to a file of a cgroup, in one piece. Never creates a file.
fn write(dir: &Path, file: &str, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(dir.join(file))?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recognizes_the_cgroups_of_runs_of_its_own_supervisor() {
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
    fn counts_processes_that_the_kernel_killed_for_memory() {
        assert_eq!(oom_kills("low 0\noom 3\noom_kill 2\noom_group_kill 1\n"), 2);
        assert_eq!(oom_kills("low 0\n"), 0);
        assert_eq!(oom_kills(""), 0);
    }
}
