//! The state of a pool: one word, and a cause if it needs attention.

use serde::{Deserialize, Serialize};

use super::{Intake, Rule};

/// The state of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PoolState {
    /// The pool works, or is ready to.
    Active,
    /// Drained, and the queue is empty.
    Idle,
    /// The operator paused the pool, or drained it and nothing is left.
    Paused,
    /// The operator drained the pool and something is left, or the pool is ending.
    Draining,
    /// The queue does not exist yet.
    Waiting,
    /// Runners cannot start, or too many jobs have failed.
    Faulted,
    /// Copies cannot be published.
    Blocked,
    /// The pool cannot get its messages: the broker refuses its consumers, or delivers nothing to them.
    Stuck,
    /// No connection to the broker.
    Disconnected,
}

impl PoolState {
    /// Every state.
    pub const ALL: [Self; 9] = [
        Self::Active,
        Self::Idle,
        Self::Paused,
        Self::Draining,
        Self::Waiting,
        Self::Faulted,
        Self::Blocked,
        Self::Stuck,
        Self::Disconnected,
    ];

    /// The name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Idle => "idle",
            Self::Paused => "paused",
            Self::Draining => "draining",
            Self::Waiting => "waiting",
            Self::Faulted => "faulted",
            Self::Blocked => "blocked",
            Self::Stuck => "stuck",
            Self::Disconnected => "disconnected",
        }
    }
}

/// The connection to the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// Connected.
    Up,
    /// Not yet connected.
    Coming,
    /// Not connected, for this reason.
    Down(String),
}

/// The facts that decide a state.
#[derive(Debug, Clone)]
pub struct StateScene {
    /// Whether messages may be taken.
    pub intake: Intake,
    /// The connection to the broker.
    pub link: Link,
    /// The rule of the last decision; `None` before the first.
    pub rule: Option<Rule>,
    /// Workers that hold a delivery.
    pub busy: u32,
    /// Whether the pool has no worker and no runner.
    pub is_bare: bool,
    /// Why the pool's own task failed, if it has.
    pub pool_failure: Option<String>,
    /// Why a fault closed intake.
    pub fault: Option<String>,
    /// Why the pool cannot get its messages, if it cannot.
    pub stuck: Option<String>,
    /// The name of the queue, for the message that it is missing.
    pub queue: String,
    /// The problem with publishing copies, while the pool works.
    pub copies: Option<String>,
    /// The problem of an active pool: consumers are refused, or readings fail.
    pub refusal: Option<String>,
    /// Any other problem of a pool that still works.
    pub lesser: Option<String>,
}

