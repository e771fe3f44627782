//! Turns exit codes and signals into a [`JobEnd`]. Pure.

use std::{os::unix::process::ExitStatusExt, process::ExitStatus, time::Duration};

use nix::sys::signal::Signal;

use tidegate_core::text::duration;

use super::course::EndCause;
use crate::runner::{Failure, FailureKind, JobEnd};

const EXIT_REJECT: i32 = 65;
const EXIT_RETRY: i32 = 75;
const EXIT_CANNOT_EXECUTE: i32 = 126;
const EXIT_NOT_FOUND: i32 = 127;

/// How a job's first process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::runners) enum ProcessExit {
    /// It exited by itself with this code.
    Code(i32),
    /// A signal with this number ended it.
    Signal(i32),
    /// The kernel killed it because memory ran out.
    OutOfMemory,
}

impl ProcessExit {
    /// `None` if the status does not mean that the process has ended.
    pub(in crate::runners) fn of(status: ExitStatus) -> Option<Self> {
        let code = status.code().map(Self::Code);
        code.or_else(|| status.signal().map(Self::Signal))
    }

    /// Whether the exit code decides how the message is settled.
    pub(in crate::runners) fn is_word(self) -> bool {
        matches!(self, Self::Code(0 | EXIT_REJECT | EXIT_RETRY))
    }
}

/// The result of a job that was started.
///
/// `exit` is `None` if the process did not end after a KILL. `stderr_tail` is the end of its standard error.
pub(in crate::runners) fn job_end(
    exit: Option<ProcessExit>,
    cause: Option<EndCause>,
    timeout: Duration,
    stderr_tail: Option<String>,
) -> JobEnd {
    match (cause, exit) {
        // The timeout comes first: if a job counted as done after its timeout, the result would depend on chance.
        (Some(EndCause::Timeout), _) => JobEnd::Failed(Failure {
            kind: FailureKind::Timeout,
            message: format!("ran longer than its timeout of {}", duration(timeout)),
            stderr_tail,
        }),
        (_, Some(ProcessExit::Code(0))) => JobEnd::Done { reply: None },
        (_, Some(ProcessExit::Code(EXIT_REJECT))) => {
            let reason = rejection(stderr_tail.as_deref());
            JobEnd::Rejected {
                failure: Some(Failure {
                    kind: FailureKind::Exit(EXIT_REJECT),
                    message: reason.clone(),
                    stderr_tail,
                }),
                reason,
            }
        }
        (_, Some(ProcessExit::Code(EXIT_RETRY))) => JobEnd::Retry {
            after: None,
            failure: Some(Failure {
                kind: FailureKind::Exit(EXIT_RETRY),
                message: format!("asked to be run later (exit code {EXIT_RETRY})"),
                stderr_tail,
            }),
        },
        (Some(EndCause::Stop), _) => JobEnd::Stopped,
        (None, Some(ProcessExit::Code(code @ (EXIT_CANNOT_EXECUTE | EXIT_NOT_FOUND)))) => {
            JobEnd::WrapperFailed(Failure {
                kind: FailureKind::Exit(code),
                message: format!(
                    "exit code {code}: a wrapper started, but its command {}",
                    if code == EXIT_NOT_FOUND {
                        "was not found"
                    } else {
                        "could not be run"
                    }
                ),
                stderr_tail,
            })
        }
        (None, Some(ProcessExit::Code(code))) => JobEnd::Failed(Failure {
            kind: FailureKind::Exit(code),
            message: format!("exit code {code}"),
            stderr_tail,
        }),
        (None, Some(ProcessExit::Signal(signal))) => JobEnd::Failed(Failure {
            kind: FailureKind::Signal(signal),
            message: format!("ended by {}", signal_name(signal)),
            stderr_tail,
        }),
        (None, Some(ProcessExit::OutOfMemory)) => JobEnd::Failed(Failure {
            kind: FailureKind::OutOfMemory,
            message: "ended by the kernel: out of memory".to_owned(),
            stderr_tail,
        }),
        (None, None) => JobEnd::Failed(Failure {
            kind: FailureKind::RunnerLost,
            message: "its exit code was lost".to_owned(),
            stderr_tail,
        }),
    }
}

/// A job that refuses its message gives the reason on the last line of its standard error, if it writes a line.
fn rejection(stderr_tail: Option<&str>) -> String {
    let last_line = stderr_tail.and_then(|tail| {
        tail.lines()
            .rev()
            .map(str::trim)
            .find(|line| !line.is_empty())
    });
    match last_line {
        Some(line) => format!("refused by the job (exit code {EXIT_REJECT}): {line}"),
        None => format!("refused by the job (exit code {EXIT_REJECT})"),
    }
}

