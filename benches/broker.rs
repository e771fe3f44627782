//! Speed on a real broker, compared with a bare lapin loop of the same shape in the same run.
//!
//!     scripts/with-broker cargo bench --bench broker [-- throughput|rise|start|memory]
//!
//! The speed of a machine changes over time, so the results are ratios of medians of interleaved pairs. Each
//! measurement prints one line.
//!
//! A rate depends on the whole machine: the broker shares its cores. On two cores the same build ranges from 0.86 to
//! 1.15 of the bare loop within an hour. Processor time (user and system) is counted for this process only, from the
//! first job to the last, without the broker's share. So its ratio is the figure to compare builds by.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::StreamExt as _;
use lapin::{
    BasicProperties, Connection, ConnectionProperties,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
        QueueDeclareOptions, QueueDeleteOptions,
    },
    types::FieldTable,
};
use nix::time::ClockId;
use tidegate::{
    adapters::{amqp::AmqpDriver, handler::HandlerManager},
    config::{BrokerUrl, DrainAfter, PoolSettings},
    decide::{Policy, PoolName, Scaling},
    run::{PoolSpec, PoolStatus, Supervisor},
    runner::{Job, Outcome},
};
use tokio::sync::Notify;

const PAIRS: usize = 7;

fn main() {
    // `cargo bench` passes `--bench`. The other arguments select measurements.
    let chosen: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with("--"))
        .collect();
    let wants = |name: &str| chosen.is_empty() || chosen.iter().any(|arg| arg == name);
    let Ok(url) = std::env::var("AMQP_URL") else {
        eprintln!("AMQP_URL is not set: run `scripts/with-broker cargo bench`");
        std::process::exit(69);
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let bench = Bench::new(url).await;
        if wants("throughput") {
            for (workers, jobs) in [(1, 3_000), (10, 12_000), (100, 20_000)] {
                bench.throughput(workers, jobs).await;
            }
        }
        if wants("rise") {
            bench.rise(1_000).await;
        }
        if wants("start") {
            bench
                .time_to_first_start(100, Duration::from_millis(200))
                .await;
        }
        if wants("memory") {
            bench.memory(5_000).await;
        }
        bench.delete().await;
    });
}

struct Bench {
    url: String,
    queue: String,
    connection: Connection,
    channel: lapin::Channel,
}

/// Counts jobs, and measures the time from the first to the last.
struct Counter {
    target: u64,
    count: AtomicU64,
    first: Mutex<Option<Reading>>,
    last: Mutex<Option<Reading>>,
    finished: Notify,
}

/// The clocks at one moment.
#[derive(Clone, Copy)]
struct Reading {
    at: Instant,
    /// Processor time of all threads of this process, user and system.
    processor: Duration,
}

impl Reading {
    fn take() -> Self {
        let clock = ClockId::CLOCK_PROCESS_CPUTIME_ID;
        let processor = clock.now().expect("a processor clock").into();
        Self {
            at: Instant::now(),
            processor,
        }
    }
}

/// The cost of one run of jobs.
#[derive(Clone, Copy)]
struct Cost {
    /// Jobs per second.
    rate: f64,
    /// Processor time per job, in microseconds.
    processor: f64,
}

impl Counter {
    fn new(target: u64) -> Arc<Self> {
        Arc::new(Self {
            target,
            count: AtomicU64::new(0),
            first: Mutex::default(),
            last: Mutex::default(),
            finished: Notify::new(),
        })
    }

    fn count(&self) {
        let n = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        if n == 1 {
            *self.first.lock().expect("not poisoned") = Some(Reading::take());
        }
        if n == self.target {
            *self.last.lock().expect("not poisoned") = Some(Reading::take());
            self.finished.notify_one();
        }
    }

    /// The cost from the first job to the last.
    async fn cost(&self) -> Cost {
        self.finished.notified().await;
        let read = |reading: &Mutex<Option<Reading>>| {
            let reading = *reading.lock().expect("not poisoned");
            reading.expect("there was a first, and a last")
        };
        let (first, last) = (read(&self.first), read(&self.last));
        let jobs = (self.target - 1) as f64;
        Cost {
            rate: jobs / last.at.duration_since(first.at).as_secs_f64(),
            processor: (last.processor - first.processor).as_secs_f64() * 1e6 / jobs,
        }
    }
}

impl Bench {
    async fn new(url: String) -> Self {
        let connection = Connection::connect(&url, ConnectionProperties::default())
            .await
            .expect("the broker answers");
        let channel = connection.create_channel().await.expect("a channel");
        let queue = format!("tidegate-bench-{}", std::process::id());
        channel
            .queue_declare(
                queue.as_str().into(),
                QueueDeclareOptions {
                    durable: true,
                    ..Default::default()
                },
                FieldTable::default(),
            )
            .await
            .expect("a queue");
        Self {
            url,
            queue,
            connection,
            channel,
        }
    }

