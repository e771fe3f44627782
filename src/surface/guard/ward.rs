//! The supervisor's side: waits for the guard's death, and then ends the supervisor with all that it started.
//!
//! A thread of its own that takes no lock and writes no log, so that nothing can hold it up.

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

use super::{GuardError, end::end_descendants, held_back, left_over, refused, watch::THIS_PROGRAM};

/// Time between two looks at the guard where there are no pidfds (before Linux 5.3).
const TICK: Duration = Duration::from_millis(100);

/// Puts this process under the guard that has started it.
///
/// # Assumptions
/// Nobody has started a thread, or a process, yet.
///
/// # Errors
/// The guard is gone already, or the kernel refuses.
pub(in crate::surface) fn join(guard: i32) -> Result<(), GuardError> {
    let guard = Pid::from_raw(guard);
    // Before the first thread, because threads and jobs inherit it.
    held_back()
        .thread_unblock()
        .map_err(refused("let signals through"))?;
    prctl::set_child_subreaper(true).map_err(refused("become a subreaper"))?;
    // The kernel has named us after the way that the guard found our program.
    let _ = prctl::set_name(c"tidegate");
    let ward = Ward {
        guard,
        death: rustix::process::Pid::from_raw(guard.as_raw())
            .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()),
    };
    // After the descriptor was had: now it is certainly the guard's.
    if ward.is_alone() {
        return Err(GuardError::Gone);
    }
    left_over::collect().map_err(GuardError::Start)?;
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
        while !self.is_alone() {
            match &self.death {
                Some(death) => {
                    let mut death = [PollFd::new(death.as_fd(), PollFlags::POLLIN)];
                    // An error is an interruption.
                    let _ = poll(&mut death, PollTimeout::NONE);
                }
                None => thread::sleep(TICK),
            }
        }
        end_in_place();
    }

    /// A process whose parent dies has another one at once.
    fn is_alone(&self) -> bool {
        getppid() != self.guard
    }
}

/// Ends this supervisor with everything below it.
fn end_in_place() -> ! {
    // Takes our place, and with it every thread and every connection.
    let name = env::args_os().next().unwrap_or_default();
    let _not_done = Command::new(THIS_PROGRAM).arg0(name).arg("end-jobs").exec();
    // Some jobs may now be taken for failed ones, but they end.
    end_descendants(&[]);
    let _ = kill(getpid(), Signal::SIGKILL);
    unreachable!("nobody survives a KILL");
}
