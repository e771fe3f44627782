//! tidegate: a worker pool that rises and falls with a RabbitMQ queue.

pub mod adapters;
#[doc(hidden)]
pub mod builder;
pub mod config;
#[doc(hidden)]
pub mod machine;
pub mod queue;
pub mod run;
pub mod runner;

#[doc(hidden)]
pub use tidegate_core::escape;
#[doc(hidden)]
pub use tidegate_core::trace;
pub use tidegate_core::{decide, settle};

pub use self::{
    builder::{Builder, LaunchError, Pool},
    config::{
        Answers, Argument, Cores, Declare, ExecSettings, Limits, ReplySettings, RetrySettings,
        Rlimits, WarmSettings,
    },
    decide::{BreakerRules, Policy, Scaling},
    run::{DrainError, DrainReport, FlushMode, PoolStatus, Supervisor, SupervisorError},
    runner::{BoxError, Job, Outcome, Reply, Runner, RunnerManager},
};
