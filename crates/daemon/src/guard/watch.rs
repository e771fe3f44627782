//! The guard: starts the supervisor, waits for it, passes signals on, and ends whatever it leaves.

use std::{
    env, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::{CommandExt, ExitStatusExt},
    },
    process::{Child, Command, ExitCode, ExitStatus},
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        prctl,
        signal::{Signal, kill, raise},
        signalfd::{SfdFlags, SignalFd},
    },
    unistd::{Pid, getpid},
};
use rustix::process::{PidfdFlags, pidfd_open};

use super::{
    GUARD_PID, GuardError, PASSED_ON, THIS_PROGRAM,
    end::{Ended, end_descendants, reap},
    held_back, refused, table,
};
use crate::telemetry::stderr::{self, Weight};
use tidegate::host::children;

/// Exit code where the supervisor's was lost.
const UNKNOWN: u8 = 1;

/// How long signals are kept for a supervisor that has just been started. Before it listens it would die of them.
const EARLY: Duration = Duration::from_secs(10);

/// Time between two looks whether it listens by now.
const TICK: Duration = Duration::from_millis(5);

/// Runs the supervisor under a guard, which is this process from now on. Returns its exit code, 128 + n where
/// it was ended by signal n, when not one process of it is left.
pub(super) fn run() -> Result<ExitCode, GuardError> {
    // A shell that ran this program in its own place may have left us children. They are not ours to end.
    let strangers = table::own_children().map_err(GuardError::Start)?;
    prctl::set_child_subreaper(true).map_err(refused("become a subreaper"))?;
    children::keep_exit_codes().map_err(GuardError::Start)?;
    // A name is for people.
    let _ = prctl::set_name(c"tide-guard");
    held_back()
        .thread_block()
        .map_err(refused("hold signals back"))?;
    let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
    let signals = SignalFd::with_flags(&held_back(), flags).map_err(refused("wait for signals"))?;

    let supervisor = start().map_err(GuardError::Start)?;
    let pid = Pid::from_raw(supervisor.id().cast_signed());
    let status = Guard {
        pid,
        death: pidfd(&supervisor),
        supervisor,
        signals,
        early: Some(Instant::now() + EARLY),
        kept: Vec::new(),
    }
    .watch();
    let ended = end_descendants(&strangers, pid);
    report(status, &ended);
    Ok(code(status).into())
}

/// Ends all that is left, in the place of a supervisor whose guard is gone.
pub(super) fn end_jobs() -> ExitCode {
    // Nothing is to come between: there is nobody above us to do it.
    let _ = held_back().thread_block();
    let ended = end_descendants(&[], getpid());
    say(format_args!(
        "the supervisor's guard is gone; ended the supervisor, and {} of its jobs' processes",
        ended.found
    ));
    complain(&ended);
    ExitCode::from(128 + Signal::SIGKILL as u8)
}

fn start() -> io::Result<Child> {
    let mut arguments = env::args_os();
    let name = arguments.next().unwrap_or_else(|| THIS_PROGRAM.into());
    Command::new(THIS_PROGRAM)
        .arg0(name)
        .args(arguments)
        .env(GUARD_PID, std::process::id().to_string())
        // Out of the terminal's foreground, so that a Ctrl-C reaches it once, through us.
        .process_group(0)
        .spawn()
}

/// Tells of the supervisor's death also where whoever started us has us ignore SIGCHLD. `None` before Linux 5.3.
fn pidfd(supervisor: &Child) -> Option<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(supervisor.id().cast_signed())?;
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

struct Guard {
    supervisor: Child,
    /// The supervisor's, valid until `supervisor` was waited for with success.
    pid: Pid,
    death: Option<OwnedFd>,
    signals: SignalFd,
    /// Until then signals are kept back. `None` once the supervisor listens.
    early: Option<Instant>,
    /// What is to be passed on, oldest first.
    kept: Vec<Signal>,
}

