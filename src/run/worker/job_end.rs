//! The meaning of a job's end for the metrics, for the breaker, and for readers of the log. Pure functions.

use super::super::worker_state::WorkerStopReason;
use crate::{
    decide::BreakerSignal,
    run::{metrics::JobOutcome, panics::Panicked},
    runner::{Failure, FailureKind, JobEnd, RunReport},
};

/// What an operator should check when a consumer was lost while its job ran.
pub(super) fn lost_hint(why: WorkerStopReason) -> Option<&'static str> {
    match why {
        WorkerStopReason::HeldTooLong => Some(
            "the broker's consumer timeout is shorter than ack_deadline: lower ack_deadline below it, or raise it \
             (consumer_timeout in rabbitmq.conf, or the queue's x-consumer-timeout)",
        ),
        WorkerStopReason::Cancelled => Some(
            "the queue was deleted, its node lost, or a delivery held longer than the broker's consumer timeout",
        ),
        _ => None,
    }
}

pub(super) fn outcome_of(end: &JobEnd) -> JobOutcome {
    match end {
        JobEnd::Done { .. } => JobOutcome::Done,
        JobEnd::Retry { .. } => JobOutcome::Retry,
        JobEnd::Rejected { .. } => JobOutcome::Rejected,
        JobEnd::Failed(Failure {
            kind: FailureKind::Timeout,
            ..
        }) => JobOutcome::Timeout,
        JobEnd::Failed(_) => JobOutcome::Failed,
        JobEnd::WrapperFailed(_) => JobOutcome::LaunchFailed,
        JobEnd::NotStarted(_) => JobOutcome::NotStarted,
        JobEnd::Stopped => JobOutcome::Stopped,
    }
}

/// The result of a job for the breaker. `None` if tidegate caused the end.
pub(super) fn breaker_signal(end: &JobEnd) -> Option<BreakerSignal<'_>> {
    match end {
        JobEnd::Done { .. } | JobEnd::Retry { .. } | JobEnd::Rejected { .. } => {
            Some(BreakerSignal::Answered)
        }
        JobEnd::Failed(failure) => Some(BreakerSignal::Failed(&failure.message)),
        JobEnd::WrapperFailed(failure) => Some(BreakerSignal::Unproven(&failure.message)),
        JobEnd::NotStarted(_) | JobEnd::Stopped => None,
    }
}

/// The report of a runner that panicked: its job has failed.
pub(super) fn runner_panicked(panicked: &Panicked) -> RunReport {
    RunReport {
        end: JobEnd::Failed(Failure {
            kind: FailureKind::RunnerLost,
            message: format!("the runner panicked: {panicked}"),
            stderr_tail: None,
        }),
        reusable: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_says_what_to_check_when_a_consumer_was_lost_while_its_job_ran() {
        let too_long = lost_hint(WorkerStopReason::HeldTooLong).expect("a hint");
        for part in [
            "consumer timeout",
            "lower ack_deadline",
            "x-consumer-timeout",
        ] {
            assert!(too_long.contains(part), "{too_long}");
        }
        let cancelled = lost_hint(WorkerStopReason::Cancelled).expect("a hint");
        for part in ["queue was deleted", "node lost", "consumer timeout"] {
            assert!(cancelled.contains(part), "{cancelled}");
        }
        // The error of a lost connection names its cause itself.
        assert_eq!(lost_hint(WorkerStopReason::Lost), None);
    }
}
