//! The course of the demo: a burst of jobs, a pause, and a larger burst in three parts. Publishes jobs, watches the
//! pool, and waits for the pool to drain after each burst.

use std::{collections::HashSet, time::Duration};

use tokio::time::{self, Instant, MissedTickBehavior};

use super::{broker::DemoBroker, error::DemoError, screen::Screen, summary::Summary};
use crate::load::publisher::{Outlet, message};
use tidegate::{
    decide::PoolName,
    run::{PoolStatus, Supervisor},
};

/// Jobs of the first burst.
const BURST: usize = 160;

/// Jobs of each part of the second burst.
const BURSTS: [usize; 3] = [80, 120, 160];

/// Time between two parts.
const BETWEEN_BURSTS: Duration = Duration::from_millis(900);

/// How long the pause continues after the pool has drained.
const IDLE_TIME: Duration = Duration::from_secs(1);

/// Publishes that wait for their confirmation at the same time.
const UNCONFIRMED: usize = 64;

/// Time between two readings of the pool. One of [`READINGS_PER_LINE`] readings is shown.
const READING_INTERVAL: Duration = Duration::from_millis(50);
const READINGS_PER_LINE: u32 = 5;

/// A running demo.
#[derive(Debug)]
pub(super) struct DemoRun<'a> {
    broker: &'a DemoBroker,
    outlet: &'a Outlet,
    supervisor: &'a Supervisor,
    screen: &'a mut Screen,
    started: Instant,
    readings: u32,
    published: Vec<String>,
    seen: DemoNumbers,
}

/// The numbers that were observed so far.
#[derive(Debug, Default)]
struct DemoNumbers {
    peak_workers: u32,
    peak_ready: u64,
    first_start: Option<Duration>,
    last_work: Option<Instant>,
    last_drain: Option<Duration>,
    drains: u32,
    last: Option<PoolStatus>,
}

impl<'a> DemoRun<'a> {
    pub(super) fn new(
        broker: &'a DemoBroker,
        outlet: &'a Outlet,
        supervisor: &'a Supervisor,
        screen: &'a mut Screen,
    ) -> Self {
        Self {
            broker,
            outlet,
            supervisor,
            screen,
            started: Instant::now(),
            readings: 0,
            published: Vec::new(),
            seen: DemoNumbers::default(),
        }
    }

    /// Runs the whole course. Ends when the pool has drained for the second time.
    pub(super) async fn run(&mut self) -> Result<(), DemoError> {
        self.announce(&format!("burst: {BURST} jobs"))?;
        self.started = Instant::now();
        self.publish(BURST).await?;
        self.watch_until_drained().await?;

        self.announce("pause: the queue and the pool are empty")?;
        self.watch_for(IDLE_TIME).await?;

        let total: usize = BURSTS.iter().sum();
        self.announce(&format!("burst: {total} jobs, in {} parts", BURSTS.len()))?;
        for (swell, jobs) in BURSTS.into_iter().enumerate() {
            if swell > 0 {
                self.watch_for(BETWEEN_BURSTS).await?;
            }
            self.publish(jobs).await?;
        }
        self.watch_until_drained().await
    }

    pub(super) fn summary(&self, signatures: &[String]) -> Summary {
        let signed: HashSet<&str> = signatures.iter().map(String::as_str).collect();
        let ran = |id: &&String| signed.contains(id.as_str());
        let jobs = self.seen.last.as_ref().map(|pool| pool.jobs);
        Summary {
            published: self.published.len(),
            ran: self.published.iter().filter(ran).count(),
            runs: signatures.len(),
            jobs: jobs.unwrap_or_default(),
            drains: self.seen.drains,
            peak_workers: self.seen.peak_workers,
            peak_ready: self.seen.peak_ready,
            first_start: self.seen.first_start,
            last_drain: self.seen.last_drain,
            took: self.started.elapsed(),
        }
    }

    fn announce(&mut self, text: &str) -> Result<(), DemoError> {
        self.screen.announce(text).map_err(DemoError::Screen)
    }

    /// Publishes jobs, and watches the pool at the same time.
    async fn publish(&mut self, jobs: usize) -> Result<(), DemoError> {
        let first = self.published.len() + 1;
        let ids: Vec<String> = (first..first + jobs).map(|n| format!("job-{n}")).collect();
        self.published.extend(ids.iter().cloned());
        let queue = self.broker.queue();
        let jobs = ids.into_iter().map(|id| {
            let body = format!("{id}\n");
            message(queue, id, body)
        });
        let mut publish = std::pin::pin!(self.outlet.send_all(jobs, UNCONFIRMED));
        let mut ticks = interval();
        loop {
            tokio::select! {
                published = &mut publish => return published.map_err(DemoError::Publish),
                _ = ticks.tick() => self.read_pool()?,
            };
        }
    }

    async fn watch_for(&mut self, time: Duration) -> Result<(), DemoError> {
        let until = Instant::now() + time;
        let mut ticks = interval();
        while Instant::now() < until {
            ticks.tick().await;
            self.read_pool()?;
        }
        Ok(())
    }

    async fn watch_until_drained(&mut self) -> Result<(), DemoError> {
        let mut ticks = interval();
        loop {
            ticks.tick().await;
            let pool = self.read_pool()?;
            // A pool that has not seen the jobs yet is also empty, so the counts must match.
            let finished = pool.jobs.done + pool.jobs.dead;
            let all = finished >= self.published.len() as u64;
            let is_still = pool.workers.live + pool.workers.draining == 0;
            let is_empty = pool.runners.idle + pool.runners.busy == 0;
            if all && is_still && is_empty && pool.depth.ready == 0 && !pool.depth.stale {
                self.seen.drains += 1;
                self.seen.last_drain = self.seen.last_work.map(|last| last.elapsed());
                return Ok(());
            }
        }
    }

    fn read_pool(&mut self) -> Result<PoolStatus, DemoError> {
        let name = PoolName::from("demo");
        let pool = self.supervisor.pool(&name);
        let pool = pool.expect("the supervisor was started with this pool");
        let seen = &mut self.seen;
        seen.peak_workers = seen.peak_workers.max(pool.workers.live);
        seen.peak_ready = seen.peak_ready.max(pool.depth.ready);
        if pool.runners.busy > 0 {
            seen.first_start.get_or_insert(self.started.elapsed());
            seen.last_work = Some(Instant::now());
        }
        if self.readings.is_multiple_of(READINGS_PER_LINE) {
            let shown = self.screen.pool(self.started.elapsed(), &pool);
            shown.map_err(DemoError::Screen)?;
        }
        self.readings += 1;
        seen.last = Some(pool.clone());
        Ok(pool)
    }
}

fn interval() -> time::Interval {
    let mut ticks = time::interval(READING_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
