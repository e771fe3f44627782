//! Tests of the breaker: when it opens, when it tries a job, and when it closes.

use proptest::prelude::*;

use super::*;

const RULES: BreakerRules = BreakerRules {
    failure_percent: 50,
    window: Duration::from_secs(16),
    min_jobs: 4,
    pause: Duration::from_secs(10),
};

fn at(seconds: u64) -> Moment {
    Moment::after_start(Duration::from_secs(seconds))
}

/// A breaker after these jobs, each given as its end and `+` (done) or `-` (failed).
fn after(rules: BreakerRules, jobs: &[(u64, char)]) -> Breaker {
    let mut breaker = Breaker::new(rules);
    for (second, end) in jobs {
        let ending = match end {
            '+' => BreakerSignal::Answered,
            '?' => BreakerSignal::Unproven("exit code 127"),
            _ => BreakerSignal::Failed("exit code 1"),
        };
        breaker.ended(at(*second), at(*second), ending);
    }
    breaker
}

#[test]
fn it_opens_if_enough_jobs_ended_in_the_window_and_enough_of_them_failed() {
    type Jobs<'a> = &'a [(u64, char)];
    let table: [(&str, Jobs<'_>, bool); 9] = [
        ("nothing", &[], false),
        ("too few jobs", &[(1, '-'), (1, '-'), (1, '-')], false),
        ("all fail", &[(1, '-'), (1, '-'), (1, '-'), (1, '-')], true),
        ("half fail", &[(1, '+'), (1, '+'), (2, '-'), (2, '-')], true),
        (
            "fewer than half fail",
            &[(1, '+'), (1, '+'), (1, '+'), (2, '-'), (2, '-')],
            false,
        ),
        (
            "three of four failed, but the last did not",
            &[(1, '-'), (1, '-'), (1, '-'), (1, '+')],
            false,
        ),
        (
            "the first ones are too long ago",
            &[(1, '-'), (1, '-'), (17, '-'), (17, '-')],
            false,
        ),
        (
            "the first ones are just within the window",
            &[(1, '-'), (1, '-'), (16, '-'), (16, '-')],
            true,
        ),
        (
            "two that did not start are not counted",
            &[(1, '?'), (1, '?'), (1, '-'), (1, '-'), (1, '-')],
            false,
        ),
    ];
    for (name, jobs, opens) in table {
        let breaker = after(RULES, jobs);
        let state = breaker.state(at(20));
        assert_eq!(state != BreakerState::Closed, opens, "{name}");
    }
}

#[test]
fn the_cause_says_how_many_failed_and_of_what() {
    let mut breaker = after(RULES, &[(1, '+'), (1, '-'), (2, '-'), (2, '-')]);
    assert_eq!(
        breaker.cause(),
        Some("breaker open: 3 of the last 4 jobs failed within 16s; last: exit code 1")
    );
    breaker.ended(at(12), at(13), BreakerSignal::Failed("exit code 2"));
    assert_eq!(
        breaker.cause(),
        Some("breaker open: 1 trial failed; last: exit code 2")
    );
    breaker.ended(at(33), at(34), BreakerSignal::Unproven("exit code 127"));
    assert_eq!(
        breaker.cause(),
        Some("breaker open: 2 trials failed; last: exit code 127")
    );
    let endless = "x".repeat(10_000);
    breaker.ended(at(100), at(101), BreakerSignal::Failed(&endless));
    assert!(breaker.cause().is_some_and(|cause| cause.len() < 300));
}

#[test]
fn each_trial_that_fails_doubles_the_pause_up_to_eight_times() {
    let mut breaker = after(RULES, &[(0, '-'), (0, '-'), (0, '-'), (0, '-')]);
    let mut now = 0;
    for pause in [10, 20, 40, 80, 80, 80] {
        let until = at(now + pause);
        assert_eq!(breaker.state(at(now)), BreakerState::Open { until });
        assert_eq!(
            breaker.state(at(now + pause - 1)),
            BreakerState::Open { until }
        );
        now += pause;
        assert_eq!(breaker.state(at(now)), BreakerState::Trial);
        breaker.ended(at(now), at(now), BreakerSignal::Failed("exit code 1"));
    }
}

#[test]
fn a_trial_that_does_not_fail_closes_it_and_starts_a_new_window() {
    let mut breaker = after(RULES, &[(0, '-'), (0, '-'), (0, '-'), (0, '-')]);
    breaker.ended(at(10), at(11), BreakerSignal::Answered);
    assert_eq!(breaker.state(at(11)), BreakerState::Closed);
    assert_eq!(breaker.cause(), None);
    for _ in 0..3 {
        breaker.ended(at(11), at(11), BreakerSignal::Failed("exit code 1"));
        assert_eq!(breaker.state(at(11)), BreakerState::Closed);
    }
    breaker.ended(at(11), at(11), BreakerSignal::Failed("exit code 1"));
    let until = at(21);
    assert_eq!(breaker.state(at(11)), BreakerState::Open { until });
}

#[test]
fn jobs_that_were_running_when_it_opened_change_nothing() {
    let mut breaker = after(RULES, &[(5, '-'), (5, '-'), (5, '-'), (5, '-')]);
    let until = at(15);
    for (end, ending) in [
        (6, BreakerSignal::Failed("exit code 1")),
        (14, BreakerSignal::Answered),
        (40, BreakerSignal::Failed("exit code 1")),
    ] {
        breaker.ended(at(4), at(end), ending);
        assert_eq!(breaker.state(at(6)), BreakerState::Open { until });
    }
    breaker.ended(at(41), at(42), BreakerSignal::Answered);
    // It does not count after the breaker is closed either.
    for _ in 0..10 {
        breaker.ended(at(4), at(43), BreakerSignal::Failed("exit code 1"));
    }
    assert_eq!(breaker.state(at(43)), BreakerState::Closed);
}

#[test]
fn new_rules_start_a_new_window_and_set_the_length_of_a_running_pause() {
    let mut closed = after(RULES, &[(1, '-'), (1, '-'), (1, '-')]);
    closed.set_rules(RULES);
    closed.ended(at(1), at(1), BreakerSignal::Failed("exit code 1"));
    assert_ne!(closed.state(at(1)), BreakerState::Closed);

    let mut closed = after(RULES, &[(1, '-'), (1, '-'), (1, '-')]);
    closed.set_rules(BreakerRules {
        window: Duration::from_secs(60),
        ..RULES
    });
    closed.ended(at(1), at(1), BreakerSignal::Failed("exit code 1"));
    assert_eq!(closed.state(at(1)), BreakerState::Closed);

    let mut open = after(RULES, &[(1, '-'), (1, '-'), (1, '-'), (1, '-')]);
    for (pause, until) in [(60, 61), (2, 3)] {
        open.set_rules(BreakerRules {
            pause: Duration::from_secs(pause),
            ..RULES
        });
        let until = at(until);
        assert_eq!(open.state(at(1)), BreakerState::Open { until });
    }
    assert_eq!(open.state(at(3)), BreakerState::Trial);
}

#[test]
fn a_pause_can_be_cut_short() {
    let mut breaker = after(RULES, &[(50, '-'), (50, '-'), (50, '-'), (50, '-')]);
    breaker.ended(at(60), at(60), BreakerSignal::Failed("exit code 1"));
    breaker.try_now(at(61));
    assert_eq!(breaker.state(at(61)), BreakerState::Trial);
    breaker.ended(at(61), at(62), BreakerSignal::Failed("exit code 1"));
    let until = at(82);
    assert_eq!(breaker.state(at(62)), BreakerState::Open { until });
}

proptest! {
    /// Compares with a model that remembers every job.
    #[test]
    fn it_opens_exactly_when_a_model_that_remembers_every_job_opens(
        percent in 1u8..=100,
        min_jobs in 1u32..20,
        jobs in prop::collection::vec((0u64..3000, any::<bool>()), 1..200),
    ) {
        let rules = BreakerRules { failure_percent: percent, min_jobs, ..RULES };
        let mut breaker = Breaker::new(rules);
        let mut millis = 0;
        let mut model: Vec<(u64, bool)> = Vec::new();
        for (gap, failed) in jobs {
            millis += gap;
            let now = Moment::after_start(Duration::from_millis(millis));
            breaker.ended(now, now, if failed { BreakerSignal::Failed("exit code 1") } else { BreakerSignal::Answered });
            model.push((millis / 1000, failed));
            model.retain(|(second, _)| second + 16 > millis / 1000);
            let failures = model.iter().filter(|(_, failed)| *failed).count();
            let opens = failed && model.len() >= min_jobs as usize && failures * 100 >= usize::from(percent) * model.len();
            prop_assert_eq!(breaker.state(now) != BreakerState::Closed, opens);
            if opens {
                break;
            }
        }
    }

    #[test]
    fn it_is_never_open_for_longer_than_eight_pauses(
        jobs in prop::collection::vec((0u64..60, 0u64..60, 0u8..3), 1..100),
    ) {
        let mut breaker = Breaker::new(RULES);
        let mut now = 0;
        for (ran, gap, end) in jobs {
            now += gap;
            let ending = match end {
                0 => BreakerSignal::Answered,
                1 => BreakerSignal::Failed("exit code 1"),
                _ => BreakerSignal::Unproven("exit code 127"),
            };
            breaker.ended(at(now.saturating_sub(ran)), at(now), ending);
            if let BreakerState::Open { until } = breaker.state(at(now)) {
                prop_assert!(until.since(at(now)) <= RULES.pause * 8);
            }
            prop_assert_eq!(breaker.cause().is_some(), breaker.state(at(now)) != BreakerState::Closed);
        }
    }
}
