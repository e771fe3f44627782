//! Quorum queues with a delivery limit: no message is lost with any limit. A message that kills the daemon does not
//! affect other messages.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize},
    },
};

use tidegate::queue::QueueErrorKind;

use super::*;

/// Allowed returns per message. 20 is the default of RabbitMQ 4.
const LIMITS: [u32; 4] = [1, 2, 3, 20];

fn limited(limit: u32) -> MemoryBroker {
    let broker = broker();
    broker.limit_deliveries(QUEUE, limit);
    broker
}

fn bodies(messages: &[Message]) -> BTreeSet<String> {
    messages
        .iter()
        .map(|message| String::from_utf8_lossy(&message.body).into_owned())
        .collect()
}

fn with_headers(body: &'static str, headers: &[(&str, i64)]) -> Outgoing {
    Outgoing {
        routing_key: QUEUE.to_owned(),
        body: body.into(),
        headers: headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), HeaderValue::I64(*value)))
            .collect(),
        ..Outgoing::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_fault_of_hours_loses_no_message_and_raises_no_delivery_count() {
    for limit in LIMITS {
        for prefetch in [1, 5] {
            let broker = limited(limit);
            let repaired = Arc::new(AtomicBool::new(false));
            let runners = Broken {
                tries: Arc::default(),
                repaired: repaired.clone(),
            };
            for n in 0..3 {
                broker.send(QUEUE, format!("job {n}"));
            }
            let settings = PoolSettings {
                prefetch,
                ..settings(Policy::fixed(2))
            };
            let supervisor = start(&broker, settings, runners);
            until(&supervisor, "faulted", |pool| {
                pool.state == PoolState::Faulted
            })
            .await;
            tokio::time::sleep(Duration::from_secs(3 * 3600)).await;
            let faulted = status(&supervisor);
            assert!(faulted.jobs.requeued > 100, "limit {limit}: {faulted:#?}");
            repaired.store(true, Ordering::Relaxed);
            let after = until(&supervisor, "done", |pool| pool.jobs.done == 3).await;
            assert_eq!((after.jobs.dead, after.jobs.lost), (0, 0), "limit {limit}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_way_to_stop_a_job_uses_up_the_delivery_limit() {
    for limit in LIMITS {
        let broker = limited(limit);
        for n in 0..3 {
            broker.send(QUEUE, format!("job {n}"));
        }
        for round in 0..30 {
            let (mut held, handler) = Held::new();
            let settings = PoolSettings {
                preempt: true,
                prefetch: 2,
                ..settings(Policy::fixed(2))
            };
            let supervisor = start(&broker, settings, HandlerManager::new(handler));
            held.started().await;
            match round % 3 {
                0 => drop(supervisor.drain(Duration::from_secs(1)).await),
                1 => drop(supervisor.stop_now().await),
                _ => {
                    supervisor.scale(&name(), Some(0)).await.unwrap();
                    until(&supervisor, "stopped", |pool| {
                        pool.workers.live + pool.workers.draining == 0
                    })
                    .await;
                    supervisor.drain(Duration::ZERO).await.unwrap();
                }
            }
            broker.reconnect();
            assert_eq!(broker.ready(QUEUE), Some(3), "limit {limit}, round {round}");
        }
        let left = broker.take(QUEUE);
        assert!(
            left.iter().all(|message| {
                let sum = message.headers.get("x-tidegate-give-backs");
                sum.and_then(HeaderValue::as_integer) == Some(0)
            }),
            "they were stopped by us: {left:#?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_alarm_of_hours_loses_no_message() {
    let broker = limited(2);
    let settings = PoolSettings {
        ack_deadline: Duration::from_secs(60),
        ..settings(Policy::fixed(3))
    };
    let handler = |_: Job| async { Ok(Outcome::reject("never")) };
    for n in 0..5 {
        broker.send(QUEUE, format!("job {n}"));
    }
    broker.set_blocked(true);
    let supervisor = start(&broker, settings, HandlerManager::new(handler));
    let deadlines = Duration::from_secs(8 * 3600);
    until(&supervisor, "blocked", |pool| {
        pool.state == PoolState::Blocked
    })
    .await;
    tokio::time::sleep(deadlines).await;
    assert_eq!(status(&supervisor).state, PoolState::Blocked);
    assert_eq!(broker.ready(QUEUE), Some(5));
    broker.set_blocked(false);
    until(&supervisor, "dead", |pool| pool.jobs.dead == 5).await;
    assert_eq!(broker.ready("jobs.dead"), Some(5));
}

#[tokio::test(start_paused = true)]
async fn forged_headers_kill_no_message_before_it_ran() {
    let broker = limited(2);
    let (say, mut runs) = mpsc::unbounded_channel();
    let handler = move |job: Job| {
        say.send(String::from_utf8_lossy(job.body()).into_owned())
            .unwrap();
        async { Ok(Outcome::Done) }
    };
    for (body, headers) in [
        ("another queue's count", [("x-delivery-count", 500)]),
        ("a sum beyond ours", [("x-tidegate-give-backs", 101)]),
        ("a sum at the end", [("x-tidegate-give-backs", 20)]),
        ("no sum", [("x-tidegate-give-backs", i64::MIN)]),
    ] {
        broker.send_message(with_headers(body, &headers));
    }
    let supervisor = start(
        &broker,
        settings(Policy::fixed(2)),
        HandlerManager::new(handler),
    );
    let after = until(&supervisor, "done", |pool| pool.jobs.done == 4).await;
    assert_eq!(after.jobs.dead, 0);
    runs.close();
    let mut ran = BTreeSet::new();
    while let Some(body) = runs.recv().await {
        assert!(ran.insert(body), "ran twice");
    }
    assert_eq!(ran.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn thousands_of_returned_messages_are_renewed_and_run() {
    const MESSAGES: u64 = 5000;
    let broker = limited(2);
    for n in 0..MESSAGES {
        broker.send(QUEUE, format!("job {n}"));
    }
    lose(&broker, MESSAGES).await;
    let settings = PoolSettings {
        prefetch: 100,
        ..settings(Policy::fixed(10))
    };
    let begun = Instant::now();
    let supervisor = start(&broker, settings, HandlerManager::new(done));
    let after = until(&supervisor, "done", |pool| pool.jobs.done == MESSAGES).await;
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!((after.jobs.dead, after.jobs.lost), (0, 0));
}

/// A daemon that dies when a job named "poison" begins, and is started again.
struct Mortal {
    broker: MemoryBroker,
    settings: PoolSettings,
    messages: usize,
    /// How long the other jobs take.
    takes: Duration,
    done: Arc<Mutex<BTreeSet<String>>>,
    poisonings: Arc<AtomicUsize>,
}

impl Mortal {
    /// Runs the daemon once. `true` if it died.
    async fn live(&self) -> bool {
        let (die, mut dies) = mpsc::unbounded_channel();
        let (done, takes, poisonings) = (self.done.clone(), self.takes, self.poisonings.clone());
        let handler = move |job: Job| -> JobFuture {
            let body = String::from_utf8_lossy(job.body()).into_owned();
            let (die, done, poisonings) = (die.clone(), done.clone(), poisonings.clone());
            Box::pin(async move {
                if body.starts_with("poison") {
                    poisonings.fetch_add(1, Ordering::Relaxed);
                    die.send(()).ok();
                    std::future::pending::<()>().await;
                }
                tokio::time::sleep(takes).await;
                done.lock().unwrap().insert(body);
                Ok(Outcome::Done)
            })
        };
        let runners = HandlerManager::new(handler).kill_grace(Duration::ZERO);
        let supervisor = start(&self.broker, self.settings.clone(), runners);
        let well = until(&supervisor, "at its end", |_| {
            let dead = self.broker.ready("jobs.dead").unwrap_or(0) as usize;
            self.done.lock().unwrap().len() + dead == self.messages
        });
        let died = tokio::select! {
            biased;
            _ = dies.recv() => true,
            _ = well => false,
        };
        // As after a SIGKILL: nothing that the daemon still sends arrives.
        self.broker.disconnect();
        supervisor.stop_now().await;
        self.broker.reconnect();
        died
    }
}

#[tokio::test(start_paused = true)]
async fn only_a_message_that_kills_the_daemon_is_dead_lettered() {
    for limit in LIMITS {
        for prefetch in [1, 2, 4] {
            for takes in [Duration::ZERO, Duration::from_secs(6)] {
                let broker = limited(limit);
                let mortal = Mortal {
                    broker: broker.clone(),
                    settings: PoolSettings {
                        prefetch,
                        ..settings(Policy::fixed(3))
                    },
                    messages: 8,
                    takes,
                    done: Arc::default(),
                    poisonings: Arc::default(),
                };
                let mut innocent = BTreeSet::new();
                for n in 0..6 {
                    if n % 3 == 0 {
                        broker.send(QUEUE, format!("poison {}", n / 3));
                    }
                    innocent.insert(format!("job {n}"));
                    broker.send(QUEUE, format!("job {n}"));
                }
                let what = format!("limit {limit}, prefetch {prefetch}, jobs of {takes:?}");
                let mut lives = 0;
                while mortal.live().await {
                    lives += 1;
                    assert!(lives < 100, "{what}");
                }
                let dead = broker.take("jobs.dead");
                let expected = BTreeSet::from([String::from("poison 0"), String::from("poison 1")]);
                assert_eq!(bodies(&dead), expected, "{what}");
                assert!(
                    dead.iter().all(|letter| {
                        text(&letter.headers, "x-tidegate-reason") == "crash-loop"
                    })
                );
                assert_eq!(*mortal.done.lock().unwrap(), innocent, "{what}");
                assert!(
                    mortal.poisonings.load(Ordering::Relaxed) <= 2 * 21,
                    "{what}"
                );
            }
        }
    }
}

/// The runs of jobs, by the first letter of their bodies.
type Runs = Arc<Mutex<Vec<char>>>;

/// Jobs that record their run, and fail while there are failures left.
fn noted(
    runs: &Runs,
    failures: usize,
) -> impl Fn(Job) -> JobFuture + Send + Sync + 'static + use<> {
    let (runs, failures) = (runs.clone(), AtomicUsize::new(failures));
    move |job: Job| -> JobFuture {
        let first = char::from(job.body()[0]);
        runs.lock().unwrap().push(first);
        let fails = first == 'L'
            && failures
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
                .is_ok();
        Box::pin(async move {
            match fails {
                true => Err("not yet".into()),
                false => Ok(Outcome::Done),
            }
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_too_large_for_a_fresh_copy_runs_unchanged() {
    for prefetch in [1, 2, 5] {
        for failures in [0, 1] {
            let broker = limited(2);
            broker.send(QUEUE, "small one");
            broker.send(QUEUE, "L".repeat(101));
            broker.send(QUEUE, "small two");
            lose(&broker, 3).await;
            broker.set_max_message_size(Some(100));
            let runs = Runs::default();
            let settings = PoolSettings {
                prefetch,
                ..settings(Policy::fixed(1))
            };
            let jobs = HandlerManager::new(noted(&runs, failures));
            let begun = Instant::now();
            let supervisor = start(&broker, settings, jobs);
            let after = until(&supervisor, "done", |pool| pool.jobs.done == 3).await;
            let what = format!("prefetch {prefetch}, failures {failures}");
            assert_eq!((after.jobs.dead, after.jobs.lost), (0, 0), "{what}");
            if failures == 0 {
                assert_eq!(after.jobs.requeued, 0, "{what}");
                assert!(begun.elapsed() < Duration::from_secs(10), "{what}");
            }
            supervisor.drain(Duration::from_secs(1)).await.unwrap();
            assert_eq!(broker.ready(QUEUE), Some(0), "{what}");
            let mut runs = runs.lock().unwrap().clone();
            runs.sort_unstable();
            let large = std::iter::repeat_n('L', 1 + failures);
            assert!(runs.into_iter().eq(large.chain(['s', 's'])), "{what}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_no_queue_takes_is_held_and_not_counted() {
    let broker = limited(2);
    let repaired = Arc::new(AtomicBool::new(false));
    let runners = Broken {
        tries: Arc::default(),
        repaired: repaired.clone(),
    };
    broker.send(QUEUE, "job");
    broker.set_refusal(QUEUE, Some(QueueErrorKind::Refused));
    broker.set_full_of_queues(true);
    let supervisor = start(&broker, settings(Policy::fixed(2)), runners);
    let minutes = Duration::from_secs(20 * 60);
    throughout(&supervisor, minutes, "held", |pool| pool.jobs.requeued == 0).await;
    // There is space again: the copy is accepted at once.
    broker.set_refusal(QUEUE, None);
    until(&supervisor, "given back", |pool| pool.jobs.requeued > 0).await;
    repaired.store(true, Ordering::Relaxed);
    let after = until(&supervisor, "done", |pool| pool.jobs.done == 1).await;
    assert_eq!((after.jobs.dead, after.jobs.lost), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_message_returned_to_a_full_queue_runs_without_a_copy() {
    let broker = limited(2);
    broker.send(QUEUE, "job");
    lose(&broker, 1).await;
    broker.set_refusal(QUEUE, Some(QueueErrorKind::Refused));
    broker.set_full_of_queues(true);
    let supervisor = start(
        &broker,
        settings(Policy::fixed(2)),
        HandlerManager::new(done),
    );
    let after = until(&supervisor, "done", |pool| pool.jobs.done == 1).await;
    assert_eq!((after.jobs.lost, after.jobs.requeued), (0, 0));
}
