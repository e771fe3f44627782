//! The choices of a seed: the pool, its jobs, and the time of each fault and order.

use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tidegate::{
    config::{DrainAfter, KeySettings, PoolSettings, RetrySettings},
    decide::{Policy, Scaling},
    queue::{QueueErrorKind, QueueKind},
};

pub(crate) const QUEUE: &str = "jobs";

/// The header with the key of a job.
pub(crate) const KEY: &str = "key";

/// The key of a job. Some jobs have none.
pub(crate) fn key_of(job: usize) -> Option<usize> {
    Some(job % 5).filter(|key| *key > 0)
}

/// One run.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) kind: QueueKind,
    pub(crate) settings: PoolSettings,
    pub(crate) jobs: Vec<PlannedJob>,
    /// The faults and orders, sorted by time.
    pub(crate) events: Vec<(Duration, PlannedEvent)>,
    /// Longest delay of a broker's answer.
    pub(crate) latency: Duration,
}

/// A message and what its job does at each attempt. The last entry is for all further attempts.
#[derive(Debug, Clone)]
pub(crate) struct PlannedJob {
    pub(crate) at: Duration,
    pub(crate) acts: Vec<(Duration, Act)>,
}

/// The end of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    Done,
    Fail,
    Retry,
    Reject,
    Panic,
    /// Runs until it is told to stop. The handler's timeout ends it.
    Hang,
}

/// A fault or an order. Those with a duration end by themselves.
#[derive(Debug, Clone)]
pub(crate) enum PlannedEvent {
    Disconnect(Duration),
    Block(Duration),
    HoldConfirms(Duration),
    RefuseCopies(QueueErrorKind, Duration),
    RefuseConsumers(QueueErrorKind, Duration),
    RefuseNewQueues(Duration),
    FailProbes(Duration),
    Withhold(Duration),
    /// Answers to publishes and settlements are lost. The broker may have carried out the request, or not.
    LoseAnswers(Duration),
    /// Runners cannot start.
    BreakRunners(Duration),
    /// Another consumer takes every ready message, and dies after this time.
    OtherConsumer(Duration),
    Pause,
    Resume,
    Drain,
    Pin(u32),
    Unpin,
    Flush {
        busy: bool,
    },
    SetPolicy(Policy, Scaling),
    StopJobs,
    Reconfigure(Box<PoolSettings>),
    /// The supervisor ends, and another starts.
    Restart(Ending),
}

/// How a supervisor ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ending {
    Drain(Duration),
    StopNow,
    /// Its handle is dropped, as if the process died.
    Drop,
}

impl Plan {
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = RandomChoices(StdRng::seed_from_u64(seed));
        let kind = dice.one_of(&[QueueKind::Classic, QueueKind::Quorum]);
        let settings = dice.settings();
        let length = dice.up_to_ms(60_000);
        let jobs = dice.jobs(length);
        // Some runs have no fault, so stricter checks apply to them.
        let count = if dice.chance(0.1) {
            0
        } else {
            dice.number(1, 12)
        };
        let mut events: Vec<_> = (0..count)
            .map(|_| (dice.up_to_ms(60_000), dice.event()))
            .collect();
        events.sort_by_key(|(at, _)| *at);
        Self {
            seed,
            kind,
            settings,
            jobs,
            events,
            latency: dice.one_of_ms(&[0, 0, 3, 50, 400]),
        }
    }
}

impl PlannedEvent {
    /// How long it lasts, if it is a fault that ends by itself.
    pub(crate) fn duration(&self) -> Duration {
        match self {
            Self::Disconnect(duration)
            | Self::Block(duration)
            | Self::HoldConfirms(duration)
            | Self::RefuseCopies(_, duration)
            | Self::RefuseConsumers(_, duration)
            | Self::RefuseNewQueues(duration)
            | Self::FailProbes(duration)
            | Self::Withhold(duration)
            | Self::LoseAnswers(duration)
            | Self::BreakRunners(duration)
            | Self::OtherConsumer(duration) => *duration,
            _ => Duration::ZERO,
        }
    }
}

struct RandomChoices(StdRng);

impl RandomChoices {
    fn number(&mut self, low: u32, high: u32) -> u32 {
        self.0.random_range(low..=high)
    }

    fn chance(&mut self, share: f64) -> bool {
        self.0.random_bool(share)
    }

