//! The supervisor's side: a thread that waits for the guard's death, and ends what jobs have left behind.
//!
//! A thread of its own, so that it does its work whatever the runtime is busy with.

use std::{
    env,
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::Command,
    thread,
    time::Duration,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        prctl,
        signal::{Signal, kill},
    },
    unistd::{Pid, getpid, getppid},
};
use rustix::process::{PidfdFlags, pidfd_open};

use super::{
    GuardError,
    end::{end_descendants, reap},
    held_back, refused, table,
    watch::THIS_PROGRAM,
};
use crate::adapters::children::{self, Family, Run};

/// Time between two looks at what was inherited, and without pidfds (before Linux 5.3) at the guard too. In
/// milliseconds.
const TICK: u8 = 200;

/// Rounds at once in which what was orphaned by our own ending is ended too: each goes one generation down.
const ROUNDS: u32 = 16;

/// Puts this process under the guard that has started it.
///
/// # Assumptions
/// Nobody has started a thread, or a process, yet.
///
/// # Errors
/// The guard is gone already, or the kernel refuses.
pub(in crate::surface) fn join(guard: i32) -> Result<(), GuardError> {
    let guard = Pid::from_raw(guard);
    held_back()
        .thread_unblock()
        .map_err(refused("let signals through"))?;
    prctl::set_child_subreaper(true).map_err(refused("become a subreaper"))?;
    // The kernel has named us after the way that the guard found our program.
    let _ = prctl::set_name(c"tidegate");
    children::keep_account();
    let ward = Ward {
        guard,
        death: rustix::process::Pid::from_raw(guard.as_raw())
            .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()),
    };
    // After the descriptor was had: now it is certainly the guard's.
    if ward.is_alone() {
        return Err(GuardError::Gone);
    }
    thread::Builder::new()
        .name("tide-ward".to_owned())
        .spawn(move || ward.watch())
        .map_err(GuardError::Start)?;
    Ok(())
}

struct Ward {
    guard: Pid,
    death: Option<OwnedFd>,
}

impl Ward {
    fn watch(self) {
        loop {
            self.wait();
            if self.is_alone() {
                end_in_place();
            }
            for _ in 0..ROUNDS {
                if !end_left_overs() {
                    break;
                }
                thread::sleep(Duration::from_millis(1));
            }
        }
    }

    fn wait(&self) {
        match &self.death {
            Some(death) => {
                let mut death = [PollFd::new(death.as_fd(), PollFlags::POLLIN)];
                let _ = poll(&mut death, PollTimeout::from(TICK));
            }
            None => thread::sleep(Duration::from_millis(TICK.into())),
        }
    }

    /// A process whose parent dies has another one at once.
    fn is_alone(&self) -> bool {
        getppid() != self.guard
    }
}

/// Ends this supervisor with everything below it.
fn end_in_place() -> ! {
    // Takes our place, and with it every thread and every connection. No word to the log before: whoever reads it
    // may be gone too, and would hold us up.
    let name = env::args_os().next().unwrap_or_default();
    let _not_done = Command::new(THIS_PROGRAM).arg0(name).arg("end-jobs").exec();
    // Some jobs may now be taken for failed ones, but they end.
    end_descendants(&[]);
    let _ = kill(getpid(), Signal::SIGKILL);
    unreachable!("nobody survives a KILL");
}

/// Reaps what was inherited and is dead, and ends what was left behind by jobs that are over. Whether there was
/// such a one.
fn end_left_overs() -> bool {
    let Ok(Family { inherited, running }) = children::family(table::own_children) else {
        return false;
    };
    let alive = inherited.into_iter().filter(|pid| !reap(*pid));
    let alive: Vec<_> = alive.collect();
    if alive.is_empty() {
        return false;
    }
    let running: Vec<_> = running
        .into_iter()
        .map(|(run, leader)| (run, table::stat(leader).map_or(0, |stat| stat.started)))
        .collect();
    let mut ended = 0;
    for pid in alive {
        let Some(stat) = table::stat(pid) else {
            continue;
        };
        if is_left_over(table::run_of(pid), stat.started, &running)
            // Inherited and not reaped, and nobody else here would: its id is certainly its own.
            && kill(pid, Signal::SIGKILL).is_ok()
        {
            ended += 1;
        }
    }
    if ended > 0 {
        tracing::warn!(processes = ended, "ended what jobs had left running");
    }
    ended > 0
}

/// Whether an inherited process is of no run that goes on. `named` is the run that it says it is of, and `running`
/// has the time that each was started.
///
/// Who cleared or overwrote its environment does not say; it is spared as long as any run goes on that is old
/// enough to have started it.
fn is_left_over(named: Option<Run>, started: u64, running: &[(Run, u64)]) -> bool {
    let mut running = running.iter();
    match named {
        Some(named) => running.all(|(run, _)| *run != named),
        None => running.all(|(_, since)| *since > started),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spares_what_may_be_of_a_job_that_still_runs() {
        let run = Run::new;
        let running = [(run(1), 100), (run(2), 200)];
        let table = [
            ("of a run that goes on", Some(run(2)), 300, false),
            ("of a run that is over", Some(run(3)), 300, true),
            (
                "of a run that is over, and younger than others",
                Some(run(3)),
                50,
                true,
            ),
            ("silent, and younger than a run", None, 150, false),
            ("silent, and of the same tick as a run", None, 100, false),
            ("silent, and older than all", None, 99, true),
        ];
        for (name, named, started, expected) in table {
            assert_eq!(is_left_over(named, started, &running), expected, "{name}");
        }
        assert!(is_left_over(None, 300, &[]), "nothing runs any more");
    }
}
