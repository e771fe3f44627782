//! Tests of handlers: panics, bodies, timeouts and stops.

use std::{
    future,
    sync::atomic::{AtomicBool, Ordering},
};

use tokio::time::Instant;

use super::*;
use crate::{
    decide::JobId,
    queue::Message,
    runner::{JobEnd, JsonError},
};

fn job() -> Job {
    Job::new(
        "p".into(),
        "q".into(),
        Arc::new(Message::default()),
        1,
        || JobId::from("j"),
    )
}

async fn end_of<H, F>(manager: HandlerManager<H>, control: &JobControl) -> String
where
    H: Fn(Job) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Outcome, BoxError>> + Send + 'static,
{
    let request = CreateRunner {
        id: crate::decide::RunnerId(1),
        pool: "p".into(),
    };
    let mut runner = manager.create(request).await.expect("a runner");
    let report = runner.run(&job(), control.clone()).await;
    assert!(report.reusable);
    match report.end {
        JobEnd::Failed(failure) => format!("{:?}: {}", failure.kind, failure.message),
        end => format!("{end:?}"),
    }
}

#[derive(Debug, thiserror::Error)]
#[error("outer")]
struct Outer(#[source] std::fmt::Error);

/// Panics when it is dropped.
struct PanicsOnDrop;

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        panic!("in a destructor");
    }
}

#[tokio::test]
async fn a_panic_is_the_failure_of_its_job() {
    let control = JobControl::default();
    let at_once = HandlerManager::new(|_| -> future::Ready<_> { panic!("at {}", "once") });
    assert_eq!(end_of(at_once, &control).await, "Panic: panicked: at once");
    let later = HandlerManager::new(|_| async {
        tokio::task::yield_now().await;
        panic!("later")
    });
    assert_eq!(end_of(later, &control).await, "Panic: panicked: later");
    let wordless = HandlerManager::new(|_| async { std::panic::panic_any(7) });
    assert_eq!(
        end_of(wordless, &control).await,
        "Panic: panicked: without a message"
    );
}

#[tokio::test(start_paused = true)]
async fn a_panic_while_it_is_dropped_is_caught_too() {
    let manager = HandlerManager::new(|_| async {
        let _bomb = PanicsOnDrop;
        future::pending().await
    });
    let end = end_of(
        manager.timeout(Duration::from_secs(1)),
        &JobControl::default(),
    )
    .await;
    assert_eq!(end, "Panic: panicked: in a destructor");
}

#[derive(Debug, thiserror::Error)]
#[error("read the order")]
struct Wrapped(#[from] JsonError);

#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct Hidden(#[from] JsonError);

/// Parses the empty body of [`job`] as JSON, which fails.
fn parse(job: &Job) -> Result<Outcome, JsonError> {
    job.json::<u32>().map(|_| Outcome::Done)
}

#[tokio::test]
async fn a_body_that_is_not_what_the_handler_asks_for_rejects_its_job() {
    let why = "the body is not the JSON that the job asks for: EOF while parsing a value at line 1 column 0";
    let rejected = |why| format!("Rejected {{ reason: {why:?}, failure: None }}");
    let control = JobControl::default();
    let plain = HandlerManager::new(|job: Job| async move { Ok(parse(&job)?) });
    assert_eq!(end_of(plain, &control).await, rejected(why.to_owned()));
    let hidden =
        HandlerManager::new(|job: Job| async move { Ok(parse(&job).map_err(Hidden::from)?) });
    assert_eq!(end_of(hidden, &control).await, rejected(why.to_owned()));
    let wrapped =
        HandlerManager::new(|job: Job| async move { Ok(parse(&job).map_err(Wrapped::from)?) });
    let why = format!("read the order: {why}");
    assert_eq!(end_of(wrapped, &control).await, rejected(why));
}

#[tokio::test]
async fn a_stop_does_not_give_back_what_can_never_be_parsed() {
    let control = JobControl::default();
    let manager = HandlerManager::new({
        let stop = control.stop.clone();
        move |job: Job| {
            stop.cancel();
            async move {
                job.stopped().await;
                Ok(parse(&job)?)
            }
        }
    });
    let end = end_of(manager, &control).await;
    assert!(end.starts_with("Rejected"), "{end}");
}

#[tokio::test]
async fn an_error_is_shown_with_its_causes() {
    let manager = HandlerManager::new(|_| async { Err(Outer(std::fmt::Error).into()) });
    let end = end_of(manager, &JobControl::default()).await;
    assert_eq!(end, format!("Error: outer: {}", std::fmt::Error));
}

#[tokio::test(start_paused = true)]
async fn uses_the_outcome_of_a_handler_that_ends_within_its_grace() {
    let limit = Duration::from_secs(3);
    let well = HandlerManager::new(|job: Job| async move {
        job.stopped().await;
        Ok(Outcome::retry())
    });
    let end = end_of(well.timeout(limit), &JobControl::default()).await;
    assert_eq!(end, "Retry { after: None, failure: None }");
    let badly = HandlerManager::new(|job: Job| async move {
        job.stopped().await;
        Err("cut off".into())
    });
    let end = end_of(badly.timeout(limit), &JobControl::default()).await;
    assert_eq!(end, "Timeout: ran longer than its timeout of 3s: cut off");
}

#[tokio::test(start_paused = true)]
async fn gives_a_handler_its_timeout_and_its_grace_and_no_more() {
    let start = Instant::now();
    let manager = HandlerManager::new(|_| future::pending())
        .timeout(Duration::from_secs(3))
        .kill_grace(Duration::from_secs(4));
    let end = end_of(manager, &JobControl::default()).await;
    assert_eq!(end, "Timeout: ran longer than its timeout of 3s");
    assert_eq!(start.elapsed(), Duration::from_secs(7));
}

#[tokio::test(start_paused = true)]
async fn a_stop_has_the_default_grace_and_a_kill_none() {
    for (kill, grace) in [(false, 10), (true, 0)] {
        let start = Instant::now();
        let control = JobControl::default();
        let manager = HandlerManager::new({
            let control = control.clone();
            move |_| {
                if kill { &control.kill } else { &control.stop }.cancel();
                future::pending()
            }
        });
        assert_eq!(end_of(manager, &control).await, "Stopped");
        assert_eq!(start.elapsed(), Duration::from_secs(grace));
    }
}

#[tokio::test]
async fn a_handler_that_cancels_its_own_token_ends_nothing_else() {
    let control = JobControl::default();
    let manager = HandlerManager::new(|job: Job| async move {
        job.cancelled().cancel();
        Ok(Outcome::Done)
    });
    assert_eq!(end_of(manager, &control).await, "Done { reply: None }");
    assert!(!control.stop.is_cancelled());
}

#[tokio::test]
async fn drops_a_handler_with_its_future() {
    struct Flag(Arc<AtomicBool>);
    impl Drop for Flag {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let dropped = Arc::new(AtomicBool::new(false));
    let manager = HandlerManager::new({
        let dropped = Arc::clone(&dropped);
        move |_| {
            let flag = Flag(Arc::clone(&dropped));
            async move {
                let _flag = flag;
                future::pending().await
            }
        }
    });
    let control = JobControl::default();
    let run = end_of(manager, &control);
    assert!(futures_util::FutureExt::now_or_never(run).is_none());
    assert!(dropped.load(Ordering::Relaxed));
}
