//! Custom policies of a program.

use std::sync::Mutex;

use tidegate::{
    Pool,
    config::{PolicyEdit, change_policy, policy_keys},
    decide::{By, Order, OwnPolicy, Rates, Recommendation, ScalingPolicy, Situation, TermName},
};

use super::*;

/// The inputs of a policy: ready, held, demand, expected, whether wall time was known, and rates.
type Asked = (u64, u64, u64, u32, bool, Option<Rates>);

/// A policy that adds one worker each time it is asked, and records its inputs.
struct Rising {
    asked: Arc<Mutex<Vec<Asked>>>,
    workers: u32,
}

impl ScalingPolicy for Rising {
    fn recommend(&mut self, situation: &Situation<'_>) -> Recommendation {
        let inputs = situation.inputs;
        self.asked.lock().unwrap().push((
            inputs.ready,
            inputs.held,
            inputs.demand,
            situation.expected,
            situation.wall.is_some(),
            situation.rates,
        ));
        self.workers += 1;
        Recommendation::new(self.workers, "one more than before")
    }

    fn describe(&self) -> String {
        format!("rising, {} by now", self.workers)
    }
}

fn rising() -> (Arc<Mutex<Vec<Asked>>>, OwnPolicy) {
    let asked = Arc::default();
    let policy = Rising {
        asked: Arc::clone(&asked),
        workers: 0,
    };
    (asked, OwnPolicy::new(policy).max(5))
}

#[tokio::test(start_paused = true)]
async fn a_custom_policy_gets_all_facts_and_keeps_its_state() {
    let broker = broker();
    for _ in 0..2000 {
        broker.send(QUEUE, "job");
    }
    let (asked, policy) = rising();
    let pool = Pool::new(QUEUE).policy(policy).handler(slow);
    let supervisor = Supervisor::builder().driver(broker.clone()).pool(pool);
    let supervisor = supervisor.start().await.unwrap();
    let grown = until(&supervisor, "grown", |pool| pool.workers.live == 5).await;
    assert!(grown.policy.starts_with("rising, "), "{}", grown.policy);
    let decision = supervisor.explain(&name()).unwrap();
    assert_eq!(decision.terms[0].why, "one more than before");
    until(&supervisor, "known", |pool| pool.jobs.done > 100).await;
    let asked = asked.lock().unwrap();
    let expected: Vec<_> = asked.iter().map(|asked| asked.3).take(6).collect();
    assert_eq!(expected, [0, 1, 2, 3, 4, 5]);
    let (ready, held, demand, _, wall, rates) = *asked.last().unwrap();
    assert!(held == 5 && demand == ready + held && wall, "{asked:?}");
    let done = rates.expect("rates are known").done;
    assert!(
        (3.0..5.5).contains(&done),
        "{done} jobs a second by 5 workers that take 1 s"
    );
}

#[tokio::test(start_paused = true)]
async fn a_kind_set_by_hand_replaces_a_custom_policy_and_bounds_still_apply() {
    let broker = broker();
    for _ in 0..2000 {
        broker.send(QUEUE, "job");
    }
    let (_, policy) = rising();
    let pool = Pool::new(QUEUE).policy(policy).handler(slow);
    let supervisor = Supervisor::builder().driver(broker.clone()).pool(pool);
    let supervisor = supervisor.start().await.unwrap();
    let set = async |keys: &[&str]| {
        let keys = keys.iter().map(|key| (*key).to_owned()).collect();
        let settings = supervisor.settings(&name()).unwrap();
        let changed = change_policy(&settings, None, &PolicyEdit::Arguments(keys)).unwrap();
        let shown: Vec<_> = changed.keys.iter().map(|key| key.key.clone()).collect();
        let order = Order::SetPolicy(Box::new(changed.set));
        supervisor
            .steer(&name(), order, By::new("root"))
            .await
            .unwrap();
        shown
    };
    let settings = supervisor.settings(&name()).unwrap();
    assert!(
        policy_keys(&settings, None)
            .iter()
            .all(|key| key.key != "policy.kind")
    );
    let shown = set(&["max=3", "scaling.down_window=0s"]).await;
    assert!(!shown.contains(&String::from("policy.kind")), "{shown:?}");
    let bounded = until(&supervisor, "bounded", |pool| pool.expected == 3).await;
    assert!(bounded.policy.starts_with("rising"), "{}", bounded.policy);
    let shown = set(&["kind=fixed", "workers=2", "scaling.down_window=0s"]).await;
    assert!(shown.contains(&String::from("policy.kind")), "{shown:?}");
    let fixed = until(&supervisor, "fixed", |pool| pool.expected == 2).await;
    assert!(fixed.policy.starts_with("fixed at 2"), "{}", fixed.policy);
    supervisor
        .steer(&name(), Order::ResetPolicy, By::new("root"))
        .await
        .unwrap();
    until(&supervisor, "risen", |pool| pool.expected == 5).await;
    assert_ne!(supervisor.explain(&name()).unwrap().won, TermName::Pin);
}
