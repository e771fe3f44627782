//! Dead letters: reading, retrying and purging a pool's queue of dead letters, for the command line and for the API.
//!
//! [`tidegate::settle`] defines the meaning of a letter, and the message that a retry publishes. This module walks
//! through the queue. It prints nothing, and does not depend on HTTP.

mod on_demand;
mod walk;

use std::{num::NonZeroU64, str::FromStr};

pub(crate) use self::on_demand::DeadLetterAccess;
pub(crate) use self::{
    on_demand::{DeadLetterPlace, DeadLettersError, LetterChoice, Worked},
    walk::{DeadLetterQueue, Walked, Wanted},
};
use tidegate::{
    config::{DeadLetter, PoolSettings},
    decide::QueueName,
    settle::{Levels, dead_queue, retry_queue},
};

/// The queue with the dead letters of a pool. `None` if a policy of the broker decides.
pub(crate) fn queue_of(pool: &PoolSettings) -> Option<QueueName> {
    match pool.retry.dead_letter {
        DeadLetter::Queue => Some(dead_queue(&pool.queue)),
        DeadLetter::Broker => None,
    }
}

/// Whether the pool consumes this queue, or uses it for retries.
pub(crate) fn is_used_by(queue: &QueueName, pool: &PoolSettings) -> bool {
    *queue == pool.queue
        || Levels::new(&pool.retry)
            .iter()
            .any(|level| *queue == retry_queue(&pool.queue, level))
}

/// The maximum number of letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LetterLimit {
    Count(NonZeroU64),
    All,
}

impl FromStr for LetterLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "all" => Ok(Self::All),
            number => number
                .parse()
                .map(Self::Count)
                .map_err(|_| "write a number from 1, or all".to_owned()),
        }
    }
}
