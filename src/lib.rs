//! tidegate: a worker pool that rises and falls with a RabbitMQ queue.

pub mod adapters;
#[doc(hidden)]
pub mod builder;
pub mod config;
pub mod host;
pub mod queue;
pub mod run;
pub mod runner;
pub mod runners;

#[doc(hidden)]
pub use tidegate_core::escape;
pub use tidegate_core::{decide, settle};

pub use self::{
    builder::{Builder, LaunchError, Pool},
    config::{
        Answers, Argument, Cores, Declare, ExecSettings, Limits, ReplySettings, RetrySettings,
        Rlimits,
    },
    decide::{BreakerRules, Policy, Scaling},
    run::{DrainError, DrainReport, FlushMode, PoolStatus, Supervisor, SupervisorError},
    runner::{BoxError, Job, Outcome, Reply, Runner, RunnerManager},
    runners::WarmSettings,
};
