//! One run of a plan.

use std::{fmt, sync::Arc, sync::atomic::Ordering, time::Duration};

use tidegate::{
    adapters::memory::MemoryBroker,
    config::PoolSettings,
    decide::{By, Configured, Order, PoolName, SetPolicy},
    queue::{ConsumeRequest, HeaderValue, Outgoing, Properties, QueueDriver as _},
    run::{FlushMode, PoolSpec, StartOptions, StopThen, Stopping, Supervisor},
};
use tokio::{
    runtime, task,
    time::{self, Instant},
};

use super::{
    broker::{FaultyBroker, Wire},
    jobs::Runners,
    ledger::Ledger,
    plan::{Ending, KEY, Plan, PlannedEvent, QUEUE, key_of},
};

/// Time within which an order must be answered, and a run must end after the last fault.
const PATIENCE: Duration = Duration::from_secs(3600);

/// After this time without work, the pool has finished. Longer than the longest `poll_interval` and each pause of
/// its workers.
const QUIET: Duration = Duration::from_secs(30);

/// Maximum number of workers that a plan's pool may have.
const MOST_WORKERS: u32 = 20;

/// All that happened, with times.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct EventLog(String);

impl fmt::Display for EventLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Runs a plan to its end. The error is what is wrong, with the events.
pub(crate) fn run(plan: &Plan) -> Result<EventLog, String> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let stage = TestRun::new(plan);
        let ended = stage.play(plan).await;
        let events = stage.ledger.events();
        match ended {
            Ok(()) => Ok(EventLog(events)),
            Err(why) => Err(format!("{why}\n{events}")),
        }
    })
}

/// The parts of a run.
struct TestRun {
    broker: MemoryBroker,
    wire: Arc<Wire>,
    runners: Arc<Runners>,
    ledger: Arc<Ledger>,
}

impl TestRun {
    fn new(plan: &Plan) -> Self {
        let broker = MemoryBroker::new();
        broker.declare_queue(QUEUE, plan.kind);
        let ledger = Arc::new(Ledger::new(plan.jobs.len()));
        Self {
            broker,
            wire: Arc::new(Wire::new(plan.seed, plan.latency)),
            runners: Arc::new(Runners::new(&plan.jobs, &ledger)),
            ledger,
        }
    }

    fn spec(&self, settings: PoolSettings) -> PoolSpec {
        PoolSpec {
            settings,
            runners: self.runners.clone(),
        }
    }

    fn start(&self, plan: &Plan, settings: PoolSettings) -> Supervisor {
        let driver = FaultyBroker {
            broker: self.broker.clone(),
            wire: self.wire.clone(),
        };
        let options = StartOptions {
            seed: Some(plan.seed),
            ..StartOptions::default()
        };
        let pools = vec![self.spec(settings)];
        Supervisor::start_with(Arc::new(driver), pools, options).unwrap()
    }

    async fn play(&self, plan: &Plan) -> Result<(), String> {
        let mut settings = plan.settings.clone();
        let mut supervisor = self.start(plan, settings.clone());
        let publisher = self.publish(plan);
        let begin = Instant::now();
        // When the last fault ends.
        let mut healed = begin;
        for (at, what) in &plan.events {
            self.watch_until(&supervisor, begin + *at).await?;
            self.ledger.note(&format!("{what:?}"));
            healed = healed.max(Instant::now() + what.duration());
            match what {
                PlannedEvent::Restart(ending) => {
                    end(supervisor, *ending).await?;
                    supervisor = self.start(plan, settings.clone());
                }
                PlannedEvent::Reconfigure(other) => {
                    settings = (**other).clone();
                    let specs = vec![self.spec(settings.clone())];
                    answered(supervisor.reconfigure(specs)).await?.unwrap();
                }
                other => self.carry_out(&supervisor, &settings, other).await?,
            }
        }
        publisher.await.unwrap();
        self.watch_until(&supervisor, healed).await?;
        self.until_all_are_finished(&supervisor).await?;
        end(supervisor, Ending::Drain(Duration::from_secs(60))).await?;
        let left = self.broker.probe(&QUEUE.into()).await.unwrap();
        if left.consumers != 0 || left.ready != 0 {
            return Err(format!("the drained pool leaves {left:?}"));
        }
        let dead = self.broker.take(&format!("{QUEUE}.dead"));
        self.ledger.check(plan, &dead)
    }