/// The name and the number of a signal.
pub(in crate::runners) fn signal_name(number: i32) -> String {
    match Signal::try_from(number) {
        Ok(signal) => format!("{signal} (signal {number})"),
        // A real-time signal has no name of its own.
        Err(_) => format!("signal {number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(90);

    fn end(wait_status: i32, cause: Option<EndCause>) -> String {
        let end = job_end(
            ProcessExit::of(ExitStatus::from_raw(wait_status)),
            cause,
            TIMEOUT,
            None,
        );
        match end {
            JobEnd::Done { .. } => "done".into(),
            JobEnd::Retry {
                after: None,
                failure: Some(failure),
            } => format!("retry: {:?}", failure.kind),
            JobEnd::Rejected {
                reason,
                failure: Some(failure),
            } => format!("rejected: {:?}: {reason}", failure.kind),
            JobEnd::Failed(failure) => format!("failed: {:?}: {}", failure.kind, failure.message),
            JobEnd::WrapperFailed(failure) => format!("wrapper: {:?}", failure.kind),
            JobEnd::Stopped => "stopped".into(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn reads_each_end_by_its_exit_code() {
        let exit = |code: i32| code << 8;
        let table = [
            (exit(0), None, "done"),
            (
                exit(65),
                None,
                "rejected: Exit(65): refused by the job (exit code 65)",
            ),
            (exit(75), None, "retry: Exit(75)"),
            (exit(126), None, "wrapper: Exit(126)"),
            (exit(127), None, "wrapper: Exit(127)"),
            (exit(1), None, "failed: Exit(1): exit code 1"),
            (exit(255), None, "failed: Exit(255): exit code 255"),
            (9, None, "failed: Signal(9): ended by SIGKILL (signal 9)"),
            // With a core dump.
            (
                11 | 0x80,
                None,
                "failed: Signal(11): ended by SIGSEGV (signal 11)",
            ),
            (40, None, "failed: Signal(40): ended by signal 40"),
            (exit(0), Some(EndCause::Stop), "done"),
            (
                exit(65),
                Some(EndCause::Stop),
                "rejected: Exit(65): refused by the job (exit code 65)",
            ),
            (exit(75), Some(EndCause::Stop), "retry: Exit(75)"),
            (exit(1), Some(EndCause::Stop), "stopped"),
            (exit(127), Some(EndCause::Stop), "stopped"),
            (15, Some(EndCause::Stop), "stopped"),
            (
                exit(0),
                Some(EndCause::Timeout),
                "failed: Timeout: ran longer than its timeout of 1m 30s",
            ),
            (
                exit(65),
                Some(EndCause::Timeout),
                "failed: Timeout: ran longer than its timeout of 1m 30s",
            ),
            (
                9,
                Some(EndCause::Timeout),
                "failed: Timeout: ran longer than its timeout of 1m 30s",
            ),
        ];
        for (status, cause, expected) in table {
            assert_eq!(end(status, cause), expected, "{status} {cause:?}");
        }
    }

    #[test]
    fn running_out_of_memory_is_a_failure_of_its_own_unless_we_ended_the_job() {
        let end = |cause| job_end(Some(ProcessExit::OutOfMemory), cause, TIMEOUT, None);
        let JobEnd::Failed(failure) = end(None) else {
            panic!("a failure");
        };
        assert_eq!(failure.kind, FailureKind::OutOfMemory);
        assert!(matches!(end(Some(EndCause::Stop)), JobEnd::Stopped));
    }

    #[test]
    fn each_end_except_success_has_the_last_lines_of_standard_error() {
        let codes = [0, 1, 65, 75, 126].map(|code| Some(ProcessExit::Code(code)));
        for exit in codes
            .into_iter()
            .chain([Some(ProcessExit::Signal(9)), None])
        {
            let end = job_end(exit, None, TIMEOUT, Some("last words".to_owned()));
            let failure = match end {
                JobEnd::Retry { failure, .. } | JobEnd::Rejected { failure, .. } => failure,
                JobEnd::Failed(failure) | JobEnd::WrapperFailed(failure) => Some(failure),
                _ => None,
            };
            let tail = failure.and_then(|failure| failure.stderr_tail);
            let expected = (exit != Some(ProcessExit::Code(0))).then_some("last words");
            assert_eq!(tail.as_deref(), expected, "{exit:?}");
        }
    }

    #[test]
    fn a_rejected_job_gives_the_reason_on_its_last_line() {
        assert_eq!(
            rejection(Some("reading\nno such image \n\n")),
            "refused by the job (exit code 65): no such image"
        );
    }
}
