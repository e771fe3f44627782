//! The world that a contender sizes: the queue, the workers, their runners, and the jobs.
//!
//! [`World::run_until`] moves time. Between its calls a [`Scaler`](crate::scaler::Scaler) starts and stops workers.

use std::{collections::VecDeque, iter::Peekable, time::Duration};

use jiff::Timestamp;
use rand::RngExt as _;
use tidegate_core::{
    decide::{
        BreakerRules, BreakerSignal, Census, CensusWorker, Intake, IntakeState, Meter, Moment,
        Phase, RunnerId, Timings, WorkerId,
    },
    settings::RetrySettings,
    settle::Levels,
};

use crate::{
    arrivals::ArrivalTimes,
    events::{EventQueue, SimJob, What},
    random,
    report::Report,
    service::Sampler,
    tally::Tally,
    workers::{Attempt, SimWorker, SimWorkers},
    workload::Workload,
};

/// A run ends if no worker takes a message for this long after the end of the trace.
const ABANDONED: Duration = Duration::from_secs(86_400);

/// A run ends if no job is settled for this long after the end of the trace. A job that is always interrupted is never
/// settled.
const UNSETTLED: Duration = Duration::from_secs(10 * 86_400);

/// How a worker comes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// At once. Its first job waits for a runner.
    Bare,
    /// The worker together with the program that runs jobs. Until the program is started, it takes no job.
    Whole,
}

/// The deliveries that our workers hold.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct HeldDeliveries {
    pub(crate) deliveries: u64,
    pub(crate) holders: u32,
    pub(crate) consumers: u32,
}

/// The queue, the workers and the jobs.
#[derive(Debug)]
pub(crate) struct World<'w> {
    workload: &'w Workload,
    sampler: Sampler,
    retry: Retry,
    now: Moment,
    end: Moment,
    /// The arrivals to come.
    incoming: Peekable<ArrivalTimes<'w>>,
    /// The same arrivals, as far as workers have taken them. What lies between the two is the backlog.
    taken: ArrivalTimes<'w>,
    /// Fresh jobs that are ready.
    fresh: u64,
    /// When the oldest fresh job that is ready came, and its number.
    oldest_fresh: Option<Moment>,
    next_job: u64,
    /// Jobs that came back: from a backoff, or from a worker that stopped. With the time of their return.
    returned: VecDeque<(Moment, SimJob)>,
    events: EventQueue,
    workers: SimWorkers,
    idle_runners: Vec<RunnerId>,
    next_runner: u64,
    next_start: u64,
    running: u64,
    backing_off: u64,
    last_taken: Option<Moment>,
    last_settled: Option<Moment>,
    /// When a job was last taken for the first time, and how long it had waited.
    last_fresh: Option<(Moment, Duration)>,
    /// A pool's measurements of its jobs. Other contenders measure nothing.
    meter: Option<Meter>,
    /// Whether messages are taken: the pool's breaker. Others take them always.
    intake: IntakeState,
    tally: Tally,
}

/// The pool's settings for jobs that fail.
#[derive(Debug)]
struct Retry {
    max_attempts: u32,
    levels: Levels,
}

impl<'w> World<'w> {
    pub(crate) fn new(workload: &'w Workload, retry: &RetrySettings, prefetch: u16) -> Self {
        let arrivals = ArrivalTimes::new(&workload.trace, workload.seed);
        Self {
            sampler: workload.service.sampler(),
            retry: Retry {
                max_attempts: retry.max_attempts,
                levels: Levels::new(retry),
            },
            now: Moment::ZERO,
            end: Moment::after_start(workload.trace.length()),
            incoming: arrivals.clone().peekable(),
            taken: arrivals,
            fresh: 0,
            oldest_fresh: None,
            next_job: 0,
            returned: VecDeque::new(),
            events: EventQueue::default(),
            workers: SimWorkers::new(prefetch),
            idle_runners: Vec::new(),
            next_runner: 0,
            next_start: 0,
            running: 0,
            backing_off: 0,
            last_taken: None,
            last_settled: None,
            last_fresh: None,
            meter: None,
            intake: IntakeState::default(),
            tally: Tally::new(workload.target),
            workload,
        }
    }

