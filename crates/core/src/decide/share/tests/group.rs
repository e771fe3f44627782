//! Several daemons in virtual time, each with the real reconciler. Beats travel with a delay and may be lost.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::super::*;
use crate::decide::{
    Census, CensusWorker, DrainAfter, HeldBy, Intake, Observation, Phase, Policy, Probe,
    Reconciler, Rules, Scaling, Schedule, Timings, WorkerId,
};

/// Milliseconds of virtual time between two steps.
const STEP: u64 = 250;

struct Daemon {
    members: Members,
    reconciler: Reconciler,
    census: Census,
    /// For each busy worker, the steps until its job ends.
    jobs: BTreeMap<WorkerId, u64>,
    finished: u64,
    last_beat: u64,
    up: bool,
}

struct World {
    step: u64,
    ready: u64,
    service: u64,
    delay: u64,
    daemons: Vec<Daemon>,
    /// (step of arrival, receiver, beat)
    under_way: VecDeque<(u64, usize, Beat)>,
    /// Pairs that do not hear each other.
    cut: Vec<(usize, usize)>,
    finished: u64,
    taken: u64,
}

fn now(step: u64) -> Moment {
    Moment::after_start(Duration::from_millis(step * STEP))
}

fn id(n: usize) -> MemberId {
    MemberId::from(format!("d{n}"))
}

impl Daemon {
    fn new(n: usize, step: u64, boot: u64) -> Self {
        let rules = Rules {
            policy: Policy::fixed(12).max(12),
            own: None,
            scaling: Scaling::default(),
            drain_after: DrainAfter::Never,
            keep_warm: 0,
            preempt: false,
            schedule: Schedule::default(),
        };
        Self {
            members: Members::new(id(n), boot, 7, now(step)),
            reconciler: Reconciler::new(rules),
            census: Census::default(),
            jobs: BTreeMap::new(),
            finished: 0,
            last_beat: 0,
            up: true,
        }
    }

    fn numbers(&self) -> MemberNumbers {
        let counts = self.census.counts();
        let busy = counts.busy + counts.retiring;
        MemberNumbers {
            workers: counts.live(),
            busy,
            held: u64::from(busy),
            capacity: 12,
            pinned: None,
        }
    }

    fn set_workers(&mut self, mut change: impl FnMut(CensusWorker) -> Option<CensusWorker>) {
        let workers = self
            .census
            .workers()
            .iter()
            .filter_map(|worker| change(*worker))
            .collect();
        self.census = Census::new(workers, Vec::new());
    }
}

impl World {
    fn new(daemons: usize, service: u64, delay: u64) -> Self {
        Self {
            step: 0,
            ready: 1_000_000,
            service,
            delay,
            daemons: (0..daemons).map(|n| Daemon::new(n, 0, n as u64)).collect(),
            under_way: VecDeque::new(),
            cut: Vec::new(),
            finished: 0,
            taken: 0,
        }
    }

    fn hears(&self, a: usize, b: usize) -> bool {
        !self.cut.contains(&(a, b)) && !self.cut.contains(&(b, a))
    }

    fn workers(&self) -> u32 {
        self.daemons
            .iter()
            .map(|daemon| daemon.census.counts().live())
            .sum()
    }

    fn expected(&self) -> u32 {
        let up = self.daemons.iter().filter(|daemon| daemon.up);
        up.map(|daemon| daemon.reconciler.expected()).sum()
    }

    /// The daemon dies: its jobs go back to the queue.
    fn kill(&mut self, n: usize) {
        let daemon = &mut self.daemons[n];
        self.ready += daemon.jobs.len() as u64;
        self.taken -= daemon.jobs.len() as u64;
        daemon.jobs.clear();
        daemon.census = Census::default();
        daemon.up = false;
    }

    fn start(&mut self, n: usize) {
        if !self.daemons[n].up {
            self.daemons[n] = Daemon::new(n, self.step, self.step * 100 + n as u64);
        }
    }

    fn run(&mut self, seconds: u64) {
        for _ in 0..seconds * 1000 / STEP {
            self.advance();
        }
    }

    fn advance(&mut self) {
        self.step += 1;
        let mut answer = Vec::new();
        while self
            .under_way
            .front()
            .is_some_and(|(at, ..)| *at <= self.step)
        {
            let (_, to, beat) = self.under_way.pop_front().expect("it was just seen");
            let daemon = &mut self.daemons[to];
            if daemon.up && daemon.members.hear(now(self.step), beat) == Heard::Joined {
                answer.push(to);
            }
        }
        for n in 0..self.daemons.len() {
            if self.daemons[n].up {
                let changed = self.work(n);
                let due = (self.step - self.daemons[n].last_beat) * STEP >= 1000;
                if changed || due || answer.contains(&n) {
                    self.send(n);
                }
            }
        }
    }

