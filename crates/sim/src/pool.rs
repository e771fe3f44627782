//! Tidegate as one of the scalers to compare: the real code that decides, with the inputs that a pool gives it.

use std::time::Duration;

use tidegate_core::{
    decide::{
        Allowance, Census, Decision, HeldBy, Moment, Observation, Orders, Plan, Probe, Reconciler,
        Reconciliation, Rules,
    },
    settings::RetrySettings,
};

use crate::{
    scaler::Scaler,
    world::{Start, World},
};

/// The settings of a pool, as far as they matter here.
#[derive(Debug, Clone)]
pub struct PoolModel {
    /// The name of the run.
    pub name: String,
    /// The rules that decide the pool's size.
    pub rules: Rules,
    /// Time between two readings of the queue's depth. Above zero.
    pub poll_interval: Duration,
    /// Deliveries that each worker may hold: 1 or more.
    pub prefetch: u16,
    /// How jobs that fail are retried.
    pub retry: RetrySettings,
    /// What an operator has set by hand. It holds during the whole run.
    pub orders: Orders,
    /// Most workers of the supervisor. The pool is alone, so it may have all of them. `None` is no limit.
    pub max_workers: Option<u32>,
}

impl PoolModel {
    /// A pool with the defaults of the configuration file and these rules.
    pub fn new(name: impl Into<String>, rules: Rules) -> Self {
        Self {
            name: name.into(),
            rules,
            poll_interval: Duration::from_millis(500),
            prefetch: 1,
            retry: RetrySettings::default(),
            orders: Orders::default(),
            max_workers: None,
        }
    }
}

/// Called with the inputs of a decision, and the decision.
pub(crate) type Watcher<'a> = &'a mut dyn FnMut(&Observation, &Census, &Decision);

/// A pool's own part: it reads the depth, decides, and carries out the plan.
pub(crate) struct PoolScaler<'a> {
    reconciler: Reconciler,
    poll_interval: Duration,
    allowance: Option<Allowance>,
    next: Moment,
    /// Whether messages were ready at the last reading.
    has_ready: bool,
    /// The time of the last reading without ready messages.
    empty: Option<Moment>,
    watcher: Watcher<'a>,
}

impl<'a> PoolScaler<'a> {
    pub(crate) fn new(model: &PoolModel, watcher: Watcher<'a>) -> Self {
        let mut reconciler = Reconciler::new(model.rules.clone());
        reconciler.set_orders(model.orders.clone());
        let allowance = model.max_workers.map(|workers| Allowance {
            workers,
            why: format!("[supervisor] max_workers is {workers}"),
        });
        Self {
            reconciler,
            allowance,
            // A pool refuses an interval of zero.
            poll_interval: model.poll_interval.max(Duration::from_millis(1)),
            next: Moment::ZERO,
            has_ready: false,
            empty: None,
            watcher,
        }
    }

    /// How long the oldest message has waited, at most, as far as a pool knows: it came after the message that was last
    /// taken, and after the queue was last seen empty.
    fn oldest(&self, world: &World<'_>) -> Option<Duration> {
        let now = world.now();
        let (taken, waited) = world.last_fresh().filter(|_| self.has_ready)?;
        let since_head = waited.saturating_add(now.since(taken));
        let since_empty = self.empty.map(|empty| now.since(empty));
        Some(since_empty.map_or(since_head, |since| since.min(since_head)))
    }
}

impl Scaler for PoolScaler<'_> {
    fn next(&self) -> Moment {
        self.next
    }

    fn act(&mut self, world: &mut World<'_>) {
        self.next = world.now() + self.poll_interval;
        let (census, held) = world.census();
        let observation = Observation {
            at: world.now(),
            wall: world.wall(),
            probe: Probe::Answered {
                ready: world.ready(),
                consumers: held.consumers,
            },
            consumers: held.consumers,
            held: held.deliveries,
            holders: held.holders,
            ahead: None,
            last_taken: world.last_taken(),
            gone: world.gone(),
            oldest: self.oldest(world),
            timings: world.timings(held.deliveries),
            intake: world.intake(),
            group: None,
            allowance: self.allowance.clone(),
            pressure: None,
            held_by: HeldBy::Workers,
        };
        let Reconciliation { decision, plan, .. } =
            self.reconciler.reconcile(&observation, &census);
        (self.watcher)(&observation, &census, &decision);
        // The reading counts from the next reconcile on, as in a pool.
        self.has_ready = world.ready() > 0;
        if !self.has_ready {
            self.empty = Some(world.now());
        }
        apply(&plan, world);
    }
}

/// Carries out a plan.
fn apply(plan: &Plan, world: &mut World<'_>) {
    for id in &plan.lift {
        world.retire(*id, false);
    }
    for id in &plan.stop {
        world.stop(*id);
    }
    for id in &plan.retire {
        world.retire(*id, true);
    }
    for id in &plan.preempt {
        world.stop(*id);
    }
    if !plan.delete.is_empty() {
        world.delete_runners(&plan.delete);
    }
    if plan.spawn > 0 {
        world.spawn(plan.spawn, Start::Bare);
    }
}
