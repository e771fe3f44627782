//! KEDA's RabbitMQ scaler (`mode: QueueLength`, over AMQP) with Kubernetes' horizontal pod autoscaler (HPA), both with
//! their defaults.
//!
//! Sources: KEDA's pages "RabbitMQ Queue" and "ScaledObject specification" (`pollingInterval` 30 s, `cooldownPeriod`
//! 300 s, `minReplicaCount` 0); Kubernetes' page "Horizontal Pod Autoscaling" (sync 15 s, tolerance 0.1, the default
//! behaviour) and `pkg/controller/podautoscaler` of `kubernetes/kubernetes`.
//!
//! - Over AMQP, KEDA sees ready messages only. Messages that workers hold do not count.
//! - From 0 to 1: at each poll, every 30 s, if the queue has a message.
//! - From 1 on, the HPA decides every 15 s. Its metric is the queue's length, its target `JOBS` for each pod:
//!
//! ```text
//! ratio   = ready / (JOBS * pods)
//! desired = pods if |ratio - 1| <= 0.1, otherwise ceil(ready / JOBS), at least 1 and at most max
//! up:   at most the larger of twice the pods and 4 pods more than 15 s ago
//! down: to the highest desired number of the last 300 s
//! ```
//!
//! - To 0: if the queue was empty at every poll of the last 300 s.
//!
//! Kubernetes stops the newest pods and does not know which are busy. A program that does not handle SIGTERM loses its
//! job: the message goes back to the queue, and the job runs again from the start. The model does the same
//! (`interrupted`).

use std::{collections::VecDeque, num::NonZeroU32, time::Duration};

use tidegate_core::decide::Moment;

use crate::{scaler::Scaler, world::World};

const POLL: Duration = Duration::from_secs(30);
const SYNC: Duration = Duration::from_secs(15);
const COOLDOWN: Duration = Duration::from_secs(300);

pub(super) struct Keda {
    hpa: Hpa,
    next_poll: Moment,
    next_sync: Moment,
    /// The last poll that found a message.
    last_active: Option<Moment>,
}

impl Keda {
    pub(super) fn new(jobs: NonZeroU32, max: u32) -> Self {
        Self {
            hpa: Hpa::new(u64::from(jobs.get()), max),
            next_poll: Moment::ZERO,
            next_sync: Moment::ZERO,
            last_active: None,
        }
    }

    /// KEDA's own part: between 0 and 1.
    fn poll(&mut self, world: &mut World<'_>) {
        let now = world.now();
        if world.ready() > 0 {
            self.last_active = Some(now);
            if world.live() == 0 {
                self.hpa.forget();
                world.resize(1.min(self.hpa.max), true);
            }
        } else if self
            .last_active
            .is_none_or(|last| now.since(last) >= COOLDOWN)
        {
            world.resize(0, true);
        }
    }
}

impl Scaler for Keda {
    fn next(&self) -> Moment {
        self.next_poll.min(self.next_sync)
    }

    fn act(&mut self, world: &mut World<'_>) {
        let now = world.now();
        if now >= self.next_poll {
            self.next_poll = now + POLL;
            self.poll(world);
        }
        if now >= self.next_sync {
            self.next_sync = now + SYNC;
            // An HPA does nothing about a workload with no replicas.
            if world.live() > 0 {
                let wanted = self.hpa.desired(now, world.ready(), world.live());
                world.resize(wanted, true);
            }
        }
    }
}

/// Kubernetes' horizontal pod autoscaler, for one external metric with an average value.
struct Hpa {
    target: u64,
    max: u32,
    /// Recommendations of the last 300 s.
    recommended: VecDeque<(Moment, u32)>,
    /// Pods added within the last 15 s.
    added: VecDeque<(Moment, u32)>,
}

impl Hpa {
    const TOLERANCE: f64 = 0.1;
    const DOWN_WINDOW: Duration = Duration::from_secs(300);
    const UP_PERIOD: Duration = Duration::from_secs(15);
    const UP_PODS: u32 = 4;
    const UP_FACTOR: u32 = 2;

