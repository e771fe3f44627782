//! Programs that consume the queue themselves: what they hold, and when those that ended by themselves are replaced.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Moment, fault_pause};
use crate::text::duration;

/// A program that has been up for this long works. One that ends by itself earlier has failed to start.
pub const STEADY_AFTER: Duration = Duration::from_secs(10);
/// The same for a program that says that all is well (exit code 0): a limit on its messages may end it soon.
const DONE_AFTER: Duration = Duration::from_secs(1);
/// Programs in a row that ended early, at which the pool is faulted, unless others of its programs work.
const CRASH_LOOP: u32 = 3;

/// How it is known what consumers hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeldBy {
    /// The pool's own workers consume, and count.
    #[default]
    Workers,
    /// Programs consume. The management API counts all unacknowledged messages of the queue.
    Counted {
        /// Whether it shows which of our programs hold some.
        located: bool,
    },
    /// Programs consume, and nobody counts: see [`assumed_held`].
    Assumed {
        /// Why the management API does not count, if it should.
        why: Option<String>,
    },
}

impl HeldBy {
    /// Whether it is the pool's own workers.
    pub fn is_workers(&self) -> bool {
        *self == Self::Workers
    }

    /// The meaning of the number, for people. `None` if it needs no explanation.
    pub fn meaning(&self, holders: u32) -> Option<String> {
        match self {
            Self::Workers => None,
            Self::Counted { located: true } => Some(format!(
                "unacknowledged, by the management API; {holders} of our programs hold some"
            )),
            Self::Counted { located: false } => Some(String::from(
                "unacknowledged, by the management API, which does not show which program holds them",
            )),
            Self::Assumed { why: None } => Some(String::from(
                "assumed: one for each consumer while messages are ready, none otherwise; broker.management_url counts them",
            )),
            Self::Assumed { why: Some(why) } => Some(format!(
                "assumed: one for each consumer while messages are ready, none otherwise; the management API: {why}"
            )),
        }
    }
}

/// What `programs` programs hold where nobody counts it. While messages are ready, each consumer that the broker counts has
/// as many as it takes, so at least one. With none ready, a consumer may hold any number or none: none is assumed, and a
/// program that is told to stop finishes what it holds.
pub fn assumed_held(ready: u64, consumers: u32, programs: u32) -> u32 {
    match ready {
        0 => 0,
        _ => consumers.min(programs),
    }
}

/// The end of a program that nobody told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProgramStop<'a> {
    /// How long it was up. Zero if it could not be started.
    pub ran: Duration,
    /// Whether its exit code was 0.
    pub is_well: bool,
    /// How it ended, in words.
    pub how: &'a str,
}

/// When programs that ended by themselves are replaced: at once if they had worked, otherwise with growing pauses.
#[derive(Debug, Clone, Default)]
pub struct Replacements {
    /// Programs in a row that ended early. Those of one burst count once.
    early: u32,
    until: Moment,
    cause: Option<String>,
}

impl Replacements {
    /// A program ended by itself, while `steady` others had been up for [`STEADY_AFTER`]. Returns the cause of the fault
    /// that this is, if it is one.
    #[must_use = "a crash loop is a fault of the pool"]
    pub fn ended(&mut self, now: Moment, stop: ProgramStop<'_>, steady: u32) -> Option<&str> {
        let needed = match stop.is_well {
            true => DONE_AFTER,
            false => STEADY_AFTER,
        };
        if stop.ran >= needed {
            self.worked();
            return None;
        }
        let is_same_burst = self.early > 0 && now < self.until;
        if !is_same_burst {
            self.early = self.early.saturating_add(1);
            self.until = now + fault_pause(self.early);
        }
        let after = match stop.ran {
            Duration::ZERO => String::new(),
            ran => format!(", {} after its start", duration(rounded(ran))),
        };
        self.cause = Some(format!("{}{after}", stop.how));
        self.cause
            .as_deref()
            .filter(|_| self.early >= CRASH_LOOP && steady == 0)
    }

