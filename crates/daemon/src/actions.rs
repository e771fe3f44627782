//! The last actions of operators, for the dashboard. They are kept in memory and lost at a restart. The log has all of
//! them.
//!
//! Written by what steers pools, read by the HTTP routes.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use serde::Serialize;
use tidegate::{
    decide::{Order, PoolName},
    text::time,
};

/// Actions that are kept.
const KEPT: usize = 200;

/// Something that a person did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Action {
    /// When.
    pub at: Timestamp,
    /// The pool, if the action was about one.
    pub pool: Option<PoolName>,
    /// What: `pause`, `scale 5`.
    pub act: String,
    /// Who, as far as that is known.
    pub by: String,
    /// The result: `done`, or why it was refused.
    pub outcome: String,
}

/// The last actions.
#[derive(Debug, Clone, Default)]
pub struct Actions(Arc<Mutex<VecDeque<Action>>>);

impl Actions {
    /// Notes an action of this moment.
    pub fn add(&self, pool: Option<&PoolName>, act: &str, by: &str, outcome: &str) {
        let mut actions = self.lock();
        if actions.len() == KEPT {
            actions.pop_front();
        }
        actions.push_back(Action {
            at: Timestamp::now(),
            pool: pool.cloned(),
            act: act.to_owned(),
            by: by.to_owned(),
            outcome: outcome.to_owned(),
        });
    }

    /// All of them, the newest first.
    pub fn all(&self) -> Vec<Action> {
        self.lock().iter().rev().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Action>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The result of an order, for the log of actions.
pub(crate) fn done(changed: bool) -> &'static str {
    match changed {
        true => "done",
        false => "it was so already",
    }
}

/// An order as text for the log of actions, in the form in which it is typed.
pub(crate) fn as_typed(order: &Order) -> String {
    match order {
        Order::Pause { until: Some(until) } => format!("pause until {}", time(*until)),
        Order::Pin { workers } => format!("scale {workers}"),
        Order::Unpin => "scale auto".to_owned(),
        Order::ForbidShrinking { until: Some(until) } => {
            format!("pause --shrinking until {}", time(*until))
        }
        Order::ForbidShrinking { until: None } => "pause --shrinking".to_owned(),
        Order::AllowShrinking => "resume --shrinking".to_owned(),
        Order::SetPolicy(_) => "policy set".to_owned(),
        Order::ResetPolicy => "policy reset".to_owned(),
        order => order.act().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_last_actions_the_newest_first() {
        let actions = Actions::default();
        for n in 0..KEPT + 2 {
            actions.add(Some(&"a".into()), &format!("scale {n}"), "uid 0", "done");
        }
        let all = actions.all();
        assert_eq!(all.len(), KEPT);
        assert_eq!(all[0].act, format!("scale {}", KEPT + 1));
        assert_eq!(all[KEPT - 1].act, "scale 2");
    }
}
