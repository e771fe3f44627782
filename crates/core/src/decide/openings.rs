//! Opening consumers: when to try again after a failure, and why the failure happened.

use std::time::Duration;

use super::Moment;

/// First pause after a consumer could not be opened.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Longest pause after a failure that may pass by itself.
const TEMPORARY_MAX_PAUSE: Duration = Duration::from_secs(5);
/// Longest pause after a failure that an operator must fix. Each attempt writes a line to the broker's log.
const PERMANENT_MAX_PAUSE: Duration = Duration::from_secs(30);

/// The kind of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// It may pass by itself.
    Temporary,
    /// An operator must change something: a permission, or the queue.
    Permanent,
    /// The broker grants no more consumers. The open ones continue.
    Full,
}

/// Why consumers cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerRefusal {
    /// The kind of the failure.
    pub kind: RefusalKind,
    /// The cause in one line, without credentials.
    pub why: String,
}

/// The failures of a pool's consumers to open.
#[derive(Debug, Clone, Default)]
pub struct Openings {
    /// Failures since the last success. The failures of one burst count once.
    failures: u32,
    until: Moment,
    refusal: Option<ConsumerRefusal>,
}

impl Openings {
    /// A consumer could not be opened.
    pub fn failed(&mut self, now: Moment, refusal: ConsumerRefusal) {
        let is_same_burst = self.failures > 0 && now < self.until;
        if !is_same_burst {
            let longest = match refusal.kind {
                RefusalKind::Temporary | RefusalKind::Full => TEMPORARY_MAX_PAUSE,
                RefusalKind::Permanent => PERMANENT_MAX_PAUSE,
            };
            let pause = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(self.failures));
            self.until = now + pause.min(longest);
            self.failures = self.failures.saturating_add(1);
        }
        self.refusal = Some(refusal);
    }

    /// A consumer was opened.
    pub fn opened(&mut self) {
        self.failures = 0;
        // An open consumer does not prove that another one may be opened.
        self.refusal
            .take_if(|known| known.kind != RefusalKind::Full);
    }

    /// There are as many consumers as wanted.
    pub fn satisfied(&mut self) {
        *self = Self::default();
    }

    /// How many of the `wanted` consumers may be opened at once. `opening` says whether others are being opened.
    pub fn may_open(&self, now: Moment, wanted: u32, opening: bool) -> u32 {
        match self.failures {
            0 => wanted,
            _ if opening || now < self.until => 0,
            // One at a time until one opens.
            _ => wanted.min(1),
        }
    }

    /// Whether the last attempt failed.
    pub fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// Why some of the wanted consumers are not open.
    pub fn refusal(&self) -> Option<&ConsumerRefusal> {
        self.refusal.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment::after_start(Duration::from_millis(ms))
    }

    fn refusal(kind: RefusalKind) -> ConsumerRefusal {
        ConsumerRefusal {
            kind,
            why: String::from("because"),
        }
    }

    #[test]
    fn pauses_grow_up_to_a_limit_for_each_kind_of_failure() {
        for (kind, pauses) in [
            (
                RefusalKind::Temporary,
                [500, 1000, 2000, 4000, 5000, 5000, 5000, 5000],
            ),
            (
                RefusalKind::Full,
                [500, 1000, 2000, 4000, 5000, 5000, 5000, 5000],
            ),
            (
                RefusalKind::Permanent,
                [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000],
            ),
        ] {
            let mut openings = Openings::default();
            let mut now = 0;
            assert_eq!(openings.may_open(at(now), 7, true), 7);
            for pause in pauses {
                openings.failed(at(now), refusal(kind));
                // Others of the same burst.
                openings.failed(at(now), refusal(kind));
                openings.failed(at(now + 1), refusal(kind));
                assert_eq!(
                    openings.may_open(at(now + pause - 1), 7, false),
                    0,
                    "{kind:?}"
                );
                now += pause;
                assert_eq!(openings.may_open(at(now), 7, false), 1, "{kind:?}");
                assert_eq!(openings.may_open(at(now), 7, true), 0);
            }
            openings.opened();
            assert_eq!(openings.may_open(at(now), 7, false), 7);
        }
    }

    #[test]
    fn an_open_consumer_ends_a_failure_but_not_a_limit() {
        for (kind, is_known) in [
            (RefusalKind::Temporary, false),
            (RefusalKind::Permanent, false),
            (RefusalKind::Full, true),
        ] {
            let mut openings = Openings::default();
            openings.failed(at(0), refusal(kind));
            openings.opened();
            assert!(!openings.is_failing());
            assert_eq!(openings.refusal().is_some(), is_known, "{kind:?}");
            openings.satisfied();
            assert_eq!(openings.refusal(), None);
        }
    }
}
