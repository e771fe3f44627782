//! Stuck: a pool has work to do and cannot get it.

use std::time::Duration;

use super::{ConsumerRefusal, Moment, RefusalKind};

/// How long a problem that may pass is watched before the pool counts as stuck.
pub const STUCK_AFTER: Duration = Duration::from_secs(30);

/// The facts of a reconcile that show whether a pool is stuck.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StuckInputs<'a> {
    /// When.
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
    /// Workers that have a job, including those that were told to go.
    pub busy: u32,
    /// When the last delivery was taken.
    pub last_taken: Option<Moment>,
}

/// The result of a reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth<'a> {
    /// No probe was made for this reconcile.
    Held,
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
        lasting: bool,
    },
}

/// Watches for a pool that is stuck.
#[derive(Debug, Clone, Default)]
pub struct StuckWatch {
    trouble: Option<StuckSince>,
}

#[derive(Debug, Clone)]
struct StuckSince {
    kind: StuckKind,
    since: Moment,
    lasting: bool,
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
    pub fn look(&mut self, scene: &StuckInputs<'_>) -> Option<String> {
        let found = Self::find(scene);
        let before = self.trouble.take();
        self.trouble = match (found, before) {
            (Found::Nothing, _) => None,
            (Found::Unasked, before) => before.filter(|trouble| trouble.still_is(scene)),
            (Found::StuckSince { kind, lasting }, before) => {
                let before =
                    before.filter(|before| before.kind.is_same(&kind) && before.still_is(scene));
                Some(StuckSince {
                    kind,
                    since: before.map_or(scene.at, |before| before.since),
                    lasting,
                })
            }
        };
        let trouble = self.trouble.as_ref()?;
        let lasted = scene.at.since(trouble.since);
        (trouble.lasting || lasted >= STUCK_AFTER).then(|| trouble.kind.cause(lasted))
    }

    /// Since when the pool has what [`look`](Self::look) found.
    pub fn since(&self) -> Option<Moment> {
        self.trouble.as_ref().map(|trouble| trouble.since)
    }

    fn find(scene: &StuckInputs<'_>) -> Found {
        if !scene.open {
            return Found::Nothing;
        }
        if let Depth::Unread { why, lasting } = scene.depth {
            let why = why.to_owned();
            return Found::StuckSince {
                kind: StuckKind::Unread { why },
                lasting,
            };
        }
        if scene.expected == 0 || scene.depth == Depth::Missing {
            return Found::Nothing;
        }
        if let Some(ConsumerRefusal { ground, why }) = scene.refusal
            && scene.consumers == 0
            && scene.busy == 0
        {
            return Found::StuckSince {
                kind: StuckKind::Refused { why: why.clone() },
                lasting: *ground == RefusalKind::Lasting,
            };
        }
        match scene.depth {
            Depth::Read {
                ready: ready @ 1..,
                consumers: 0,
            } if scene.programs > 0 => Found::StuckSince {
                kind: StuckKind::Unconsumed {
                    ready,
                    programs: scene.programs,
                },
                lasting: false,
            },
            Depth::Read { ready, consumers } if ready > 0 && scene.consumers > 0 => {
                match scene.busy {
                    0 => Found::StuckSince {
                        kind: StuckKind::Starved {
                            ready,
                            ours: scene.consumers,
                            all: consumers,
                        },
                        lasting: false,
                    },
                    _ => Found::Nothing,
                }
            }
            Depth::Held => Found::Unasked,
            _ => Found::Nothing,
        }
    }
}

enum Found {
    Nothing,
    /// The queue was not probed. The earlier finding stands unless the facts end it.
    Unasked,
    StuckSince {
        kind: StuckKind,
        lasting: bool,
    },
}

