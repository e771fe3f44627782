//! What limits a run from outside: the supervisor's workers, orders of an operator, and a caller that gives up.

use jiff::Timestamp;
use tidegate_core::{
    decide::{
        By, ByHand, Configured, DrainAfter, Orders, Policy, Rules, Scaling, Schedule, SetPolicy,
        TermName,
    },
    trace::Trace,
};
use tidegate_sim::{Contender, PoolModel, ServiceTimes, Workload, simulate, simulate_while};

fn workload() -> Workload {
    let trace = Trace::parse("time,arrivals\n0,600\n60,0\n").expect("a trace");
    let service = ServiceTimes::named("fixed:2s").expect("named");
    Workload::new(trace, service.expect("valid"))
}

fn model(policy: Policy) -> PoolModel {
    let rules = Rules {
        policy,
        own: None,
        scaling: Scaling::default(),
        drain_after: DrainAfter::default(),
        keep_warm: 0,
        preempt: false,
        schedule: Schedule::default(),
    };
    PoolModel::new("pool", rules)
}

#[test]
fn a_pool_alone_has_all_workers_of_the_supervisor_and_no_more() {
    let mut model = model(Policy::backlog(1).max(20));
    let peak = |model: &PoolModel| {
        let mut by_budget = 0;
        let contender = Contender::Pool(Box::new(model.clone()));
        let run = simulate(&workload(), &contender, &mut |_, _, decision| {
            by_budget += u32::from(decision.won == TermName::Budget);
        });
        (run.report.peak, by_budget > 0)
    };
    assert_eq!(peak(&model), (20, false));
    model.max_workers = Some(7);
    assert_eq!(peak(&model), (7, true));
}

#[test]
fn a_policy_set_by_hand_is_the_one_that_decides() {
    let mut model = model(Policy::backlog(1).max(20));
    let mut orders = Orders::default();
    orders.policy = Some(ByHand {
        what: SetPolicy {
            policy: Policy::fixed(3),
            scaling: Scaling::default(),
            keys: [("policy.kind".to_owned(), "\"fixed\"".to_owned())].into(),
            over: Configured {
                policy: model.rules.policy.clone(),
                scaling: model.rules.scaling,
            },
        },
        by: By::program(),
        since: Timestamp::UNIX_EPOCH,
        until: None,
    });
    model.orders = orders;
    let contender = Contender::Pool(Box::new(model));
    let run = simulate(&workload(), &contender, &mut |_, _, _| {});
    assert_eq!(run.report.peak, 3);
}

#[test]
fn a_run_that_is_given_up_has_no_result() {
    let contender = Contender::Pool(Box::new(model(Policy::backlog(1).max(20))));
    let mut asked = 0;
    let given_up = simulate_while(&workload(), &contender, &mut || {
        asked += 1;
        asked < 5
    });
    assert!(given_up.is_none());
    assert_eq!(asked, 5);
    let finished = simulate_while(&workload(), &contender, &mut || true).expect("it ends");
    let whole = simulate(&workload(), &contender, &mut |_, _, _| {});
    assert_eq!(finished.report, whole.report);
}
