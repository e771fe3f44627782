//! The signals of the process, as a stream of commands.

use std::io;

use tokio::signal::unix::{self, SignalKind};

/// A signal, by its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    /// TERM.
    Terminate,
    /// INT: a Ctrl-C.
    Interrupt,
    /// QUIT.
    Quit,
    /// HUP.
    Hangup,
    /// USR1.
    Dump,
}

impl Signal {
    /// The name that `kill` uses.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Terminate => "SIGTERM",
            Self::Interrupt => "SIGINT",
            Self::Quit => "SIGQUIT",
            Self::Hangup => "SIGHUP",
            Self::Dump => "SIGUSR1",
        }
    }
}

/// The signals of this process. Creating this value installs handlers, so these signals no longer kill the process.
#[derive(Debug)]
pub(super) struct DaemonSignals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    quit: unix::Signal,
    hangup: unix::Signal,
    dump: unix::Signal,
}

impl DaemonSignals {
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: unix::signal(SignalKind::terminate())?,
            interrupt: unix::signal(SignalKind::interrupt())?,
            quit: unix::signal(SignalKind::quit())?,
            hangup: unix::signal(SignalKind::hangup())?,
            dump: unix::signal(SignalKind::user_defined1())?,
        })
    }

    /// The next signal. Cancel-safe.
    pub(super) async fn next(&mut self) -> Signal {
        tokio::select! {
            Some(()) = self.terminate.recv() => Signal::Terminate,
            Some(()) = self.interrupt.recv() => Signal::Interrupt,
            Some(()) = self.quit.recv() => Signal::Quit,
            Some(()) = self.hangup.recv() => Signal::Hangup,
            Some(()) = self.dump.recv() => Signal::Dump,
            // The streams end only with the runtime, which then no longer polls this.
            else => std::future::pending().await,
        }
    }
}
