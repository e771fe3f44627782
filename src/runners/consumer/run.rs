//! A process from its start to its end: its output, the signal that ends it, and its exit.

use std::{pin::pin, time::Duration};

use nix::sys::signal::Signal;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};

use super::ConsumerSettings;
use crate::{
    decide::PoolName,
    escape::Escaped,
    runner::{ProgramControl, ProgramEnd},
    runners::process::{
        FOREVER, KILL_TIMEOUT, LINGER, Log, OutputReader, OutputStream, Pipes, Process,
        ProcessExit, signal_name,
    },
};

/// How often a process may log its share of output again.
const LOG_SHARE: Duration = Duration::from_secs(60);

/// A process that is up, and its outputs.
pub(super) struct RunningProgram {
    process: Process,
    pipes: Pipes,
    pool: PoolName,
    number: u32,
    since: Instant,
}

impl RunningProgram {
    pub(super) fn new(process: Process, pipes: Pipes, pool: PoolName, number: u32) -> Self {
        Self {
            process,
            pipes,
            pool,
            number,
            since: Instant::now(),
        }
    }
}

/// Waits for the end of a process, and ends it when it is told to.
///
/// # Cancel-safety
/// Not cancel-safe: when dropped, it kills the process's group at once.
pub(super) async fn until_end(
    program: RunningProgram,
    settings: &ConsumerSettings,
    control: &ProgramControl,
) -> ProgramEnd {
    let RunningProgram {
        mut process,
        pipes,
        pool,
        number,
        since,
    } = program;
    let Pipes {
        stdin,
        mut stdout,
        mut stderr,
    } = pipes;
    drop(stdin);
    let log = |stream| {
        let pool = pool.clone();
        OutputReader::new(stream, ProgramLog { pool, number })
    };
    let mut out = log(OutputStream::Stdout);
    let mut err = log(OutputStream::Stderr);
    let mut shares = interval_at(Instant::now() + LOG_SHARE, LOG_SHARE);
    shares.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut was_killed = false;
    let mut ran = None;
    {
        let mut leave = pin!(control.leave.cancelled());
        let mut forced = pin!(async {
            tokio::select! {
                () = control.stop.cancelled() => {}
                () = control.kill.cancelled() => {}
            }
        });
        let (mut asked, mut is_open) = (false, true);
        // The current deadline: first for the stop, then for the KILL, then for left-over processes.
        let mut deadline = pin!(sleep(FOREVER));
        loop {
            tokio::select! {
                biased;
                () = process.exited(), if ran.is_none() => {
                    ran = Some(since.elapsed());
                    deadline.as_mut().reset(Instant::now() + LINGER);
                }
                () = &mut forced, if !was_killed && ran.is_none() => {
                    process.signal(Signal::SIGKILL);
                    was_killed = true;
                    deadline.as_mut().reset(Instant::now() + KILL_TIMEOUT);
                }
                () = &mut leave, if !asked && !was_killed && ran.is_none() => {
                    asked = true;
                    process.signal_leader(settings.stop_signal.signal());
                    if let Some(limit) = settings.stop_timeout {
                        deadline.as_mut().reset(Instant::now() + limit.min(FOREVER));
                    }
                }
                () = &mut deadline => {
                    if ran.is_some() || was_killed {
                        break;
                    }
                    process.signal(Signal::SIGKILL);
                    was_killed = true;
                    deadline.as_mut().reset(Instant::now() + KILL_TIMEOUT);
                }
                _ = shares.tick() => {
                    out.turn();
                    err.turn();
                }
                () = both(&mut out, &mut stdout, &mut err, &mut stderr), if is_open => {
                    is_open = false;
                }
            }
            if ran.is_some() && !is_open {
                break;
            }
        }
    }
    let ended = process.finish();
    if ended.status.is_none() {
        tracing::warn!(pool = %pool, process = number, "a program does not end after KILL");
    }
    out.finish();
    let last_words = err.finish();
    let exit = ended.exit();
    let mut end = ProgramEnd::new(in_words(exit, last_words.as_deref()));
    end.is_well = exit == Some(ProcessExit::Code(0));
    end.was_killed = was_killed;
    end.ran = ran.unwrap_or_else(|| since.elapsed());
    end
}

