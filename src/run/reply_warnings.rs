//! Warnings about replies that were not sent: each cause is logged at most once a minute.

use std::{
    num::NonZeroU64,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::settle::ReplyRefusal;

/// Time between two log lines about replies that were not sent for the same cause.
const BETWEEN_WARNINGS: Duration = Duration::from_secs(60);

/// When each warning was last logged. Written and read by workers.
#[derive(Debug, Default)]
pub(crate) struct ReplyWarnings {
    pub(super) refused: [Mutex<ReplyWarning>; ReplyRefusal::ALL.len()],
    pub(super) too_large: Mutex<ReplyWarning>,
    pub(super) undeliverable: Mutex<ReplyWarning>,
}

/// Log lines about one cause that were left out since the last one, if any.
pub(super) type Suppressed = Option<NonZeroU64>;

/// One cause.
#[derive(Debug, Default)]
pub(super) struct ReplyWarning {
    last: Option<Instant>,
    suppressed: u64,
}

impl ReplyWarning {
    /// Whether to log it now. If so, also how often it was left out.
    fn is_due(&mut self, now: Instant) -> Option<Suppressed> {
        let is_due = self
            .last
            .is_none_or(|last| now.duration_since(last) >= BETWEEN_WARNINGS);
        if !is_due {
            self.suppressed += 1;
            return None;
        }
        self.last = Some(now);
        Some(NonZeroU64::new(std::mem::take(&mut self.suppressed)))
    }
}

pub(super) fn is_due(reply_warning: &Mutex<ReplyWarning>) -> Option<Suppressed> {
    reply_warning
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .is_due(Instant::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_cause_is_logged_once_a_minute_with_the_number_of_suppressed_lines() {
        let reply_warning = Mutex::new(ReplyWarning::default());
        assert_eq!(is_due(&reply_warning), Some(None));
        for _ in 0..3 {
            assert_eq!(is_due(&reply_warning), None);
        }
        tokio::time::advance(BETWEEN_WARNINGS).await;
        assert_eq!(is_due(&reply_warning), Some(NonZeroU64::new(3)));
        assert_eq!(is_due(&reply_warning), None);
    }
}
