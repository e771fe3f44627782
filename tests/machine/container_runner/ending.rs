//! Ends of a container: by itself, by us, and by others.

use std::time::Duration;

use bollard::query_parameters::{KillContainerOptions, RemoveContainerOptions};
use tidegate::{
    runner::{FailureKind, JobControl, JobEnd, RunnerManager},
    runners::container::ContainerManager,
};

use super::{container_of, containers_of, failure, message, run, try_run, witnessed};
use crate::needs::Need;
use crate::support::{
    engine::engine,
    witness::{Witness, soon},
};

trials! {
    tasks(Need::Engine): [
        reads_exit_codes,
        a_container_killed_from_outside_is_that_jobs_failed_attempt,
        a_container_removed_from_outside_is_that_jobs_failed_attempt,
        says_that_a_job_ran_out_of_memory,
        a_job_that_succeeds_is_done_even_if_a_child_ran_out_of_memory,
        stops_a_job_by_the_signal_that_its_image_wants,
        an_init_ends_a_program_that_handles_no_signal,
        leaves_no_container_however_its_job_ended,
        leaves_no_container_whenever_its_future_is_dropped,
    ],
}

async fn reads_exit_codes() {
    let engine = engine();
    for (code, expected) in [
        (0, "Done"),
        (1, "Failed(Failure { kind: Exit(1)"),
        (65, "Rejected"),
        (
            75,
            "Retry { after: None, failure: Some(Failure { kind: Exit(75)",
        ),
        (126, "WrapperFailed(Failure { kind: Exit(126)"),
        (127, "WrapperFailed(Failure { kind: Exit(127)"),
        (255, "Failed(Failure { kind: Exit(255)"),
    ] {
        let end = run(engine.script(&format!("exit {code}")), message()).await;
        let end = format!("{end:?}");
        assert!(end.starts_with(expected), "{code}: {end}");
    }
}

async fn a_container_killed_from_outside_is_that_jobs_failed_attempt() {
    let engine = engine();
    let mut witness = Witness::new();
    let message = message();
    let settings = witnessed(
        engine,
        &witness,
        "echo started >&9; echo last words >&2; sleep 1000",
    );
    let running = tokio::spawn(run(settings, message.clone()));
    witness.line().await;
    let id = container_of(engine, &message).await.id.expect("an id");
    let docker = engine.docker().await;
    docker
        .kill_container(&id, None::<KillContainerOptions>)
        .await
        .expect("killed");
    let failure = failure(soon(running).await.expect("no panic"));
    assert_eq!(failure.kind, FailureKind::Signal(9));
    assert_eq!(failure.message, "ended by SIGKILL (signal 9)");
    assert_eq!(failure.stderr_tail.as_deref(), Some("last words"));
    witness.gone().await;
}

async fn a_container_removed_from_outside_is_that_jobs_failed_attempt() {
    let engine = engine();
    let mut witness = Witness::new();
    let message = message();
    let settings = witnessed(engine, &witness, "echo started >&9; sleep 1000");
    let running = tokio::spawn(run(settings, message.clone()));
    witness.line().await;
    let id = container_of(engine, &message).await.id.expect("an id");
    let force = RemoveContainerOptions {
        force: true,
        ..RemoveContainerOptions::default()
    };
    engine
        .docker()
        .await
        .remove_container(&id, Some(force))
        .await
        .expect("removed");
    let failure = failure(soon(running).await.expect("no panic"));
    // It depends on what the engine reports first.
    let expected = [FailureKind::Signal(9), FailureKind::RunnerLost];
    assert!(expected.contains(&failure.kind), "{failure:?}");
    witness.gone().await;
}

async fn says_that_a_job_ran_out_of_memory() {
    let engine = engine();
    let mut settings = engine.script("x=xxxxxxxx; while :; do x=$x$x; done");
    settings.memory_max = Some(16 << 20);
    // A busy engine may learn of it after the exit, and then never reports it (Docker 20.10).
    for _ in 0..10 {
        let failure = failure(run(settings.clone(), message()).await);
        if failure.kind == FailureKind::OutOfMemory {
            return;
        }
        assert_eq!(failure.kind, FailureKind::Signal(9), "{failure:?}");
    }
    panic!("of ten jobs beyond their memory none was said to have run out of it");
}

async fn a_job_that_succeeds_is_done_even_if_a_child_ran_out_of_memory() {
    let engine = engine();
    let mut settings = engine.script("sh -c 'x=xxxxxxxx; while :; do x=$x$x; done'; exit 0");
    settings.memory_max = Some(16 << 20);
    let end = run(settings, message()).await;
    assert!(matches!(end, JobEnd::Done { .. }), "{end:?}");
}

async fn stops_a_job_by_the_signal_that_its_image_wants() {
    let engine = engine();
    let mut witness = Witness::new();
    let mut settings = witnessed(
        engine,
        &witness,
        "trap 'exit 75' USR1; trap 'exit 1' TERM; echo started >&9; while :; do sleep 1000 & wait; done",
    );
    settings.image = engine.stopped_by("SIGUSR1").await;
    settings.stop_timeout = Duration::from_secs(3600);
    let control = JobControl::default();
    let manager = ContainerManager::new(settings);
    let running = tokio::spawn({
        let control = control.clone();
        async move {
            try_run(&manager, message(), control)
                .await
                .expect("it starts")
        }
    });
    witness.line().await;
    control.stop.cancel();
    let end = soon(running).await.expect("no panic");
    assert!(matches!(end, JobEnd::Retry { .. }), "{end:?}");
    witness.gone().await;
}

async fn an_init_ends_a_program_that_handles_no_signal() {
    let engine = engine();
    let mut witness = Witness::new();
    let mut settings = witnessed(engine, &witness, "echo started >&9; exec sleep 1000");
    settings.init = true;
    settings.stop_timeout = Duration::from_secs(3600);
    let control = JobControl::default();
    let manager = ContainerManager::new(settings);
    let running = tokio::spawn({
        let control = control.clone();
        async move { try_run(&manager, message(), control).await }
    });
    // Some packages of an engine lack its init.
    let Some(_) = witness.next().await else {
        let refused = soon(running).await.expect("no panic").expect_err("no init");
        return eprintln!("{refused}");
    };
    control.stop.cancel();
    let end = soon(running).await.expect("no panic").expect("it started");
    assert!(matches!(end, JobEnd::Stopped), "{end:?}");
    witness.gone().await;
}

async fn leaves_no_container_however_its_job_ended() {
    let engine = engine();
    for script in ["exit 0", "exit 3"] {
        let message = message();
        let manager = ContainerManager::new(engine.script(script));
        let end = try_run(&manager, message.clone(), JobControl::default()).await;
        end.expect("it starts");
        soon(manager.quiesce()).await;
        assert_eq!(containers_of(engine, &message).await, []);
    }
}

async fn leaves_no_container_whenever_its_future_is_dropped() {
    let engine = engine();
    // From before the engine gets the request until well into the job.
    for after in [0, 1, 2, 5, 10, 20, 40, 80, 160, 320, 640].map(Duration::from_millis) {
        let message = message();
        let manager = ContainerManager::new(engine.script("sleep 1000"));
        let running = try_run(&manager, message.clone(), JobControl::default());
        let ended = tokio::time::timeout(after, running).await;
        assert!(ended.is_err(), "{ended:?}");
        soon(manager.quiesce()).await;
        assert_eq!(containers_of(engine, &message).await, [], "{after:?}");
    }
}
