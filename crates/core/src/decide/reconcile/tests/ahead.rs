//! Pools with keys: what they have taken ahead of their workers.

use super::*;

/// One busy worker, and these deliveries taken ahead.
fn seen_ahead(second: u64, queue: u64, ready: u64, blocked: u64, room: u64) -> Observation {
    Observation {
        ahead: Some(TakenAhead {
            ready,
            blocked,
            room,
        }),
        ..seen(second, queue, &census(0, 1))
    }
}

#[test]
fn no_worker_is_started_for_messages_that_wait_for_a_job_of_their_key() {
    let mut reconciler = Reconciler::new(rules(Policy::backlog(1).max(50)));
    let decided = reconciler.reconcile(&seen_ahead(1, 0, 2, 20, 5), &census(0, 1));
    let decision = decided.decision;
    assert_eq!((decision.expected, decision.won), (3, TermName::Useful));
    assert_eq!(decision.inputs.demand, 23);
    let text = decision.to_string();
    for words in [
        "ahead           22  taken and not started: 2 can start, 20 wait for a job of the same key; room for 5 more",
        "demand          23  ready + held + ahead",
        "1 worker holds a delivery, 2 messages can start: more would only wait",
    ] {
        assert!(text.contains(words), "{words}\n{text}");
    }
}

#[test]
fn no_worker_is_started_for_messages_behind_a_full_window() {
    let mut reconciler = Reconciler::new(rules(Policy::backlog(1).max(50)));
    let decided = reconciler.reconcile(&seen_ahead(1, 100, 0, 9, 0), &census(0, 1));
    assert_eq!(decided.decision.expected, 1);
    let text = decided.decision.to_string();
    assert!(text.contains("key_window is full"), "{text}");
    // With room for three, three more may be taken.
    let decided = reconciler.reconcile(&seen_ahead(2, 100, 0, 6, 3), &census(0, 1));
    assert_eq!(decided.decision.expected, 4);
}

#[test]
fn a_queue_is_not_empty_while_its_messages_are_taken_ahead() {
    let at_once = Rules {
        drain_after: DrainAfter::After(Duration::ZERO),
        ..rules(Policy::backlog(1).max(50))
    };
    for rules in [rules(Policy::fixed(3)), at_once] {
        let mut reconciler = Reconciler::new(rules);
        for second in (0..600).step_by(10) {
            let decided = reconciler.reconcile(&seen_ahead(second, 0, 1, 4, 5), &census(0, 1));
            assert_eq!(decided.decision.rule, Rule::Policy);
            assert_eq!(decided.decision.expected, 2);
        }
    }
    // The time of an empty queue begins when the last one has started.
    let mut reconciler = Reconciler::new(rules(Policy::fixed(1)));
    let _ = reconciler.reconcile(&seen_ahead(100, 0, 1, 0, 5), &census(0, 1));
    for (second, rule) in [(104, Rule::Policy), (105, Rule::Empty)] {
        let decided = reconciler.reconcile(&seen_ahead(second, 0, 0, 0, 5), &census(0, 1));
        assert_eq!(decided.decision.rule, rule, "{second}");
    }
}

#[test]
fn messages_that_are_taken_ahead_did_not_leave_the_queue() {
    let mut reconciler = Reconciler::new(rules(Policy::fixed(1)));
    for second in 0..60 {
        // All are taken in the middle, and none arrives.
        let (queue, ahead) = if second < 30 { (40, 0) } else { (0, 40) };
        let observation = seen_ahead(second, queue, 0, ahead, 60);
        let _ = reconciler.reconcile(&observation, &census(0, 1));
    }
    let arrivals = reconciler.arrivals().expect("it was watched");
    assert!(arrivals.fast < 0.1, "{arrivals:?}");
}
