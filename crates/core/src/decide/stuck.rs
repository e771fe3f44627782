//! Stuck: a pool has work to do and cannot get it.

use std::time::Duration;

use super::{ConsumerRefusal, Moment, RefusalKind};
use crate::text::{counted, form_for};

/// How long a temporary problem must last before the pool counts as stuck.
pub const STUCK_AFTER: Duration = Duration::from_secs(30);

/// The facts of a reconcile that show whether a pool is stuck.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StuckInputs<'a> {
    /// The time of the reconcile.
    pub at: Moment,
    /// Whether the pool may take messages: it is not paused, faulted, blocked or draining, and the broker is connected.
    pub open: bool,
    /// The expected number of workers.
    pub expected: u32,
    /// The reading of the queue.
    pub depth: Depth<'a>,
    /// Why consumers cannot be opened.
    pub refusal: Option<&'a ConsumerRefusal>,
    /// Our consumers that the broker had confirmed before the probe.
    pub consumers: u32,
    /// Programs of ours that consume the queue themselves and have been up for a while.
    pub programs: u32,
    /// Workers that have a job, including those that were told to leave.
    pub busy: u32,
    /// When the last delivery was taken.
    pub last_taken: Option<Moment>,
}

/// The result of a reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth<'a> {
    /// No probe was made for this reconcile.
    Skipped,
    /// The broker answered.
    Read {
        /// Messages ready.
        ready: u64,
        /// Consumers of the queue, ours and others.
        consumers: u32,
    },
    /// The queue does not exist. This is reported separately.
    Missing,
    /// The queue could not be read.
    Unread {
        /// The cause.
        why: &'a str,
        /// Whether an operator must change something.
        permanent: bool,
    },
}

/// Watches for a pool that is stuck.
#[derive(Debug, Clone, Default)]
pub struct StuckWatch {
    stuck: Option<StuckSince>,
}

#[derive(Debug, Clone)]
struct StuckSince {
    kind: StuckKind,
    since: Moment,
    permanent: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum StuckKind {
    /// The depth of the queue is unknown.
    Unread { why: String },
    /// No consumer can be opened.
    Refused { why: String },
    /// Programs are up, and none of them consumes the queue.
    Unconsumed { ready: u64, programs: u32 },
    /// Consumers are open but receive nothing.
    Starved {
        ready: u64,
        ours: u32,
        /// The consumers that the broker counts.
        all: u32,
    },
}

impl StuckWatch {
    /// Takes the facts of a reconcile, and returns why the pool is stuck, if it is.
    pub fn check(&mut self, inputs: &StuckInputs<'_>) -> Option<String> {
        let found = Self::find(inputs);
        let before = self.stuck.take();
        self.stuck = match (found, before) {
            (StuckFinding::NotStuck, _) => None,
            (StuckFinding::NotProbed, before) => before.filter(|stuck| stuck.still_holds(inputs)),
            (StuckFinding::Stuck { kind, permanent }, before) => {
                let before = before
                    .filter(|before| before.kind.is_same(&kind) && before.still_holds(inputs));
                Some(StuckSince {
                    kind,
                    since: before.map_or(inputs.at, |before| before.since),
                    permanent,
                })
            }
        };
        let stuck = self.stuck.as_ref()?;
        let lasted = inputs.at.since(stuck.since);
        (stuck.permanent || lasted >= STUCK_AFTER).then(|| stuck.kind.cause(lasted))
    }

    /// The start of the problem that [`check`](Self::check) found last.
    pub fn since(&self) -> Option<Moment> {
        self.stuck.as_ref().map(|stuck| stuck.since)
    }

