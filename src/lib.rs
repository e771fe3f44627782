//! tidegate: a worker pool that rises and falls with a RabbitMQ queue.

pub mod adapters;
pub mod config;
pub mod decide;
pub mod queue;
pub mod run;
pub mod runner;
pub mod settle;

pub use config::PoolSettings as Pool;