/// The state of a pool, and its cause if the state needs one. The first match applies.
pub fn pool_state(scene: StateScene) -> (PoolState, Option<String>) {
    let is_empty = scene.busy == 0 && scene.rule == Some(Rule::Empty);
    match (scene.intake, scene.link) {
        (Intake::Draining, _) => (PoolState::Draining, scene.pool_failure),
        (Intake::Paused, _) => (PoolState::Paused, None),
        // An operator's drain ends when no worker and no runner is left. After that it is a pause.
        (Intake::Emptying, _) if scene.is_bare => (PoolState::Paused, None),
        (Intake::Emptying, _) => (PoolState::Draining, None),
        (_, Link::Down(error)) => (PoolState::Disconnected, Some(error)),
        (_, Link::Coming) => (PoolState::Disconnected, None),
        (Intake::Blocked, _) => (PoolState::Blocked, scene.fault),
        // There is no message to try, so the fault is not shown.
        (trial, _) if trial.is_trial() && is_empty => (PoolState::Idle, None),
        (Intake::Faulted | Intake::Trial | Intake::BreakerOpen | Intake::BreakerTrial, _) => {
            (PoolState::Faulted, scene.fault)
        }
        (Intake::Open, _) if scene.rule == Some(Rule::Missing) => {
            let missing = format!("the broker has no queue {}", scene.queue);
            let cause = match scene.copies {
                None => missing,
                Some(more) => format!("{missing}; {more}"),
            };
            (PoolState::Waiting, Some(cause))
        }
        (Intake::Open, _) if scene.stuck.is_some() => (PoolState::Stuck, scene.stuck),
        (Intake::Open, _) if is_empty || (scene.busy == 0 && scene.rule.is_none()) => {
            (PoolState::Idle, scene.copies.or(scene.lesser))
        }
        (Intake::Open, _) => {
            let cause = scene.refusal.or(scene.copies).or(scene.lesser);
            (PoolState::Active, cause)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scene() -> StateScene {
        StateScene {
            intake: Intake::Open,
            link: Link::Up,
            rule: Some(Rule::Policy),
            busy: 0,
            is_bare: false,
            pool_failure: None,
            fault: None,
            stuck: None,
            queue: String::from("jobs"),
            copies: None,
            refusal: None,
            lesser: None,
        }
    }

    fn text(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn the_first_that_applies_is_the_state() {
        let everything = StateScene {
            rule: Some(Rule::Missing),
            busy: 3,
            pool_failure: text("a bug"),
            fault: text("no program"),
            stuck: text("no consumers"),
            copies: text("no copies"),
            refusal: text("refused"),
            lesser: text("a panic"),
            ..scene()
        };
        let with = |intake, link| StateScene {
            intake,
            link,
            ..everything.clone()
        };
        let down = || Link::Down(String::from("no broker"));
        for (scene, state, cause) in [
            (with(Intake::Draining, down()), PoolState::Draining, "a bug"),
            (with(Intake::Paused, down()), PoolState::Paused, ""),
            (with(Intake::Emptying, down()), PoolState::Draining, ""),
            (
                with(Intake::Faulted, down()),
                PoolState::Disconnected,
                "no broker",
            ),
            (
                with(Intake::Open, Link::Coming),
                PoolState::Disconnected,
                "",
            ),
            (
                with(Intake::Blocked, Link::Up),
                PoolState::Blocked,
                "no program",
            ),
            (
                with(Intake::Faulted, Link::Up),
                PoolState::Faulted,
                "no program",
            ),
            (
                with(Intake::BreakerTrial, Link::Up),
                PoolState::Faulted,
                "no program",
            ),
            (
                everything.clone(),
                PoolState::Waiting,
                "the broker has no queue jobs; no copies",
            ),
            (
                StateScene {
                    rule: Some(Rule::Policy),
                    ..everything.clone()
                },
                PoolState::Stuck,
                "no consumers",
            ),
            (
                StateScene {
                    rule: Some(Rule::Policy),
                    stuck: None,
                    ..everything.clone()
                },
                PoolState::Active,
                "refused",
            ),
            (
                StateScene {
                    rule: Some(Rule::Empty),
                    stuck: None,
                    busy: 0,
                    ..everything.clone()
                },
                PoolState::Idle,
                "no copies",
            ),
        ] {
            let decided = pool_state(scene.clone());
            assert_eq!(
                decided,
                (state, text(cause).filter(|cause| !cause.is_empty())),
                "{scene:?}"
            );
        }
    }

    #[test]
    fn a_pool_that_an_operator_drained_is_paused_when_nothing_is_left() {
        for (intake, is_bare, state) in [
            (Intake::Emptying, false, PoolState::Draining),
            (Intake::Emptying, true, PoolState::Paused),
            // A pool that is ending stays in this state until it has ended.
            (Intake::Draining, true, PoolState::Draining),
        ] {
            let scene = StateScene {
                intake,
                is_bare,
                ..scene()
            };
            assert_eq!(pool_state(scene), (state, None), "{intake:?} {is_bare}");
        }
    }

    #[test]
    fn a_pool_without_work_is_idle_and_one_that_is_tried_with_nothing_is_not_faulted() {
        for (intake, rule, busy, state) in [
            (Intake::Open, None, 0, PoolState::Idle),
            (Intake::Open, Some(Rule::Empty), 0, PoolState::Idle),
            (Intake::Open, Some(Rule::Empty), 1, PoolState::Active),
            (Intake::Open, Some(Rule::Policy), 0, PoolState::Active),
            (Intake::Trial, Some(Rule::Empty), 0, PoolState::Idle),
            (Intake::Trial, Some(Rule::Empty), 1, PoolState::Faulted),
            (Intake::Trial, Some(Rule::Intake), 0, PoolState::Faulted),
        ] {
            let scene = StateScene {
                intake,
                rule,
                busy,
                ..scene()
            };
            assert_eq!(
                pool_state(scene),
                (state, None),
                "{intake:?} {rule:?} {busy}"
            );
        }
    }
}
