//! The settings of `consumer`.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::runners::process::ExecSettings;

/// How programs that consume the queue themselves are started and ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerSettings {
    /// How a process is started. Its `timeout` and `kill_grace` mean nothing here.
    pub process: ExecSettings,
    /// The signal that makes a process finish what it holds, and end.
    pub stop_signal: StopSignal,
    /// How long a process may take to end after that. `None`: as long as it takes.
    pub stop_timeout: Option<Duration>,
}

impl ConsumerSettings {
    /// The command with the defaults of the configuration file.
    pub fn new(command: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            process: ExecSettings::new(command),
            stop_signal: StopSignal::default(),
            stop_timeout: None,
        }
    }
}

/// A signal that programs take as the request to end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names of the signals")]
pub enum StopSignal {
    #[default]
    Term,
    Int,
    Quit,
    Hup,
    Usr1,
    Usr2,
    Winch,
}

impl StopSignal {
    /// Every signal, with its word in the configuration file.
    pub(super) const WORDS: [(&'static str, Self); 7] = [
        ("TERM", Self::Term),
        ("INT", Self::Int),
        ("QUIT", Self::Quit),
        ("HUP", Self::Hup),
        ("USR1", Self::Usr1),
        ("USR2", Self::Usr2),
        ("WINCH", Self::Winch),
    ];

    pub(super) fn signal(self) -> Signal {
        match self {
            Self::Term => Signal::SIGTERM,
            Self::Int => Signal::SIGINT,
            Self::Quit => Signal::SIGQUIT,
            Self::Hup => Signal::SIGHUP,
            Self::Usr1 => Signal::SIGUSR1,
            Self::Usr2 => Signal::SIGUSR2,
            Self::Winch => Signal::SIGWINCH,
        }
    }
}
