//! The `exec` runner: a process for each job.
//!
//! Owns the child processes of its jobs, from spawning to reaping: their process group, their environment, the three
//! pipes, and the reading of their exit codes. It settles nothing and decides no retry: it only reports.
//!
//! # A job, as its process sees it
//! The body is on standard input, byte for byte, then end of file. No part of the message is ever part of a command
//! line. The environment is cleared except for `PATH`, `HOME`, `LANG`, `TZ` and the variables that the pool lists. It
//! then gets `TIDEGATE_POOL`, `TIDEGATE_QUEUE`, `TIDEGATE_JOB_ID`, `TIDEGATE_ATTEMPT` (1 first), `TIDEGATE_REDELIVERED`
//! (`true` or `false`), `TIDEGATE_EXCHANGE` and `TIDEGATE_ROUTING_KEY` (of the [first
//! publish](crate::queue::Message::origin)), `TIDEGATE_TYPE`, `TIDEGATE_APP_ID`, `TIDEGATE_MESSAGE_ID`,
//! `TIDEGATE_CORRELATION_ID`, `TIDEGATE_REPLY_TO`, `TIDEGATE_PRIORITY`, `TIDEGATE_TIMESTAMP` (seconds since the epoch),
//! `TIDEGATE_CONTENT_TYPE`, `TIDEGATE_CONTENT_ENCODING` (each empty if the message has no such property),
//! `TRACEPARENT` and `TRACESTATE` (only if the message has a [trace](crate::runner::Job::trace_context)),
//! `TIDEGATE_HEADERS` (a JSON object; see below) and `TIDEGATE_RUN_ID`. If these need more than 64 KiB together,
//! variables are left out in this order, and `TIDEGATE_TRUNCATED` is `1`. It is also `1` if an earlier copy of the
//! message had to leave headers out. A NUL becomes U+FFFD, and a byte that is not UTF-8 is shown as `\xff`.
//!
//! # Output
//! Both outputs are the job's log. In a pool that answers (`reply = true`), standard output is the answer instead. It
//! is never logged, and it is dropped if the message asks for no answer.
//!
//! # Limits
//! A job with [`Limits`](crate::config::Limits) is started through a [launcher](crate::host::launcher), which the job
//! does not see. A job that runs as another user has the `HOME`, `USER` and `LOGNAME` of that user, unless the pool
//! sets them.
//!
//! # Exit codes
//! 0 is success. 65 refuses the job, 75 asks for a retry, 126 and 127 mean that a wrapper found no command. Any other
//! code, and a signal, is a failure.
//!
//! # How it ends
//! At its timeout, and when the supervisor stops it, TERM goes to its process group, and KILL after `kill_grace`. A job
//! is over when its first process has exited and both output pipes are at their end. Then the rest of the group is
//! killed. If a process still holds a pipe open, this happens one second after the exit, and the pipes are closed.
//!
//! A process that left the group (`setsid`) occupies no worker. Under `tidegate run` the supervisor inherits it when
//! its parents have ended, and kills it as soon as its job is over. `TIDEGATE_RUN_ID` in its environment, which is
//! different for each process that we start, identifies the job. A process that has cleared or overwritten this
//! variable is killed when no running job is old enough to have started it. A process that must outlive its job has to
//! be started by another program, such as the system's service manager. A library's supervisor ends only the group.
//!
//! # `TIDEGATE_HEADERS`
//! Text and numbers are unchanged. Timestamps are whole seconds since the epoch. Decimals are strings, so that no digit
//! is lost. Bytes, and text that is not UTF-8, are `{"base64": "..."}`. Lists and tables are arrays and objects, down
//! to 16 levels. Values that JSON cannot express (void, infinite, not a number, deeper levels) are `null`. Bytes of a
//! name that are not UTF-8 are shown as `\xff`.

mod kind;
mod manager;
mod run;

pub(crate) use self::kind::KIND;
pub use self::manager::ExecManager;
