//! Drains, stops and drops of the last handle: no job is lost.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_drain_finishes_running_jobs_and_takes_no_more() {
    let (broker, supervisor, held) = busy(2, settings(Policy::fixed(2))).await;
    for n in 2..5 {
        broker.send(QUEUE, format!("job {n}"));
    }
    let drain = tokio::spawn({
        let supervisor = supervisor.clone();
        async move { supervisor.drain(Duration::from_secs(600)).await }
    });
    until(&supervisor, "draining", |pool| {
        pool.state == PoolState::Draining && pool.workers.draining == 2
    })
    .await;
    held.let_go(2);
    assert_eq!(drain.await.unwrap().unwrap().finished, 2);
    assert_eq!(status(&supervisor).jobs.done, 2);
    assert_eq!(broker.ready(QUEUE), Some(3));
}

#[tokio::test(start_paused = true)]
async fn jobs_that_outlast_the_drains_deadline_are_stopped_and_given_back() {
    let (broker, supervisor, _held) = busy(2, settings(Policy::fixed(2))).await;
    let begun = Instant::now();
    let error = supervisor.drain(Duration::from_secs(30)).await.unwrap_err();
    assert!(matches!(
        error,
        DrainError::DeadlinePassed { given_back: 2 }
    ));
    // The deadline, plus the handlers' grace of ten seconds.
    assert!(
        begun.elapsed() >= Duration::from_secs(30) && begun.elapsed() < Duration::from_secs(45)
    );
    assert_eq!(broker.ready(QUEUE), Some(2));
}

#[tokio::test(start_paused = true)]
async fn stopping_now_gives_everything_back_at_once() {
    let (broker, supervisor, _held) = busy(1, settings(Policy::fixed(2))).await;
    let drain = tokio::spawn({
        let supervisor = supervisor.clone();
        async move { supervisor.drain(Duration::from_secs(600)).await }
    });
    until(&supervisor, "draining", |pool| {
        pool.state == PoolState::Draining
    })
    .await;
    let begun = Instant::now();
    let report = supervisor.stop_now().await;
    assert_eq!(report.given_back, 1);
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert!(matches!(
        drain.await.unwrap(),
        Err(DrainError::CutShort { given_back: 1 })
    ));
    assert_eq!(broker.ready(QUEUE), Some(1));
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_handle_gives_everything_back() {
    let (broker, supervisor, _held) = busy(1, settings(Policy::fixed(1))).await;
    drop(supervisor);
    let back = async {
        while broker.ready(QUEUE) != Some(1) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(60), back)
        .await
        .expect("the job is given back");
}

#[tokio::test(start_paused = true)]
async fn a_delivery_that_was_held_for_its_copy_counts_as_given_back_when_a_drain_ends_it() {
    let broker = broker();
    let handler = |_: Job| async { Ok(Outcome::reject("never")) };
    let supervisor = start(
        &broker,
        settings(Policy::fixed(1)),
        HandlerManager::new(handler),
    );
    broker.set_blocked(true);
    broker.send(QUEUE, "bad");
    until(&supervisor, "blocked", |pool| {
        pool.state == PoolState::Blocked
    })
    .await;
    let error = supervisor.drain(Duration::from_secs(5)).await.unwrap_err();
    assert!(matches!(
        error,
        DrainError::DeadlinePassed { given_back: 1 }
    ));
    assert_eq!(broker.ready(QUEUE), Some(1));
}
