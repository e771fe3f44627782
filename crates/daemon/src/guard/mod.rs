//! No orphans: when the supervisor or its guard is killed, every process of every job is killed at once.
//!
//! ```text
//! guard           waits for the supervisor; passes signals on; hands its exit code back
//! └── supervisor  waits for the guard; runs everything
//!     ├── job     spawned directly
//!     │   └── its own children
//!     └── orphans of jobs: double forks, setsid
//! ```
//!
//! Both are *child subreapers*: when a process's parent dies, its new parent is the nearest living subreaper above
//! it. Process groups and sessions do not change this. So no process of a job leaves this tree:
//!
//! - When the supervisor is killed, the guard inherits all its processes, kills them ([`end`]) and then ends.
//! - When the guard is killed, the supervisor sees it ([`ward`]) and executes this program again in its own process,
//!   which kills them. Only `exec` stops all of its threads at once. So no job that is killed now can be reported and
//!   settled as failed: the connections are closed, and the broker delivers its message again.
//! - While both live, the supervisor kills the processes that a job has left behind after that job is over
//!   ([`left_over`]).
//!
//! A process without a child has no descendant, and the kernel reports that reliably. So the work is done when no
//! child is left, and no process can escape by forking meanwhile. A job in a cgroup of its own is killed through the
//! cgroup as soon as one of its processes is found. Processes are reaped by id only, because the runtime in the
//! supervisor waits for its own children.
//!
//! The guard does nothing else. It has one thread and uses little memory, so only a kill can end it. Its name in the
//! process table is `tide-guard`, so that `pkill tidegate` finds only the supervisor.
//!
//! # Limits of the promise
//! - Both are killed at the same instant (`pkill -f`, a whole cgroup). Under systemd the unit's cgroup is killed
//!   then.
//! - The machine stops, or the process that kills the others is itself stopped (SIGSTOP, a debugger).
//! - A process that sleeps in the kernel (state D) dies when it wakes up. A process held by a debugger also dies.
//! - A process runs as another user and we are not root: we may not kill it.
//! - A process is not a descendant: a job asked another program to start it (systemd, cron, at, a container engine).
//! - A process that forks again and again, faster than it can be found, may take longer than a second.

mod end;
mod left_over;
mod role;
mod table;
mod ward;
mod watch;

use std::env;

use nix::{sys::prctl, unistd::Pid};

use self::role::GUARD_PID;
pub(super) use self::role::{GuardError, Role};

/// Decides the role of this process. If its guard did not start it, it becomes the guard and starts the same command
/// again as its child.
///
/// # Assumptions
/// No thread has been started yet.
///
/// # Errors
/// The kernel or the file system lacks something that this needs. Nothing has been started.
pub(super) fn take_role() -> Result<Role, GuardError> {
    match pid() {
        None => watch::run().map(Role::Done),
        Some(guard) => ward::join(guard),
    }
}

/// Protects the environment and the memory of this process, which contain the broker's password, from other processes
/// of the same user. Jobs may be such processes. From now on only root can read `/proc/PID/environ` and similar
/// files, and there are no core dumps. Programs that this process starts are not protected.
pub(super) fn conceal() {
    // No kernel refuses this.
    let _ = prctl::set_dumpable(false);
}

/// The guard of this process, if it has one.
pub(super) fn pid() -> Option<Pid> {
    let pid = env::var(GUARD_PID).ok()?.parse().ok()?;
    Some(Pid::from_raw(pid))
}
