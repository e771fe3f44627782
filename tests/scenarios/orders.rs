//! Orders of an operator, carried out by a pool.

use std::sync::Mutex;

use async_trait::async_trait;
use jiff::Timestamp;
use tidegate::{
    config::{PolicyEdit, change_policy},
    decide::{By, Closed, Order, TermName},
    run::{AllOrders, Clock, IntakeStatus, OrdersStore, StartOptions},
};

use super::*;

/// A wall clock that follows tokio's clock.
fn clock() -> Clock {
    let (wall, start) = (at(0), Instant::now());
    Clock::new(move || wall + start.elapsed())
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

/// Stores orders like a file.
#[derive(Default)]
struct Kept {
    orders: Mutex<AllOrders>,
    refuses: std::sync::atomic::AtomicBool,
}

#[async_trait]
impl OrdersStore for Kept {
    async fn store(&self, orders: &AllOrders) -> Result<(), BoxError> {
        if self.refuses.load(Ordering::Relaxed) {
            return Err("the disk is full".into());
        }
        *self.orders.lock().unwrap() = orders.clone();
        Ok(())
    }
}

fn spec(settings: PoolSettings) -> PoolSpec {
    let done = |_: Job| async { Ok(Outcome::Done) };
    PoolSpec {
        settings,
        runners: Arc::new(HandlerManager::new(done)),
    }
}

fn start_kept(broker: &MemoryBroker, settings: PoolSettings, kept: &Arc<Kept>) -> Supervisor {
    let options = StartOptions {
        orders: kept.orders.lock().unwrap().clone(),
        store: Some(kept.clone()),
        clock: clock(),
        ..StartOptions::default()
    };
    Supervisor::start_with(Arc::new(broker.clone()), vec![spec(settings)], options).unwrap()
}

fn root() -> By {
    By::new("root over the socket")
}

fn set(supervisor: &Supervisor, keys: &[&str]) -> Order {
    let keys = keys.iter().map(|key| (*key).to_owned()).collect();
    let settings = supervisor.settings(&name()).unwrap();
    let orders = supervisor.orders();
    let by_hand = orders
        .get(&name())
        .and_then(|orders| orders.policy.as_ref());
    let by_hand = by_hand.map(|set| &set.what);
    let changed = change_policy(&settings, by_hand, &PolicyEdit::Arguments(keys)).unwrap();
    Order::SetPolicy(Box::new(changed.set))
}

#[tokio::test(start_paused = true)]
async fn a_pause_with_an_end_resumes_by_itself() {
    let broker = broker();
    let kept = Arc::default();
    let supervisor = start_kept(&broker, settings(Policy::fixed(2)), &kept);
    let begun = Instant::now();
    let pause = Order::Pause {
        until: Some(at(30 * 60)),
    };
    let steered = supervisor.steer(&name(), pause, root()).await.unwrap();
    assert!(steered.changed && steered.expected == 0, "{steered:?}");
    broker.send(QUEUE, "one");
    let paused = until(&supervisor, "paused", |pool| {
        pool.state == PoolState::Paused
    })
    .await;
    assert_eq!(paused.intake, IntakeStatus::Paused);
    let done = until(&supervisor, "done", |pool| pool.jobs.done == 1).await;
    let waited = begun.elapsed().as_secs_f64() / 60.0;
    assert!((30.0..30.1).contains(&waited), "{waited} min");
    assert_eq!(done.intake, IntakeStatus::Open);
    until_kept(&kept, |orders| orders.is_empty()).await;
}

/// Lets time pass until the store has these orders.
async fn until_kept(kept: &Kept, looks: impl Fn(&AllOrders) -> bool) {
    let wait = async {
        while !looks(&kept.orders.lock().unwrap()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(3600), wait)
        .await
        .expect("kept");
}

#[tokio::test(start_paused = true)]
async fn orders_hold_over_a_reload_and_the_policy_until_the_file_changes_it() {
    let broker = broker();
    let kept = Arc::default();
    let of_the_file = || settings(Policy::backlog(10).max(50));
    let supervisor = start_kept(&broker, of_the_file(), &kept);
    for order in [
        set(&supervisor, &["jobs_per_worker=2"]),
        Order::Drain,
        Order::Pin { workers: 3 },
        Order::ForbidShrinking { until: None },
    ] {
        supervisor.steer(&name(), order, root()).await.unwrap();
    }
    let before = status(&supervisor).orders;
    assert_eq!(
        status(&supervisor).policy,
        "one worker for each 2 jobs, 1 to 50 workers"
    );

    let mut deeper = of_the_file();
    deeper.prefetch = 3;
    supervisor.reconfigure(vec![spec(deeper)]).await.unwrap();
    assert_eq!(status(&supervisor).orders, before);

    let changed = settings(Policy::backlog(5).max(50));
    supervisor.reconfigure(vec![spec(changed)]).await.unwrap();
    let after = status(&supervisor);
    assert_eq!(after.policy, "one worker for each 5 jobs, 1 to 50 workers");
    assert!(after.orders.policy.is_none());
    assert_eq!(
        (after.pinned, after.intake),
        (Some(3), IntakeStatus::Draining)
    );
    assert!(after.orders.no_shrink.is_some());

    // A removed pool loses its orders. A later pool with the same name has none.
    supervisor.reconfigure(Vec::new()).await.unwrap();
    until_kept(&kept, AllOrders::is_empty).await;
    supervisor
        .reconfigure(vec![spec(of_the_file())])
        .await
        .unwrap();
    assert!(status(&supervisor).orders.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_restart_restores_orders_before_it_takes_a_message() {
    let broker = broker();
    let kept = Arc::default();
    let of_the_file = || settings(Policy::backlog(10).max(50));
    let supervisor = start_kept(&broker, of_the_file(), &kept);
    for order in [Order::Pause { until: None }, set(&supervisor, &["max=4"])] {
        let steered = supervisor.steer(&name(), order, root()).await.unwrap();
        assert_eq!(steered.not_stored, None);
        // The order is stored before the caller gets the answer, so a later crash loses nothing.
        assert_eq!(*kept.orders.lock().unwrap(), supervisor.orders());
    }
    supervisor.drain(Duration::from_secs(9)).await.unwrap();

    let broker = self::broker();
    broker.send(QUEUE, "one");
    let again = start_kept(&broker, of_the_file(), &kept);
    throughout(&again, Duration::from_secs(20), "paused", |pool| {
        pool.state == PoolState::Paused && pool.jobs.done == 0
    })
    .await;
    let orders = status(&again).orders;
    let pause = orders.intake.expect("a pause");
    assert_eq!(
        (pause.what, pause.by.as_str()),
        (Closed::Paused, "root over the socket")
    );
    assert_eq!(orders.policy.expect("a policy").what.policy.max, 4);
    drop(again);

    // The file was changed while no daemon ran. The file wins in that case too.
    let changed = settings(Policy::backlog(10).max(40));
    let again = start_kept(&broker, changed, &kept);
    assert!(status(&again).orders.policy.is_none());
    assert!(status(&again).orders.intake.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_may_not_shrink_keeps_its_workers_on_an_empty_queue() {
    let broker = broker();
    let supervisor = start_kept(&broker, settings(Policy::fixed(3)), &Arc::default());
    for _ in 0..9 {
        broker.send(QUEUE, "job");
    }
    until(&supervisor, "grown", |pool| pool.workers.live == 3).await;
    let order = Order::ForbidShrinking { until: None };
    supervisor.steer(&name(), order, root()).await.unwrap();
    until(&supervisor, "done", |pool| pool.jobs.done == 9).await;
    let live = |pool: &PoolStatus| pool.workers.live == 3;
    throughout(&supervisor, Duration::from_secs(60), "kept", live).await;
    let decision = supervisor.explain(&name()).unwrap();
    assert_eq!(decision.won, TermName::NoShrink);
    let why = &decision.terms.last().unwrap().why;
    assert!(
        why.starts_with("set by hand not to shrink by root over the socket since "),
        "{why}"
    );
    supervisor
        .steer(&name(), Order::AllowShrinking, root())
        .await
        .unwrap();
    until(&supervisor, "drained", |pool| pool.workers.live == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_is_drained_becomes_empty_and_stays_so_until_it_is_resumed() {
    let broker = broker();
    let (mut held, handler) = Held::new();
    let supervisor = start(
        &broker,
        settings(Policy::fixed(2)),
        HandlerManager::new(handler),
    );
    for job in ["one", "two", "three"] {
        broker.send(QUEUE, job);
    }
    held.started().await;
    held.started().await;
    let steered = supervisor
        .steer(&name(), Order::Drain, root())
        .await
        .unwrap();
    assert_eq!(steered.expected, 0);
    let draining = status(&supervisor);
    assert_eq!(
        (draining.state, draining.intake),
        (PoolState::Draining, IntakeStatus::Draining)
    );
    assert_eq!(draining.runners.busy, 2, "running jobs continue");
    assert!(
        supervisor.readiness().is_ready(),
        "{:?}",
        supervisor.readiness()
    );
    held.let_go(9);
    until(&supervisor, "empty", |pool| {
        pool.workers.live + pool.runners.busy == 0
    })
    .await;
    let empty = until(&supervisor, "nothing left", |pool| {
        pool.state != PoolState::Draining
    })
    .await;
    assert_eq!(
        (empty.state, empty.intake, empty.runners.idle),
        (PoolState::Paused, IntakeStatus::Draining, 0)
    );
    throughout(&supervisor, Duration::from_secs(60), "empty", |pool| {
        pool.workers.live == 0 && pool.jobs.done == 2
    })
    .await;
    assert_eq!(broker.ready(QUEUE), Some(1));
    supervisor.resume(&name()).await.unwrap();
    until(&supervisor, "done", |pool| pool.jobs.done == 3).await;
}

#[tokio::test(start_paused = true)]
async fn an_order_that_cannot_be_stored_is_in_force_and_is_stored_later() {
    let broker = broker();
    let kept: Arc<Kept> = Arc::default();
    let supervisor = start_kept(&broker, settings(Policy::fixed(2)), &kept);
    until(&supervisor, "idle", |pool| pool.state == PoolState::Idle).await;
    kept.refuses.store(true, Ordering::Relaxed);
    let steered = supervisor.pause(&name()).await.unwrap();
    assert_eq!(steered.not_stored.as_deref(), Some("the disk is full"));
    assert_eq!(status(&supervisor).intake, IntakeStatus::Paused);
    kept.refuses.store(false, Ordering::Relaxed);
    until_kept(&kept, |orders| orders.len() == 1).await;
    let again = supervisor.pause(&name()).await.unwrap();
    assert!(!again.changed);
}

#[tokio::test(start_paused = true)]
async fn an_order_that_no_pool_can_carry_out_is_refused() {
    let supervisor = start_kept(&broker(), settings(Policy::fixed(2)), &Arc::default());
    let stale = set(&supervisor, &["workers=1"]);
    let changed = settings(Policy::fixed(5));
    supervisor.reconfigure(vec![spec(changed)]).await.unwrap();
    for (order, why) in [
        (
            Order::Pause {
                until: Some(at(-1)),
            },
            "has passed",
        ),
        (stale, "the configuration has changed meanwhile"),
    ] {
        let error = supervisor.steer(&name(), order, root()).await.unwrap_err();
        assert!(
            matches!(error, SupervisorError::Refused { .. }),
            "{error:?}"
        );
        assert!(error.to_string().contains(why), "{error}");
    }
    assert!(status(&supervisor).orders.is_empty());
}