    fn find(inputs: &StuckInputs<'_>) -> StuckFinding {
        if !inputs.open {
            return StuckFinding::NotStuck;
        }
        if let Depth::Unread { why, permanent } = inputs.depth {
            let why = why.to_owned();
            return StuckFinding::Stuck {
                kind: StuckKind::Unread { why },
                permanent,
            };
        }
        if inputs.expected == 0 || inputs.depth == Depth::Missing {
            return StuckFinding::NotStuck;
        }
        if let Some(ConsumerRefusal { kind, why }) = inputs.refusal
            && inputs.consumers == 0
            && inputs.busy == 0
        {
            return StuckFinding::Stuck {
                kind: StuckKind::Refused { why: why.clone() },
                permanent: *kind == RefusalKind::Permanent,
            };
        }
        match inputs.depth {
            Depth::Read {
                ready: ready @ 1..,
                consumers: 0,
            } if inputs.programs > 0 => StuckFinding::Stuck {
                kind: StuckKind::Unconsumed {
                    ready,
                    programs: inputs.programs,
                },
                permanent: false,
            },
            Depth::Read { ready, consumers } if ready > 0 && inputs.consumers > 0 => {
                match inputs.busy {
                    0 => StuckFinding::Stuck {
                        kind: StuckKind::Starved {
                            ready,
                            ours: inputs.consumers,
                            all: consumers,
                        },
                        permanent: false,
                    },
                    _ => StuckFinding::NotStuck,
                }
            }
            Depth::Skipped => StuckFinding::NotProbed,
            _ => StuckFinding::NotStuck,
        }
    }
}

/// The finding of one reconcile.
enum StuckFinding {
    NotStuck,
    /// The queue was not probed. The earlier finding stays, unless the other facts end it.
    NotProbed,
    Stuck {
        kind: StuckKind,
        permanent: bool,
    },
}

impl StuckSince {
    fn still_holds(&self, inputs: &StuckInputs<'_>) -> bool {
        match self.kind {
            StuckKind::Unread { .. } => true,
            StuckKind::Refused { .. } => inputs.refusal.is_some(),
            StuckKind::Unconsumed { .. } => inputs.programs > 0,
            StuckKind::Starved { .. } => {
                inputs.busy == 0 && inputs.last_taken.is_none_or(|taken| taken <= self.since)
            }
        }
    }
}

impl StuckKind {
    fn is_same(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }

    fn cause(&self, lasted: Duration) -> String {
        match self {
            Self::Unread { why } => format!("the queue's depth cannot be read: {why}"),
            Self::Refused { why } => format!("no consumer can be opened: {why}"),
            Self::Unconsumed { ready, programs } => format!(
                "nobody consumes: {} {} ready, {} {} up, and the broker counts no consumer of the queue; check that they \
                 consume this queue, on this broker and vhost",
                counted(*ready, "message"),
                form_for(*ready, "is", "are"),
                counted(*programs, "program"),
                form_for(*programs, "is", "are"),
            ),
            Self::Starved { ready, ours, all } => {
                let ours = match ours {
                    1 => String::from("our consumer"),
                    more => format!("our {more} consumers"),
                };
                let seconds = lasted.as_secs();
                let others = match all.saturating_sub(self.ours()) {
                    0 => String::from(
                        "another program may be the queue's single active consumer (in RabbitMQ 4, that is the consumer \
                         with the highest priority), or the broker delivers nothing (no leader, a disk or memory alarm)",
                    ),
                    n => format!(
                        "others consume it too ({n}): one of them may be its single active consumer, or have a higher \
                         priority"
                    ),
                };
                format!(
                    "nothing is delivered: {} {} ready, {ours} got nothing for {seconds}s; {others}",
                    counted(*ready, "message"),
                    form_for(*ready, "is", "are"),
                )
            }
        }
    }

    fn ours(&self) -> u32 {
        match self {
            Self::Starved { ours, .. } => *ours,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::after_start(Duration::from_secs(seconds))
    }

    /// A pool whose five consumers wait while twelve messages are ready.
    fn starved(seconds: u64) -> StuckInputs<'static> {
        StuckInputs {
            at: at(seconds),
            open: true,
            expected: 5,
            depth: Depth::Read {
                ready: 12,
                consumers: 5,
            },
            refusal: None,
            consumers: 5,
            programs: 0,
            busy: 0,
            last_taken: None,
        }
    }

    #[test]
    fn programs_that_do_not_consume_the_queue_are_stuck_after_the_stated_time() {
        let mut watch = StuckWatch::default();
        let scene = |seconds, consumers| StuckInputs {
            depth: Depth::Read {
                ready: 12,
                consumers,
            },
            consumers: 0,
            programs: 2,
            ..starved(seconds)
        };
        assert_eq!(watch.check(&scene(100, 0)), None);
        let cause = watch.check(&scene(130, 0)).unwrap();
        assert!(cause.contains("12 messages"), "{cause}");
        assert!(cause.contains("2 programs are up"), "{cause}");
        assert_eq!(watch.check(&scene(131, 1)), None);
    }

