//! What becomes of jobs that fail.

use std::time::Duration;

use crate::decide::BreakerRules;

/// What becomes of jobs that fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetrySettings {
    /// Attempts before a job is dead-lettered: 1 or more.
    pub max_attempts: u32,
    /// First level of the backoff. Doubled for each further attempt, up to `backoff_max`.
    pub backoff: Duration,
    /// Last level.
    pub backoff_max: Duration,
    /// Where dead letters go.
    pub dead_letter: DeadLetter,
    /// When so many jobs fail that intake pauses; `None` is never.
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
    /// By a plain `basic.reject`: wherever the queue's own dead-letter exchange says, and lost where it has none.
    Broker,
}
