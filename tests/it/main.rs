//! Tests that need the outside world: a broker, child processes, the built program.
//!
//! One binary, because it links once and its tests share private brokers (`support::broker`).
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends there")]

mod support;

mod amqp_broker;
mod check_broker;
mod cli;
mod container_runner;
mod daemon;
mod dead;
mod deadlines;
mod declaring;
mod exec_runner;
mod full_disk;
mod limits;
mod operating;
mod orphans;
mod queue_conformance;
mod replies;
mod runner_conformance;
mod settlement;
mod warm_runner;
mod with_broker;
