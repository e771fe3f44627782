//! The labels of outcomes. Each is one of a fixed few.

/// The outcome of a run of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JobOutcome {
    Done,
    Failed,
    Timeout,
    Retry,
    Rejected,
    LaunchFailed,
    NotStarted,
    Stopped,
    /// Stopped, because its delivery could not be held any longer.
    Deadline,
}

impl JobOutcome {
    pub(super) const ALL: [Self; 9] = [
        Self::Done,
        Self::Failed,
        Self::Timeout,
        Self::Retry,
        Self::Rejected,
        Self::LaunchFailed,
        Self::NotStarted,
        Self::Stopped,
        Self::Deadline,
    ];

    /// Whether a run with this outcome is an error to those who look at traces. One that asks for a later attempt, or
    /// that we stopped, is not.
    pub(crate) fn is_error(self) -> bool {
        !matches!(self, Self::Done | Self::Retry | Self::Stopped)
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Timeout => "timeout",
            Self::Retry => "retry",
            Self::Rejected => "rejected",
            Self::LaunchFailed => "launch_failed",
            Self::NotStarted => "not_started",
            Self::Stopped => "stopped",
            Self::Deadline => "deadline",
        }
    }
}

/// How a delivery was settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settlement {
    Ack,
    Retry,
    DeadLetter,
    Reject,
    Requeue,
    RequeueCopy,
    /// Replaced by a copy before its job began, because its queue counts deliveries.
    Renewed,
    /// Deferred until no other message runs alone.
    Parked,
    Lost,
    /// Lost after the copy was confirmed: the message now exists twice.
    LostCopy,
}

impl Settlement {
    pub(crate) const ALL: [Self; 10] = [
        Self::Ack,
        Self::Retry,
        Self::DeadLetter,
        Self::Reject,
        Self::Requeue,
        Self::RequeueCopy,
        Self::Renewed,
        Self::Parked,
        Self::Lost,
        Self::LostCopy,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Ack => "ack",
            Self::Retry => "retry",
            Self::DeadLetter => "dead_letter",
            Self::Reject => "reject",
            Self::Requeue => "requeue",
            Self::RequeueCopy => "requeue_copy",
            Self::Renewed => "renewed",
            Self::Parked => "parked",
            Self::Lost => "lost",
            Self::LostCopy => "lost_copy",
        }
    }
}

/// The result of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReplyOutcome {
    /// The reply was sent.
    Done,
    /// A reply was sent that says that the job has finally failed.
    Failed,
    /// A reply was sent that says that the real reply is too long.
    TooLarge,
    /// It was not sent, because the requested address is not allowed.
    Refused,
    /// The broker cannot deliver it.
    Undeliverable,
}

impl ReplyOutcome {
    pub(crate) const ALL: [Self; 5] = [
        Self::Done,
        Self::Failed,
        Self::TooLarge,
        Self::Refused,
        Self::Undeliverable,
    ];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::TooLarge => "too_large",
            Self::Refused => "refused",
            Self::Undeliverable => "undeliverable",
        }
    }
}

/// The outcome of a reconcile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReconcileOutcome {
    Changed,
    Unchanged,
    Stale,
    Missing,
}

impl ReconcileOutcome {
    pub(super) const ALL: [Self; 4] = [Self::Changed, Self::Unchanged, Self::Stale, Self::Missing];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
            Self::Stale => "stale",
            Self::Missing => "missing",
        }
    }
}

/// The place at which code of the user was called: a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum PanicSite {
    /// `RunnerManager::kind`, `times`, `prestart` or `answers`.
    Describe,
    /// `RunnerManager::create`.
    Create,
    /// `RunnerManager::cleanup`.
    Cleanup,
    /// `RunnerManager::delete` or `flush`, and so `Runner::stop`.
    End,
    /// `RunnerManager::quiesce`.
    Quiesce,
    /// `Runner::run`.
    Run,
    /// `Runner::is_alive` or `retires`.
    Check,
    /// `EventSink::emit`.
    Event,
}

impl PanicSite {
    pub(super) const ALL: [Self; 8] = [
        Self::Describe,
        Self::Create,
        Self::Cleanup,
        Self::End,
        Self::Quiesce,
        Self::Run,
        Self::Check,
        Self::Event,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Describe => "describe",
            Self::Create => "create",
            Self::Cleanup => "cleanup",
            Self::End => "end",
            Self::Quiesce => "quiesce",
            Self::Run => "run",
            Self::Check => "check",
            Self::Event => "event",
        }
    }
}
