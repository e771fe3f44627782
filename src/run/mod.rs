//! Run: workers, pools and the supervisor. The tasks that carry out what [`decide`](crate::decide) has decided.
//!
//! A [`Supervisor`] starts one task per pool, and a pool starts one task per worker. Everything that happens reaches a pool
//! as one event. The pool decides synchronously, and gives orders through the `WorkerState` that it shares
//! with each worker. A worker runs one job at a time on a runner of the pool's fleet, and settles it. Nothing here knows the
//! broker or the kind of runner.

mod budget;
mod clock;
mod copy_queues;
mod declaring;
mod delayed;
mod events;
mod fleet;
mod gate;
mod group;
mod keyed;
mod keyed_intake;
pub mod metrics;
mod own_queues;
mod panics;
mod policy_hash;
mod pool;
mod pool_orders;
mod pool_state;
mod pressure_source;
mod random;
mod recent_stats;
mod redeliveries;
mod reply_warnings;
mod running_jobs;
mod settling;
mod shared;
mod shared_ticks;
mod spec;
mod status;
mod steering;
mod supervisor;
pub mod traces;
mod until_signal;
mod worker;
mod worker_state;

#[doc(hidden)]
pub use self::declaring::spec as queue_spec;
pub use self::{
    clock::Clock,
    events::{Event, EventSink, Fate, JobFailure},
    pressure_source::PressureSource,
    running_jobs::{RunningJob, StopThen, Stopping},
    spec::PoolSpec,
    status::{
        DepthStatus, IntakeStatus, JobTotals, MemberStatus, PoolState, PoolStatus, Quantiles,
        Rates, Readiness, ReplyTotals, RunnerStatus, WorkerStatus,
    },
    steering::{AllOrders, Foresight, OrdersStore, StartOptions, Steered},
    supervisor::{
        DrainError, DrainReport, FlushMode, RunError, StopReport, Supervisor, SupervisorError,
    },
    traces::TraceLink,
};
#[doc(hidden)]
pub use tidegate_core::text::chain;