/// Reads both outputs to their end. Cancel-safe.
async fn both(
    out: &mut OutputReader<ProgramLog>,
    stdout: &mut tokio::process::ChildStdout,
    err: &mut OutputReader<ProgramLog>,
    stderr: &mut tokio::process::ChildStderr,
) {
    // `join` polls its futures in turns, so that a flood on one pipe cannot starve the other.
    tokio::join!(out.drain(stdout), err.drain(stderr));
}

/// How a process ended, with the last line that it wrote on standard error.
fn in_words(exit: Option<ProcessExit>, stderr_tail: Option<&str>) -> String {
    let how = match exit {
        Some(ProcessExit::Code(code)) => format!("exit code {code}"),
        Some(ProcessExit::Signal(number)) => format!("ended by {}", signal_name(number)),
        Some(ProcessExit::OutOfMemory) => String::from("ended by the kernel: out of memory"),
        None => String::from("its exit code was lost"),
    };
    let last = stderr_tail.and_then(|tail| {
        let lines = tail.lines().rev().map(str::trim);
        lines.into_iter().find(|line| !line.is_empty())
    });
    match last {
        Some(line) if exit != Some(ProcessExit::Code(0)) => format!("{how}: {}", Escaped(line)),
        _ => how,
    }
}

/// Writes the lines of a process to the supervisor's own log.
struct ProgramLog {
    pool: PoolName,
    number: u32,
}

impl Log for ProgramLog {
    fn line(&mut self, stream: OutputStream, line: &[u8]) {
        tracing::info!(
            target: "tidegate::job",
            pool = %self.pool,
            process = self.number,
            stream = stream.name(),
            line = %Escaped(&String::from_utf8_lossy(line)),
            "program output"
        );
    }

    fn dropped(&mut self, stream: OutputStream, bytes: u64) {
        tracing::info!(
            target: "tidegate::job",
            pool = %self.pool,
            process = self.number,
            stream = stream.name(),
            bytes,
            "program output dropped"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Seen {
        lines: usize,
        dropped: Vec<u64>,
    }

    impl Log for &mut Seen {
        fn line(&mut self, _: OutputStream, _: &[u8]) {
            self.lines += 1;
        }

        fn dropped(&mut self, _: OutputStream, bytes: u64) {
            self.dropped.push(bytes);
        }
    }

    #[test]
    fn a_program_that_writes_without_end_has_its_share_of_the_log() {
        let mut seen = Seen::default();
        let mut output = OutputReader::new(OutputStream::Stdout, &mut seen);
        let line = [[b'x'; 767].as_slice(), b"\n"].concat();
        // A share is 1 MiB, with 256 bytes of the log itself for each line.
        for _ in 0..3 {
            output.feed(&line.repeat(2000));
            output.turn();
        }
        output.finish();
        let shown = 1024 * 1024 / (767 + 256);
        assert_eq!(seen.lines, 3 * shown);
        assert_eq!(seen.dropped, [(2000 - shown as u64) * 768; 3]);
    }

    #[test]
    fn says_how_a_program_ended_with_its_last_words() {
        for (exit, tail, expected) in [
            (Some(ProcessExit::Code(0)), Some("bye"), "exit code 0"),
            (Some(ProcessExit::Code(1)), None, "exit code 1"),
            (
                Some(ProcessExit::Code(1)),
                Some("Traceback:\nno such \u{1b}module\n\n"),
                "exit code 1: no such \\u{1b}module",
            ),
            (
                Some(ProcessExit::Signal(9)),
                None,
                "ended by SIGKILL (signal 9)",
            ),
            (None, None, "its exit code was lost"),
        ] {
            assert_eq!(in_words(exit, tail), expected);
        }
    }
}
