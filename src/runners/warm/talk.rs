//! One job on a warm process: writes the job, reads lines, and meanwhile reads the log and watches the clock. All of
//! this happens within one future, so a job needs no task of its own.

use std::{
    pin::pin,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use bytes::Bytes;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use tidegate_core::text::duration;

use super::{
    lines::NoLine,
    link::{End, StopMode, WarmLink, cut, unasked},
    protocol::{self, RunnerAnswer, RunnerMessage},
};
use crate::{
    escape::Quoted,
    runner::{Failure, FailureKind, Job, JobControl, JobEnd},
    runners::process::{Course, CourseAction, CourseEvent, EndCause, ExecSettings, Interrupts},
};

/// The result of giving a job to a process.
pub(super) enum TalkOutcome {
    /// The job has ended, and the process waits for the next job.
    Stays {
        link: Box<WarmLink>,
        end: JobEnd,
        last: bool,
    },
    /// The job has ended, and the process too.
    Gone(JobEnd),
    /// The process ended before it read any part of the job. The job can run in another process.
    NotTaken(End),
}

/// The event that ended the work of a process on a job.
enum ProcessEvent {
    Answered {
        answer: RunnerAnswer,
        last: bool,
    },
    /// It violated the protocol.
    Broke(String),
    /// It closed a pipe, most likely because it is about to end.
    Closed(&'static str),
    /// It ended, by itself or because we stopped it.
    Ended,
}

/// How many bytes of a job were written into the pipe.
#[derive(Clone, Copy)]
struct WriteProgress {
    bytes: u64,
    of: u64,
}

enum TalkInput {
    Line(Result<Bytes, NoLine>),
    LogEnded,
}

/// Gives `job` to a process and waits for the end of the job.
///
/// # Cancel-safety
/// Not cancel-safe: when dropped, it kills the process's group at once.
pub(super) async fn talk(
    mut link: Box<WarmLink>,
    settings: &ExecSettings,
    job: &Job,
    control: &JobControl,
) -> TalkOutcome {
    link.log.turn();
    link.log.log().job = Some(job.id().clone());
    let mut course = Course::new(settings.kill_grace);
    let line = protocol::job_line(job, None);
    let fed = AtomicUsize::new(0);
    control.started.notify();
    let deed = {
        let WarmLink {
            process,
            stdin,
            lines,
            stderr,
            log,
            ..
        } = &mut *link;
        let mut feed = pin!(feed(stdin, &line, &fed));
        let mut reading_log = pin!(log.drain(stderr));
        let mut interrupts = Interrupts::new(control, settings.timeout);
        let (mut feeding, mut log_open) = (true, true);
        loop {
            let hear = async {
                // `join` polls its futures in turns, so that a flood on one pipe cannot starve the other.
                tokio::select! {
                    line = lines.next(), if course.output_is_open() => TalkInput::Line(line),
                    () = &mut reading_log, if log_open => TalkInput::LogEnded,
                }
            };
            let hears = course.output_is_open() || log_open;
            let event = tokio::select! {
                biased;
                () = process.exited(), if !course.has_exited() => CourseEvent::Exited,
                event = interrupts.next() => event,
                whole = &mut feed, if feeding => {
                    feeding = false;
                    match whole || course.cause().is_some() {
                        true => continue,
                        false => break ProcessEvent::Closed("closed its standard input"),
                    }
                }
                heard = hear, if hears => match heard {
                    TalkInput::LogEnded => {
                        log_open = false;
                        continue;
                    }
                    TalkInput::Line(Ok(line)) => match protocol::parse(&line) {
                        Ok(RunnerMessage::RunnerAnswer { id, answer, last, .. }) if id == job.id().as_str() => {
                            break ProcessEvent::Answered { answer, last };
                        }
                        Ok(RunnerMessage::Progress { id, progress, .. }) if id == job.id().as_str() => {
                            tracing::debug!(%progress, "job makes progress");
                            // After a stop or the timeout, progress no longer extends the time.
                            if course.cause().is_none() && !course.has_exited() {
                                interrupts.set_timer(settings.timeout);
                            }
                            continue;
                        }
                        Ok(RunnerMessage::RunnerAnswer { id, .. } | RunnerMessage::Progress { id, .. }) => {
                            break ProcessEvent::Broke(format!("answered {}, which is another job", Quoted(cut(&id))));
                        }
                        Ok(RunnerMessage::Ready { .. }) => break ProcessEvent::Broke(unasked(&line)),
                        Err(problem) => break ProcessEvent::Broke(problem),
                    },
                    TalkInput::Line(Err(NoLine::TooLong)) => {
                        break ProcessEvent::Broke("wrote a line of more than 16 MiB to standard output".to_owned());
                    }
                    TalkInput::Line(Err(NoLine::Ended)) => {
                        if course.cause().is_none() && !course.has_exited() {
                            break ProcessEvent::Closed("closed its standard output");
                        }
                        CourseEvent::OutputEnded
                    }
                },
            };
            let wake_after = match course.handle(event) {
                CourseAction::Wait => continue,
                CourseAction::Signal(signal, wake_after) => {
                    process.signal(signal);
                    wake_after
                }
                CourseAction::SetTimer(wake_after) => wake_after,
                CourseAction::Finish => break ProcessEvent::Ended,
            };
            interrupts.set_timer(wake_after);
        }
    };
    let fed = WriteProgress {
        bytes: fed.into_inner() as u64,
        of: line.len() as u64,
    };
    conclude(link, deed, &course, fed, settings, job).await
}

/// Turns what a process did into the end of the job and the state of the process.
async fn conclude(
    mut link: Box<WarmLink>,
    deed: ProcessEvent,
    course: &Course,
    fed: WriteProgress,
    settings: &ExecSettings,
    job: &Job,
) -> TalkOutcome {
    let cause = course.cause();
    match deed {
        ProcessEvent::Answered { answer, last } => {
            // The log lines before the answer are already in the pipe.
            link.log.drain_now(&link.stderr);
            let stderr_tail = link.log.turn();
            link.log.log().job = None;
            link.lines.shrink();
            let end = job_end(answer, cause, settings.timeout, stderr_tail);
            if cause.is_some() || course.has_exited() {
                link.end(StopMode::Polite(settings.kill_grace)).await;
                return TalkOutcome::Gone(end);
            }
            let problem = if fed.bytes < fed.of {
                // Otherwise the next job would follow half a line.
                Some("answered before it had read its job".to_owned())
            } else if link.lines.has_more() {
                link.problem()
            } else {
                None
            };
            // The answer came before any other problem, and counts. A later problem is found before the next job.
            if let Some(problem) = problem {
                tracing::warn!(
                    pool = %job.pool(),
                    error = problem,
                    "warm runner is ended: it wrote more than its answer"
                );
                link.end(StopMode::Forced).await;
                return TalkOutcome::Gone(end);
            }
            TalkOutcome::Stays { link, end, last }
        }
        ProcessEvent::Broke(problem) => {
            let end = link.end(StopMode::Forced).await;
            TalkOutcome::Gone(lost(problem, end, cause, settings.timeout))
        }
        ProcessEvent::Closed(_) | ProcessEvent::Ended => {
            let end = link.end(StopMode::Expected).await;
            // If a process ends while the whole job is still in the pipe, it has not read any part of the job.
            if cause.is_none() && end.unread >= fed.bytes {
                return TalkOutcome::NotTaken(end);
            }
            let otherwise = match deed {
                ProcessEvent::Closed(pipe) => pipe,
                _ => "ended",
            };
            let problem = format!("{} without an answer", end.in_words(otherwise));
            TalkOutcome::Gone(lost(problem, end, cause, settings.timeout))
        }
    }
}

/// Writes the job, and returns whether all of it was written. `fed` counts the bytes.
async fn feed(mut stdin: impl AsyncWrite + Unpin, line: &[u8], fed: &AtomicUsize) -> bool {
    let mut rest = line;
    while !rest.is_empty() {
        match stdin.write(rest).await {
            Ok(length @ 1..) => {
                fed.fetch_add(length, Ordering::Relaxed);
                rest = &rest[length..];
            }
            _ => return false,
        }
    }
    true
}

pub(super) fn job_end(
    answer: RunnerAnswer,
    cause: Option<EndCause>,
    timeout: Duration,
    stderr_tail: Option<String>,
) -> JobEnd {
    match (cause, answer) {
        (Some(EndCause::Timeout), _) => timed_out(timeout, stderr_tail),
        (_, RunnerAnswer::Done { reply }) => JobEnd::Done { reply },
        (_, RunnerAnswer::Retry { after }) => JobEnd::Retry {
            after,
            failure: Some(Failure {
                kind: FailureKind::Error,
                message: "asked to be run later".to_owned(),
                stderr_tail,
            }),
        },
        (_, RunnerAnswer::Reject { error }) => {
            let reason = match error {
                Some(error) => format!("refused by the job: {error}"),
                None => "refused by the job".to_owned(),
            };
            JobEnd::Rejected {
                failure: Some(Failure {
                    kind: FailureKind::Error,
                    message: reason.clone(),
                    stderr_tail,
                }),
                reason,
            }
        }
        (Some(EndCause::Stop), RunnerAnswer::Failed { .. }) => JobEnd::Stopped,
        (None, RunnerAnswer::Failed { error }) => JobEnd::Failed(Failure {
            kind: FailureKind::Error,
            message: error.unwrap_or_else(|| "failed without a reason".to_owned()),
            stderr_tail,
        }),
    }
}

/// The end of a job whose process ended or violated the protocol.
pub(super) fn lost(
    problem: String,
    end: End,
    cause: Option<EndCause>,
    timeout: Duration,
) -> JobEnd {
    match cause {
        Some(EndCause::Timeout) => timed_out(timeout, end.stderr_tail),
        Some(EndCause::Stop) => JobEnd::Stopped,
        None if end.out_of_memory => JobEnd::Failed(Failure {
            kind: FailureKind::OutOfMemory,
            message: "its runner was ended by the kernel: out of memory".to_owned(),
            stderr_tail: end.stderr_tail,
        }),
        None => JobEnd::Failed(Failure {
            kind: FailureKind::RunnerLost,
            message: format!("its runner {problem}"),
            stderr_tail: end.stderr_tail,
        }),
    }
}

pub(super) fn timed_out(timeout: Duration, stderr_tail: Option<String>) -> JobEnd {
    JobEnd::Failed(Failure {
        kind: FailureKind::Timeout,
        message: format!("ran longer than its timeout of {}", duration(timeout)),
        stderr_tail,
    })
}
