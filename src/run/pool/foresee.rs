//! Foresight: what the pool would decide now with another policy. Nothing is changed, and nothing is awaited.

use super::PoolTask;
use crate::{
    decide::{By, ByHand, Decision, Observation, Orders, Probe, Reconciliation, SetPolicy},
    run::Foresight,
};

impl PoolTask {
    /// What the pool would decide now with this policy set by hand, or with none, beside the policy in force. Both
    /// decisions are made of the last observation, and of the workers that there are.
    pub(super) fn foresee(&self, set: Option<SetPolicy>) -> Foresight {
        let now = self.shared.orders.lock().clone();
        let mut then = now.clone();
        then.policy = set.map(|what| ByHand {
            what,
            by: By::dry_run(),
            since: self.shared.orders.clock.now(),
            until: None,
        });
        Foresight {
            before: self.decide_with(now),
            after: self.decide_with(then),
        }
    }

    /// A decision of a copy of the reconciler, so that the pool's own keeps its history.
    fn decide_with(&self, orders: Orders) -> Decision {
        let (now, census, _) = self.observe(Probe::Skipped, self.shared.now());
        let mut observation = match &self.seen {
            // The depth and what workers held at the same time. What they have taken since would count twice.
            Some(seen) => Observation {
                intake: now.intake,
                ..seen.clone()
            },
            None => now,
        };
        let decide = |observation: &Observation| {
            let mut reconciler = self.reconciler.clone();
            reconciler.set_orders(orders.clone());
            let reconciliation = reconciler.reconcile(observation, &census);
            (reconciliation, reconciler.policy().min_active)
        };
        // The pool's present part of the supervisor's workers is what the present policy wants.
        observation.allowance = None;
        let (
            Reconciliation {
                decision, wanted, ..
            },
            floor,
        ) = decide(&observation);
        let counts = census.counts();
        let mut need = self.need(&decision, wanted, floor, &counts);
        need.taken = counts.towards_max().max(self.reconciler.expected());
        observation.allowance = self.shared.budget.foreseen(&self.shared.name, need);
        match observation.allowance {
            Some(_) => decide(&observation).0.decision,
            None => decision,
        }
    }
}