    /// The same world, with a pool's own measurements and its breaker.
    pub(crate) fn measured(mut self, breaker: Option<BreakerRules>) -> Self {
        self.meter = Some(Meter::default());
        self.intake.set_breaker(breaker);
        self
    }

    // Time.

    /// Processes all events up to and including `until`. Returns whether the run has ended.
    pub(crate) fn run_until(&mut self, until: Moment) -> bool {
        loop {
            let arrival = self.incoming.peek().copied();
            let event = self.events.next_at();
            let is_arrival = match (arrival, event) {
                (Some(arrival), Some(event)) => arrival < event,
                (arrival, _) => arrival.is_some(),
            };
            let Some(at) = (if is_arrival { arrival } else { event }) else {
                return self.is_over(until);
            };
            if at > until {
                self.now = until;
                return self.is_abandoned();
            }
            self.now = at;
            if is_arrival {
                self.arrive(at);
            } else if let Some(what) = self.events.pop() {
                self.happen(what);
            }
            self.deliver();
        }
    }

    /// Nothing is to come by itself. Ends the run if all jobs are settled and the trace has ended.
    fn is_over(&mut self, until: Moment) -> bool {
        if self.ready() > 0 {
            self.now = until;
            return self.is_abandoned();
        }
        let end = self.now.max(self.end);
        let is_over = end <= until;
        self.now = if is_over { end } else { until };
        is_over
    }

    /// Whether jobs wait and no worker will take them, or no job ever ends.
    fn is_abandoned(&self) -> bool {
        let settled = self.last_settled.unwrap_or_default().max(self.end);
        if self.now.since(settled) >= UNSETTLED {
            return true;
        }
        let is_waiting = self.running == 0 && self.backing_off == 0 && self.ready() > 0;
        let last = self.last_taken.unwrap_or_default().max(self.end);
        is_waiting && self.now.since(last) >= ABANDONED
    }

