//! Run: workers, pools and the supervisor. The tasks that do what [`decide`](crate::decide) has decided.
//!
//! A [`Supervisor`] starts one task per pool, a pool one task per worker. A pool hears of everything through one
//! event, decides synchronously, and gives orders through each worker's cell; a worker runs one job at a time on a
//! runner of the pool's fleet and settles it. Nothing here knows which broker or which kind of runner it has.

mod clock;
mod copy_queues;
mod declaring;
mod delayed;
mod events;
mod fleet;
mod gate;
pub mod metrics;
mod own_queues;
mod panics;
mod pool;
mod pool_orders;
mod recent_stats;
mod redeliveries;
mod reply_warnings;
mod running_jobs;
mod settling;
mod shared;
mod spec;
mod status;
mod steering;
mod supervisor;
mod until_signal;
mod worker;
mod worker_state;

#[doc(hidden)]
pub use self::declaring::spec as queue_spec;
pub use self::{
    clock::Clock,
    events::{Event, EventSink, Fate, JobFailure},
    running_jobs::{RunningJob, StopThen, Stopping},
    spec::PoolSpec,
    status::{
        DepthStatus, IntakeStatus, JobTotals, PoolState, PoolStatus, Quantiles, Rates, Readiness,
        ReplyTotals, RunnerStatus, WorkerStatus,
    },
    steering::{AllOrders, OrdersStore, StartOptions, Steered},
    supervisor::{
        DrainError, DrainReport, FlushMode, RunError, StopReport, Supervisor, SupervisorError,
    },
};
#[doc(hidden)]
pub use tidegate_core::text::chain;