    fn one_of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.0.random_range(0..all.len())].clone()
    }

    fn one_of_ms(&mut self, all: &[u64]) -> Duration {
        Duration::from_millis(self.one_of(all))
    }

    fn up_to_ms(&mut self, high: u64) -> Duration {
        Duration::from_millis(self.0.random_range(0..=high))
    }

    /// Short times are as likely as long ones.
    fn random_duration(&mut self) -> Duration {
        let high = self.one_of(&[20, 500, 5_000, 40_000]);
        self.up_to_ms(high)
    }

    fn policy(&mut self) -> Policy {
        let policy = match self.number(0, 3) {
            0 => Policy::fixed(self.number(1, 5)),
            1 => Policy::backlog(self.number(1, 10)),
            2 => Policy::steps([(1, 1), (u64::from(self.number(2, 20)), self.number(2, 8))]),
            _ => Policy::target_wait(Duration::from_secs(u64::from(self.number(1, 30)))),
        };
        let max = self.number(5, 20);
        policy.max(max).min_active(self.number(0, 3))
    }

    fn scaling(&mut self) -> Scaling {
        Scaling {
            up_step: self.one_of(&[1, 3, 100]),
            down_window: self.one_of_ms(&[0, 1_000, 10_000]),
            down_step: self.one_of(&[1, 100]),
            churn: self.one_of(&[None, None, Some(10)]),
        }
    }

    fn key(&mut self) -> Option<KeySettings> {
        let key = KeySettings::header(KEY);
        self.one_of(&[
            None,
            None,
            Some(key.clone()),
            Some(key.clone().window(3)),
            Some(key.per_key(2).window(20)),
        ])
    }

    fn settings(&mut self) -> PoolSettings {
        let key = self.key();
        let prefetch = self.one_of(&[1, 1, 1, 2, 7]);
        PoolSettings {
            policy: self.policy(),
            scaling: self.scaling(),
            prefetch: if key.is_some() { 1 } else { prefetch },
            key,
            poll_interval: self.one_of_ms(&[100, 500, 2_000]),
            drain_after: self.one_of(&[
                DrainAfter::After(Duration::ZERO),
                DrainAfter::After(Duration::from_secs(1)),
                DrainAfter::After(Duration::from_secs(5)),
            ]),
            keep_warm: self.one_of(&[0, 0, 1, 3]),
            preempt: self.chance(0.2),
            ack_deadline: self.one_of_ms(&[15_000, 1_800_000, 1_800_000]),
            retry: RetrySettings {
                max_attempts: self.number(1, 4),
                backoff: self.one_of_ms(&[1, 100, 1_000]),
                backoff_max: Duration::from_secs(4),
                ..RetrySettings::default()
            },
            ..PoolSettings::new(QUEUE)
        }
    }

    fn jobs(&mut self, length: Duration) -> Vec<PlannedJob> {
        let count = self.one_of(&[1, 5, 20, 60]);
        let is_burst = self.chance(0.5);
        let failing = self.one_of(&[0.0, 0.1, 0.6]);
        (0..count)
            .map(|_| PlannedJob {
                at: if is_burst {
                    self.up_to_ms(50)
                } else {
                    length.mul_f64(self.0.random())
                },
                acts: (0..self.number(1, 4)).map(|_| self.act(failing)).collect(),
            })
            .collect()
    }

    fn act(&mut self, failing: f64) -> (Duration, Act) {
        let act = if self.chance(failing) {
            self.one_of(&[
                Act::Fail,
                Act::Fail,
                Act::Retry,
                Act::Reject,
                Act::Panic,
                Act::Hang,
            ])
        } else {
            Act::Done
        };
        (self.random_duration().min(Duration::from_secs(8)), act)
    }

    fn event(&mut self) -> PlannedEvent {
        let duration = self.random_duration();
        match self.number(0, 24) {
            0..=2 => PlannedEvent::Disconnect(duration),
            3 => PlannedEvent::Block(duration),
            4 => PlannedEvent::HoldConfirms(duration),
            5 => {
                let kinds = [
                    QueueErrorKind::Refused,
                    QueueErrorKind::Timeout,
                    QueueErrorKind::AccessRefused,
                    QueueErrorKind::TooLarge,
                ];
                PlannedEvent::RefuseCopies(self.one_of(&kinds), duration)
            }
            6 => {
                let kinds = [
                    QueueErrorKind::AccessRefused,
                    QueueErrorKind::ChannelLimit,
                    QueueErrorKind::Timeout,
                ];
                PlannedEvent::RefuseConsumers(self.one_of(&kinds), duration)
            }
            7 => PlannedEvent::RefuseNewQueues(duration),
            8 => PlannedEvent::FailProbes(duration),
            9 => PlannedEvent::Withhold(duration),
            10 | 11 => PlannedEvent::LoseAnswers(duration),
            12 => PlannedEvent::BreakRunners(duration),
            13 => PlannedEvent::OtherConsumer(duration),
            14 => PlannedEvent::Pause,
            15 => PlannedEvent::Resume,
            16 => PlannedEvent::Drain,
            17 => PlannedEvent::Pin(self.number(0, 25)),
            18 => PlannedEvent::Unpin,
            19 => PlannedEvent::Flush {
                busy: self.chance(0.5),
            },
            20 => PlannedEvent::SetPolicy(self.policy(), self.scaling()),
            21 => PlannedEvent::StopJobs,
            22 => PlannedEvent::Reconfigure(Box::new(self.settings())),
            _ => {
                let grace = self.random_duration();
                PlannedEvent::Restart(self.one_of(&[
                    Ending::Drain(grace),
                    Ending::StopNow,
                    Ending::Drop,
                ]))
            }
        }
    }
}
