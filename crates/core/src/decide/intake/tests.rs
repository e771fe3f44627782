//! Tests of intake: what closes it, for how long, and which reason is shown.

use super::*;

fn at(seconds: u64) -> Moment {
    Moment::after_start(Duration::from_secs(seconds))
}

fn no_program(state: &mut IntakeState, now: u64) -> bool {
    state.failed(at(now), FaultKind::Start, String::from("no such program"))
}

#[test]
fn a_fault_pauses_the_pool_before_a_trial_and_each_failed_trial_doubles_the_pause() {
    let mut state = IntakeState::default();
    let mut now = 0;
    for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
        assert!(no_program(&mut state, now));
        assert_eq!(state.intake(at(now), None), Intake::Faulted);
        assert_eq!(state.look_again(at(now)), Some(Duration::from_secs(pause)));
        now += pause;
        assert_eq!(state.intake(at(now), None), Intake::Trial);
    }
    assert!(state.started(FaultKind::Start));
    assert_eq!(state.intake(at(now), None), Intake::Open);
    assert!(!state.has_failures());
}

#[test]
fn a_change_of_configuration_is_tried_at_once() {
    let mut state = IntakeState::default();
    for now in [0, 1, 3, 7] {
        assert!(no_program(&mut state, now));
    }
    assert_eq!(state.intake(at(8), None), Intake::Faulted);
    state.try_now(at(8));
    assert_eq!(state.intake(at(8), None), Intake::Trial);
    assert!(no_program(&mut state, 8));
    assert_eq!(state.look_again(at(8)), Some(fault_pause(1)));
}

#[test]
fn a_burst_of_failures_is_one_fault() {
    let mut state = IntakeState::default();
    let begun = (0..50).filter(|_| no_program(&mut state, 0)).count();
    assert_eq!(begun, 1);
    assert_eq!(state.look_again(at(0)), Some(fault_pause(1)));
}

#[test]
fn failed_launches_of_different_messages_in_a_row_fault_the_pool() {
    let mut state = IntakeState::default();
    for (step, (job, enough)) in [
        ("same", false),
        ("same", false),
        ("second", false),
        ("", false),
        ("third", false),
        ("fourth", false),
        ("fifth", true),
        ("sixth", true),
    ]
    .into_iter()
    .enumerate()
    {
        match job {
            // A command that starts ends the row.
            "" => assert!(!state.started(FaultKind::Launch)),
            job => assert_eq!(state.launch_failed(&job.into()), enough, "step {step}"),
        }
        assert_eq!(state.has_failures(), !job.is_empty());
    }
    assert!(state.failed(at(0), FaultKind::Launch, String::from("exit 127")));
    // The wrapper does start, which proves nothing about the command behind it.
    assert!(!state.started(FaultKind::Start));
    assert_eq!(state.intake(at(1), None), Intake::Trial);
    assert!(state.started(FaultKind::Launch));
    assert_eq!(state.intake(at(1), None), Intake::Open);
}

#[test]
fn a_breaker_and_a_fault_each_have_their_own_pause_and_trial() {
    let mut state = IntakeState::default();
    state.set_breaker(Some(BreakerRules {
        min_jobs: 1,
        pause: Duration::from_secs(10),
        ..BreakerRules::default()
    }));
    let failed = BreakerSignal::Failed("exit code 1");
    let closed = JobEnded {
        may_take: true,
        moved: false,
    };
    for ending in [BreakerSignal::Answered, BreakerSignal::Answered, failed] {
        assert_eq!(state.job_ended(at(0), Duration::ZERO, ending), closed);
    }
    let opened = JobEnded {
        may_take: false,
        moved: true,
    };
    assert_eq!(state.job_ended(at(0), Duration::ZERO, failed), opened);
    assert_eq!(state.intake(at(0), None), Intake::BreakerOpen);
    assert!(state.is_broken());
    assert_eq!(state.look_again(at(1)), Some(Duration::from_secs(9)));
    assert_eq!(state.intake(at(10), None), Intake::BreakerTrial);

    // The trial's runner does not start: that fault is tried first.
    assert!(no_program(&mut state, 10));
    assert_eq!(state.intake(at(10), None), Intake::Faulted);
    assert_eq!(state.cause(), Some("no such program"));
    assert_eq!(state.intake(at(11), None), Intake::Trial);
    assert!(state.started(FaultKind::Start));
    assert_eq!(state.intake(at(11), None), Intake::BreakerTrial);
    assert!(
        state
            .cause()
            .is_some_and(|cause| cause.contains("2 of the last 4"))
    );
    let closed = JobEnded {
        may_take: true,
        moved: true,
    };
    assert_eq!(
        state.job_ended(at(12), Duration::ZERO, BreakerSignal::Answered),
        closed
    );
    assert_eq!(state.intake(at(12), None), Intake::Open);
    assert!(!state.is_broken());
}

#[test]
fn taking_the_breaker_away_opens_intake() {
    let mut state = IntakeState::default();
    let rules = BreakerRules {
        min_jobs: 1,
        ..BreakerRules::default()
    };
    state.set_breaker(Some(rules));
    let failed = BreakerSignal::Failed("exit code 1");
    assert!(!state.job_ended(at(1), Duration::ZERO, failed).may_take);
    state.set_breaker(Some(BreakerRules {
        pause: Duration::from_secs(60),
        ..rules
    }));
    assert_eq!(state.look_again(at(1)), Some(Duration::from_secs(60)));
    state.set_breaker(None);
    assert_eq!(state.intake(at(1), None), Intake::Open);
    assert!(state.job_ended(at(1), Duration::ZERO, failed).may_take);
}

#[test]
fn the_first_reason_closes_intake() {
    let paused = Some(Intake::Paused);
    let mut state = IntakeState::default();
    assert!(no_program(&mut state, 0));
    assert_eq!(state.intake(at(0), None), Intake::Faulted);
    state.block(String::from("no route"));
    state.block(String::from("alarm"));
    assert_eq!(state.intake(at(0), None), Intake::Blocked);
    assert_eq!(state.intake(at(0), paused), Intake::Paused);
    assert_eq!(
        state.intake(at(0), Some(Intake::Emptying)),
        Intake::Emptying
    );
    assert!(state.set_pool_failed(Some(String::from("a bug"))));
    assert_eq!(
        (state.intake(at(0), paused), state.cause()),
        (Intake::Faulted, Some("a bug"))
    );
    state.drain();
    assert_eq!(state.intake(at(0), paused), Intake::Draining);

    let mut state = IntakeState::default();
    state.block(String::from("no route"));
    state.block(String::from("alarm"));
    state.unblock();
    assert_eq!(
        (state.intake(at(0), None), state.cause()),
        (Intake::Blocked, Some("alarm"))
    );
    state.unblock();
    assert_eq!(state.intake(at(0), None), Intake::Open);
}
