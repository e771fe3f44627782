//! One job's run: create, attach, start, write the body, read, watch. When this ends, the container is removed.

use std::{future::Future, pin::Pin, pin::pin, time::Duration};

use bollard::{
    Docker,
    container::{AttachContainerResults, LogOutput},
    models::ContainerStateStatusEnum,
    query_parameters::{
        AttachContainerOptions, InspectContainerOptions, KillContainerOptions,
        StartContainerOptions, WaitContainerOptions,
    },
};
use futures_util::{FutureExt as _, StreamExt as _};
use nix::sys::signal::Signal;
use tokio::{
    io::{AsyncWrite, AsyncWriteExt as _},
    time::{Instant, sleep},
};

use super::{
    engine::{EngineError, EngineErrorKind, LONG},
    making,
    ours::Container,
    shared::ContainerShared,
};
use crate::{
    runner::{Failure, FailureKind, Job, JobControl, JobEnd, StartError},
    runners::process::{
        Course, CourseAction, CourseEvent, Interrupts, JobLog, OutputReader, OutputStream,
        ProcessExit, Stdout, job_end,
    },
};

/// How long a lost engine is searched while a job runs.
const LOST: Duration = Duration::from_secs(120);

/// Time between two inspections of a job whose engine does not report its end.
const LOOK: Duration = Duration::from_secs(1);

/// Runs `job` to its end.
///
/// # Cancel-safety
/// Not cancel-safe: when dropped, it kills and removes the container in the background.
pub(super) async fn run(
    shared: &ContainerShared,
    docker: &Docker,
    job: &Job,
    control: &JobControl,
) -> JobEnd {
    let made = tokio::select! {
        biased;
        () = control.kill.cancelled() => None,
        () = control.stop.cancelled() => None,
        made = make(shared, docker, job) => Some(made),
    };
    let (container, streams) = match made {
        None => return JobEnd::Stopped,
        Some(Ok(made)) => made,
        Some(Err(error)) => return JobEnd::NotStarted(error),
    };
    // The job may run before the engine reports the start, so from here it gets its grace.
    let started = tokio::select! {
        biased;
        () = control.kill.cancelled() => return JobEnd::Stopped,
        started = start(shared, &container) => started,
    };
    if let Err(error) = started {
        return JobEnd::NotStarted(error);
    }
    control.started.notify();
    run_until_end(shared, &container, streams, job, control).await
}

/// Creates a container, and attaches to its streams before it starts.
async fn make(
    shared: &ContainerShared,
    docker: &Docker,
    job: &Job,
) -> Result<(Container, AttachContainerResults), StartError> {
    let body = making::body(&shared.settings, &shared.common, shared.owner.as_ref(), job);
    let name = making::make_name(job.pool().as_str());
    let mut container = shared.yard.make(docker, name, body);
    match container.made().await {
        Ok(warnings) => check_warnings(shared, &container, &warnings).await?,
        Err(error) => {
            if error.kind == EngineErrorKind::NotFound {
                shared.image.forget().await;
            }
            return Err(refusal(shared, "create", error).await);
        }
    }
    let options = AttachContainerOptions {
        stream: true,
        stdin: true,
        stdout: true,
        stderr: true,
        ..AttachContainerOptions::default()
    };
    match docker
        .attach_container(&container.name, Some(options))
        .await
    {
        Ok(streams) => Ok((container, streams)),
        Err(error) => Err(refusal(shared, "attach to", error).await),
    }
}

/// Refuses a container that lacks one of the pool's limits. An engine that cannot apply a limit only writes a warning.
async fn check_warnings(
    shared: &ContainerShared,
    container: &Container,
    warnings: &[String],
) -> Result<(), StartError> {
    if warnings.is_empty() {
        return Ok(());
    }
    let options = None::<InspectContainerOptions>;
    let asked = container.docker.inspect_container(&container.name, options);
    let made = match asked.await {
        Ok(found) => found.host_config.unwrap_or_default(),
        Err(error) => return Err(refusal(shared, "inspect", error).await),
    };
    let said = warnings.join(" ");
    let dropped = making::dropped(&shared.settings, &made);
    if dropped.is_empty() {
        tracing::debug!(container = container.name, said, "the engine has warned");
        return Ok(());
    }
    let dropped = dropped.join(" and ");
    Err(StartError {
        what: format!("the engine does not apply {dropped}: {said}"),
        source: None,
    })
}

