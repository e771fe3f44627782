//! The simulator: a queue, its workers and their runners in virtual time, around the code that decides.
//!
//! A run is a discrete-event simulation. Jobs arrive as a trace says. Workers take them in order, and each job takes a
//! time that is drawn at random. What differs from run to run is the [`Contender`] that sizes the pool:
//!
//! - a [`PoolModel`]: tidegate with the settings of a pool. It asks the real
//!   [`Reconciler`](tidegate_core::decide::Reconciler) at each poll, and applies its plan as a pool does.
//! - a [`Neighbour`]: another autoscaler, as a reference model.
//!
//! # Theory of operation
//!
//! [`simulate`] moves from event to event: an arrival, the end of a job, the end of a backoff, a decision. Nothing
//! waits, and no clock is read. Memory does not grow with the number of jobs: a backlog is not stored, because the
//! arrivals can be computed a second time when workers take them.
//!
//! The draws of a job depend on the seed, the job's number and its attempt alone. So all runs of one workload have the
//! same arrivals, the same service times and the same failures, and their results differ only because of the
//! contenders. The same seed gives the same result on every machine.
//!
//! # What is simplified
//!
//! - A broker answers at once. A consumer opens and closes in no time.
//! - A runner serves one job after another. The start-up time is paid when a job finds no idle runner. Where each job
//!   has a process of its own, the service time includes its start.
//! - Runners always start, and copies can always be published. So a pool is faulted only by its breaker, which is the
//!   code of the pool. What changes intake is seen at the next poll, and messages stay in the queue at once.

mod arrivals;
mod curve;
mod events;
pub mod neighbours;
mod pool;
mod random;
mod report;
mod run;
mod scaler;
mod service;
mod tally;
mod tune;
mod workers;
mod workload;
mod world;

pub use self::{
    curve::CurvePoint,
    neighbours::{Neighbour, NeighbourError},
    pool::PoolModel,
    report::{Report, Waits},
    run::{Contender, SimulatedRun, simulate, simulate_while},
    service::{ServiceError, ServiceTimes},
    tune::{Tuned, Tuning, tune},
    workload::Workload,
};
