//! The breaker: during a burst of failures, messages stay in the queue.

use std::{sync::atomic::AtomicBool, time::Duration};

use tidegate::config::BreakerRules;

use super::*;

const RULES: BreakerRules = BreakerRules {
    failure_percent: 50,
    window: Duration::from_secs(30),
    min_jobs: 10,
    pause: Duration::from_secs(20),
};

/// Jobs that take a second and then fail while they are told to.
#[derive(Clone, Default)]
struct Flaky {
    fails: Arc<AtomicBool>,
    runs: Arc<AtomicU32>,
    /// Jobs that run now.
    running: Arc<AtomicU32>,
    /// The most jobs that ran at once since the test last set this to zero.
    most: Arc<AtomicU32>,
}

impl Flaky {
    fn failing() -> Self {
        let flaky = Self::default();
        flaky.fails.store(true, Ordering::Relaxed);
        flaky
    }

    fn repair(&self) {
        self.fails.store(false, Ordering::Relaxed);
    }

    fn runs(&self) -> u32 {
        self.runs.load(Ordering::Relaxed)
    }

    fn runners(&self) -> impl RunnerManager {
        let flaky = self.clone();
        HandlerManager::new(move |_: Job| {
            let flaky = flaky.clone();
            async move {
                flaky.runs.fetch_add(1, Ordering::Relaxed);
                let running = flaky.running.fetch_add(1, Ordering::Relaxed) + 1;
                flaky.most.fetch_max(running, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_secs(1)).await;
                flaky.running.fetch_sub(1, Ordering::Relaxed);
                match flaky.fails.load(Ordering::Relaxed) {
                    true => Err(BoxError::from("the database is down")),
                    false => Ok(Outcome::Done),
                }
            }
        })
    }
}

fn breaking(policy: Policy) -> PoolSettings {
    PoolSettings {
        retry: RetrySettings {
            // Long, so that only first attempts are counted.
            backoff: Duration::from_secs(3600),
            backoff_max: Duration::from_secs(3600),
            breaker: Some(RULES),
            ..RetrySettings::default()
        },
        ..settings(policy)
    }
}

fn send(broker: &MemoryBroker, jobs: u32) {
    for n in 0..jobs {
        broker.send(QUEUE, format!("job {n}"));
    }
}

fn is_broken(pool: &PoolStatus) -> bool {
    pool.state == PoolState::Faulted
}

fn is_gone(pool: &PoolStatus) -> bool {
    pool.workers.live + pool.workers.draining == 0
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_failures_leaves_the_rest_in_the_queue_until_a_trial_does_not_fail() {
    let broker = broker();
    let flaky = Flaky::failing();
    send(&broker, 100);
    let supervisor = start(&broker, breaking(Policy::fixed(5)), flaky.runners());
    let open = until(&supervisor, "broken", is_broken).await;
    assert_eq!(
        open.cause.as_deref(),
        Some("breaker open: 10 of the last 10 jobs failed within 30s; last: the database is down")
    );
    until(&supervisor, "gone", is_gone).await;
    // The ten that open it, and the jobs that other workers had just taken.
    let burst = flaky.runs();
    assert!((10..15).contains(&burst), "{burst} jobs");
    let left = 100 - u64::from(burst);
    assert_eq!(broker.ready(QUEUE), Some(left));

    broker.send(QUEUE, "one more");
    throughout(&supervisor, Duration::from_secs(18), "quiet", |pool| {
        is_gone(pool) && is_broken(pool)
    })
    .await;
    let quiet = status(&supervisor);
    assert_eq!((quiet.depth.ready, quiet.depth.stale), (left + 1, false));
    assert_eq!(quiet.jobs.requeued, 0, "no message is given back");

    flaky.repair();
    until(&supervisor, "on trial", |pool| pool.runners.busy == 1).await;
    let most = Duration::from_millis(900);
    throughout(&supervisor, most, "on trial", |pool| {
        is_broken(pool) && pool.runners.busy == 1 && pool.workers.live == 1
    })
    .await;
    let after = until(&supervisor, "done", |pool| pool.jobs.done == left + 1).await;
    assert_eq!((after.jobs.retried, after.cause), (burst.into(), None));
}

#[tokio::test(start_paused = true)]
async fn failing_trials_come_one_at_a_time_and_less_and_less_often() {
    let broker = broker();
    let flaky = Flaky::failing();
    send(&broker, 100);
    let supervisor = start(&broker, breaking(Policy::fixed(5)), flaky.runners());
    until(&supervisor, "broken", is_broken).await;
    until(&supervisor, "gone", is_gone).await;
    let burst = flaky.runs();
    flaky.most.store(0, Ordering::Relaxed);
    // After 20, 40, 80, 160 and 160 seconds, plus the time to notice and run each trial.
    let mut trials = Vec::new();
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_secs(24)).await;
        trials.push(flaky.runs() - burst);
    }
    let expected = [1, 1, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4, 4, 5];
    assert_eq!(trials, expected);
    assert_eq!(flaky.most.load(Ordering::Relaxed), 1);
    let cause = status(&supervisor).cause;
    assert_eq!(
        cause.as_deref(),
        Some("breaker open: 5 trials failed; last: the database is down")
    );
    assert_eq!(broker.ready(QUEUE), Some(u64::from(100 - burst - 5)));
}