async fn start(shared: &ContainerShared, container: &Container) -> Result<(), StartError> {
    let options = None::<StartContainerOptions>;
    let started = container.docker.start_container(&container.name, options);
    match started.await {
        Ok(()) => Ok(()),
        Err(error) => Err(refusal(shared, "start", error).await),
    }
}

async fn refusal(
    shared: &ContainerShared,
    what: &str,
    error: impl Into<EngineError>,
) -> StartError {
    let error = error.into();
    shared.finder.note(&error).await;
    error.into_start_error(format!("{what} a container of {}", shared.settings.image))
}

/// Watches a running container until it has ended.
async fn run_until_end(
    shared: &ContainerShared,
    container: &Container,
    streams: AttachContainerResults,
    job: &Job,
    control: &JobControl,
) -> JobEnd {
    let settings = &shared.settings;
    let AttachContainerResults {
        output: mut pieces,
        input,
    } = streams;
    let mut out = Stdout::new(control.output, job);
    let mut err = OutputReader::new(OutputStream::Stderr, JobLog(job));
    let mut course = Course::new(settings.stop_timeout);
    let mut ended = None;
    {
        let mut feed = pin!(feed(input, job.body()));
        let mut output = pin!(async {
            while let Some(Ok(piece)) = pieces.next().await {
                match piece {
                    LogOutput::StdErr { message } => err.feed(&message),
                    LogOutput::StdOut { message } | LogOutput::Console { message } => {
                        out.feed(&message)
                    }
                    LogOutput::StdIn { .. } => {}
                }
            }
        });
        let mut exit = pin!(exit(container));
        let mut interrupts = Interrupts::new(control, settings.timeout);
        let mut signalling: Option<Pin<Box<dyn Future<Output = ()> + Send + '_>>> = None;
        let mut feeding = true;
        loop {
            let event = tokio::select! {
                // The order matters: a job that ended by itself must not count as stopped by us, and a flood of output
                // must delay nothing.
                biased;
                how = &mut exit, if !course.has_exited() => {
                    ended = Some(how);
                    CourseEvent::Exited
                }
                event = interrupts.next() => event,
                () = async { signalling.as_mut().expect("it is polled only if there is one").await },
                    if signalling.is_some() =>
                {
                    signalling = None;
                    continue;
                }
                // Before the output, because a body has an end and a flood of output may not have one.
                () = &mut feed, if feeding => {
                    feeding = false;
                    continue;
                }
                () = &mut output, if course.output_is_open() => CourseEvent::OutputEnded,
            };
            let wake_after = match course.handle(event) {
                CourseAction::Wait => continue,
                CourseAction::Signal(what, wake_after) => {
                    // This drops a request that is still in flight: a KILL does not wait for a TERM.
                    signalling = Some(signal(container, what).boxed());
                    wake_after
                }
                CourseAction::SetTimer(wake_after) => wake_after,
                CourseAction::Finish => break,
            };
            interrupts.set_timer(wake_after);
        }
    }
    let reply = out.finish();
    let stderr_tail = err.finish();
    let exit = match ended {
        Some(ContainerEnd::Exited(exit)) => Some(exit),
        Some(ContainerEnd::Lost(why)) if course.cause().is_none() => {
            return JobEnd::Failed(Failure {
                kind: FailureKind::RunnerLost,
                message: why,
                stderr_tail,
            });
        }
        Some(ContainerEnd::Lost(_)) => None,
        None => {
            tracing::warn!(pool = %job.pool(), container = container.name, "a job's container does not end after a \
            KILL");
            None
        }
    };
    let mut end = job_end(exit, course.cause(), settings.timeout, stderr_tail);
    if let JobEnd::Done { reply: answer } = &mut end {
        *answer = reply;
    }
    end
}

/// Writes the body, then ends the input. If the job does not read its input, this is not a failure.
async fn feed(mut input: Pin<Box<dyn AsyncWrite + Send>>, body: &[u8]) {
    let written = async {
        input.write_all(body).await?;
        input.shutdown().await
    };
    if let Err(error) = written.await {
        tracing::debug!(%error, "failed to write a job's body");
    }
}

/// How a container ended.
enum ContainerEnd {
    Exited(ProcessExit),
    /// The end of the job is not known, for this reason.
    Lost(String),
}

