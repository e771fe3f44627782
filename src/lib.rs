//! tidegate: a worker pool that rises and falls with a RabbitMQ queue.

pub mod adapters;
mod builder;
pub mod config;
pub mod decide;
mod escape;
mod machine;
pub mod queue;
pub mod run;
pub mod runner;
pub mod settle;
pub mod surface;

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