    /// Publishes the jobs when they are due.
    fn publish(&self, plan: &Plan) -> task::JoinHandle<()> {
        let mut jobs: Vec<_> = plan
            .jobs
            .iter()
            .enumerate()
            .map(|(n, job)| (job.at, n))
            .collect();
        jobs.sort_unstable();
        let broker = self.broker.clone();
        let begin = Instant::now();
        tokio::spawn(async move {
            for (at, n) in jobs {
                time::sleep_until(begin + at).await;
                broker.send_message(Outgoing {
                    routing_key: QUEUE.to_owned(),
                    body: n.to_string().into(),
                    headers: key_of(n)
                        .map(|key| (KEY.to_owned(), HeaderValue::from(key as i64)))
                        .into_iter()
                        .collect(),
                    properties: Properties {
                        message_id: Some(format!("job-{n}")),
                        ..Properties::default()
                    },
                    ..Outgoing::default()
                });
            }
        })
    }

    /// Lets time pass, and checks what must hold all the time.
    async fn watch_until(&self, supervisor: &Supervisor, end: Instant) -> Result<(), String> {
        while Instant::now() < end {
            let pool = supervisor.pool(&name()).unwrap();
            if pool.workers.live > MOST_WORKERS {
                return Err(format!("{} workers are too many", pool.workers.live));
            }
            time::sleep_until(end.min(Instant::now() + Duration::from_millis(500))).await;
        }
        Ok(())
    }

    async fn carry_out(
        &self,
        supervisor: &Supervisor,
        settings: &PoolSettings,
        what: &PlannedEvent,
    ) -> Result<(), String> {
        let broker = self.broker.clone();
        match what.clone() {
            PlannedEvent::Disconnect(duration) => {
                broker.disconnect();
                later(duration, move || broker.reconnect());
            }
            PlannedEvent::Block(duration) => {
                broker.set_blocked(true);
                later(duration, move || broker.set_blocked(false));
            }
            PlannedEvent::HoldConfirms(duration) => {
                broker.set_confirms_held(true);
                later(duration, move || broker.set_confirms_held(false));
            }
            PlannedEvent::RefuseCopies(kind, duration) => {
                let queues = self.copy_queues();
                for queue in &queues {
                    broker.set_refusal(queue, Some(kind));
                }
                later(duration, move || {
                    for queue in &queues {
                        broker.set_refusal(queue, None);
                    }
                });
            }
            PlannedEvent::RefuseConsumers(kind, duration) => {
                broker.set_refuses(Some(kind));
                later(duration, move || broker.set_refuses(None));
            }
            PlannedEvent::RefuseNewQueues(duration) => {
                broker.set_full_of_queues(true);
                later(duration, move || broker.set_full_of_queues(false));
            }
            PlannedEvent::FailProbes(duration) => {
                broker.set_probes_fail(true);
                later(duration, move || broker.set_probes_fail(false));
            }
            PlannedEvent::Withhold(duration) => {
                broker.set_withholds(true);
                later(duration, move || broker.set_withholds(false));
            }
            PlannedEvent::LoseAnswers(duration) => {
                let wire = self.wire.clone();
                wire.loses_answers.store(true, Ordering::Relaxed);
                later(duration, move || {
                    wire.loses_answers.store(false, Ordering::Relaxed);
                });
            }
            PlannedEvent::BreakRunners(duration) => {
                let runners = self.runners.clone();
                runners.broken.store(true, Ordering::Relaxed);
                later(duration, move || {
                    runners.broken.store(false, Ordering::Relaxed);
                });
            }
            PlannedEvent::OtherConsumer(duration) => {
                let request = ConsumeRequest {
                    queue: QUEUE.into(),
                    prefetch: u16::MAX,
                    tag: String::from("another"),
                };
                if let Ok(consumer) = broker.consume(request).await {
                    later(duration, move || drop(consumer));
                }
            }
            PlannedEvent::Flush { busy } => {
                let mode = if busy {
                    FlushMode::All
                } else {
                    FlushMode::Idle
                };
                answered(supervisor.flush(&name(), mode)).await?.unwrap();
            }
            PlannedEvent::StopJobs => stop_jobs(supervisor),
            order => {
                if let Some(order) = order_of(order, settings) {
                    answered(supervisor.steer(&name(), order, By::program()))
                        .await?
                        .unwrap();
                }
            }
        }
        Ok(())
    }

