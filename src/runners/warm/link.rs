//! One warm process with its pipes: it is started, checked between jobs, and ended.

use std::{os::unix::process::ExitStatusExt, process::ExitStatus, time::Duration};

use nix::sys::signal::Signal;
use tokio::{
    process::{ChildStderr, ChildStdin},
    time::{sleep, timeout},
};

use tidegate_core::text::{duration, first_chars};

use super::{
    WarmSettings,
    lines::{Lines, NoLine},
    protocol::{self, ONE_AT_A_TIME, RunnerMessage, WITH_SLOTS},
};
use crate::{
    decide::{JobId, PoolName},
    escape::Quoted,
    runner::{CreateRunner, StartError},
    runners::process::{
        ChildExit, Environment, Escaped, FOREVER, KILL_TIMEOUT, LINGER, Launch, Log, OutputReader,
        OutputStream, Pipes, Process, ProcessReuse, signal_name,
    },
};

/// How much of an id an error text shows.
const SHOWN_ID_CHARS: usize = 100;

/// A warm process that has reported that it is ready. **On drop** its whole group is killed.
pub(super) struct WarmLink {
    pub(super) process: Process,
    pub(super) stdin: ChildStdin,
    pub(super) lines: Lines,
    pub(super) stderr: ChildStderr,
    pub(super) log: OutputReader<RunnerLog>,
    /// How many jobs it takes at a time, in version 2 of the protocol. `None` in version 1: one job.
    pub(super) slots: Option<u32>,
}

/// How a process is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StopMode {
    /// Its input is closed now, and it has this time to end.
    Polite(Duration),
    /// It is about to end by itself, and gets a short time. Its input stays open, so that the bytes that it has not
    /// read can be counted.
    Expected,
    /// It is killed now.
    Forced,
}

/// How a process ended.
#[derive(Debug, Clone)]
pub(super) struct End {
    /// `None` if it does not end even after a KILL.
    status: Option<ExitStatus>,
    /// Whether it ended before it was killed.
    by_itself: bool,
    /// The kernel killed it because memory ran out.
    pub(super) out_of_memory: bool,
    /// Bytes of its input that it has not read.
    pub(super) unread: u64,
    pub(super) stderr_tail: Option<String>,
}

/// Logs a runner's standard error, with the job that the runner works on.
pub(super) struct RunnerLog {
    pool: PoolName,
    runner: String,
    pub(super) job: Option<JobId>,
}

impl WarmLink {
    /// Starts a process and waits until it reports that it is ready.
    ///
    /// # Cancel-safety
    /// Cancel-safe: when dropped, no process keeps running.
    pub(super) async fn start(
        settings: &WarmSettings,
        environment: &Environment,
        request: &CreateRunner,
    ) -> Result<Self, StartError> {
        let launch = Launch::new(&settings.process, environment, ProcessReuse::Yes)?;
        let concurrency = settings.concurrency.max(1);
        let protocol = match concurrency {
            1 => ONE_AT_A_TIME,
            _ => WITH_SLOTS,
        };
        let variables = [
            ("TIDEGATE_POOL", request.pool.as_str().into()),
            ("TIDEGATE_PROTOCOL", protocol.to_string().into()),
            ("TIDEGATE_CONCURRENCY", concurrency.to_string().into()),
        ];
        let spawned = launch.spawn(variables).await;
        let (process, pipes) = spawned.map_err(|error| launch.error(error))?;
        let Pipes {
            stdin,
            stdout,
            stderr,
        } = pipes;
        let log = RunnerLog {
            pool: request.pool.clone(),
            runner: request.id.to_string(),
            job: None,
        };
        let mut link = Self {
            process,
            stdin,
            lines: Lines::new(stdout),
            stderr,
            log: OutputReader::new(OutputStream::Stderr, log),
            slots: None,
        };
        let limit = settings.start_timeout.min(FOREVER);
        let problem = match timeout(limit, link.until_ready(concurrency)).await {
            Ok(Ok(slots)) => {
                link.slots = slots;
                return Ok(link);
            }
            Ok(Err(problem)) => problem,
            Err(_) => Some(format!(
                "did not report that it is ready within {}",
                duration(settings.start_timeout)
            )),
        };
        let how = match problem {
            Some(_) => StopMode::Forced,
            None => StopMode::Expected,
        };
        let end = link.end(how).await;
        let problem = problem.unwrap_or_else(|| {
            let ended = end.in_words("closed its standard output");
            format!("{ended} before it was ready")
        });
        let last_words = end.stderr_tail.as_deref().and_then(last_line);
        let program = settings.process.command.first().map_or("", String::as_str);
        Err(StartError {
            what: match last_words {
                Some(line) => format!("{program}: {problem}: {}", Escaped(line)),
                None => format!("{program}: {problem}"),
            },
            source: None,
        })
    }