/// Waits for the container's end.
///
/// # Cancel-safety
/// Cancel-safe.
async fn exit(container: &Container) -> ContainerEnd {
    // An engine may send nothing before the container ends.
    let docker = container.docker.clone().with_timeout(LONG);
    let mut silent_since = None;
    loop {
        let options = WaitContainerOptions {
            condition: "not-running".to_owned(),
        };
        // Any answer only means that the container must be inspected. For a container that is being removed, an engine
        // may report the exit code 0.
        let _ = pin!(docker.wait_container(&container.name, Some(options)))
            .next()
            .await;
        match inspect(container).await {
            Ok(look) if look.status == Some(ContainerStateStatusEnum::EXITED) => {
                return ContainerEnd::Exited(look.exit());
            }
            Ok(look) if look.is_being_removed() => return ContainerEnd::removed(),
            Ok(_) => silent_since = None,
            Err(error) if error.kind == EngineErrorKind::NotFound => {
                return ContainerEnd::removed();
            }
            // Perhaps the engine was restarted, and has kept the container.
            Err(error) => {
                let since = *silent_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= LOST {
                    return ContainerEnd::Lost(format!("the container engine was lost: {error}"));
                }
            }
        }
        sleep(LOOK).await;
    }
}

impl ContainerEnd {
    fn removed() -> Self {
        Self::Lost("its container was removed from outside".to_owned())
    }
}

/// The state of a container.
struct ContainerInspection {
    status: Option<ContainerStateStatusEnum>,
    code: i64,
    out_of_memory: bool,
    stop_signal: Option<String>,
}

impl ContainerInspection {
    fn is_being_removed(&self) -> bool {
        use ContainerStateStatusEnum::{DEAD, REMOVING};
        matches!(self.status, Some(REMOVING | DEAD))
    }

    /// How the container's first process ended.
    fn exit(&self) -> ProcessExit {
        let exit = exit_of(self.code);
        // If the exit code has a meaning of its own, it counts, also if the kernel killed a child of the job.
        match self.out_of_memory && !exit.is_word() {
            true => ProcessExit::OutOfMemory,
            false => exit,
        }
    }
}

async fn inspect(container: &Container) -> Result<ContainerInspection, EngineError> {
    let asked = container
        .docker
        .inspect_container(&container.name, None::<InspectContainerOptions>);
    let found = asked.await?;
    let state = found.state.unwrap_or_default();
    Ok(ContainerInspection {
        status: state.status,
        code: state.exit_code.unwrap_or_default(),
        out_of_memory: state.oom_killed.unwrap_or_default(),
        // An empty name means that the image has no stop signal. The engine would send KILL for it.
        stop_signal: (found.config)
            .and_then(|config| config.stop_signal)
            .filter(|signal| !signal.is_empty()),
    })
}

/// The meaning of an engine's exit code: above 128 it means a signal, as in a shell.
fn exit_of(code: i64) -> ProcessExit {
    match i32::try_from(code) {
        Ok(code @ 129..=192) => ProcessExit::Signal(code - 128),
        Ok(code) => ProcessExit::Code(code),
        Err(_) => ProcessExit::Code(i32::MAX),
    }
}

/// Sends a signal to the first process. Instead of TERM, the image's stop signal is sent.
async fn signal(container: &Container, what: Signal) {
    let wanted = match what {
        Signal::SIGTERM => inspect(container)
            .await
            .ok()
            .and_then(|look| look.stop_signal),
        _ => None,
    };
    let options = KillContainerOptions {
        signal: wanted.unwrap_or_else(|| what.as_str().to_owned()),
    };
    let sent = container
        .docker
        .kill_container(&container.name, Some(options));
    if let Err(error) = sent.await.map_err(EngineError::from) {
        // Most likely the container has just ended.
        tracing::debug!(container = container.name, signal = what.as_str(), %error, "signal not sent");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_number_beyond_128_as_the_signal_that_it_stands_for() {
        for (code, expected) in [
            (0, ProcessExit::Code(0)),
            (65, ProcessExit::Code(65)),
            (128, ProcessExit::Code(128)),
            (137, ProcessExit::Signal(9)),
            (143, ProcessExit::Signal(15)),
            (255, ProcessExit::Code(255)),
        ] {
            assert_eq!(exit_of(code), expected);
        }
    }
}