    async fn delete(&self) {
        self.channel
            .queue_delete(self.queue.as_str().into(), QueueDeleteOptions::default())
            .await
            .expect("the queue is deleted");
        self.connection
            .close(200, "done".into())
            .await
            .expect("closed");
    }

    async fn publish(&self, jobs: u64) {
        for n in 0..jobs {
            self.channel
                .basic_publish(
                    "".into(),
                    self.queue.as_str().into(),
                    BasicPublishOptions::default(),
                    n.to_string().as_bytes(),
                    BasicProperties::default(),
                )
                .await
                .expect("published");
        }
        // The clock starts when all messages have arrived.
        while self.depth().await < jobs {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn depth(&self) -> u64 {
        let options = QueueDeclareOptions {
            passive: true,
            ..Default::default()
        };
        let queue = self
            .channel
            .queue_declare(self.queue.as_str().into(), options, FieldTable::default())
            .await
            .expect("the queue is there");
        u64::from(queue.message_count())
    }

    /// A handler that does nothing, at prefetch 1: our rate compared with bare lapin's.
    async fn throughput(&self, workers: u32, jobs: u64) {
        let mut pairs = Vec::new();
        for pair in 0..PAIRS {
            // Each side goes first in turn. Otherwise the second would always find a warmer broker.
            let (a, b) = if pair % 2 == 0 {
                let bare = self.bare(workers, jobs).await;
                (self.ours(workers, jobs).await, bare)
            } else {
                let ours = self.ours(workers, jobs).await;
                (ours, self.bare(workers, jobs).await)
            };
            pairs.push((a, b));
        }
        println!(
            "throughput, {workers:>3} workers, jobs/s:          {}",
            compared(&pairs, |cost| cost.rate)
        );
        println!(
            "throughput, {workers:>3} workers, processor \u{b5}s/job: {}",
            compared(&pairs, |cost| cost.processor)
        );
    }

    async fn ours(&self, workers: u32, jobs: u64) -> Cost {
        self.publish(jobs).await;
        let counter = Counter::new(jobs);
        let supervisor = self.supervisor(
            PoolSettings {
                policy: Policy::fixed(workers),
                scaling: Scaling {
                    up_step: workers,
                    ..Scaling::default()
                },
                ..self.settings()
            },
            counter.clone(),
        );
        let cost = counter.cost().await;
        supervisor
            .drain(Duration::from_secs(30))
            .await
            .expect("drained");
        cost
    }

    async fn bare(&self, workers: u32, jobs: u64) -> Cost {
        self.publish(jobs).await;
        let connection = Connection::connect(&self.url, ConnectionProperties::default())
            .await
            .expect("the broker answers");
        let counter = Counter::new(jobs);
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..workers {
            let channel = connection.create_channel().await.expect("a channel");
            channel
                .basic_qos(1, BasicQosOptions::default())
                .await
                .expect("qos");
            let mut consumer = channel
                .basic_consume(
                    self.queue.as_str().into(),
                    format!("bare-{n}").as_str().into(),
                    BasicConsumeOptions::default(),
                    FieldTable::default(),
                )
                .await
                .expect("a consumer");
            let counter = counter.clone();
            tasks.spawn(async move {
                // Keeps the channel open.
                let _channel = channel;
                while let Some(Ok(delivery)) = consumer.next().await {
                    delivery
                        .acker
                        .ack(BasicAckOptions::default())
                        .await
                        .expect("acked");
                    counter.count();
                }
            });
        }
        let cost = counter.cost().await;
        connection.close(200, "done".into()).await.expect("closed");
        cost
    }

    /// Time from the request for workers until the last worker consumes.
    async fn rise(&self, workers: u32) {
        let mut times = Vec::new();
        for _ in 0..5 {
            let counter = Counter::new(u64::MAX);
            let supervisor = self.supervisor(
                PoolSettings {
                    policy: Policy::fixed(workers),
                    drain_after: DrainAfter::Never,
                    scaling: Scaling {
                        up_step: workers,
                        ..Scaling::default()
                    },
                    ..self.settings()
                },
                counter,
            );
            until(&supervisor, |pool| pool.workers.live > 0).await;
            let begun = Instant::now();
            while self.consumers().await < workers {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            times.push(begun.elapsed().as_secs_f64());
            supervisor
                .drain(Duration::from_secs(60))
                .await
                .expect("drained");
        }
        println!(
            "rise: {workers} workers up from zero in {:.2} s (median of 5)",
            median(&mut times)
        );
    }

    async fn consumers(&self) -> u32 {
        let options = QueueDeclareOptions {
            passive: true,
            ..Default::default()
        };
        self.channel
            .queue_declare(self.queue.as_str().into(), options, FieldTable::default())
            .await
            .expect("the queue is there")
            .consumer_count()
    }

    /// Time from publish to job start, from an empty and drained pool.
    async fn time_to_first_start(&self, times: usize, poll_interval: Duration) {
        let (say, mut started) = tokio::sync::mpsc::unbounded_channel();
        let handler = move |_: Job| {
            say.send(Instant::now()).ok();
            async { Ok(Outcome::Done) }
        };
        let settings = PoolSettings {
            policy: Policy::fixed(1),
            drain_after: DrainAfter::After(Duration::ZERO),
            poll_interval,
            ..self.settings()
        };
        let supervisor = start(&self.url, settings, HandlerManager::new(handler));
        until(&supervisor, |pool| pool.depth.age_ms.is_some()).await;
        let mut waits = Vec::new();
        for n in 0..times {
            // The publishes are spread over the whole poll interval.
            tokio::time::sleep(poll_interval.mul_f64((n as f64 * 0.618_034).fract())).await;
            let published = Instant::now();
            self.channel
                .basic_publish(
                    "".into(),
                    self.queue.as_str().into(),
                    BasicPublishOptions::default(),
                    b"one",
                    BasicProperties::default(),
                )
                .await
                .expect("published");
            let at = started.recv().await.expect("the job starts");
            waits.push(at.duration_since(published).as_secs_f64() * 1000.0);
            until(&supervisor, |pool| {
                pool.workers.live + pool.workers.draining == 0
            })
            .await;
        }
        let middle = median(&mut waits);
        let last = waits[waits.len() * 99 / 100 - 1];
        let poll = poll_interval.as_millis();
        println!(
            "first start, poll_interval {poll} ms: median {middle:.0} ms (bound {}), 99th percentile {last:.0} ms (bound {})",
            poll / 2 + 50,
            poll + 100
        );
        supervisor
            .drain(Duration::from_secs(30))
            .await
            .expect("drained");
    }

    /// Resident memory of an idle worker.
    async fn memory(&self, workers: u32) {
        let supervisor = self.supervisor(
            PoolSettings {
                policy: Policy::fixed(workers),
                drain_after: DrainAfter::Never,
                scaling: Scaling {
                    up_step: 500,
                    ..Scaling::default()
                },
                ..self.settings()
            },
            Counter::new(u64::MAX),
        );
        let before = resident();
        while self.consumers().await < workers {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let each = (resident() - before) / f64::from(workers) / 1024.0;
        println!("memory: {each:.1} KiB resident for an idle worker, at {workers} workers");
        supervisor
            .drain(Duration::from_secs(120))
            .await
            .expect("drained");
    }

    fn settings(&self) -> PoolSettings {
        PoolSettings {
            queue: self.queue.as_str().into(),
            poll_interval: Duration::from_millis(100),
            ..PoolSettings::new("bench")
        }
    }

    fn supervisor(&self, settings: PoolSettings, counter: Arc<Counter>) -> Supervisor {
        let handler = move |_: Job| {
            counter.count();
            async { Ok(Outcome::Done) }
        };
        start(&self.url, settings, HandlerManager::new(handler))
    }
}

fn start(
    url: &str,
    settings: PoolSettings,
    runners: impl tidegate::runner::RunnerManager,
) -> Supervisor {
    let driver = AmqpDriver::connect_lazily(&BrokerUrl::new(url).into()).expect("a driver");
    let pool = PoolSpec {
        settings,
        runners: Arc::new(runners),
    };
    Supervisor::start(driver, vec![pool], None).expect("a supervisor")
}

async fn until(supervisor: &Supervisor, looks: impl Fn(&PoolStatus) -> bool) {
    let name = PoolName::from("bench");
    while !supervisor.pool(&name).is_some_and(|pool| looks(&pool)) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// One figure of both sides: medians, their ratio, and the spread of the single pairs.
fn compared(pairs: &[(Cost, Cost)], figure: impl Fn(&Cost) -> f64) -> String {
    let mut ours: Vec<f64> = pairs.iter().map(|(ours, _)| figure(ours)).collect();
    let mut bare: Vec<f64> = pairs.iter().map(|(_, bare)| figure(bare)).collect();
    let mut ratios: Vec<f64> = ours.iter().zip(&bare).map(|(a, b)| a / b).collect();
    ratios.sort_by(f64::total_cmp);
    let (ours, bare) = (median(&mut ours), median(&mut bare));
    format!(
        "tidegate {ours:>7.1}, bare lapin {bare:>7.1}, ratio {:.2} ({} pairs: {:.2} to {:.2})",
        ours / bare,
        pairs.len(),
        ratios.first().expect("pairs"),
        ratios.last().expect("pairs"),
    )
}

/// Sorts the values and returns the middle one.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Resident memory of this process in bytes.
fn resident() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: f64 = statm
        .split_whitespace()
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .expect("statm's second field");
    pages * 4096.0
}