#[tokio::test(start_paused = true)]
async fn a_share_of_failures_below_the_threshold_never_opens_it() {
    let broker = broker();
    let count = Arc::new(AtomicU32::new(0));
    let two_in_five = move |_: Job| {
        let n = count.fetch_add(1, Ordering::Relaxed);
        async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            match n % 5 {
                1 | 3 => Err(BoxError::from("unlucky")),
                _ => Ok(Outcome::Done),
            }
        }
    };
    send(&broker, 1000);
    let settings = breaking(Policy::fixed(5));
    let supervisor = start(&broker, settings, HandlerManager::new(two_in_five));
    until(&supervisor, "all done", |pool| {
        assert!(!is_broken(pool), "{pool:#?}");
        pool.jobs.done == 600 && pool.jobs.retried == 400
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn retries_and_rejections_are_not_failures_and_close_the_breaker_too() {
    for answer in [Outcome::retry(), Outcome::reject("no such picture")] {
        let broker = broker();
        let fails = Arc::new(AtomicBool::new(false));
        let handler = {
            let fails = fails.clone();
            move |_: Job| {
                let fails = fails.load(Ordering::Relaxed);
                let answer = answer.clone();
                async move {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    match fails {
                        true => Err(BoxError::from("the database is down")),
                        false => Ok(answer),
                    }
                }
            }
        };
        let supervisor = start(
            &broker,
            breaking(Policy::fixed(5)),
            HandlerManager::new(handler),
        );
        send(&broker, 50);
        until(&supervisor, "answered", |pool| {
            assert!(!is_broken(pool), "{pool:#?}");
            pool.jobs.retried + pool.jobs.dead == 50
        })
        .await;
        fails.store(true, Ordering::Relaxed);
        send(&broker, 200);
        until(&supervisor, "broken", is_broken).await;
        fails.store(false, Ordering::Relaxed);
        until(&supervisor, "answered again", |pool| {
            pool.jobs.retried + pool.jobs.dead == 250
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn jobs_that_ran_when_it_opened_finish_without_delaying_or_replacing_the_trial() {
    let broker = broker();
    let (mut held, long) = Held::new();
    let flaky = Flaky::failing();
    let runs = flaky.runs.clone();
    let fails = flaky.fails.clone();
    // The first job takes longer.
    let handler = move |job: Job| -> JobFuture {
        if runs.fetch_add(1, Ordering::Relaxed) == 0 {
            return long(job);
        }
        let fails = fails.load(Ordering::Relaxed);
        Box::pin(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            match fails {
                true => Err(BoxError::from("the database is down")),
                false => Ok(Outcome::Done),
            }
        })
    };
    send(&broker, 50);
    // Preemption must not matter here: it is for scaling.
    let settings = PoolSettings {
        preempt: true,
        ..breaking(Policy::fixed(5).max(6))
    };
    let supervisor = start(&broker, settings, HandlerManager::new(handler));
    held.started().await;
    until(&supervisor, "broken", is_broken).await;
    let first_burst = flaky.runs();
    let trial = until(&supervisor, "on trial", |_| flaky.runs() > first_burst).await;
    assert_eq!((trial.workers.live, trial.workers.draining), (1, 1));
    until(&supervisor, "waiting for the next", |pool| {
        pool.workers.live == 0 && pool.workers.draining == 1
    })
    .await;
    held.let_go(1);
    until(&supervisor, "finished", |pool| pool.jobs.done == 1).await;
    throughout(
        &supervisor,
        Duration::from_secs(30),
        "still broken",
        is_broken,
    )
    .await;
    flaky.repair();
    until(&supervisor, "repaired", |pool| {
        pool.state == PoolState::Active && pool.workers.live == 5
    })
    .await;
    let requeued = status(&supervisor).jobs.requeued;
    assert_eq!(requeued, 0);
}

#[tokio::test(start_paused = true)]
async fn prefetched_messages_go_back_to_the_queue_when_it_opens() {
    let broker = broker();
    let flaky = Flaky::failing();
    send(&broker, 100);
    let settings = PoolSettings {
        prefetch: 10,
        ..breaking(Policy::fixed(2))
    };
    let supervisor = start(&broker, settings, flaky.runners());
    until(&supervisor, "broken", is_broken).await;
    until(&supervisor, "gone", is_gone).await;
    let burst = flaky.runs();
    assert!((10..12).contains(&burst), "{burst} jobs");
    assert_eq!(broker.ready(QUEUE), Some(u64::from(100 - burst)));
}

#[tokio::test(start_paused = true)]
async fn a_pool_can_be_pinned_paused_and_drained_while_it_is_open() {
    let broker = broker();
    let flaky = Flaky::failing();
    send(&broker, 100);
    let supervisor = start(&broker, breaking(Policy::fixed(5)), flaky.runners());
    until(&supervisor, "broken", is_broken).await;
    supervisor.scale(&name(), Some(4)).await.unwrap();
    until(&supervisor, "gone", is_gone).await;
    throughout(&supervisor, Duration::from_secs(15), "left alone", is_gone).await;
    let burst = flaky.runs();
    flaky.most.store(0, Ordering::Relaxed);
    until(&supervisor, "tried", |_| flaky.runs() == burst + 1).await;
    until(&supervisor, "gone", is_gone).await;
    assert_eq!(
        flaky.most.load(Ordering::Relaxed),
        1,
        "a pin does not bypass the breaker"
    );

    supervisor.pause(&name()).await.unwrap();
    throughout(&supervisor, Duration::from_secs(200), "paused", |pool| {
        pool.state == PoolState::Paused && is_gone(pool)
    })
    .await;
    flaky.repair();
    supervisor.resume(&name()).await.unwrap();
    until(&supervisor, "tried at once", |pool| pool.jobs.done == 1).await;
    until(&supervisor, "as pinned", |pool| pool.workers.live == 4).await;

    flaky.fails.store(true, Ordering::Relaxed);
    until(&supervisor, "broken again", is_broken).await;
    supervisor.drain(Duration::from_secs(30)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_reload_removes_it_or_starts_a_trial_at_once() {
    let broker = broker();
    let flaky = Flaky::failing();
    send(&broker, 200);
    let settings = breaking(Policy::fixed(5));
    let supervisor = start(&broker, settings.clone(), flaky.runners());
    until(&supervisor, "broken", is_broken).await;
    until(&supervisor, "gone", is_gone).await;

    // A new command may fix the failures.
    let runs = flaky.runs();
    let pool = |settings: &PoolSettings, runners| PoolSpec {
        settings: settings.clone(),
        runners: Arc::new(runners),
    };
    let begun = Instant::now();
    supervisor
        .reconfigure(vec![pool(&settings, flaky.runners())])
        .await
        .unwrap();
    until(&supervisor, "tried", |_| flaky.runs() == runs + 1).await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{begun:?}");
    until(&supervisor, "gone", is_gone).await;

    let mut without = settings.clone();
    without.retry.breaker = None;
    supervisor
        .reconfigure(vec![pool(&without, flaky.runners())])
        .await
        .unwrap();
    let after = until(&supervisor, "at work", |pool| pool.workers.live == 5).await;
    assert_eq!((after.state, after.cause), (PoolState::Active, None));
}
