//! The guard: starts the supervisor, waits for it, passes signals on, and kills what it leaves behind.

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
    end::{EndReport, end_descendants, reap},
    role::{GUARD_PID, GuardError, PASSED_ON, THIS_PROGRAM, held_back, refused},
    table,
};
use crate::telemetry::stderr::{self, LogPriority};
use tidegate::host::children;

/// Exit code if the supervisor's is unknown.
const UNKNOWN: u8 = 1;

/// How long signals are kept for a supervisor that was just started. Before it has handlers, a signal would kill it.
const EARLY: Duration = Duration::from_secs(10);

/// Time between two checks whether the supervisor has its signal handlers.
const TICK: Duration = Duration::from_millis(5);

/// Turns this process into the guard and runs the supervisor. Returns when no process of the supervisor is left, with
/// its exit code, or 128 + n if signal n killed it.
pub(super) fn run() -> Result<ExitCode, GuardError> {
    // A shell that replaced itself by this program may have left us children. They must not be killed.
    let others = table::own_children().map_err(GuardError::Start)?;
    prctl::set_child_subreaper(true).map_err(refused("become a subreaper"))?;
    children::keep_exit_codes().map_err(GuardError::Start)?;
    // The name is only shown to people.
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
    let ended = end_descendants(&others, pid);
    report(status, &ended);
    Ok(code(status).into())
}

/// Kills all remaining processes, as a supervisor whose guard has ended.
pub(super) fn end_jobs() -> ExitCode {
    // Signals must not interrupt this: no process above us would finish it.
    let _ = held_back().thread_block();
    let ended = end_descendants(&[], getpid());
    say(format_args!(
        "the supervisor's guard has ended. Ended the supervisor, and {} of its jobs' processes",
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
        // Not in the terminal's foreground, so that a Ctrl-C reaches the supervisor once, through the guard.
        .process_group(0)
        .spawn()
}

/// Reports the supervisor's death even if our parent made us ignore SIGCHLD. `None` before Linux 5.3.
fn pidfd(supervisor: &Child) -> Option<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(supervisor.id().cast_signed())?;
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

struct Guard {
    supervisor: Child,
    /// The supervisor's id. Valid until `supervisor` was waited for with success.
    pid: Pid,
    death: Option<OwnedFd>,
    signals: SignalFd,
    /// Signals are kept until then. `None` when the supervisor has its handlers.
    early: Option<Instant>,
    /// Signals to pass on, oldest first.
    kept: Vec<Signal>,
}

impl Guard {
    /// Waits for the supervisor's end. `None` if its exit status cannot be known.
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
        // An error is an interruption: the caller checks everything anyway.
        let _ = poll(&mut sources, timeout);
    }

    /// Passes on the kept signals when the supervisor has its handlers.
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
            // A Ctrl-Z. If only the guard stopped, the supervisor would run without a guard.
            Signal::SIGTSTP => {
                let _ = kill(self.pid, Signal::SIGSTOP);
                let _ = raise(Signal::SIGSTOP);
                let _ = kill(self.pid, Signal::SIGCONT);
            }
            signal if PASSED_ON.contains(&signal) => self.kept.push(signal),
            _ => {}
        }
    }

    /// As the first process of a container, the guard inherits processes that are not the supervisor's.
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

fn report(status: Option<ExitStatus>, ended: &EndReport) {
    if let Some(signal) = status.and_then(|status| status.signal()) {
        say(format_args!(
            "the supervisor was ended by signal {signal}; ended {} of its jobs' processes",
            ended.found
        ));
    }
    complain(ended);
}

fn complain(ended: &EndReport) {
    if !ended.left.is_empty() {
        say(format_args!(
            "some processes did not die after KILL: {:?}",
            ended
                .left
                .iter()
                .map(|pid| pid.as_raw())
                .collect::<Vec<_>>()
        ));
    }
}

/// The guard has no log, so it writes like the log's writer: the last message cannot delay the end. It starts a
/// second thread only now, because nothing is started any more.
fn say(what: std::fmt::Arguments<'_>) {
    if let Ok(stderr) = stderr::start() {
        stderr.push(
            format!("tidegate: {what}\n").as_bytes(),
            LogPriority::Important,
        );
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
