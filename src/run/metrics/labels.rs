//! The labels of outcomes. Each is one of a fixed few.

/// How a run of a job came out.
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
    /// Stopped too, because its delivery could be held no longer.
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
    /// Made new before its job was begun, because its queue counts deliveries.
    Renewed,
    /// Put aside until no other message runs alone.
    Parked,
    Lost,
    /// The same, after the copy was confirmed: both will run, or lie in wait.
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

/// What became of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReplyOutcome {
    /// The answer was sent.
    Done,
    /// It was said that the job has failed for good.
    Failed,
    /// The same, of an answer that is longer than it may be.
    TooLarge,
    /// It was not sent where the message wants it.
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

/// How a reconcile came out.
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