    /// One step of a daemon: jobs end, waiting workers take messages, and the reconciler plans.
    fn work(&mut self, n: usize) -> bool {
        let step = self.step;
        let daemon = &mut self.daemons[n];
        let before = daemon.numbers();
        let ended: Vec<WorkerId> = daemon
            .jobs
            .iter()
            .filter(|(_, until)| **until <= step)
            .map(|(id, _)| *id)
            .collect();
        self.finished += ended.len() as u64;
        daemon.finished += ended.len() as u64;
        for id in &ended {
            daemon.jobs.remove(id);
        }
        daemon.set_workers(|worker| match worker.phase {
            Phase::Retiring if ended.contains(&worker.id) => None,
            Phase::Busy if ended.contains(&worker.id) => Some(CensusWorker {
                phase: Phase::Waiting,
                ..worker
            }),
            _ => Some(worker),
        });
        let (ready, taken, jobs) = (&mut self.ready, &mut self.taken, &mut daemon.jobs);
        let service = self.service;
        let workers = daemon.census.workers().to_vec();
        let mut takes = Vec::new();
        for worker in workers
            .iter()
            .filter(|worker| worker.phase == Phase::Waiting)
        {
            if *ready > 0 {
                *ready -= 1;
                *taken += 1;
                jobs.insert(worker.id, step + service);
                takes.push(worker.id);
            }
        }
        daemon.set_workers(|worker| {
            let phase = if takes.contains(&worker.id) {
                Phase::Busy
            } else {
                worker.phase
            };
            Some(CensusWorker { phase, ..worker })
        });

        daemon.members.forget_silent(now(step));
        let own = daemon.numbers();
        let counts = daemon.census.counts();
        let observation = Observation {
            at: now(step),
            wall: None,
            probe: Probe::Answered {
                ready: self.ready,
                consumers: counts.live(),
            },
            consumers: counts.live(),
            held: own.held,
            holders: own.busy,
            ahead: None,
            last_taken: Some(now(step)),
            gone: daemon.finished,
            oldest: None,
            timings: Timings::default(),
            intake: Intake::Open,
            group: Some(daemon.members.group(now(step), own)),
            allowance: None,
            pressure: None,
            held_by: HeldBy::Workers,
        };
        let running: Vec<WorkerId> = daemon.jobs.keys().copied().collect();
        let plan = daemon
            .reconciler
            .reconcile(&observation, &daemon.census)
            .plan;
        assert!(plan.preempt.is_empty());
        assert!(
            plan.stop.iter().all(|id| !running.contains(id)),
            "a running job was stopped"
        );
        daemon.census = daemon.census.after(&plan);
        daemon.numbers() != before
    }

    fn send(&mut self, n: usize) {
        self.daemons[n].last_beat = self.step;
        let daemon = &mut self.daemons[n];
        let numbers = daemon.numbers();
        daemon.members.set_gone(daemon.finished);
        let beat = daemon.members.next_beat(now(self.step), numbers);
        for to in 0..self.daemons.len() {
            if self.hears(n, to) {
                self.under_way
                    .push_back((self.step + self.delay, to, beat.clone()));
            }
        }
    }
}

#[test]
fn five_daemons_share_the_workers_of_one_policy() {
    let mut world = World::new(5, 4, 1);
    world.run(5);
    assert_eq!((world.expected(), world.workers()), (12, 12));
    let shares: Vec<u32> = world
        .daemons
        .iter()
        .map(|daemon| daemon.reconciler.expected())
        .collect();
    assert_eq!(shares, [3, 3, 2, 2, 2]);
}

#[test]
fn the_sum_of_workers_recovers_within_seven_seconds_after_a_daemon_was_killed() {
    let mut world = World::new(5, 4, 1);
    world.run(5);
    world.kill(2);
    // Five beats until it is forgotten, one until the others grow.
    world.run(7);
    assert_eq!((world.expected(), world.workers()), (12, 12));
}

#[test]
fn a_daemon_that_joins_gets_its_share_as_jobs_end_and_the_sum_is_never_exceeded() {
    // Jobs of a minute.
    let mut world = World::new(2, 240, 1);
    world.kill(1);
    world.run(5);
    assert_eq!(world.daemons[0].reconciler.expected(), 12);
    world.start(1);
    for _ in 0..400 {
        world.advance();
        assert!(world.workers() <= 12, "{}", world.workers());
    }
    let shares: Vec<u32> = world
        .daemons
        .iter()
        .map(|daemon| daemon.census.counts().live())
        .collect();
    assert_eq!(shares, [6, 6]);
}

