//! Run: workers, pools and the supervisor. The tasks that do what [`decide`](crate::decide) has decided.
//!
//! A [`Supervisor`] starts one task per pool, a pool one task per worker. A pool hears of everything through one
//! event, decides synchronously, and gives orders through each worker's cell; a worker runs one job at a time on a
//! runner of the pool's fleet and settles it. Nothing here knows which broker or which kind of runner it has.

mod aftermath;
mod cell;
mod contain;
mod copying;
mod declaring;
mod delayed;
mod detours;
mod events;
mod fleet;
mod gate;
pub mod metrics;
mod pool;
mod replies;
mod settling;
mod shared;
mod spec;
mod status;
mod supervisor;
mod worker;

#[doc(hidden)]
pub use self::{declaring::spec as queue_spec, settling::chain};
pub use self::{
    events::{Event, EventSink, Fate, JobFailure},
    spec::PoolSpec,
    status::{
        DepthStatus, JobTotals, PoolState, PoolStatus, Readiness, ReplyTotals, RunnerStatus,
        WorkerStatus,
    },
    supervisor::{DrainError, DrainReport, FlushMode, Supervisor, SupervisorError},
};
