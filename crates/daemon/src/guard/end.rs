//! Killing all descendants of this process.
//!
//! Only for a process that waits for nothing else: this reaps every child.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::{
        signal::{Signal, kill},
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::{Pid, getpid},
};
use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};

use super::table::{self, Tree};
use tidegate::host::cgroup;

/// How long to try if processes do not die: they sleep in the kernel, or fork as fast as they are found.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Pause between two rounds: about as long as a process takes to die.
const PAUSE: Duration = Duration::from_millis(1);

/// The result for the descendants.
#[derive(Debug, Default)]
pub(super) struct EndReport {
    /// How many were found.
    pub(super) found: usize,
    /// Children that still exist.
    pub(super) left: Vec<Pid>,
}

/// Kills every descendant except the children in `spared`, and reaps the children that this process inherits. Also
/// kills all processes in the cgroups that `supervisor` made for its jobs, and removes those cgroups.
pub(super) fn end_descendants(spared: &[Pid], supervisor: Pid) -> EndReport {
    let deadline = Instant::now() + TIMEOUT;
    let mut seen = FoundProcesses {
        supervisor,
        processes: BTreeSet::new(),
        leaves: BTreeSet::new(),
    };
    let mut quiet = 0;
    loop {
        let round = KillRound::go(spared, &mut seen);
        quiet = if round.is_quiet { quiet + 1 } else { 0 };
        let is_over = match spared.is_empty() {
            true => has_no_child(),
            // The kernel cannot be asked for all children except some. A process that dies in a round may leave its
            // children to this process afterwards, so the last round must have found none. A second such round makes
            // sure.
            false => quiet == 2,
        };
        if is_over || round.is_hopeless || Instant::now() >= deadline {
            if is_over {
                cgroup::remove_leaves(&seen.leaves, supervisor);
            }
            return EndReport {
                found: seen.processes.len(),
                left: round.left,
            };
        }
        thread::sleep(PAUSE);
    }
}

/// The processes that were found so far.
struct FoundProcesses {
    supervisor: Pid,
    processes: BTreeSet<Pid>,
    leaves: BTreeSet<PathBuf>,
}

impl FoundProcesses {
    /// Notes a process. If it is the first of its job's cgroup, all processes of that cgroup are killed.
    fn insert(&mut self, pid: Pid) {
        if self.processes.insert(pid)
            && let Some(leaf) = cgroup::leaf_of(pid, self.supervisor)
            && !self.leaves.contains(&leaf)
        {
            cgroup::end(&leaf);
            self.leaves.insert(leaf);
        }
    }
}

/// One pass over the process tree.
#[derive(Default)]
struct KillRound {
    /// Children that are not dead yet.
    left: Vec<Pid>,
    /// There are such children, and we may not kill any of them.
    is_hopeless: bool,
    /// There was no child, dead or alive.
    is_quiet: bool,
}

impl KillRound {
    fn go(spared: &[Pid], seen: &mut FoundProcesses) -> Self {
        let mut round = Self::default();
        let Ok(tree) = Tree::look() else {
            return round;
        };
        let mut out_of_reach = 0;
        round.is_quiet = true;
        for child in tree.children(getpid()) {
            if spared.contains(&child) {
                continue;
            }
            round.is_quiet = false;
            seen.insert(child);
            // Its children are read first: they cannot be read after its death, and would then have to be found among
            // our own children.
            let below = tree.children(child);
            // It is our child and not reaped, so the id is still its own.
            let refused = kill(child, Signal::SIGKILL) == Err(Errno::EPERM);
            end_below(&tree, child, below, &mut seen.processes);
            if !reap(child) {
                round.left.push(child);
                out_of_reach += usize::from(refused);
            }
        }
        round.is_hopeless = !round.left.is_empty() && out_of_reach == round.left.len();
        round
    }
}

/// Kills the descendants of `top`. This process would inherit them as their parents die, but it is faster to kill the
/// whole tree at once.
fn end_below(tree: &Tree, top: Pid, children: Vec<Pid>, found: &mut BTreeSet<Pid>) {
    let mut families = vec![(top, children)];
    // Outdated data can contain cycles.
    let mut seen = BTreeSet::from([top]);
    while let Some((parent, children)) = families.pop() {
        for pid in children {
            if !seen.insert(pid) {
                continue;
            }
            let below = tree.children(pid);
            if end_exactly(pid, parent) {
                found.insert(pid);
                families.push((pid, below));
            }
        }
    }
}

/// Kills `pid` if it is still a child of `parent`, or if this process has inherited it. Returns whether that was so.
/// Another process may reap its child at any time, and the id may then be used again.
fn end_exactly(pid: Pid, parent: Pid) -> bool {
    let process = rustix::process::Pid::from_raw(pid.as_raw())
        .and_then(|process| pidfd_open(process, PidfdFlags::empty()).ok());
    // Checked after opening the descriptor, which then refers to the checked process.
    let is_it = table::stat(pid).is_some_and(|stat| [parent, getpid()].contains(&stat.parent));
    // Without a descriptor it is not killed now. It is found again when this process has inherited it.
    if let Some(process) = process
        && is_it
    {
        let _ = pidfd_send_signal(process, rustix::process::Signal::KILL);
    }
    is_it
}

/// Reaps a child if it is dead. Returns whether it has ended.
pub(super) fn reap(child: Pid) -> bool {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG;
    match waitid(Id::Pid(child), flags) {
        Ok(WaitStatus::StillAlive) => false,
        // The error means that it is no longer our child, or that it died of a signal without a name.
        Ok(_) | Err(_) => true,
    }
}

/// Whether the kernel says that there is no child, dead or alive. Then there is no descendant either.
pub(super) fn has_no_child() -> bool {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    waitid(Id::All, flags) == Err(Errno::ECHILD)
}