    /// Waits for the first line, and returns how many jobs the process takes at a time, if it uses version 2. The error is
    /// `None` if the process ended: then the way it ended is the reason.
    async fn until_ready(&mut self, concurrency: u32) -> Result<Option<u32>, Option<String>> {
        let Self {
            process,
            lines,
            stderr,
            log,
            ..
        } = self;
        let first = tokio::select! {
            line = lines.next() => line,
            () = process.exited() => Err(NoLine::Ended),
            // Pending once the process has ended: then only the other two branches matter.
            () = async {
                log.drain(stderr).await;
                std::future::pending().await
            } => Err(NoLine::Ended),
        };
        let line = match first {
            Ok(line) => line,
            Err(NoLine::Ended) => return Err(None),
            Err(NoLine::TooLong) => return Err(Some("wrote a line without an end".to_owned())),
        };
        match protocol::parse(&line)? {
            RunnerMessage::Ready {
                protocol: ONE_AT_A_TIME,
                ..
            } => Ok(None),
            RunnerMessage::Ready {
                protocol: WITH_SLOTS,
                concurrency: announced,
            } if concurrency > 1 => match announced {
                Some(0) => Err(Some("takes no job: its concurrency is 0".to_owned())),
                announced => Ok(Some(announced.unwrap_or(1).min(concurrency))),
            },
            RunnerMessage::Ready { protocol, .. } => {
                let spoken = match concurrency {
                    1 => "version 1",
                    _ => "version 1 or 2",
                };
                Err(Some(format!(
                    "uses version {protocol} of the protocol instead of {spoken}"
                )))
            }
            RunnerMessage::Progress { .. } | RunnerMessage::RunnerAnswer { .. } => {
                Err(Some(format!(
                    "did not begin with a ready line: {}",
                    protocol::stray(&line)
                )))
            }
        }
    }

    /// The reason why it can take no other job, if there is one. Called between two jobs. Also reads its log.
    pub(super) fn problem(&mut self) -> Option<String> {
        self.log.drain_now(&self.stderr);
        match self.lines.unexpected() {
            Some(Ok(line)) => Some(unasked(line)),
            _ if self.process.has_exited() => Some("has ended".to_owned()),
            Some(Err(_)) => Some("has closed its standard output".to_owned()),
            None => None,
        }
    }

    /// Ends the process and the rest of its group.
    pub(super) async fn end(self, how: StopMode) -> End {
        let Self {
            mut process,
            stdin,
            lines,
            stderr,
            mut log,
            ..
        } = self;
        let (time_limit, stdin) = match how {
            StopMode::Polite(time_limit) => {
                drop(stdin);
                (time_limit, None)
            }
            StopMode::Expected => (LINGER, Some(stdin)),
            StopMode::Forced => (Duration::ZERO, Some(stdin)),
        };
        let by_itself = {
            let mut output = std::pin::pin!(async {
                tokio::join!(lines.discard(), log.drain(stderr));
            });
            let mut reading = true;
            let mut timer = std::pin::pin!(sleep(time_limit.min(FOREVER)));
            let by_itself = loop {
                tokio::select! {
                    biased;
                    () = process.exited() => break true,
                    () = &mut timer => break false,
                    () = &mut output, if reading => reading = false,
                }
            };
            if !by_itself {
                process.signal(Signal::SIGKILL);
                // Its status is not worth a longer wait.
                let _ = timeout(KILL_TIMEOUT, process.exited()).await;
            }
            if reading {
                let _ = timeout(LINGER, output).await;
            }
            by_itself
        };
        let unread = stdin.and_then(|stdin| rustix::io::ioctl_fionread(&stdin).ok());
        let ChildExit {
            status,
            out_of_memory,
        } = process.finish();
        if status.is_none() {
            let pool = &log.log().pool;
            tracing::warn!(%pool, "a warm runner's process does not end after KILL");
        }
        End {
            status,
            by_itself,
            out_of_memory,
            unread: unread.unwrap_or(0),
            stderr_tail: log.finish(),
        }
    }
}

impl End {
    /// How a process ended, such as "ended with exit code 3". If we had to kill it, the text is `otherwise`.
    pub(super) fn in_words(&self, otherwise: &str) -> String {
        let status = self.status.filter(|_| self.by_itself);
        if self.out_of_memory {
            return "was ended by the kernel because memory ran out".to_owned();
        }
        match (
            status.and_then(|status| status.code()),
            status.and_then(|status| status.signal()),
        ) {
            (Some(code), _) => format!("ended with exit code {code}"),
            (None, Some(signal)) => format!("was ended by {}", signal_name(signal)),
            (None, None) => otherwise.to_owned(),
        }
    }
}

/// Describes a line that came while no job ran.
pub(super) fn unasked(line: &[u8]) -> String {
    match protocol::parse(line) {
        Ok(RunnerMessage::RunnerAnswer { id, .. }) => {
            format!(
                "answered the job {}, which is not running",
                Quoted(cut(&id))
            )
        }
        Ok(RunnerMessage::Progress { id, .. }) => {
            format!(
                "reported progress of the job {}, which is not running",
                Quoted(cut(&id))
            )
        }
        Ok(RunnerMessage::Ready { .. }) => "reported again that it is ready".to_owned(),
        Err(problem) => problem,
    }
}

/// The start of an id, as long as an error text shows it.
pub(super) fn cut(id: &str) -> &str {
    first_chars(id, SHOWN_ID_CHARS)
}

fn last_line(text: &str) -> Option<&str> {
    text.lines()
        .rev()
        .map(str::trim)
        .find(|line| !line.is_empty())
}

impl Log for RunnerLog {
    fn line(&mut self, stream: OutputStream, line: &[u8]) {
        tracing::info!(
            target: "tidegate::job",
            pool = %self.pool,
            runner.id = self.runner,
            job.id = self.job.as_ref().map(|id| tracing::field::display(Escaped(id.as_str()))),
            stream = stream.name(),
            line = %Escaped(&String::from_utf8_lossy(line)),
            "job output"
        );
    }

    fn dropped(&mut self, stream: OutputStream, bytes: u64) {
        tracing::info!(
            target: "tidegate::job",
            pool = %self.pool,
            runner.id = self.runner,
            job.id = self.job.as_ref().map(|id| tracing::field::display(Escaped(id.as_str()))),
            stream = stream.name(),
            bytes,
            "job output dropped"
        );
    }
}