    /// The queues of retries and dead letters that there are.
    fn copy_queues(&self) -> Vec<String> {
        let names = self.wire.declared().into_iter();
        names
            .map(|queue| queue.as_str().to_owned())
            .filter(|queue| queue != QUEUE)
            .collect()
    }

    /// Ends all faults and orders, and waits until every message is finished.
    async fn until_all_are_finished(&self, supervisor: &Supervisor) -> Result<(), String> {
        self.ledger.note("all faults are over");
        for order in [Order::Resume, Order::Unpin, Order::ResetPolicy] {
            answered(supervisor.steer(&name(), order, By::program()))
                .await?
                .unwrap();
        }
        let end = Instant::now() + PATIENCE;
        // The demand is that of the last reconcile, so one reading is not enough.
        let mut quiet_since = None;
        loop {
            let pool = supervisor.pool(&name()).unwrap();
            let waiting: u64 = std::iter::once(QUEUE.to_owned())
                .chain(self.copy_queues())
                .filter(|queue| !queue.ends_with(".dead"))
                .filter_map(|queue| self.broker.ready(&queue))
                .sum();
            let now = Instant::now();
            if waiting > 0 || pool.runners.busy > 0 || pool.demand > 0 {
                quiet_since = None;
            } else if now - *quiet_since.get_or_insert(now) > QUIET {
                return Ok(());
            }
            if now > end {
                return Err(format!("{waiting} messages are never finished: {pool:#?}"));
            }
            self.watch_until(supervisor, now + Duration::from_millis(500))
                .await?;
        }
    }
}

fn name() -> PoolName {
    PoolName::from(QUEUE)
}

fn later(after: Duration, what: impl FnOnce() + Send + 'static) {
    tokio::spawn(async move {
        time::sleep(after).await;
        what();
    });
}

async fn answered<T>(order: impl Future<Output = T>) -> Result<T, String> {
    let answer = time::timeout(PATIENCE, order).await;
    answer.map_err(|_| "an order is never answered".to_owned())
}

fn order_of(what: PlannedEvent, settings: &PoolSettings) -> Option<Order> {
    Some(match what {
        PlannedEvent::Pause => Order::Pause { until: None },
        PlannedEvent::Resume => Order::Resume,
        PlannedEvent::Drain => Order::Drain,
        PlannedEvent::Pin(workers) => Order::Pin { workers },
        PlannedEvent::Unpin => Order::Unpin,
        PlannedEvent::SetPolicy(policy, scaling) => Order::SetPolicy(Box::new(SetPolicy {
            policy,
            scaling,
            keys: std::collections::BTreeMap::new(),
            over: Configured {
                policy: settings.policy.clone(),
                scaling: settings.scaling,
            },
        })),
        _ => return None,
    })
}

/// Stops each running job, the first with another end than the second.
fn stop_jobs(supervisor: &Supervisor) {
    let ends = [StopThen::Retry, StopThen::Reject, StopThen::Requeue];
    let jobs = supervisor.jobs(&name()).unwrap();
    for (job, then) in jobs.iter().zip(ends.into_iter().cycle()) {
        let by = "someone".to_owned();
        // It may have ended meanwhile.
        let _ = supervisor.stop_job(&name(), &job.id, &Stopping { then, by });
    }
}

async fn end(supervisor: Supervisor, ending: Ending) -> Result<(), String> {
    match ending {
        Ending::Drain(grace) => {
            // Whether jobs were given back is in the ledger.
            let _ = answered(supervisor.drain(grace)).await?;
        }
        Ending::StopNow => {
            answered(supervisor.stop_now()).await?;
        }
        Ending::Drop => drop(supervisor),
    }
    Ok(())
}
