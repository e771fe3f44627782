//! A run: one workload, one contender.

use std::time::Duration;

use tidegate_core::{
    decide::{Census, Decision, Moment, Observation},
    settings::RetrySettings,
    trace::Trace,
};

use crate::{
    CurvePoint, Neighbour, PoolModel, Report, ServiceTimes, pool::PoolScaler, world::World,
};

/// What is to be done: the same for all contenders.
#[derive(Debug, Clone)]
pub struct Workload {
    /// When jobs arrive.
    pub trace: Trace,
    /// How long they take.
    pub service: ServiceTimes,
    /// How long the start of a runner takes.
    pub start_up: Duration,
    /// Share of the attempts that fail, 0 to 1.
    pub failures: f64,
    /// Longest wait that is good.
    pub target: Duration,
    /// The seed of all draws.
    pub seed: u64,
}

impl Workload {
    /// A workload with runners that start at once and jobs that do not fail, a target of 30 s, and the seed 1.
    pub fn new(trace: Trace, service: ServiceTimes) -> Self {
        Self {
            trace,
            service,
            start_up: Duration::ZERO,
            failures: 0.0,
            target: Duration::from_secs(30),
            seed: 1,
        }
    }
}

/// What sizes the pool.
#[derive(Debug, Clone)]
pub enum Contender {
    /// tidegate.
    Pool(Box<PoolModel>),
    /// Another autoscaler.
    Neighbour {
        /// Which.
        model: Neighbour,
        /// Most workers.
        max: u32,
        /// What becomes of jobs that fail.
        retry: RetrySettings,
    },
}

impl Contender {
    /// Its name.
    pub fn name(&self) -> String {
        match self {
            Self::Pool(model) => model.name.clone(),
            Self::Neighbour { model, .. } => model.to_string(),
        }
    }
}

/// A finished run.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Run {
    /// Its numbers.
    pub report: Report,
    /// Its course over time.
    pub curve: Vec<CurvePoint>,
}

/// What starts and stops workers.
pub(crate) trait Scaler {
    /// When it wants to act next. Rises with each act.
    fn next(&self) -> Moment;

    /// Looks at the world and changes its workers.
    fn act(&mut self, world: &mut World<'_>);
}

/// Runs a workload on a contender, from the first arrival until all jobs are settled and the trace has ended.
///
/// `watcher` sees each decision of a [`PoolModel`], with the observation and the census that it was made of.
pub fn simulate(
    workload: &Workload,
    contender: &Contender,
    watcher: &mut dyn FnMut(&Observation, &Census, &Decision),
) -> Run {
    let name = contender.name();
    let (report, curve) = match contender {
        Contender::Pool(model) => {
            let world = World::new(workload, &model.retry, model.prefetch);
            let world = world.measured(model.retry.breaker);
            drive(world, &mut PoolScaler::new(model, watcher), &name)
        }
        Contender::Neighbour { model, max, retry } => {
            let world = World::new(workload, retry, 1);
            drive(world, &mut *model.scaler(*max), &name)
        }
    };
    Run { report, curve }
}

fn drive(mut world: World<'_>, scaler: &mut dyn Scaler, name: &str) -> (Report, Vec<CurvePoint>) {
    while !world.run_until(scaler.next()) {
        scaler.act(&mut world);
    }
    world.finish(name)
}