    #[test]
    fn consumers_that_get_nothing_are_stuck_after_the_stated_time() {
        let mut watch = StuckWatch::default();
        assert_eq!(watch.check(&starved(100)), None);
        assert_eq!(watch.check(&starved(129)), None);
        let cause = watch.check(&starved(130)).unwrap();
        assert!(cause.contains("12 messages"), "{cause}");
        assert!(cause.contains("our 5 consumers got nothing"), "{cause}");
        assert!(cause.contains("single active consumer"), "{cause}");
        // The pool also stays stuck in a reconcile without a probe of the queue.
        let held = StuckInputs {
            depth: Depth::Skipped,
            ..starved(131)
        };
        assert!(watch.check(&held).is_some());
        // The first delivery ends it.
        let given = StuckInputs {
            last_taken: Some(at(131)),
            ..held
        };
        assert_eq!(watch.check(&given), None);
    }

    #[test]
    fn a_pool_that_is_closed_busy_or_without_work_is_not_stuck() {
        let working = [
            StuckInputs {
                open: false,
                ..starved(50)
            },
            StuckInputs {
                expected: 0,
                ..starved(50)
            },
            StuckInputs {
                busy: 1,
                ..starved(50)
            },
            StuckInputs {
                consumers: 0,
                ..starved(50)
            },
            StuckInputs {
                last_taken: Some(at(50)),
                ..starved(50)
            },
            StuckInputs {
                depth: Depth::Read {
                    ready: 0,
                    consumers: 5,
                },
                ..starved(50)
            },
            StuckInputs {
                depth: Depth::Missing,
                ..starved(50)
            },
        ];
        for inputs in working {
            let mut watch = StuckWatch::default();
            // Such a pool is never stuck.
            for seconds in 0..100 {
                let taken = inputs.last_taken.map(|_| at(seconds));
                let inputs = StuckInputs {
                    at: at(seconds),
                    last_taken: taken,
                    ..inputs
                };
                assert_eq!(watch.check(&inputs), None, "{inputs:?}");
            }
            // One such reconcile starts the time again.
            let mut watch = StuckWatch::default();
            for seconds in 0..80 {
                let inputs = match seconds {
                    50 => inputs,
                    _ => starved(seconds),
                };
                let stuck = watch.check(&inputs);
                let expected = (30..50).contains(&seconds);
                assert_eq!(stuck.is_some(), expected, "{seconds}: {inputs:?}");
            }
        }
    }

    #[test]
    fn a_permanent_refusal_is_stuck_at_once_and_a_temporary_one_after_a_while() {
        let refusal = |kind| ConsumerRefusal {
            kind,
            why: String::from("no permission"),
        };
        for (kind, time_limit) in [
            (RefusalKind::Permanent, 0),
            (RefusalKind::Temporary, 30),
            (RefusalKind::Full, 30),
        ] {
            let refusal = refusal(kind);
            let mut watch = StuckWatch::default();
            for seconds in 0..40 {
                let inputs = StuckInputs {
                    refusal: Some(&refusal),
                    consumers: 0,
                    ..starved(seconds)
                };
                let stuck = watch.check(&inputs);
                assert_eq!(stuck.is_some(), seconds >= time_limit, "{kind:?} {seconds}");
                assert!(stuck.is_none_or(|cause| cause.contains("no permission")));
            }
            // Some of the consumers are open and work.
            let inputs = StuckInputs {
                refusal: Some(&refusal),
                busy: 5,
                ..starved(40)
            };
            assert_eq!(watch.check(&inputs), None, "{kind:?}");
        }
    }

    #[test]
    fn a_depth_that_cannot_be_read_is_stuck_at_once_if_the_error_is_permanent() {
        for (permanent, time_limit) in [(true, 0), (false, 30)] {
            let mut watch = StuckWatch::default();
            for seconds in 0..40 {
                let inputs = StuckInputs {
                    depth: Depth::Unread {
                        why: "locked",
                        permanent,
                    },
                    expected: 0,
                    consumers: 0,
                    ..starved(seconds)
                };
                let stuck = watch.check(&inputs);
                assert_eq!(
                    stuck.is_some(),
                    seconds >= time_limit,
                    "{permanent} {seconds}"
                );
            }
        }
    }

    #[test]
    fn other_consumers_are_mentioned_if_the_broker_counts_them() {
        let mut watch = StuckWatch::default();
        let inputs = |seconds| StuckInputs {
            depth: Depth::Read {
                ready: 1,
                consumers: 3,
            },
            consumers: 1,
            ..starved(seconds)
        };
        assert_eq!(watch.check(&inputs(0)), None);
        let cause = watch.check(&inputs(42)).unwrap();
        assert!(
            cause.contains("our consumer got nothing for 42s"),
            "{cause}"
        );
        assert!(cause.contains("others consume it too (2)"), "{cause}");
    }
}
