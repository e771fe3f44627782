//! The simulator against a real pool: a tide at a real broker, and the same tide simulated.
//!
//! A test binary of its own: what is measured is true only while no other test uses the machine.
#![allow(clippy::unwrap_used, reason = "a test that cannot continue ends there")]

#[allow(dead_code, reason = "the other tests use more of it")]
#[path = "../it/support/mod.rs"]
mod support;

use std::{
    fmt::Write as _,
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use tidegate::{
    Job, Outcome, Policy, Pool, Supervisor,
    adapters::amqp::AmqpDriver,
    decide::{PoolName, Rules},
    queue::{HeaderValue, Headers, Outgoing, QueueDriver as _, QueueKind, QueueSpec},
    trace::Trace,
};
use tidegate_sim::{Contender, PoolModel, Report, ServiceTimes, Workload, simulate};
use tokio::time::{MissedTickBehavior, interval, sleep_until, timeout};

use crate::support::{
    broker::{broker_url, settings, unique_queue},
    daemon::DEADLINE,
};

const POLL: Duration = Duration::from_millis(200);

/// Seconds, and messages a second: a rise that fills the pool, and a fall.
const TIDE: [(u32, u32); 3] = [(3, 4), (4, 24), (6, 3)];

/// Mean run time of a job in seconds.
const MEAN: f64 = 0.3;

/// A job that ran: its number, and when it started and ended.
type Ran = (usize, Instant, Instant);

/// What was measured.
struct Measured {
    /// Seconds from publishing to the start, sorted.
    waits: Vec<f64>,
    worker_seconds: f64,
    peak: u32,
    trace: Trace,
    /// How long each job ran, in the order of their arrivals.
    service: Vec<Duration>,
}

impl Measured {
    fn wait(&self, quantile: f64) -> f64 {
        self.waits[(quantile * (self.waits.len() - 1) as f64).round() as usize]
    }
}

/// Offsets of the arrivals in seconds.
fn arrivals() -> Vec<f64> {
    let mut offset = 0.0;
    let mut all = Vec::new();
    for (seconds, rate) in TIDE {
        all.extend((0..seconds * rate).map(|n| offset + f64::from(n) / f64::from(rate)));
        offset += f64::from(seconds);
    }
    all
}

/// Run times as an exponential distribution has them, in an order without a pattern.
fn run_time(job: usize) -> Duration {
    let golden = (job as f64 * 0.618_034 + 0.3).fract();
    Duration::from_secs_f64(-(1.0 - golden).ln() * MEAN)
}

async fn measure(pool: Pool) -> Measured {
    let queue = unique_queue("predicted");
    let driver = AmqpDriver::connect_lazily(&settings(&broker_url())).unwrap();
    driver.until_connected(DEADLINE).await.unwrap();
    let spec = QueueSpec::new(queue.name(), QueueKind::Classic);
    driver.declare(&spec).await.unwrap();
    let ran: Arc<Mutex<Vec<Ran>>> = Arc::default();
    let diary = Arc::clone(&ran);
    let handler = move |job: Job| {
        let begun = Instant::now();
        let diary = Arc::clone(&diary);
        async move {
            let number: usize = std::str::from_utf8(job.body())?.parse()?;
            tokio::time::sleep(run_time(number)).await;
            diary.lock().unwrap().push((number, begun, Instant::now()));
            Ok(Outcome::Done)
        }
    };
    let pool = pool.queue(queue.name()).handler(handler);
    let name = PoolName::from("tide");
    let supervisor = Supervisor::builder().broker(broker_url()).pool(pool);
    let supervisor = supervisor.start().await.unwrap();
    let known = async {
        let mut looks = interval(Duration::from_millis(10));
        while supervisor.pool(&name).is_none_or(|pool| pool.depth.stale) {
            looks.tick().await;
        }
    };
    timeout(DEADLINE, known).await.expect("a first reading");

    // Workers are counted as often as their number may change.
    let jobs = arrivals().len();
    let count = async {
        let (mut sum, mut peak) = (0.0, 0);
        let mut last = Instant::now();
        let mut looks = interval(Duration::from_millis(10));
        looks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        while ran.lock().unwrap().len() < jobs {
            looks.tick().await;
            let live = supervisor.pool(&name).map_or(0, |pool| pool.workers.live);
            sum += f64::from(live) * last.elapsed().as_secs_f64();
            peak = peak.max(live);
            last = Instant::now();
        }
        (sum, peak)
    };
    let publish = async {
        let begin = tokio::time::Instant::now();
        let mut published = Vec::new();
        for (number, offset) in arrivals().into_iter().enumerate() {
            sleep_until(begin + Duration::from_secs_f64(offset)).await;
            let wall = SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap();
            let ms = i64::try_from(wall.as_millis()).unwrap();
            let message = Outgoing {
                routing_key: queue.name().as_str().to_owned(),
                headers: Headers::from_iter([("timestamp_in_ms".to_owned(), HeaderValue::I64(ms))]),
                body: Bytes::from(number.to_string()),
                ..Outgoing::default()
            };
            published.push(Instant::now());
            driver.publish(message).await.unwrap();
        }
        published
    };
    let both = timeout(DEADLINE, async { tokio::join!(count, publish) });
    let ((worker_seconds, peak), published) = both.await.expect("all jobs end");
    supervisor.drain(DEADLINE).await.expect("drained");

    let mut ran = std::mem::take(&mut *ran.lock().unwrap());
    ran.sort_unstable_by_key(|(number, ..)| *number);
    let mut waits: Vec<f64> = ran
        .iter()
        .map(|(number, begun, _)| (*begun - published[*number]).as_secs_f64())
        .collect();
    waits.sort_unstable_by(f64::total_cmp);
    let mut text = String::from("time\n");
    for at in &published {
        let _ = writeln!(text, "{}", (*at - published[0]).as_secs_f64());
    }
    Measured {
        waits,
        worker_seconds,
        peak,
        trace: Trace::parse(&text).expect("a trace"),
        service: ran.iter().map(|(_, begun, end)| *end - *begun).collect(),
    }
}

/// The same arrivals and run times, simulated with the pool's own settings.
fn predict(pool: &Pool, measured: &Measured) -> Report {
    let settings = pool.settings();
    let mut model = PoolModel::new("predicted", Rules::from(settings));
    model.poll_interval = settings.poll_interval;
    let service = ServiceTimes::InOrder(measured.service.clone());
    let workload = Workload::new(measured.trace.clone(), service);
    let contender = Contender::Pool(Box::new(model));
    simulate(&workload, &contender, &mut |_, _, _| {}).report
}

/// The band that docs/policies.md states. A pool reads the queue's depth at other moments than the simulator does: up to
/// one poll sooner or later, for each step of growth.
fn assert_within(what: &str, measured: f64, predicted: f64, share: f64, slack: f64) {
    let band = predicted * share + slack;
    assert!(
        (measured - predicted).abs() <= band,
        "{what}: {measured:.2} measured, {predicted:.2} predicted, and the band is {band:.2}"
    );
}

async fn is_as_predicted(policy: Policy) {
    let pool = || {
        let pool = Pool::new("tide").policy(policy.clone());
        pool.poll_interval(POLL).drain_after(Duration::from_secs(2))
    };
    let measured = measure(pool()).await;
    let predicted = predict(&pool(), &measured);
    println!(
        "p50 {:.2} and {:.2}, p95 {:.2} and {:.2}, worker-seconds {:.1} and {:.1}, peak {} and {} (measured and predicted)",
        measured.wait(0.5),
        predicted.wait_s.p50,
        measured.wait(0.95),
        predicted.wait_s.p95,
        measured.worker_seconds,
        predicted.worker_seconds,
        measured.peak,
        predicted.peak,
    );
    let slack = 2.0 * POLL.as_secs_f64();
    assert_within(
        "median wait",
        measured.wait(0.5),
        predicted.wait_s.p50,
        0.2,
        slack,
    );
    assert_within(
        "p95 wait",
        measured.wait(0.95),
        predicted.wait_s.p95,
        0.2,
        slack,
    );
    let workers = predicted.peak as f64;
    assert_within(
        "worker-seconds",
        measured.worker_seconds,
        predicted.worker_seconds,
        0.15,
        workers * slack,
    );
    assert_within("peak", f64::from(measured.peak), workers, 0.15, 1.0);
    assert_eq!(predicted.done, measured.service.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_pool_waits_as_long_as_the_simulator_predicts() {
    is_as_predicted(Policy::backlog(4).max(4)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_with_a_target_waits_as_long_as_the_simulator_predicts() {
    is_as_predicted(Policy::target_wait(Duration::from_secs(3)).max(8)).await;
}