impl Guard {
    /// Waits for the supervisor's end. `None` where how it ended cannot be known.
    fn watch(mut self) -> Option<ExitStatus> {
        loop {
            self.wait();
            while let Ok(Some(signal)) = self.signals.read_signal() {
                let number = signal.ssi_signo.cast_signed();
                if let Ok(signal) = Signal::try_from(number) {
                    self.handle(signal);
                }
            }
            self.pass_on();
            match self.supervisor.try_wait() {
                Ok(None) => {}
                Ok(Some(status)) => return Some(status),
                Err(_) => return None,
            }
        }
    }

    fn wait(&self) {
        let signals = self.signals.as_fd();
        let death = self.death.as_ref().map_or(signals, AsFd::as_fd);
        let mut sources = [signals, death].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        let timeout = match self.kept.is_empty() {
            true => PollTimeout::NONE,
            false => TICK.try_into().unwrap_or(PollTimeout::ZERO),
        };
        // An error is an interruption: whoever comes back looks at everything anyway.
        let _ = poll(&mut sources, timeout);
    }

    /// Passes on what was kept, once the supervisor can hear it.
    fn pass_on(&mut self) {
        if self.kept.is_empty() {
            return;
        }
        if let Some(early) = self.early
            && table::handles(self.pid, &PASSED_ON) == Some(false)
            && Instant::now() < early
        {
            return;
        }
        self.early = None;
        for signal in self.kept.drain(..) {
            let _ = kill(self.pid, signal);
        }
    }

    fn handle(&mut self, signal: Signal) {
        match signal {
            Signal::SIGCHLD => self.reap_others(),
            // A Ctrl-Z. Ours alone would leave a supervisor that nobody guards.
            Signal::SIGTSTP => {
                let _ = kill(self.pid, Signal::SIGSTOP);
                let _ = raise(Signal::SIGSTOP);
                let _ = kill(self.pid, Signal::SIGCONT);
            }
            signal if PASSED_ON.contains(&signal) => self.kept.push(signal),
            _ => {}
        }
    }

    /// As the first process of a container we inherit more than the supervisor's.
    fn reap_others(&self) {
        for child in table::own_children().unwrap_or_default() {
            if child != self.pid {
                reap(child);
            }
        }
    }
}

fn code(status: Option<ExitStatus>) -> u8 {
    let Some(status) = status else {
        return UNKNOWN;
    };
    let code = match (status.code(), status.signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => UNKNOWN.into(),
    };
    u8::try_from(code).unwrap_or(UNKNOWN)
}

fn report(status: Option<ExitStatus>, ended: &Ended) {
    if let Some(signal) = status.and_then(|status| status.signal()) {
        say(format_args!(
            "the supervisor was ended by signal {signal}; ended {} of its jobs' processes",
            ended.found
        ));
    }
    complain(ended);
}

fn complain(ended: &Ended) {
    if !ended.left.is_empty() {
        say(format_args!(
            "processes that do not die of KILL are left behind: {:?}",
            ended
                .left
                .iter()
                .map(|pid| pid.as_raw())
                .collect::<Vec<_>>()
        ));
    }
}

/// There is no log here, but its way is taken: what is said last does not hold up the end. Only now, when nothing is
/// started any more, is there a second thread.
fn say(what: std::fmt::Arguments<'_>) {
    if let Ok(stderr) = stderr::start() {
        stderr.push(format!("tidegate: {what}\n").as_bytes(), Weight::Grave);
        stderr.finish(stderr::END_TIMEOUT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hands_exit_codes_back_as_they_are_and_signals_as_shells_do() {
        let table = [
            (Some(0), 0),
            (Some(75 << 8), 75),
            (Some(255 << 8), 255),
            (Some(9), 137),
            (Some(6 | 0x80), 134),
            (Some(64), 192),
            (None, 1),
        ];
        for (status, expected) in table {
            assert_eq!(
                code(status.map(ExitStatus::from_raw)),
                expected,
                "{status:?}"
            );
        }
    }
}