#[test]
fn daemons_that_cannot_hear_each_other_take_the_whole_each_and_share_again_later() {
    let mut world = World::new(3, 4, 1);
    world.run(5);
    world.cut = vec![(0, 1), (0, 2), (1, 2)];
    world.run(10);
    assert_eq!(world.workers(), 36, "each believes that it is alone");
    world.cut.clear();
    world.run(5);
    assert_eq!((world.expected(), world.workers()), (12, 12));
}

#[test]
fn each_daemon_measures_the_arrivals_of_the_whole_queue() {
    // Jobs of 2 s, 5 of them a second, and 12 workers.
    let mut world = World::new(3, 8, 1);
    world.ready = 0;
    let arrive = |world: &mut World, seconds: u64| {
        for step in 0..seconds * 1000 / STEP {
            world.ready += if step % 4 == 0 { 5 } else { 0 };
            world.advance();
        }
    };
    arrive(&mut world, 120);
    let rates = |world: &World| -> Vec<f64> {
        let up = world.daemons.iter().filter(|daemon| daemon.up);
        let rates = up.map(|daemon| daemon.reconciler.arrivals().map_or(0.0, |rate| rate.slow));
        rates.collect()
    };
    for rate in rates(&world) {
        assert!((4.5..5.5).contains(&rate), "{:?}", rates(&world));
    }
    // One that leaves, and one that comes, change nothing about what arrives.
    world.kill(1);
    arrive(&mut world, 60);
    world.start(1);
    arrive(&mut world, 60);
    for rate in rates(&world) {
        assert!((4.3..5.7).contains(&rate), "{:?}", rates(&world));
    }
}

#[test]
fn a_daemon_with_another_policy_stops_growth_of_all() {
    let mut world = World::new(2, 4, 1);
    let numbers = world.daemons[1].numbers();
    world.daemons[1].members.set_policy(8);
    let beat = world.daemons[1].members.next_beat(now(0), numbers);
    let own = world.daemons[0].numbers();
    let _ = world.daemons[0].members.hear(now(0), beat);
    let group = world.daemons[0].members.group(now(8), own);
    let census = Census::default();
    let observation = Observation {
        at: now(8),
        wall: None,
        probe: Probe::Answered {
            ready: 100,
            consumers: 0,
        },
        consumers: 0,
        held: 0,
        holders: 0,
        ahead: None,
        last_taken: None,
        gone: 0,
        oldest: None,
        timings: Timings::default(),
        intake: Intake::Open,
        group: Some(group),
        allowance: None,
        pressure: None,
        held_by: HeldBy::Workers,
    };
    let reconciliation = world.daemons[0].reconciler.reconcile(&observation, &census);
    assert_eq!(reconciliation.decision.expected, 0);
    let text = reconciliation.decision.to_string();
    assert!(
        text.contains("d1 has another policy for this queue"),
        "{text}"
    );
}

#[derive(Debug, Clone)]
enum Act {
    Kill(usize),
    Start(usize),
    Cut(usize, usize),
    Heal,
    Run(u64),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let daemon = 0usize..5;
    prop::collection::vec(
        prop_oneof![
            2 => daemon.clone().prop_map(Act::Kill),
            3 => daemon.clone().prop_map(Act::Start),
            2 => (daemon.clone(), daemon).prop_map(|(a, b)| Act::Cut(a, b)),
            2 => Just(Act::Heal),
            5 => (1u64..8).prop_map(Act::Run),
        ],
        1..25,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_sum_of_workers_recovers_and_no_job_is_stopped_or_lost(
        acts in acts(),
        service in 1u64..40,
        delay in 1u64..4,
    ) {
        let mut world = World::new(5, service, delay);
        for act in acts {
            match act {
                Act::Kill(n) => world.kill(n),
                Act::Start(n) => world.start(n),
                Act::Cut(a, b) => world.cut.push((a, b)),
                Act::Heal => world.cut.clear(),
                Act::Run(seconds) => world.run(seconds),
            }
            // Each daemon takes at most the whole, so the excess is bounded.
            prop_assert!(world.workers() <= 5 * 12);
        }
        world.cut.clear();
        world.start(0);
        // Silence is noticed, shares settle, and the longest job ends.
        world.run(10 + service * STEP / 1000 + 1);
        prop_assert_eq!(world.expected(), 12);
        prop_assert_eq!(world.workers(), 12);
        let running: usize = world.daemons.iter().map(|daemon| daemon.jobs.len()).sum();
        prop_assert_eq!(world.ready + world.finished + running as u64, 1_000_000);
        prop_assert_eq!(world.taken, world.finished + running as u64);
    }
}
