//! A running job, seen from outside and stopped by an operator.

use std::time::Duration;

use tidegate::{
    decide::JobId,
    run::{StopThen, Stopping},
};

use tokio::time::sleep;

use super::*;

/// A handler whose jobs run until they are told to stop. Those with the body `tidy` then say that they are done.
async fn endless(job: Job) -> Result<Outcome, BoxError> {
    job.cancelled().cancelled().await;
    match &job.body()[..] {
        b"tidy" => Ok(Outcome::Done),
        _ => Err(BoxError::from("interrupted")),
    }
}

fn by_hand(then: StopThen) -> Stopping {
    Stopping {
        then,
        by: "someone".to_owned(),
    }
}

/// A pool with one job that runs, and the job's id.
async fn with_a_job(broker: &MemoryBroker, body: &'static str) -> (Supervisor, JobId) {
    broker.send(QUEUE, body);
    let settings = settings(Policy::fixed(1));
    let supervisor = start(broker, settings, HandlerManager::new(endless));
    until(&supervisor, "busy", |pool| pool.runners.busy == 1).await;
    let jobs = supervisor.jobs(&name()).unwrap();
    assert_eq!(jobs.len(), 1, "{jobs:?}");
    (supervisor, jobs[0].id.clone())
}

#[tokio::test(start_paused = true)]
async fn an_operator_stops_a_job_and_says_what_becomes_of_its_message() {
    for (then, counted) in [
        (StopThen::Retry, (1, 0, 0)),
        (StopThen::Reject, (0, 1, 0)),
        (StopThen::Requeue, (0, 0, 1)),
    ] {
        let broker = broker();
        let (supervisor, id) = with_a_job(&broker, "endless").await;
        let stopped = supervisor.stop_job(&name(), &id, &by_hand(then)).unwrap();
        assert_eq!(stopped, 1);
        let after = until(&supervisor, "settled", |pool| {
            pool.jobs.retried + pool.jobs.dead + pool.jobs.requeued > 0
        })
        .await;
        let jobs = after.jobs;
        assert_eq!(
            (jobs.retried, jobs.dead, jobs.requeued),
            counted,
            "{then:?}"
        );
        if then == StopThen::Reject {
            let dead = broker.take("jobs.dead");
            let why = text(&dead[0].headers, "x-tidegate-error");
            assert!(why.contains("stopped by hand, by someone"), "{why}");
        } else {
            // Only the one was stopped: the next has a life of its own.
            until(&supervisor, "again", |pool| pool.runners.busy == 1).await;
            throughout(&supervisor, Duration::from_secs(60), "busy", |pool| {
                pool.runners.busy == 1
            })
            .await;
            let attempt = supervisor.jobs(&name()).unwrap()[0].attempt;
            assert_eq!(attempt, if then == StopThen::Retry { 2 } else { 1 });
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_that_ends_well_within_its_grace_is_done_whatever_was_chosen() {
    let broker = broker();
    let (supervisor, id) = with_a_job(&broker, "tidy").await;
    supervisor
        .stop_job(&name(), &id, &by_hand(StopThen::Reject))
        .unwrap();
    let after = until(&supervisor, "done", |pool| pool.jobs.done == 1).await;
    assert_eq!(after.jobs.dead, 0);
}

#[tokio::test(start_paused = true)]
async fn a_running_job_is_shown_with_its_deadline_and_who_stops_it() {
    let broker = broker();
    broker.send(QUEUE, "endless");
    let runners = HandlerManager::new(async |_: Job| {
        // Not even when it is told to.
        std::future::pending::<()>().await;
        Ok(Outcome::Done)
    })
    .timeout(Duration::from_secs(60));
    let supervisor = start(&broker, settings(Policy::fixed(1)), runners);
    until(&supervisor, "busy", |pool| pool.runners.busy == 1).await;
    let shown = || supervisor.jobs(&name()).unwrap().remove(0);
    let job = shown();
    let left = job.deadline.unwrap().duration_since(job.since);
    assert_eq!((job.attempt, left.as_secs(), job.stopping), (1, 60, None));

    let nobody = supervisor.stop_job(&name(), &"another".into(), &by_hand(StopThen::Retry));
    assert_eq!(nobody.unwrap(), 0);
    supervisor
        .stop_job(&name(), &job.id, &by_hand(StopThen::Reject))
        .unwrap();
    assert_eq!(shown().stopping, Some(by_hand(StopThen::Reject)));
    // The first word counts.
    supervisor
        .stop_job(&name(), &job.id, &by_hand(StopThen::Requeue))
        .unwrap();
    until(&supervisor, "dead", |pool| pool.jobs.dead == 1).await;
    assert!(supervisor.jobs(&name()).unwrap().is_empty());
    assert!(supervisor.jobs(&"another".into()).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_job_of_a_pool_that_was_removed_is_still_listed_and_can_be_stopped() {
    let broker = broker();
    let (supervisor, id) = with_a_job(&broker, "endless").await;
    supervisor.reconfigure(Vec::new()).await.unwrap();
    assert!(supervisor.pool(&name()).is_none());
    let jobs = supervisor.jobs(&name()).unwrap();
    assert_eq!(jobs.len(), 1, "{jobs:?}");
    let told = supervisor
        .stop_job(&name(), &id, &by_hand(StopThen::Reject))
        .unwrap();
    assert_eq!(told, 1);
    let time_limit = Instant::now() + Duration::from_secs(60);
    while supervisor.jobs(&name()).is_some() {
        assert!(Instant::now() < time_limit, "{:?}", supervisor.leaving());
        sleep(Duration::from_millis(10)).await;
    }
    let ended = supervisor.stop_job(&name(), &id, &by_hand(StopThen::Reject));
    assert!(
        matches!(ended, Err(SupervisorError::NoSuchPool(_))),
        "{ended:?}"
    );
}
