//! One call of a handler: its panics, its timeout, and its stop by the supervisor.
//!
//! Owns the future of the call. It does not know where the handler runs.

use std::{
    any::Any,
    future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use tokio::time::{Instant, sleep};

use tidegate_core::text::{chain, duration};

use crate::runner::{
    BoxError, Failure, FailureKind, Job, JobControl, JobEnd, JobTimes, JsonError, Outcome,
};

/// Longer than any job waits, and well below the limit of the clock.
const FOREVER: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// How long a call may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallLimits {
    /// Time after which the handler is told to end. `None` is never.
    pub(crate) timeout: Option<Duration>,
    /// How long a handler may continue after it was told to end.
    pub(crate) kill_grace: Duration,
}

impl Default for CallLimits {
    fn default() -> Self {
        Self {
            timeout: None,
            kill_grace: Duration::from_secs(10),
        }
    }
}

impl CallLimits {
    pub(super) fn times(self) -> JobTimes {
        JobTimes {
            timeout: self.timeout,
            stop_grace: self.kill_grace,
        }
    }
}

/// Why the handler was told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StopCause {
    Timeout,
    Stop,
}

/// The return value of a handler, or its panic.
enum Returned {
    Outcome(Result<Outcome, BoxError>),
    Panicked(String),
}

/// Calls `handler` with a job, and returns the job's end.
pub(super) async fn call<H, F>(
    handler: &H,
    limits: CallLimits,
    job: &Job,
    control: &JobControl,
) -> JobEnd
where
    H: Fn(Job) -> F,
    F: Future<Output = Result<Outcome, BoxError>>,
{
    if control.kill.is_cancelled() || control.stop.is_cancelled() {
        return JobEnd::Stopped;
    }
    control.started.notify();
    // A child token: a handler that cancels it stops only itself.
    let token = job.cancelled().child_token();
    let job = job.clone().cancelled_by(token.clone());
    let mut call = match catch(|| handler(job)) {
        Ok(future) => pin!(Some(future)),
        Err(panic) => return job_end(Returned::Panicked(panic), None, limits),
    };
    let mut cause = None;
    let returned = {
        let mut stopped = pin!(control.stop.cancelled());
        let mut killed = pin!(control.kill.cancelled());
        // A timer far in the future costs nothing: it is registered at its first poll, and a handler that does not wait
        // is polled only once.
        let mut timer = pin!(sleep(limits.timeout.unwrap_or(FOREVER).min(FOREVER)));
        loop {
            tokio::select! {
                biased;
                returned = poll_caught(call.as_mut()) => break Some(returned),
                () = &mut killed => break None,
                () = &mut stopped, if cause.is_none() => cause = Some(StopCause::Stop),
                () = &mut timer => {
                    if cause.is_some() {
                        break None;
                    }
                    cause = Some(StopCause::Timeout);
                }
            }
            // Told to end by a stop or by the timeout.
            token.cancel();
            timer
                .as_mut()
                .reset(Instant::now() + limits.kill_grace.min(FOREVER));
        }
    };
    // The destructors of the future are code of the handler, and may panic too.
    let dropped = catch(|| call.set(None));
    match (returned, dropped) {
        (Some(returned), Ok(())) => job_end(returned, cause, limits),
        (_, Err(panic)) => job_end(Returned::Panicked(panic), cause, limits),
        (None, Ok(())) if cause == Some(StopCause::Timeout) => {
            JobEnd::Failed(timed_out(limits, None))
        }
        (None, Ok(())) => JobEnd::Stopped,
    }
}

fn job_end(returned: Returned, cause: Option<StopCause>, limits: CallLimits) -> JobEnd {
    match (returned, cause) {
        // This also holds after the handler was told to end: only the handler knows the result of its work.
        (Returned::Outcome(Ok(outcome)), _) => match outcome {
            Outcome::Done => JobEnd::Done { reply: None },
            Outcome::Reply(reply) => JobEnd::Done { reply: Some(reply) },
            Outcome::Retry { after } => JobEnd::Retry {
                after,
                failure: None,
            },
            Outcome::Reject { reason } => JobEnd::Rejected {
                reason,
                failure: None,
            },
        },
        // A parse error depends only on the message, not on a stop or a timeout.
        (Returned::Outcome(Err(error)), _) if JsonError::is_within(&*error) => JobEnd::Rejected {
            reason: chain(error.as_ref()),
            failure: None,
        },
        (_, Some(StopCause::Stop)) => JobEnd::Stopped,
        (Returned::Outcome(Err(error)), Some(StopCause::Timeout)) => {
            JobEnd::Failed(timed_out(limits, Some(&chain(error.as_ref()))))
        }
        (Returned::Outcome(Err(error)), None) => JobEnd::Failed(Failure {
            kind: FailureKind::Error,
            message: chain(error.as_ref()),
            stderr_tail: None,
        }),
        (Returned::Panicked(panic), _) => JobEnd::Failed(Failure {
            kind: FailureKind::Panic,
            message: format!("panicked: {panic}"),
            stderr_tail: None,
        }),
    }
}

fn timed_out(limits: CallLimits, then: Option<&str>) -> Failure {
    let timeout = duration(limits.timeout.unwrap_or_default());
    Failure {
        kind: FailureKind::Timeout,
        message: match then {
            Some(then) => format!("ran longer than its timeout of {timeout}: {then}"),
            None => format!("ran longer than its timeout of {timeout}"),
        },
        stderr_tail: None,
    }
}

/// Polls the handler's future until it ends or panics.
async fn poll_caught<F>(mut call: Pin<&mut Option<F>>) -> Returned
where
    F: Future<Output = Result<Outcome, BoxError>>,
{
    future::poll_fn(|cx| {
        let call = call.as_mut().as_pin_mut();
        let call = call.expect("the call is only dropped once it is no longer polled");
        match catch(|| call.poll(cx)) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(outcome)) => Poll::Ready(Returned::Outcome(outcome)),
            Err(panic) => Poll::Ready(Returned::Panicked(panic)),
        }
    })
    .await
}

/// Runs the handler's code and turns a panic into its message. The handler is responsible for its own unwind safety: it
/// is `Fn`, and the future that panicked is never polled again.
fn catch<T>(code: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(code)).map_err(|payload| panic_text(payload.as_ref()))
}

fn panic_text(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "without a message".to_owned()
    }
}
