//! The supervisor's side: waits for the guard's death, then kills the supervisor and all that it started.
//!
//! Runs in a thread of its own that takes no lock and writes no log, so that nothing can block it.

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
    end::end_descendants,
    left_over,
    role::{GuardError, Role, THIS_PROGRAM, held_back, refused},
    watch::end_jobs,
};

/// Time between two checks of the guard if there are no pidfds (before Linux 5.3).
const TICK: Duration = Duration::from_millis(100);

/// Puts this process under the guard that started it. If the guard has ended, kills what this process had started
/// before it executed itself again.
pub(super) fn join(guard: Pid) -> Result<Role, GuardError> {
    let ward = Ward {
        guard,
        death: rustix::process::Pid::from_raw(guard.as_raw())
            .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()),
    };
    // Checked after opening the descriptor, which then certainly refers to the guard.
    if ward.is_alone() {
        return Ok(Role::Done(end_jobs()));
    }
    // Before the first thread starts, because threads and jobs inherit the signal mask.
    held_back()
        .thread_unblock()
        .map_err(refused("let signals through"))?;
    prctl::set_child_subreaper(true).map_err(refused("become a subreaper"))?;
    // The kernel named the process after the path that the guard executed.
    let _ = prctl::set_name(c"tidegate");
    left_over::collect().map_err(GuardError::Start)?;
    thread::Builder::new()
        .name("tide-ward".to_owned())
        .spawn(move || ward.watch())
        .map_err(GuardError::Start)?;
    Ok(Role::Supervisor)
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

    /// A process whose parent dies gets a new parent at once.
    fn is_alone(&self) -> bool {
        getppid() != self.guard
    }
}

/// Kills this supervisor and all its descendants.
fn end_in_place() -> ! {
    // The same command replaces this process. Its threads and connections end, and it finds that its guard has ended.
    let mut arguments = env::args_os();
    let name = arguments.next().unwrap_or_else(|| THIS_PROGRAM.into());
    let mut command = Command::new(THIS_PROGRAM);
    let _not_done = command.arg0(name).args(arguments).exec();
    // `exec` failed. Some jobs may now be settled as failed, but all of them end.
    end_descendants(&[], getpid());
    let _ = kill(getpid(), Signal::SIGKILL);
    unreachable!("nobody survives a KILL");
}
