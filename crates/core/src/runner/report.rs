//! The end of a job, as its runner saw it.

use std::{error::Error, fmt, time::Duration};

use bytes::Bytes;
use thiserror::Error;

/// The result of a job, as its handler gives it. An `Err` from a handler means "failed".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The work is done. The message is acknowledged.
    Done,
    /// Try again later. The message is delivered again, and one attempt is spent.
    Retry {
        /// The delay; `None` is the pool's backoff. Rounded up to a level of the backoff, at most the last level.
        after: Option<Duration>,
    },
    /// The job can never succeed. The message is dead-lettered at once.
    Reject {
        /// The reason, for the reader of the dead letter.
        reason: String,
    },
    /// The work is done, and this is the reply to the sender, sent to the message's `reply_to`. If the message has no
    /// `reply_to`, this is the same as [`Done`](Self::Done).
    Reply(Reply),
}

impl Outcome {
    /// The work is done, and `body` is the reply. For a reply with a content type, make a [`Reply`].
    ///
    /// ```
    /// use tidegate_core::runner::Outcome;
    ///
    /// let Outcome::Reply(reply) = Outcome::reply("17") else { panic!("this is a reply") };
    /// assert_eq!(reply.body, "17");
    /// ```
    pub fn reply(body: impl Into<Bytes>) -> Self {
        Self::Reply(Reply::new(body))
    }

    /// Try again after the pool's backoff.
    pub fn retry() -> Self {
        Self::Retry { after: None }
    }

    /// The job can never succeed, for this reason.
    pub fn reject(reason: impl Into<String>) -> Self {
        Self::Reject {
            reason: reason.into(),
        }
    }
}

/// A reply to the message's sender.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Reply {
    /// The body.
    pub body: Bytes,
    /// The content type of the body: a MIME type, at most 255 bytes long.
    pub content_type: Option<String>,
}

impl Reply {
    /// A reply with this body and no content type.
    pub fn new(body: impl Into<Bytes>) -> Self {
        Self {
            body: body.into(),
            content_type: None,
        }
    }

    /// Sets the content type.
    #[must_use]
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.content_type = Some(content_type.into());
        self
    }
}

impl fmt::Debug for Reply {
    // The payload is never shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply")
            .field("bytes", &self.body.len())
            .field("content_type", &self.content_type)
            .finish()
    }
}

/// A runner's report at the end of a job.
#[derive(Debug)]
pub struct RunReport {
    /// How the job ended.
    pub end: JobEnd,
    /// Whether the runner can take another job. A runner that reports `false` has ended.
    pub reusable: bool,
}

/// How a job ended.
#[derive(Debug)]
pub enum JobEnd {
    /// The work is done.
    Done {
        /// The reply to the sender, if there is one.
        reply: Option<Reply>,
    },
    /// The job asked to be run later.
    Retry {
        /// The delay; `None` is the pool's backoff.
        after: Option<Duration>,
        /// Details that the runner saw of the job's end. They go into the dead letter if this was the last attempt.
        failure: Option<Failure>,
    },
    /// The job rejected its message.
    Rejected {
        /// The reason.
        reason: String,
        /// Details that the runner saw of the job's end. They go into the dead letter.
        failure: Option<Failure>,
    },
    /// The job failed.
    Failed(Failure),
    /// The wrapper started, but the command behind it did not (exit code 126 or 127). Counted separately from
    /// failures.
    WrapperFailed(Failure),
    /// No runner could be started. This is a fault of the pool, not of the job. No attempt is spent.
    NotStarted(StartError),
    /// The supervisor stopped the job (drain deadline, preemption). No attempt is spent.
    Stopped,
}

/// Why a job failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The kind of the failure.
    pub kind: FailureKind,
    /// One line for a person. Text from the job in it is not escaped yet.
    pub message: String,
    /// The end of its standard error (at most 2 KiB), if it wrote any.
    pub stderr_tail: Option<String>,
}

/// The kind of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailureKind {
    /// It ended with this exit code.
    Exit(i32),
    /// A signal of this number ended it. Tidegate did not send the signal.
    Signal(i32),
    /// It ran longer than its timeout and was stopped.
    Timeout,
    /// A handler panicked.
    Panic,
    /// A handler returned an error.
    Error,
    /// The kernel killed it because it used too much memory.
    OutOfMemory,
    /// Its runner died or broke the protocol.
    RunnerLost,
}

impl FailureKind {
    /// The kind as one word, for labels and headers. The set of words is fixed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exit(_) => "exit",
            Self::Signal(_) => "signal",
            Self::Timeout => "timeout",
            Self::Panic => "panic",
            Self::Error => "error",
            Self::OutOfMemory => "out_of_memory",
            Self::RunnerLost => "runner_lost",
        }
    }
}

/// A runner could not be started.
#[derive(Debug, Error)]
#[error("failed to start a runner: {what}")]
pub struct StartError {
    /// What was tried and what failed, as a fragment. The source's text is not repeated here.
    pub what: String,
    /// The cause.
    #[source]
    pub source: Option<Box<dyn Error + Send + Sync>>,
}
