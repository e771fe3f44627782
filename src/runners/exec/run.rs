//! One job's run: spawn, write the body, read the output, watch, reap. All of this happens within one future, so
//! dropping it leaves nothing behind, and a job needs no task of its own.

use std::pin::pin;

use tokio::{io::AsyncWriteExt, process::ChildStdin};

use crate::{
    runner::{Job, JobControl, JobEnd, StartError},
    runners::process::{
        Course, CourseAction, CourseEvent, Environment, ExecSettings, Interrupts, JobLog, Launch,
        OutputReader, OutputStream, Pipes, Process, ProcessReuse, SpawnError, Stdout, WithHeaders,
        job_end, job_variables,
    },
};

/// Runs `job` to its end.
///
/// # Cancel-safety
/// Not cancel-safe: when dropped, it kills the job's group at once.
pub(super) async fn run(
    settings: &ExecSettings,
    environment: &Environment,
    job: &Job,
    control: &JobControl,
) -> JobEnd {
    if control.kill.is_cancelled() || control.stop.is_cancelled() {
        return JobEnd::Stopped;
    }
    let started = tokio::select! {
        biased;
        started = start(settings, environment, job) => started,
        // A launcher may have to wait. Without a launcher this branch is never reached.
        () = control.kill.cancelled() => return JobEnd::Stopped,
        () = control.stop.cancelled() => return JobEnd::Stopped,
    };
    let (mut process, pipes) = match started {
        Ok(started) => started,
        Err(error) => return JobEnd::NotStarted(error),
    };
    control.started.notify();
    let Pipes {
        stdin,
        stdout,
        stderr,
    } = pipes;
    let mut out = Stdout::new(control.output, job);
    let mut err = OutputReader::new(OutputStream::Stderr, JobLog(job));
    let mut course = Course::new(settings.kill_grace);
    {
        let mut feed = pin!(feed(stdin, job.body()));
        // `join` polls its futures in turns, so that a flood on one pipe cannot starve the other.
        let mut output = pin!(async {
            tokio::join!(out.drain(stdout), err.drain(stderr));
        });
        let mut interrupts = Interrupts::new(control, settings.timeout);
        let mut feeding = true;
        loop {
            let event = tokio::select! {
                // The order matters: a job that ended by itself must not count as stopped by us, and a flood of output
                // must delay nothing.
                biased;
                () = process.exited(), if !course.has_exited() => CourseEvent::Exited,
                event = interrupts.next() => event,
                // Before the output, because a body has an end and a flood of output may not have one.
                () = &mut feed, if feeding => {
                    feeding = false;
                    continue;
                }
                () = &mut output, if course.output_is_open() => CourseEvent::OutputEnded,
            };
            let wake_after = match course.handle(event) {
                CourseAction::Wait => continue,
                CourseAction::Signal(signal, wake_after) => {
                    process.signal(signal);
                    wake_after
                }
                CourseAction::SetTimer(wake_after) => wake_after,
                CourseAction::Finish => break,
            };
            interrupts.set_timer(wake_after);
        }
        // The pipes close here, even if other processes still hold their other ends.
    }
    let ended = process.finish();
    if ended.status.is_none() {
        tracing::warn!(pool = %job.pool(), "a job's process does not end after KILL");
    }
    let reply = out.finish();
    let stderr_tail = err.finish();
    let mut end = job_end(ended.exit(), course.cause(), settings.timeout, stderr_tail);
    if let JobEnd::Done { reply: answer } = &mut end {
        *answer = reply;
    }
    end
}

/// Writes the body, then closes the pipe. A job that does not read its input has not failed for that reason.
async fn feed(mut stdin: ChildStdin, body: &[u8]) {
    if let Err(error) = stdin.write_all(body).await
        && error.kind() != std::io::ErrorKind::BrokenPipe
    {
        tracing::debug!(%error, "failed to write a job's body");
    }
}

async fn start(
    settings: &ExecSettings,
    environment: &Environment,
    job: &Job,
) -> Result<(Process, Pipes), StartError> {
    let launch = Launch::new(settings, environment, ProcessReuse::No)?;
    let mut spawned = launch.spawn(job_variables(job, WithHeaders::Yes)).await;
    // If a small stack limit leaves less room than our budget, a message must still not stop the pool.
    if spawned.as_ref().is_err_and(SpawnError::is_too_large) {
        spawned = launch.spawn(job_variables(job, WithHeaders::No)).await;
    }
    spawned.map_err(|error| launch.error(error))
}
