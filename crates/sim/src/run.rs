//! A run: one workload, one contender.

use tidegate_core::{
    decide::{Census, Decision, Observation},
    settings::RetrySettings,
};

use crate::{
    CurvePoint, Neighbour, PoolModel, Report, Workload, pool::PoolScaler, scaler::Scaler,
    world::World,
};

/// The decider of the pool's size.
#[derive(Debug, Clone)]
pub enum Contender {
    /// tidegate.
    Pool(Box<PoolModel>),
    /// Another autoscaler.
    Neighbour {
        /// Which.
        model: Neighbour,
        /// The maximum number of workers.
        max: u32,
        /// How jobs that fail are retried.
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
pub struct SimulatedRun {
    /// Its numbers.
    pub report: Report,
    /// Its course over time.
    pub curve: Vec<CurvePoint>,
}

/// Runs a workload on a contender, from the first arrival until all jobs are settled and the trace has ended.
///
/// `watcher` sees each decision of a [`PoolModel`], with the observation and the census that it was made of.
pub fn simulate(
    workload: &Workload,
    contender: &Contender,
    watcher: &mut dyn FnMut(&Observation, &Census, &Decision),
) -> SimulatedRun {
    run(workload, contender, watcher, &mut || true).expect("nothing gives it up")
}

/// The same, as long as `goes_on` says so: it is asked at each decision of the contender. `None` if the run was given up.
pub fn simulate_while(
    workload: &Workload,
    contender: &Contender,
    goes_on: &mut dyn FnMut() -> bool,
) -> Option<SimulatedRun> {
    run(workload, contender, &mut |_, _, _| {}, goes_on)
}

fn run(
    workload: &Workload,
    contender: &Contender,
    watcher: &mut dyn FnMut(&Observation, &Census, &Decision),
    goes_on: &mut dyn FnMut() -> bool,
) -> Option<SimulatedRun> {
    let name = contender.name();
    let (report, curve) = match contender {
        Contender::Pool(model) => {
            let world = World::new(workload, &model.retry, model.prefetch);
            let world = world.measured(model.retry.breaker);
            drive(world, &mut PoolScaler::new(model, watcher), &name, goes_on)?
        }
        Contender::Neighbour { model, max, retry } => {
            let world = World::new(workload, retry, 1);
            drive(world, &mut *model.scaler(*max), &name, goes_on)?
        }
    };
    Some(SimulatedRun { report, curve })
}

fn drive(
    mut world: World<'_>,
    scaler: &mut dyn Scaler,
    name: &str,
    goes_on: &mut dyn FnMut() -> bool,
) -> Option<(Report, Vec<CurvePoint>)> {
    while !world.run_until(scaler.next()) {
        if !goes_on() {
            return None;
        }
        scaler.act(&mut world);
    }
    Some(world.finish(name))
}
