//! A limit on how often one kind of warning is logged.
//!
//! A kind of warning or error is one place in the code and one pool. The first [`PER_SECOND`] lines of a kind in a
//! second are logged. The rest of that second are counted, and one line has their number. So a pool whose jobs all fail
//! cannot fill a disk, but at a rate that people can read every failure is logged.

use std::{
    collections::HashMap,
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tracing::{Event, callsite::Identifier, field};

/// Lines of one kind that are logged per second.
pub(super) const PER_SECOND: u32 = 50;

/// Length of a counting window.
const WINDOW: Duration = Duration::from_secs(1);

/// The target of the line that reports lines left out. No filter hides it.
pub(super) const TARGET: &str = "tidegate::log::rate";

/// Admits the first events of each kind in a window, and reports how many were left out.
#[derive(Debug, Default)]
pub(super) struct LogRates {
    /// Written by every thread that logs, and by the thread that reports lines left out.
    windows: Mutex<Windows>,
    /// Notified when a line was left out that is not reported yet.
    changed: Condvar,
    left_out: AtomicU64,
}

impl LogRates {
    /// Whether an event is logged.
    pub(super) fn admits(&self, event: &Event<'_>) -> bool {
        let mut fields = EventFields::default();
        event.record(&mut fields);
        let kind = WarningKind {
            callsite: event.metadata().callsite(),
            pool: fields.pool,
        };
        let is_admitted = self.lock().admit(kind, &fields.message, Instant::now());
        if !is_admitted {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            self.changed.notify_one();
        }
        is_admitted
    }

    /// Reports, after each window, the lines left out in it. Never returns.
    pub(super) fn serve(&self) {
        let mut windows = self.lock();
        loop {
            let now = Instant::now();
            let due = windows.due(now, false);
            if !due.is_empty() {
                // The report is logged, which locks the windows again.
                drop(windows);
                due.iter().for_each(LeftOut::tell);
                windows = self.lock();
                continue;
            }
            windows = match windows.next_due() {
                None => {
                    let woken = self.changed.wait(windows);
                    woken.unwrap_or_else(PoisonError::into_inner)
                }
                Some(next) => {
                    let pause = next.saturating_duration_since(now);
                    let woken = self.changed.wait_timeout(windows, pause);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Reports all lines left out that are not reported yet. For the end of the process.
    pub(super) fn finish(&self) {
        let due = self.lock().due(Instant::now(), true);
        due.iter().for_each(LeftOut::tell);
    }

    /// Lines that were left out since the start.
    pub(super) fn left_out(&self) -> u64 {
        self.left_out.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Windows> {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Events of one kind are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct WarningKind {
    callsite: Identifier,
    /// Empty if the event has no pool.
    pool: String,
}

/// Counts of the current windows, by kind. Bounded, because windows that are over are removed.
#[derive(Debug, Default)]
struct Windows {
    windows: HashMap<WarningKind, LogWindow>,
    /// Counts of windows that are over.
    left_out: Vec<LeftOut>,
}

#[derive(Debug)]
struct LogWindow {
    began: Instant,
    logged: u32,
    left_out: u64,
    /// The message of the first event left out.
    like: String,
}

/// The number of events left out.
#[derive(Debug, PartialEq, Eq)]
struct LeftOut {
    pool: String,
    like: String,
    lines: u64,
}

impl Windows {
    fn admit(&mut self, kind: WarningKind, message: &str, now: Instant) -> bool {
        if let Some(window) = self.windows.get_mut(&kind)
            && now.saturating_duration_since(window.began) < WINDOW
        {
            if window.logged < PER_SECOND {
                window.logged += 1;
                return true;
            }
            if window.left_out == 0 {
                window.like = message.to_owned();
            }
            window.left_out += 1;
            return false;
        }
        let new = LogWindow {
            began: now,
            logged: 1,
            left_out: 0,
            like: String::new(),
        };
        if let Some(over) = self.windows.insert(kind.clone(), new) {
            self.left_out.extend(over.left_out(&kind));
        }
        true
    }

    /// The reports that are due now; at the end, all of them.
    fn due(&mut self, now: Instant, is_end: bool) -> Vec<LeftOut> {
        let over = |_: &WarningKind, window: &mut LogWindow| {
            is_end || now.saturating_duration_since(window.began) >= WINDOW
        };
        let mut due = std::mem::take(&mut self.left_out);
        for (kind, window) in self.windows.extract_if(over) {
            due.extend(window.left_out(&kind));
        }
        due
    }

    /// When the next window with omitted lines ends.
    fn next_due(&self) -> Option<Instant> {
        let windows = self.windows.values();
        let telling = windows.filter(|window| window.left_out > 0);
        telling.map(|window| window.began + WINDOW).min()
    }
}

impl LogWindow {
    fn left_out(self, kind: &WarningKind) -> Option<LeftOut> {
        (self.left_out > 0).then(|| LeftOut {
            pool: kind.pool.clone(),
            like: self.like,
            lines: self.left_out,
        })
    }
}

impl LeftOut {
    fn tell(&self) {
        let pool = Some(self.pool.as_str()).filter(|pool| !pool.is_empty());
        tracing::warn!(
            target: TARGET,
            pool = pool.map(field::display),
            like = self.like,
            lines = self.lines,
            "more lines like this were omitted within a second"
        );
    }
}

/// The needed fields of an event.
#[derive(Debug, Default)]
struct EventFields {
    pool: String,
    message: String,
}

impl field::Visit for EventFields {
    fn record_debug(&mut self, field: &field::Field, value: &dyn std::fmt::Debug) {
        match field.name() {
            "pool" => self.pool = format!("{value:?}"),
            "message" => self.message = format!("{value:?}"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing::{Callsite, Metadata, subscriber::Interest};

    use super::*;

    struct TestCallsite;

    impl Callsite for TestCallsite {
        fn set_interest(&self, _: Interest) {}

        fn metadata(&self) -> &Metadata<'_> {
            unreachable!("nobody asks")
        }
    }

    fn kind(pool: &str) -> WarningKind {
        static TEST_CALLSITE: TestCallsite = TestCallsite;
        WarningKind {
            callsite: Identifier(&TEST_CALLSITE),
            pool: pool.to_owned(),
        }
    }

    #[test]
    fn logs_the_first_of_a_second_and_counts_the_rest_by_pool() {
        let start = Instant::now();
        let mut windows = Windows::default();
        let logged = |windows: &mut Windows, pool: &str, events: u32, now| {
            let admitted = (0..events).filter(|_| windows.admit(kind(pool), "job failed", now));
            u32::try_from(admitted.count()).unwrap()
        };
        assert_eq!(logged(&mut windows, "a", 1400, start), PER_SECOND);
        assert_eq!(logged(&mut windows, "b", 10, start), 10);
        assert_eq!(windows.next_due(), Some(start + WINDOW));
        assert_eq!(windows.due(start + WINDOW / 2, false), []);
        let more = |lines| LeftOut {
            pool: "a".to_owned(),
            like: "job failed".to_owned(),
            lines,
        };
        let rest = u64::from(1400 - PER_SECOND);
        assert_eq!(windows.due(start + WINDOW, false), [more(rest)]);
        assert!(windows.windows.is_empty());
        assert_eq!(windows.next_due(), None);

        // A new window begins even if the one before is not reported yet.
        assert_eq!(logged(&mut windows, "a", 60, start), PER_SECOND);
        assert_eq!(logged(&mut windows, "a", 51, start + WINDOW), PER_SECOND);
        assert_eq!(windows.due(start + WINDOW, false), [more(10)]);
        assert_eq!(windows.due(start + WINDOW, true), [more(1)]);
    }

    #[test]
    fn at_a_rate_that_people_can_read_every_line_is_logged() {
        let start = Instant::now();
        let mut windows = Windows::default();
        for n in 0..1000 {
            let now = start + WINDOW / PER_SECOND * n;
            assert!(windows.admit(kind("a"), "job failed", now), "{n}");
        }
        assert_eq!(windows.due(start, true), []);
    }
}