impl StuckSince {
    fn still_is(&self, scene: &StuckInputs<'_>) -> bool {
        match self.kind {
            StuckKind::Unread { .. } => true,
            StuckKind::Refused { .. } => scene.refusal.is_some(),
            StuckKind::Unconsumed { .. } => scene.programs > 0,
            StuckKind::Starved { .. } => {
                scene.busy == 0 && scene.last_taken.is_none_or(|taken| taken <= self.since)
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
                "nobody consumes: {ready} messages are ready, {programs} program{} up, and the broker counts no consumer \
                 of the queue; check that they consume this queue, on this broker and vhost",
                if *programs == 1 { " is" } else { "s are" }
            ),
            Self::Starved { ready, ours, all } => {
                let ours = match ours {
                    1 => String::from("our consumer"),
                    more => format!("our {more} consumers"),
                };
                let seconds = lasted.as_secs();
                let others = match all.saturating_sub(self.ours()) {
                    0 => String::from(
                        "another program may be the queue's single active consumer (RabbitMQ 4 makes the one of highest \
                         priority that), or the broker delivers nothing (no leader, a disk or memory alarm)",
                    ),
                    n => format!(
                        "others consume it too ({n}): one of them may be its single active consumer, or have a higher \
                         priority"
                    ),
                };
                format!(
                    "nothing is delivered: {ready} messages are ready, {ours} got nothing for {seconds}s; {others}"
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
        assert_eq!(watch.look(&scene(100, 0)), None);
        let cause = watch.look(&scene(130, 0)).unwrap();
        assert!(cause.contains("12 messages"), "{cause}");
        assert!(cause.contains("2 programs are up"), "{cause}");
        assert_eq!(watch.look(&scene(131, 1)), None);
    }

    #[test]
    fn consumers_that_get_nothing_are_stuck_after_the_stated_time() {
        let mut watch = StuckWatch::default();
        assert_eq!(watch.look(&starved(100)), None);
        assert_eq!(watch.look(&starved(129)), None);
        let cause = watch.look(&starved(130)).unwrap();
        assert!(cause.contains("12 messages"), "{cause}");
        assert!(cause.contains("our 5 consumers got nothing"), "{cause}");
        assert!(cause.contains("single active consumer"), "{cause}");
        // Also without a probe of the queue.
        let held = StuckInputs {
            depth: Depth::Held,
            ..starved(131)
        };
        assert!(watch.look(&held).is_some());
        // The first delivery ends it.
        let given = StuckInputs {
            last_taken: Some(at(131)),
            ..held
        };
        assert_eq!(watch.look(&given), None);
    }

    #[test]
    fn what_is_not_stuck() {
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
        for scene in working {
            let mut watch = StuckWatch::default();
            // The whole time.
            for seconds in 0..100 {
                let taken = scene.last_taken.map(|_| at(seconds));
                let scene = StuckInputs {
                    at: at(seconds),
                    last_taken: taken,
                    ..scene
                };
                assert_eq!(watch.look(&scene), None, "{scene:?}");
            }
            // One such reconcile starts the time again.
            let mut watch = StuckWatch::default();
            for seconds in 0..80 {
                let scene = match seconds {
                    50 => scene,
                    _ => starved(seconds),
                };
                let stuck = watch.look(&scene);
                let expected = (30..50).contains(&seconds);
                assert_eq!(stuck.is_some(), expected, "{seconds}: {scene:?}");
            }
        }
    }

    #[test]
    fn a_refusal_that_lasts_is_stuck_at_once_and_one_that_may_pass_later() {
        let refusal = |ground| ConsumerRefusal {
            ground,
            why: String::from("no permission"),
        };
        for (ground, patience) in [
            (RefusalKind::Lasting, 0),
            (RefusalKind::Passing, 30),
            (RefusalKind::Full, 30),
        ] {
            let refusal = refusal(ground);
            let mut watch = StuckWatch::default();
            for seconds in 0..40 {
                let scene = StuckInputs {
                    refusal: Some(&refusal),
                    consumers: 0,
                    ..starved(seconds)
                };
                let stuck = watch.look(&scene);
                assert_eq!(stuck.is_some(), seconds >= patience, "{ground:?} {seconds}");
                assert!(stuck.is_none_or(|cause| cause.contains("no permission")));
            }
            // Some of the consumers are open and work.
            let scene = StuckInputs {
                refusal: Some(&refusal),
                busy: 5,
                ..starved(40)
            };
            assert_eq!(watch.look(&scene), None, "{ground:?}");
        }
    }

    #[test]
    fn a_depth_that_cannot_be_read_is_stuck_by_what_kind_of_trouble_it_is() {
        for (lasting, patience) in [(true, 0), (false, 30)] {
            let mut watch = StuckWatch::default();
            for seconds in 0..40 {
                let scene = StuckInputs {
                    depth: Depth::Unread {
                        why: "locked",
                        lasting,
                    },
                    expected: 0,
                    consumers: 0,
                    ..starved(seconds)
                };
                let stuck = watch.look(&scene);
                assert_eq!(stuck.is_some(), seconds >= patience, "{lasting} {seconds}");
            }
        }
    }

    #[test]
    fn others_are_named_where_the_broker_counts_them() {
        let mut watch = StuckWatch::default();
        let scene = |seconds| StuckInputs {
            depth: Depth::Read {
                ready: 1,
                consumers: 3,
            },
            consumers: 1,
            ..starved(seconds)
        };
        assert_eq!(watch.look(&scene(0)), None);
        let cause = watch.look(&scene(42)).unwrap();
        assert!(
            cause.contains("our consumer got nothing for 42s"),
            "{cause}"
        );
        assert!(cause.contains("others consume it too (2)"), "{cause}");
    }
}
