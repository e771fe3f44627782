//! Settings for jobs that fail.

use std::time::Duration;

use crate::decide::BreakerRules;

/// Settings for jobs that fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetrySettings {
    /// Attempts before a job is dead-lettered. At least 1.
    pub max_attempts: u32,
    /// First level of the backoff. Each further attempt doubles it, up to `backoff_max`.
    pub backoff: Duration,
    /// Last level of the backoff.
    pub backoff_max: Duration,
    /// Where dead letters go.
    pub dead_letter: DeadLetter,
    /// When the pool stops taking messages because too many jobs fail; `None` is never.
    pub breaker: Option<BreakerRules>,
}

impl Default for RetrySettings {
    fn default() -> Self {
        Self {
            max_attempts: 5,
            backoff: Duration::from_secs(1),
            backoff_max: Duration::from_secs(300),
            dead_letter: DeadLetter::Queue,
            breaker: None,
        }
    }
}

/// Where dead letters go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DeadLetter {
    /// As a confirmed copy to `<queue>.dead`.
    #[default]
    Queue,
    /// By `basic.reject`. The message goes to the queue's own dead-letter exchange, and is lost if the queue has no such
    /// exchange.
    Broker,
}
