//! Ending everything that descends from this process.
//!
//! Only for a process that has nothing else to wait for: it reaps every child there is.

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

/// How long to go on where processes do not die: they sleep in the kernel, or fork as fast as they are found.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two rounds: about as long as a process takes to die.
const PAUSE: Duration = Duration::from_millis(1);

/// What became of the descendants.
#[derive(Debug, Default)]
pub(super) struct Ended {
    /// How many were found.
    pub(super) found: usize,
    /// Children that are still there.
    pub(super) left: Vec<Pid>,
}

/// Ends every descendant but the children in `spared`, and reaps what comes to us. Cgroups that `supervisor` has made for
/// its jobs are ended with all that is in them, and removed.
pub(super) fn end_descendants(spared: &[Pid], supervisor: Pid) -> Ended {
    let deadline = Instant::now() + PATIENCE;
    let mut seen = Seen {
        supervisor,
        processes: BTreeSet::new(),
        leaves: BTreeSet::new(),
    };
    let mut quiet = 0;
    loop {
        let round = Round::go(spared, &mut seen);
        quiet = if round.is_quiet { quiet + 1 } else { 0 };
        let is_over = match spared.is_empty() {
            true => has_no_child(),
            // The kernel cannot be asked for all but some. Whoever died in a round may have left us others since, so
            // only one that found nobody will do; and a second one, for good measure.
            false => quiet == 2,
        };
        if is_over || round.is_hopeless || Instant::now() >= deadline {
            if is_over {
                cgroup::remove_leaves(&seen.leaves, supervisor);
            }
            return Ended {
                found: seen.processes.len(),
                left: round.left,
            };
        }
        thread::sleep(PAUSE);
    }
}

/// What was found so far.
struct Seen {
    supervisor: Pid,
    processes: BTreeSet<Pid>,
    leaves: BTreeSet<PathBuf>,
}

impl Seen {
    /// Writes it down. The first one of a cgroup has all that is in there ended.
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

/// One time through the tree.
#[derive(Default)]
struct Round {
    /// Children that are not dead yet.
    left: Vec<Pid>,
    /// There are some, and none of them may be ended by us.
    is_hopeless: bool,
    /// There was no child at all, dead or alive.
    is_quiet: bool,
}

impl Round {
    fn go(spared: &[Pid], seen: &mut Seen) -> Self {
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
            // Its children first: it cannot be asked once it is dead, and they would have to be found among ours.
            let below = tree.children(child);
            // Ours and not reaped, so its id is certainly its own.
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

/// Ends what is below `top`. It would come to us as its parents die, but a tree is ended faster all at once.
fn end_below(tree: &Tree, top: Pid, children: Vec<Pid>, found: &mut BTreeSet<Pid>) {
    let mut families = vec![(top, children)];
    // What is out of date may go in circles.
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

/// Ends `pid` if it is still the child of `parent`, or has come to us, and says whether it is. Another's child may
/// be reaped at any time, and its id be a stranger's.
fn end_exactly(pid: Pid, parent: Pid) -> bool {
    let process = rustix::process::Pid::from_raw(pid.as_raw())
        .and_then(|process| pidfd_open(process, PidfdFlags::empty()).ok());
    // Only now, when the descriptor keeps us to the one that is asked.
    let is_it = table::stat(pid).is_some_and(|stat| [parent, getpid()].contains(&stat.parent));
    // Where there is no descriptor to be had it is found again, once it has come to us.
    if let Some(process) = process
        && is_it
    {
        let _ = pidfd_send_signal(process, rustix::process::Signal::KILL);
    }
    is_it
}

/// Reaps a child, if it is dead. Whether it is gone.
pub(super) fn reap(child: Pid) -> bool {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG;
    match waitid(Id::Pid(child), flags) {
        Ok(WaitStatus::StillAlive) => false,
        // An error is either that it is no child of ours any more, or that it died of a signal without a name.
        Ok(_) | Err(_) => true,
    }
}

/// Whether the kernel says that there is not one child, dead or alive: then there is no descendant either.
fn has_no_child() -> bool {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    waitid(Id::All, flags) == Err(Errno::ECHILD)
}
