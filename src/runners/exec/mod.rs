//! The `exec` runner: a process for each job.
//!
//! Owns the child processes of its jobs, from spawning to reaping: their process group, their environment, the
//! three pipes, and the reading of their exit codes. It settles nothing and decides no retry: it reports.
//!
//! # A job, as its process sees it
//! The body on standard input, byte for byte, then end of file. Nothing of the message is ever part of a command
//! line. The environment is cleared but for `PATH`, `HOME`, `LANG`, `TZ` and what the pool lists, and then has
//! `TIDEGATE_POOL`, `TIDEGATE_QUEUE`, `TIDEGATE_JOB_ID`, `TIDEGATE_ATTEMPT` (1 first), `TIDEGATE_REDELIVERED`
//! (`true` or `false`), `TIDEGATE_EXCHANGE` and `TIDEGATE_ROUTING_KEY` (of the [first publish](crate::queue::Message::origin)),
//! `TIDEGATE_TYPE`, `TIDEGATE_APP_ID`, `TIDEGATE_MESSAGE_ID`, `TIDEGATE_CORRELATION_ID`, `TIDEGATE_REPLY_TO`,
//! `TIDEGATE_PRIORITY`, `TIDEGATE_TIMESTAMP` (seconds since the epoch), `TIDEGATE_CONTENT_TYPE`, `TIDEGATE_CONTENT_ENCODING`
//! (each empty where the message has none), `TIDEGATE_HEADERS` (a JSON object; see below) and `TIDEGATE_RUN_ID`. What would
//! take these beyond 64 KiB together is left out, in this order, and then `TIDEGATE_TRUNCATED` is `1`; likewise where an
//! earlier copy of the message had to leave headers behind. A NUL becomes U+FFFD, and a byte that is not UTF-8 is shown
//! as `\xff`.
//!
//! # What it says
//! Both outputs are its log; or, in a pool that answers (`reply = true`), its standard output is the answer for whoever
//! asked: never logged, and read and dropped where nobody did.
//!
//! # Limits
//! A job with [`Limits`](crate::config::Limits) is started by way of a [launcher](crate::host::launcher), of which it
//! sees nothing. As another user it has that one's `HOME`, `USER` and `LOGNAME`, unless the pool sets them.
//!
//! # What its exit says
//! 0 is done, 65 refuses the job, 75 asks for it later, 126 and 127 say that a wrapper found no command; any
//! other code, and a signal, is a failure.
//!
//! # How it ends
//! At its timeout, and when the supervisor stops it, TERM goes to its process group, and KILL after `kill_grace`.
//! A job is over when its first process has exited and both output pipes are at their end; what is left of the
//! group is killed then, or a second after the exit, when the pipes are closed whoever still holds them.
//!
//! A process that left the group (`setsid`) holds no worker. Under `tidegate run` it comes to the supervisor once
//! its parents are gone, and is killed as soon as its job is over: `TIDEGATE_RUN_ID` in its environment, which is
//! another one for each process that we start, says which job that is. Who has cleared or overwritten it is killed
//! once no job goes on that is old enough to have started it. What is to outlive its job has to be started by
//! somebody else, such as the system's service manager. A library's supervisor ends only the group.
//!
//! # `TIDEGATE_HEADERS`
//! Text and numbers are themselves; timestamps are whole seconds since the epoch; decimals are strings, so that
//! no digit is lost; bytes, and text that is not UTF-8, are `{"base64": "..."}`; lists and tables are arrays and
//! objects, down to 16 levels; what JSON has no word for (void, infinite, not a number, deeper) is `null`. A name's bytes that
//! are not UTF-8 are shown as `\xff`.

mod kind;
mod manager;
mod run;

pub(crate) use self::kind::KIND;
pub use self::manager::ExecManager;
