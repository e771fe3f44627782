//! What became of a job, as its runner saw it.

use std::{error::Error, fmt, time::Duration};

use bytes::Bytes;
use thiserror::Error;

/// What a handler says of a job that it was given. An `Err` from a handler means "failed".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The work is done: the message is acknowledged.
    Done,
    /// Not now: the message comes back later, at the cost of an attempt.
    Retry {
        /// How much later; `None` is the pool's own backoff. Rounded up to a level of the backoff, at most the
        /// last.
        after: Option<Duration>,
    },
    /// It will never work: the message is dead-lettered at once.
    Reject {
        /// Why, for the person who reads the dead letter.
        reason: String,
    },
    /// The work is done, and this is the answer for whoever asked by the message's `reply_to`. Where nobody asked, it
    /// is as [`Done`](Self::Done).
    Reply(Reply),
}

impl Outcome {
    /// The work is done, with an answer of these bytes. For one with a content type, make a [`Reply`].
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

    /// Not now: come back after the pool's own backoff.
    pub fn retry() -> Self {
        Self::Retry { after: None }
    }

    /// It will never work, for this reason.
    pub fn reject(reason: impl Into<String>) -> Self {
        Self::Reject {
            reason: reason.into(),
        }
    }
}

/// An answer for whoever asked.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Reply {
    /// Its bytes.
    pub body: Bytes,
    /// What they are: a MIME type, at most 255 bytes long.
    pub content_type: Option<String>,
}

impl Reply {
    /// An answer of these bytes.
    pub fn new(body: impl Into<Bytes>) -> Self {
        Self {
            body: body.into(),
            content_type: None,
        }
    }

    /// The same, with a content type.
    #[must_use]
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.content_type = Some(content_type.into());
        self
    }
}

impl fmt::Debug for Reply {
    // Never the payload.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply")
            .field("bytes", &self.body.len())
            .field("content_type", &self.content_type)
            .finish()
    }
}

/// A runner's word on a job.
#[derive(Debug)]
pub struct RunReport {
    /// What became of it.
    pub end: JobEnd,
    /// Whether the runner can take another job. A runner that says `false` is gone once it has said so.
    pub reusable: bool,
}

/// What became of a job.
#[derive(Debug)]
pub enum JobEnd {
    /// The work is done.
    Done {
        /// An answer for whoever asked, where there is one.
        reply: Option<Reply>,
    },
    /// The job asked to be run later.
    Retry {
        /// How much later; `None` is the pool's own backoff.
        after: Option<Duration>,
        /// What its runner saw of its end, where it is more than these words: for the dead letter, if it is the last.
        failure: Option<Failure>,
    },
    /// The job refused itself.
    Rejected {
        /// Why.
        reason: String,
        /// What its runner saw of its end, where it is more than these words: for the dead letter.
        failure: Option<Failure>,
    },
    /// The job failed.
    Failed(Failure),
    /// A wrapper started, the command behind it did not (exit 126 or 127). Counted apart from failures.
    WrapperFailed(Failure),
    /// No runner could be started: the pool's trouble, not the job's. No attempt is spent.
    NotStarted(StartError),
    /// The supervisor ended it (drain deadline, preemption). No attempt is spent.
    Stopped,
}

/// Why a job failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What kind of failure.
    pub kind: FailureKind,
    /// One line for a person. Others' text within it is not escaped yet.
    pub message: String,
    /// The last of what it wrote to standard error, where there is any (at most 2 KiB).
    pub stderr_tail: Option<String>,
}

/// What kind of failure it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailureKind {
    /// It ended with this exit code.
    Exit(i32),
    /// A signal of this number ended it, and not by our doing.
    Signal(i32),
    /// It ran longer than its timeout and was ended.
    Timeout,
    /// A handler panicked.
    Panic,
    /// A handler returned an error.
    Error,
    /// The kernel ended it for its memory.
    OutOfMemory,
    /// Its runner died or broke its protocol.
    RunnerLost,
}

impl FailureKind {
    /// A word of a bounded set, for labels and headers.
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
    /// What was tried and what went wrong, as a fragment without the source's own words.
    pub what: String,
    /// The cause.
    #[source]
    pub source: Option<Box<dyn Error + Send + Sync>>,
}
