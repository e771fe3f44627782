//! The names of the orders that operators give to a running supervisor, for logs and metrics.

use std::fmt;

/// An order of an operator: the label `act`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SteeringAct {
    /// Stop intake.
    Pause,
    /// Open intake.
    Resume,
    /// Stop intake and become empty.
    Drain,
    /// Stop runners.
    Flush,
    /// Pin the number of workers, or remove the pin.
    Scale,
    /// Forbid shrinking, or allow it.
    Shrinking,
    /// Set keys of the policy, or reset them.
    Policy,
    /// Read the configuration again.
    Reload,
    /// Hand over to a successor.
    Takeover,
    /// Stop a running job.
    StopJob,
    /// Put dead letters back.
    DeadRetry,
    /// Delete dead letters.
    DeadPurge,
}

impl SteeringAct {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Pause,
        Self::Resume,
        Self::Drain,
        Self::Flush,
        Self::Scale,
        Self::Shrinking,
        Self::Policy,
        Self::Reload,
        Self::Takeover,
        Self::StopJob,
        Self::DeadRetry,
        Self::DeadPurge,
    ];

    /// The name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Drain => "drain",
            Self::Flush => "flush",
            Self::Scale => "scale",
            Self::Shrinking => "shrinking",
            Self::Policy => "policy",
            Self::Reload => "reload",
            Self::Takeover => "takeover",
            Self::StopJob => "stop_job",
            Self::DeadRetry => "dead_retry",
            Self::DeadPurge => "dead_purge",
        }
    }
}

impl fmt::Display for SteeringAct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The outcome of an order: the label `outcome`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SteeringOutcome {
    /// Something changed.
    Changed,
    /// It was already in force.
    Unchanged,
    /// It is not possible.
    Refused,
    /// The caller has no right to it.
    Denied,
}

impl SteeringOutcome {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Changed, Self::Unchanged, Self::Refused, Self::Denied];

    /// The outcome of an act that was carried out.
    pub fn of(changed: bool) -> Self {
        match changed {
            true => Self::Changed,
            false => Self::Unchanged,
        }
    }

    /// The name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
            Self::Refused => "refused",
            Self::Denied => "denied",
        }
    }
}