    fn new(target: u64, max: u32) -> Self {
        Self {
            target,
            max,
            recommended: VecDeque::new(),
            added: VecDeque::new(),
        }
    }

    fn forget(&mut self) {
        self.recommended.clear();
        self.added.clear();
    }

    /// The number that the metric asks for.
    fn proposal(&self, metric: u64, pods: u32) -> u32 {
        let ratio = metric as f64 / (self.target as f64 * f64::from(pods));
        if (ratio - 1.0).abs() <= Self::TOLERANCE {
            return pods;
        }
        u32::try_from(metric.div_ceil(self.target)).unwrap_or(u32::MAX)
    }

    /// The number of pods from now on.
    fn desired(&mut self, now: Moment, metric: u64, pods: u32) -> u32 {
        let proposal = self.proposal(metric, pods).clamp(1, self.max.max(1));
        self.recommended.push_back((now, proposal));
        let is_old = |at: Moment, window| now.since(at) > window;
        while self
            .recommended
            .front()
            .is_some_and(|(at, _)| is_old(*at, Self::DOWN_WINDOW))
        {
            self.recommended.pop_front();
        }
        while self
            .added
            .front()
            .is_some_and(|(at, _)| now.since(*at) >= Self::UP_PERIOD)
        {
            self.added.pop_front();
        }
        if proposal > pods {
            let added: u32 = self.added.iter().map(|(_, pods)| pods).sum();
            let before = pods.saturating_sub(added);
            let limit = (before + Self::UP_PODS).max(before.saturating_mul(Self::UP_FACTOR));
            let wanted = proposal.min(limit).max(pods);
            self.added.push_back((now, wanted - pods));
            wanted
        } else {
            let highest = self.recommended.iter().map(|(_, pods)| *pods).max();
            highest.unwrap_or(proposal).min(pods)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::after_start(Duration::from_secs(seconds))
    }

    fn hpa(target: u64) -> Hpa {
        Hpa::new(target, 100)
    }

    /// KEDA's page on RabbitMQ: with a target of 20, a queue of 60 messages needs 3 pods.
    #[test]
    fn sixty_messages_need_three_pods_with_twenty_each() {
        assert_eq!(hpa(20).desired(at(0), 60, 1), 3);
    }

    /// Kubernetes' page: a metric at twice its target doubles the pods, one at half of it halves them, and a ratio close
    /// to 1 changes nothing.
    #[test]
    fn the_number_follows_the_ratio_of_metric_and_target() {
        // 200m with a target of 100m, and 50m with the same target, for 10 pods.
        assert_eq!(hpa(100).proposal(2000, 10), 20);
        assert_eq!(hpa(100).proposal(500, 10), 5);
        assert_eq!(hpa(100).proposal(1090, 10), 10);
        assert_eq!(hpa(100).proposal(910, 10), 10);
        assert_eq!(hpa(100).proposal(1101, 10), 12);
    }

    /// Kubernetes' default behaviour: 4 pods or 100 % every 15 s, whichever is more.
    #[test]
    fn grows_by_at_most_four_pods_or_to_twice_the_pods() {
        let mut hpa = hpa(1);
        let mut pods = 1;
        let mut seen = Vec::new();
        for second in [0, 15, 30, 45, 60, 75] {
            pods = hpa.desired(at(second), 1000, pods);
            seen.push(pods);
        }
        assert_eq!(seen, [5, 10, 20, 40, 80, 100]);
    }

    /// Kubernetes' default behaviour: down to the highest recommendation of 300 s.
    #[test]
    fn shrinks_to_the_highest_recommendation_of_five_minutes() {
        let mut hpa = hpa(1);
        assert_eq!(hpa.desired(at(0), 10, 10), 10);
        assert_eq!(hpa.desired(at(15), 4, 10), 10);
        assert_eq!(hpa.desired(at(300), 1, 10), 10);
        assert_eq!(hpa.desired(at(315), 1, 10), 4);
        assert_eq!(hpa.desired(at(330), 0, 4), 1);
    }
}
