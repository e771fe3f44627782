//! Levels of the backoff: a retry waits in one queue per level.

use std::time::Duration;

use crate::{
    decide::QueueName,
    queue::{QueueKind, QueueSpec},
    settings::RetrySettings,
};

/// The levels of a pool's backoff, shortest first: `backoff`, doubled up to `backoff_max`, which is the last level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Levels(Vec<Duration>);

impl Levels {
    /// The levels for these settings. At least one.
    pub fn new(settings: &RetrySettings) -> Self {
        let last = settings.backoff_max.max(settings.backoff);
        let mut levels = Vec::new();
        let mut level = settings.backoff.max(Duration::from_millis(1));
        while level < last {
            levels.push(level);
            level *= 2;
        }
        levels.push(last.max(Duration::from_millis(1)));
        Self(levels)
    }

    /// The level after this number of failures. One failure gives the first level.
    pub fn after(&self, failures: u32) -> Duration {
        let index = (failures.max(1) - 1) as usize;
        self.0[index.min(self.0.len() - 1)]
    }

    /// The level for a delay that a job asked for: rounded up, at most the last level.
    pub fn for_delay(&self, delay: Duration) -> Duration {
        let last = self.0[self.0.len() - 1];
        self.0
            .iter()
            .copied()
            .find(|level| *level >= delay)
            .unwrap_or(last)
    }

    /// All levels, shortest first.
    pub fn iter(&self) -> impl Iterator<Item = Duration> + '_ {
        self.0.iter().copied()
    }
}

/// Name of the queue in which messages of `queue` wait for `level`.
pub fn retry_queue(queue: &QueueName, level: Duration) -> QueueName {
    QueueName::from(format!("{}{}", retry_prefix(queue), level.as_millis()))
}

/// Prefix of the names of all retry queues of `queue`.
pub(super) fn retry_prefix(queue: &QueueName) -> String {
    format!("{queue}.retry.")
}

/// Name of the dead-letter queue of `queue`.
pub fn dead_queue(queue: &QueueName) -> QueueName {
    QueueName::from(format!("{queue}.dead"))
}

/// Declaration of a level's retry queue. It is a quorum queue, because only a quorum queue dead-letters at least
/// once. It does not expire, because a queue that expires loses its messages.
pub fn retry_queue_spec(queue: &QueueName, level: Duration) -> QueueSpec {
    QueueSpec {
        name: retry_queue(queue, level),
        kind: QueueKind::Quorum,
        dead_letter_to: Some(queue.clone()),
        message_ttl: Some(level),
        ..QueueSpec::new("", QueueKind::Quorum)
    }
}

/// Declaration of the dead-letter queue.
pub fn dead_queue_spec(queue: &QueueName) -> QueueSpec {
    QueueSpec::new(dead_queue(queue), QueueKind::Classic)
}

/// How long a message waits at `level`: between 0.75 and 1 times the level, for `fraction` in [0, 1).
///
/// A message never waits longer than its queue's own limit. So the message at the head never delays the ones behind
/// it beyond the level.
pub fn jittered(level: Duration, fraction: f64) -> Duration {
    let jittered = level.mul_f64(0.75 + 0.25 * fraction.clamp(0.0, 1.0));
    jittered.max(Duration::from_millis(1)).min(level)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn settings(backoff_ms: u64, max_ms: u64) -> RetrySettings {
        RetrySettings {
            backoff: Duration::from_millis(backoff_ms),
            backoff_max: Duration::from_millis(max_ms),
            ..RetrySettings::default()
        }
    }

    fn millis(levels: &Levels) -> Vec<u128> {
        levels.iter().map(|level| level.as_millis()).collect()
    }

    #[test]
    fn levels_double_up_to_the_last() {
        assert_eq!(
            millis(&Levels::new(&settings(1000, 5000))),
            [1000, 2000, 4000, 5000]
        );
        assert_eq!(
            millis(&Levels::new(&settings(1000, 4000))),
            [1000, 2000, 4000]
        );
        assert_eq!(millis(&Levels::new(&settings(700, 700))), [700]);
    }

    #[test]
    fn each_failure_waits_at_the_next_level_and_a_requested_delay_is_rounded_up() {
        let levels = Levels::new(&settings(1000, 5000));
        let after: Vec<_> = (0..7).map(|n| levels.after(n).as_secs()).collect();
        assert_eq!(after, [1, 1, 2, 4, 5, 5, 5]);
        let wishes: Vec<_> = [0, 1, 3, 4, 5, 3600]
            .map(|s| levels.for_delay(Duration::from_secs(s)).as_secs())
            .to_vec();
        assert_eq!(wishes, [1, 1, 4, 4, 5, 5]);
    }

    proptest! {
        #[test]
        fn jitter_stays_between_three_quarters_and_the_whole(ms in 4u64..10_000_000, fraction in 0.0f64..1.0) {
            let level = Duration::from_millis(ms);
            let jittered = jittered(level, fraction);
            prop_assert!(jittered <= level && jittered >= level.mul_f64(0.74));
        }
    }
}
