//! One job's run: spawn, feed, read, watch, reap. Everything happens within the one future, so that dropping it
//! leaves nothing behind, and a job costs no task.

use std::{pin::pin, process::Stdio, time::Duration};

use nix::errno::Errno;
use tokio::{
    io::AsyncWriteExt,
    process::{ChildStdin, Command},
    time::{Instant, sleep},
};

use super::{
    course::{Course, Event, Step},
    environment::{Environment, WithHeaders},
    exit::job_end,
    output::{Output, Stream, TracingLog},
    process::{Pipes, Process},
    start::{locate, start_error},
};
use crate::{
    config::ExecSettings,
    runner::{Job, JobControl, JobEnd, StartError},
};

/// The clock's own limit is some way beyond this, and nobody waits so long.
const FOREVER: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// Runs `job` to its end.
///
/// # Cancel-safety
/// Dropped, it kills the job's group at once.
pub(super) async fn run(
    settings: &ExecSettings,
    environment: &Environment,
    job: &Job,
    control: &JobControl,
) -> JobEnd {
    if control.kill.is_cancelled() || control.stop.is_cancelled() {
        return JobEnd::Stopped;
    }
    let (mut process, pipes) = match start(settings, environment, job) {
        Ok(started) => started,
        Err(error) => return JobEnd::NotStarted(error),
    };
    control.started.notify();
    let Pipes {
        stdin,
        stdout,
        stderr,
    } = pipes;
    let mut out = Output::new(job, Stream::Stdout, TracingLog);
    let mut err = Output::new(job, Stream::Stderr, TracingLog);
    let mut course = Course::new(settings.kill_grace);
    {
        let mut feed = pin!(feed(stdin, job.body()));
        // This join takes turns at who is polled first, so that a flood on one pipe cannot starve the other.
        let mut output = pin!(async {
            tokio::join!(out.drain(stdout), err.drain(stderr));
        });
        let mut stopped = pin!(control.stop.cancelled());
        let mut killed = pin!(control.kill.cancelled());
        let mut timer = pin!(sleep(settings.timeout));
        let (mut feeding, mut stop_asked, mut kill_asked) = (true, false, false);
        loop {
            let event = tokio::select! {
                // In this order: what ended by itself was not ended by us, and a flood of output delays nothing.
                biased;
                () = process.exited(), if !course.has_exited() => Event::Exited,
                () = &mut killed, if !kill_asked => {
                    kill_asked = true;
                    Event::KillAsked
                }
                () = &mut stopped, if !stop_asked => {
                    stop_asked = true;
                    Event::StopAsked
                }
                () = &mut timer => Event::TimeUp,
                // Before the output, because a body has an end and a flood may have none.
                () = &mut feed, if feeding => {
                    feeding = false;
                    continue;
                }
                () = &mut output, if course.output_is_open() => Event::OutputEnded,
            };
            let wake_after = match course.handle(event) {
                Step::Wait => continue,
                Step::Signal(signal, wake_after) => {
                    process.signal(signal);
                    wake_after
                }
                Step::SetTimer(wake_after) => wake_after,
                Step::Finish => break,
            };
            timer
                .as_mut()
                .reset(Instant::now() + wake_after.min(FOREVER));
        }
        // The pipes close here, whoever holds their other ends.
    }
    let status = process.finish();
    if status.is_none() {
        tracing::warn!(pool = %job.pool(), "a job's process does not die of KILL");
    }
    out.finish();
    let stderr_tail = err.finish();
    job_end(status, course.cause(), settings.timeout, stderr_tail)
}

/// Writes the body, then closes the pipe. A job that does not read its input is no failure.
async fn feed(mut stdin: ChildStdin, body: &[u8]) {
    if let Err(error) = stdin.write_all(body).await
        && error.kind() != std::io::ErrorKind::BrokenPipe
    {
        tracing::debug!(%error, "failed to write a job's body");
    }
}

fn start(
    settings: &ExecSettings,
    environment: &Environment,
    job: &Job,
) -> Result<(Process, Pipes), StartError> {
    let Some((program, arguments)) = settings.command.split_first() else {
        return Err(StartError {
            what: "the pool's command is empty".to_owned(),
            source: None,
        });
    };
    let file = locate(program, environment.path());
    let spawn = |headers| {
        let mut command = Command::new(file.as_os_str());
        command
            .arg0(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(folder) = &settings.working_dir {
            command.current_dir(folder);
        }
        environment.apply(&mut command, job, headers);
        Process::spawn(&mut command)
    };
    let mut spawned = spawn(WithHeaders::Yes);
    // Where a small stack limit leaves less room than our budget, a message must still not stop the pool.
    if spawned
        .as_ref()
        .is_err_and(|error| error.raw_os_error() == Some(Errno::E2BIG as i32))
    {
        spawned = spawn(WithHeaders::No);
    }
    spawned.map_err(|error| start_error(program, &file, settings.working_dir.as_deref(), error))
}
