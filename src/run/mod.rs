//! Run: workers, pools and the supervisor.
mod events;
mod status;
mod supervisor;

pub use self::{
    events::{Event, EventSink},
    status::{
        DepthStatus, JobTotals, PoolState, PoolStatus, Readiness, RunnerStatus, WorkerStatus,
    },
    supervisor::{DrainError, DrainReport, PoolSpec, Supervisor, SupervisorError},
};
