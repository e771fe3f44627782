//! Programs that consume the queue themselves: how the pool ends one, and what it learns of its end.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// The pool's side of a program that consumes the queue itself.
#[derive(Debug, Clone, Default)]
pub struct ProgramControl {
    /// Asks it to finish what it holds and to end.
    pub leave: CancellationToken,
    /// Ends it now: the time for its end has run out. The broker delivers again what it held.
    pub stop: CancellationToken,
    /// Ends it now: the supervisor stops everything.
    pub kill: CancellationToken,
}

/// How a program ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProgramEnd {
    /// In words: an exit code or a signal, and its last line on standard error if that says more.
    pub how: String,
    /// Whether its exit code was 0.
    pub is_well: bool,
    /// Whether it was ended by force.
    pub was_killed: bool,
    /// How long it was up.
    pub ran: Duration,
}

impl ProgramEnd {
    /// An end in these words, not well and not by force.
    pub fn new(how: impl Into<String>) -> Self {
        Self {
            how: how.into(),
            ..Self::default()
        }
    }
}
