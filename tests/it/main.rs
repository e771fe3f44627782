//! Tests that need the outside world: a broker, child processes, the built program.
//!
//! One binary, because it links once and its tests share private brokers (`support::broker`).
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends there")]
#![allow(
    clippy::duplicate_mod,
    reason = "the tests of settlement run on queues of both kinds"
)]

mod support;

mod amqp_broker;
mod causes;
mod check_broker;
mod cli;
mod container_runner;
mod daemon;
mod dead;
mod deadlines;
mod exec_runner;
mod frozen;
mod full_disk;
mod limits;
mod odd_messages;
mod orphans;
mod queue_conformance;
mod replies;
mod runner_conformance;
mod settlement;
#[path = "settlement.rs"]
mod settlement_classic;
mod stalled_readers;
mod warm_runner;
mod with_broker;
