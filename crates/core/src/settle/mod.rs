//! Settlement: what happens to a delivery, and what its copies carry.
//!
//! Pure, like [`decide`](crate::decide). A job's end, the message's history and the pool's settings give a
//! [`Verdict`]. A verdict gives the messages to publish. The worker publishes them and settles the delivery.

mod answer;
mod broker_death;
mod copy;
mod headers;
mod letter;
mod levels;
mod route;
mod verdict;

pub use self::{
    answer::{ReplyDecision, ReplyKind, ReplyRefusal, ReplyRetry, ReplyRules, retry_of_reply},
    copy::{Copies, lacks_headers},
    headers::carried_job_id,
    letter::{BROKER_REASONS, DeadBy, Letter, renewed},
    levels::{Levels, dead_queue, dead_queue_spec, jittered, retry_queue, retry_queue_spec},
    route::{CopyStep, ErrorScope, Route, rest, scope, spares, what_is_wrong},
    verdict::{
        CRASH_LOOP, Death, DeathCause, History, SUSPECT, Verdict, give_back, park, past_deadline,
        renew, verdict,
    },
};
