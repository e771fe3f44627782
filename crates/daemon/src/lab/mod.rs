//! The policy lab: policies tried on traffic, in virtual time.
//!
//! [`mod@table`] and [`mod@chart`] show the runs of the simulator. The command line reads the inputs of the runs. [`trial`]
//! is a dry run of a policy on a recording, which the API asks [`trials`] for.

pub(crate) mod chart;
pub(crate) mod course;
pub(crate) mod table;
pub(crate) mod trial;
pub(crate) mod trials;

use std::thread;

use tidegate_sim::{Contender, SimulatedRun, Workload, simulate};

/// Runs a workload on all contenders, on as many threads as there are cores. The results have the contenders' order.
pub(crate) fn compare(workload: &Workload, contenders: &[Contender]) -> Vec<SimulatedRun> {
    let cores = thread::available_parallelism().map_or(1, |cores| cores.get());
    let mut runs = Vec::with_capacity(contenders.len());
    for some in contenders.chunks(cores) {
        runs.extend(thread::scope(|scope| {
            let started: Vec<_> = some
                .iter()
                .map(|contender| scope.spawn(|| simulate(workload, contender, &mut |_, _, _| {})))
                .collect();
            let ended = started.into_iter().map(|run| {
                run.join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            });
            ended.collect::<Vec<_>>()
        }));
    }
    runs
}