    /// A program has worked: it has been up for [`STEADY_AFTER`], or ended well.
    pub fn worked(&mut self) {
        *self = Self::default();
    }

    /// Ends the pause, because the cause may have been fixed.
    pub fn try_now(&mut self, now: Moment) {
        self.until = now;
        self.early = 0;
    }

    /// How many of the `wanted` programs may be started now. `young`: others are up, but not for [`STEADY_AFTER`] yet.
    pub fn most(&self, now: Moment, wanted: u32, young: bool) -> u32 {
        match self.early {
            0 => wanted,
            _ if young || now < self.until => 0,
            // One at a time until one works.
            _ => wanted.min(1),
        }
    }

    /// Why programs are replaced with a pause, while they are.
    pub fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }
}

/// A duration for people: milliseconds matter below a second only.
fn rounded(ran: Duration) -> Duration {
    match ran.as_secs() {
        0 => Duration::from_millis(u64::try_from(ran.as_millis()).unwrap_or(u64::MAX).max(1)),
        seconds => Duration::from_secs(seconds),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Moment {
        Moment::after_start(Duration::from_millis(ms))
    }

    fn crash(ms: u64) -> ProgramStop<'static> {
        ProgramStop {
            ran: Duration::from_millis(ms),
            is_well: false,
            how: "exit code 1",
        }
    }

    #[test]
    fn programs_that_end_early_three_times_in_a_row_are_a_fault() {
        let mut replacements = Replacements::default();
        assert_eq!(replacements.most(at(0), 7, true), 7);
        // A burst of seven counts once.
        for _ in 0..7 {
            assert_eq!(replacements.ended(at(0), crash(40), 0), None);
        }
        assert_eq!(replacements.most(at(999), 7, false), 0);
        assert_eq!(replacements.most(at(1000), 7, false), 1);
        assert_eq!(replacements.most(at(1000), 7, true), 0, "one at a time");
        assert_eq!(replacements.ended(at(1000), crash(40), 0), None);
        assert_eq!(replacements.most(at(2999), 7, false), 0);
        assert_eq!(
            replacements.ended(at(3000), crash(40), 0),
            Some("exit code 1, 40ms after its start")
        );
        replacements.worked();
        assert_eq!(replacements.most(at(3000), 7, false), 7);
        assert_eq!(replacements.cause(), None);
    }

    #[test]
    fn while_others_work_a_crash_loop_only_grows_its_pauses() {
        let mut replacements = Replacements::default();
        let mut now = 0;
        for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(replacements.ended(at(now), crash(2000), 3), None);
            now += pause * 1000;
            assert_eq!(replacements.most(at(now - 1), 1, false), 0, "{pause}");
            assert_eq!(replacements.most(at(now), 1, false), 1, "{pause}");
        }
        assert_eq!(
            replacements.cause(),
            Some("exit code 1, 2s after its start")
        );
    }

    #[test]
    fn a_program_that_has_worked_is_replaced_at_once() {
        for (ran, is_well, is_early) in [
            (9_999, false, true),
            (10_000, false, false),
            (999, true, true),
            (1_000, true, false),
        ] {
            let mut replacements = Replacements::default();
            let stop = ProgramStop {
                is_well,
                ..crash(ran)
            };
            assert_eq!(replacements.ended(at(0), stop, 0), None);
            let most = if is_early { 0 } else { 4 };
            assert_eq!(replacements.most(at(0), 4, false), most, "{ran} {is_well}");
        }
    }

    proptest! {
        #[test]
        fn consumers_are_assumed_to_hold_at_most_one_each(ready: u64, consumers: u32, programs: u32) {
            let held = assumed_held(ready, consumers, programs);
            prop_assert!(held <= consumers && held <= programs);
            prop_assert!(ready > 0 || held == 0);
        }
    }
}
