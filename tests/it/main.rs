//! Tests that need the outside world: a broker, child processes, the built program. Tests that need more from the
//! machine are in `tests/machine`.
//!
//! One binary, because it links once and its tests share private brokers (`support::broker`).
#![allow(clippy::unwrap_used, reason = "a test that cannot continue ends there")]
#![allow(
    clippy::duplicate_mod,
    reason = "the tests of settlement run on queues of both kinds"
)]

#[allow(dead_code, reason = "the tests of the machine use more of it")]
mod support;

mod amqp_broker;
mod causes;
mod check_broker;
mod cli;
mod completions;
mod daemon;
mod dead;
mod deadlines;
mod declaring;
mod delivery_limit;
mod dry_run;
mod exec_runner;
mod frozen;
mod http_auth;
mod keys;
mod load;
mod man;
mod metrics_reference;
mod odd_messages;
mod openapi;
mod operating;
mod orders;
mod pool_fields;
mod programs;
mod queue_conformance;
mod record;
mod replies;
mod settlement;
#[path = "settlement.rs"]
mod settlement_classic;
mod sharing;
mod simulate;
mod stalled_readers;
mod steering;
mod takeover;
mod top;
mod traces;
mod warm_runner;
mod watch;