    fn arrive(&mut self, at: Moment) {
        self.incoming.next();
        self.tally.jobs += 1;
        self.tally.curve.arrived(at);
        self.fresh += 1;
        if self.fresh == 1 {
            self.oldest_fresh = self.taken.next();
        }
        self.note_ready();
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Ended { slot, start } => self.ended(slot, start),
            What::Began { slot, start } => self.began(slot, start),
            What::Up { slot, worker } => {
                if self.workers.still(slot, worker).is_some() {
                    self.workers.at_mut(slot).is_up = true;
                    self.workers.offer(slot);
                }
            }
            What::Back(job) => {
                self.backing_off -= 1;
                self.give_back(job);
            }
        }
    }

    fn give_back(&mut self, job: SimJob) {
        self.returned.push_back((self.now, job));
        self.note_ready();
    }

    fn note_ready(&mut self) {
        let ready = self.ready();
        self.tally.curve.ready(self.now, ready);
    }

    // The broker.

    /// The job at the head of the queue.
    fn take(&mut self) -> Option<SimJob> {
        let returned = self.returned.front().map(|(at, _)| *at);
        let is_fresh = match (self.oldest_fresh, returned) {
            (Some(fresh), Some(returned)) => fresh <= returned,
            (fresh, _) => fresh.is_some(),
        };
        let job = if is_fresh {
            let came = self.oldest_fresh.take()?;
            let number = self.next_job;
            self.next_job += 1;
            self.fresh -= 1;
            if self.fresh > 0 {
                self.oldest_fresh = self.taken.next();
            }
            SimJob {
                number,
                came,
                attempt: 1,
                was_started: false,
            }
        } else {
            self.returned.pop_front()?.1
        };
        self.note_ready();
        Some(job)
    }

    /// Hands messages to workers while there are both.
    fn deliver(&mut self) {
        while self.ready() > 0 && self.takes_messages() {
            let Some(slot) = self.workers.next_free() else {
                return;
            };
            let Some(job) = self.take() else {
                return;
            };
            if self.workers.at(slot).running.is_none() {
                self.start(slot, job);
            } else {
                self.workers.at_mut(slot).ahead.push_back(job);
            }
            self.workers.offer(slot);
        }
    }

    /// Whether the breaker lets a message go to a worker: in a trial, one at a time.
    fn takes_messages(&self) -> bool {
        match self.intake() {
            Intake::Open => true,
            Intake::BreakerTrial => self.running == 0,
            _ => false,
        }
    }

    // Jobs.

    fn start(&mut self, slot: usize, mut job: SimJob) {
        let is_warm = self.workers.at(slot).is_warm;
        let (runner, start_up) = match self.idle_runners.pop() {
            Some(runner) => (runner, Duration::ZERO),
            None => {
                let runner = RunnerId(self.next_runner);
                self.next_runner += 1;
                let start_up = if is_warm {
                    Duration::ZERO
                } else {
                    self.workload.start_up
                };
                (runner, start_up)
            }
        };
        let begins = self.now + start_up;
        if !job.was_started {
            job.was_started = true;
            self.last_fresh = Some((self.now, self.now.since(job.came)));
            self.tally.waited(self.now, begins.since(job.came));
        }
        let mut stream = random::of_attempt(self.workload.seed, job.number, job.attempt);
        let fails = stream.random::<f64>() < self.workload.failures;
        let ends = begins + self.sampler.draw(job.number, &mut stream);
        let start = self.next_start;
        self.next_start += 1;
        self.workers.at_mut(slot).running = Some(Attempt {
            job,
            start,
            taken: self.now,
            begins,
            runner,
            fails,
        });
        self.last_taken = Some(self.now);
        self.running += 1;
        if start_up.is_zero() {
            self.began(slot, start);
        } else {
            self.events.plan(begins, What::Began { slot, start });
        }
        self.events.plan(ends, What::Ended { slot, start });
    }

    /// The runner is there, and the job begins on it.
    fn began(&mut self, slot: usize, start: u64) {
        let Some(meter) = &mut self.meter else {
            return;
        };
        let Some(worker) = self.workers.get_mut(slot) else {
            return;
        };
        let Some(attempt) = worker.running.filter(|attempt| attempt.start == start) else {
            return;
        };
        if std::mem::take(&mut worker.is_new) {
            meter.ready(self.now, self.now.since(attempt.taken));
        }
        // Messages say when they were published, and so do their copies.
        meter.taken(self.now, Some(self.now.since(attempt.job.came)));
    }

    fn ended(&mut self, slot: usize, start: u64) {
        let Some(worker) = self.workers.get_mut(slot) else {
            return;
        };
        // An attempt that was interrupted has ended already.
        let Some(attempt) = worker.running.take_if(|attempt| attempt.start == start) else {
            return;
        };
        let retires = worker.retires;
        self.running -= 1;
        let took = self.now.since(attempt.begins);
        self.tally.ran(took);
        if let Some(meter) = &mut self.meter {
            meter.finished(self.now, took, !attempt.fails);
        }
        let signal = match attempt.fails {
            true => BreakerSignal::Failed("a failure"),
            false => BreakerSignal::Answered,
        };
        let may_take = self.intake.job_ended(self.now, took, signal).may_take;
        self.settle(attempt);
        if retires {
            // Its runner stops with it.
            self.remove(slot);
            return;
        }
        self.idle_runners.push(attempt.runner);
        // Otherwise the deliveries that wait behind it are given back at the next decision.
        if may_take && let Some(next) = self.workers.at_mut(slot).ahead.pop_front() {
            self.start(slot, next);
        }
        self.workers.offer(slot);
    }

    fn settle(&mut self, attempt: Attempt) {
        let Attempt { job, fails, .. } = attempt;
        self.last_settled = Some(self.now);
        if !fails {
            self.tally.done += 1;
        } else if job.attempt >= self.retry.max_attempts {
            self.tally.dead += 1;
        } else {
            self.tally.retried += 1;
            self.backing_off += 1;
            let next = SimJob {
                attempt: job.attempt + 1,
                ..job
            };
            let mut stream =
                random::of_attempt(self.workload.seed, job.number, u32::MAX - job.attempt);
            // As a pool does: the level, less up to a quarter of it.
            let share = 1.0 - 0.25 * stream.random::<f64>();
            let pause = self.retry.levels.after(job.attempt).mul_f64(share);
            self.events.plan(self.now + pause, What::Back(next));
        }
    }

    // What a scaler sees.

    pub(crate) fn now(&self) -> Moment {
        self.now
    }

    /// Whether messages are taken, and why not.
    pub(crate) fn intake(&self) -> Intake {
        self.intake.intake(self.now, None)
    }

    /// The time on the wall, if the trace says it.
    pub(crate) fn wall(&self) -> Option<Timestamp> {
        let begin = self.workload.trace.begin()?;
        begin.checked_add(self.now.since(Moment::ZERO)).ok()
    }

    /// Messages that are ready.
    pub(crate) fn ready(&self) -> u64 {
        self.fresh + self.returned.len() as u64
    }

    /// How long the message at the head of the queue has waited since it arrived.
    pub(crate) fn oldest(&self) -> Option<Duration> {
        let returned = self.returned.front();
        let came = match (self.oldest_fresh, returned) {
            (Some(fresh), Some((at, job))) if *at < fresh => job.came.min(fresh),
            (Some(fresh), _) => fresh,
            (None, returned) => returned?.1.came,
        };
        Some(self.now.since(came))
    }

    /// When a job was last taken for the first time, and how long it had waited.
    pub(crate) fn last_fresh(&self) -> Option<(Moment, Duration)> {
        self.last_fresh
    }

    pub(crate) fn last_taken(&self) -> Option<Moment> {
        self.last_taken
    }

    /// The pool's measurements, while its workers hold this number of deliveries.
    pub(crate) fn timings(&mut self, held: u64) -> Timings {
        let meter = self.meter.as_mut();
        meter.map_or_else(Timings::default, |meter| meter.timings(self.now, held))
    }

    /// Jobs that have left the queue permanently or for a retry queue.
    pub(crate) fn gone(&self) -> u64 {
        self.tally.done + self.tally.dead + self.tally.retried
    }

    /// Workers, those that are coming up included.
    pub(crate) fn live(&self) -> u32 {
        u32::try_from(self.workers.len()).unwrap_or(u32::MAX)
    }

    /// Workers that are up.
    pub(crate) fn up(&self) -> u32 {
        let up = self.workers.iter().filter(|(_, worker)| worker.is_up);
        u32::try_from(up.count()).unwrap_or(u32::MAX)
    }

    /// Workers that are not marked to go.
    pub(crate) fn staying(&self) -> u32 {
        let staying = self.workers.iter().filter(|(_, worker)| !worker.retires);
        u32::try_from(staying.count()).unwrap_or(u32::MAX)
    }

    pub(crate) fn census(&self) -> (Census, HeldDeliveries) {
        let mut held = HeldDeliveries::default();
        let workers = self.workers.iter().map(|(_, worker)| {
            let deliveries = worker.held();
            held.deliveries += deliveries;
            held.holders += u32::from(deliveries > 0);
            held.consumers += u32::from(worker.is_up);
            CensusWorker {
                id: worker.id,
                phase: worker.phase(),
            }
        });
        let workers = workers.collect();
        (Census::new(workers, self.idle_runners.clone()), held)
    }

    // What a scaler does.

    pub(crate) fn spawn(&mut self, workers: u32, how: Start) {
        for _ in 0..workers {
            let (slot, worker) = self.workers.add(self.now);
            self.tally.starts += 1;
            match how {
                Start::Bare => {
                    self.workers.at_mut(slot).is_up = true;
                    self.workers.offer(slot);
                }
                Start::Whole => {
                    self.workers.at_mut(slot).is_warm = true;
                    let at = self.now + self.workload.start_up;
                    self.events.plan(at, What::Up { slot, worker });
                }
            }
        }
        self.note_workers();
        self.deliver();
    }

    /// Stops a worker. A job that runs is given back, and its attempt is not spent.
    pub(crate) fn stop(&mut self, id: WorkerId) {
        let Some(slot) = self.workers.slot_of(id) else {
            return;
        };
        if let Some(attempt) = self.workers.at_mut(slot).running.take() {
            self.running -= 1;
            self.tally.interrupted += 1;
            self.tally.ran(self.now.since(attempt.begins));
            self.give_back(attempt.job);
        }
        self.remove(slot);
        self.deliver();
    }

    /// Marks a worker to go after its job, or lifts the mark.
    pub(crate) fn retire(&mut self, id: WorkerId, retires: bool) {
        if let Some(slot) = self.workers.slot_of(id) {
            self.workers.at_mut(slot).retires = retires;
        }
    }

    pub(crate) fn delete_runners(&mut self, runners: &[RunnerId]) {
        self.idle_runners.retain(|runner| !runners.contains(runner));
    }

    /// Sets the number of workers to `wanted`, as other autoscalers do: starts complete workers, or stops the newest.
    /// With `kills`, the newest go whatever they do. Otherwise those that wait go first, and those with a job go after
    /// it.
    pub(crate) fn resize(&mut self, wanted: u32, kills: bool) {
        let staying = self.staying();
        if wanted >= staying {
            let missing = wanted - staying;
            let marked: Vec<WorkerId> = self.newest(missing, |worker| worker.retires);
            for id in &marked {
                self.retire(*id, false);
            }
            let spawned = missing - u32::try_from(marked.len()).unwrap_or(missing);
            if spawned > 0 {
                self.spawn(spawned, Start::Whole);
            }
            return;
        }
        let surplus = staying - wanted;
        if kills {
            for id in self.newest(surplus, |_| true) {
                self.stop(id);
            }
            return;
        }
        let waiting = self.newest(surplus, |worker| worker.phase() == Phase::Waiting);
        let stopped = u32::try_from(waiting.len()).unwrap_or(surplus);
        let busy = self.newest(surplus - stopped, |worker| worker.phase() == Phase::Busy);
        for id in waiting {
            self.stop(id);
        }
        for id in busy {
            self.retire(id, true);
        }
    }

    fn newest(&self, most: u32, which: impl Fn(&SimWorker) -> bool) -> Vec<WorkerId> {
        let newest = self.workers.iter().rev().map(|(_, worker)| worker);
        let chosen = newest.filter(|worker| which(worker)).take(most as usize);
        chosen.map(|worker| worker.id).collect()
    }

    fn remove(&mut self, slot: usize) {
        let worker = self.workers.remove(slot);
        self.tally.worked(self.now.since(worker.since));
        self.tally.stops += 1;
        for job in worker.ahead {
            self.give_back(job);
        }
        self.note_workers();
    }

    fn note_workers(&mut self) {
        let workers = self.workers.len();
        self.tally.workers(self.now, workers);
    }

    // The run ends.

    /// Ends the run, and reports it.
    pub(crate) fn finish(mut self, name: &str) -> (Report, Vec<crate::CurvePoint>) {
        let now = self.now;
        for (_, worker) in self.workers.iter() {
            self.tally.worked(now.since(worker.since));
            if let Some(attempt) = worker.running {
                self.tally.ran(now.since(attempt.begins));
            }
        }
        let left = self.present();
        debug_assert_eq!(
            self.tally.jobs,
            self.tally.done + self.tally.dead + left,
            "a job was lost, or counted twice"
        );
        // Jobs that no worker took have waited until now.
        while self.ready() > 0 {
            let Some(job) = self.take() else {
                break;
            };
            if !job.was_started {
                self.tally.waited(now, now.since(job.came));
            }
        }
        let curve = self.tally.curve.finish(now);
        let report = self.tally.report(name, now.since(Moment::ZERO), left);
        (report, curve)
    }

    /// Jobs that are not settled: in the queue, held by a worker, or in a backoff. They are counted where they are, so
    /// that a job that gets lost does not pass for one that is left.
    fn present(&self) -> u64 {
        let held: u64 = self.workers.iter().map(|(_, worker)| worker.held()).sum();
        self.ready() + held + self.backing_off
    }
}
