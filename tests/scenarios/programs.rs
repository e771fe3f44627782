//! Programs that consume the queue themselves. Each is a consumer of the in-memory queue, behind the seam of runners.

use std::{
    future::poll_fn,
    sync::atomic::{AtomicBool, AtomicI64},
};

use tidegate::{
    decide::{HeldBy, QueueName},
    queue::{Holdings, HoldingsView},
    run::StartOptions,
    runner::{ProgramControl, ProgramEnd},
};

use super::*;

/// What the programs of a test do.
#[derive(Debug)]
struct Script {
    broker: MemoryBroker,
    /// How long each message takes. A program that is told to leave finishes its message first.
    service: Duration,
    /// Whether programs end by themselves, and after how long.
    ends: AtomicBool,
    ends_after: Duration,
    /// Whether the programs consume the queue.
    consumes: bool,
    up: AtomicI64,
    /// Messages that programs hold.
    holding: AtomicI64,
    started: AtomicU32,
    done: AtomicU32,
    /// Programs that were ended by force while they held a message.
    killed: AtomicU32,
}

impl Script {
    fn new(broker: &MemoryBroker) -> Self {
        Self {
            broker: broker.clone(),
            service: Duration::from_secs(30),
            ends: AtomicBool::new(false),
            ends_after: Duration::ZERO,
            consumes: true,
            up: AtomicI64::new(0),
            holding: AtomicI64::new(0),
            started: AtomicU32::new(0),
            done: AtomicU32::new(0),
            killed: AtomicU32::new(0),
        }
    }

    fn up(&self) -> i64 {
        self.up.load(Ordering::Relaxed)
    }

    fn done(&self) -> u32 {
        self.done.load(Ordering::Relaxed)
    }

    fn killed(&self) -> u32 {
        self.killed.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct Programs(Arc<Script>);

struct Program(Arc<Script>);

#[async_trait::async_trait]
impl RunnerManager for Programs {
    fn kind(&self) -> &'static str {
        "program"
    }

    fn consumes(&self) -> bool {
        true
    }

    async fn create(&self, _: CreateRunner) -> Result<Box<dyn Runner>, StartError> {
        self.0.started.fetch_add(1, Ordering::Relaxed);
        self.0.up.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(Program(self.0.clone())))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.0.up.fetch_sub(1, Ordering::Relaxed);
    }
}

#[async_trait::async_trait]
impl Runner for Program {
    async fn consume(&mut self, control: ProgramControl) -> ProgramEnd {
        let script = &self.0;
        let begun = Instant::now();
        let end = |how: &str| {
            let mut end = ProgramEnd::new(how);
            end.ran = begun.elapsed();
            end
        };
        if script.ends.load(Ordering::Relaxed) {
            tokio::time::sleep(script.ends_after).await;
            return end("exit code 1: no such module");
        }
        if !script.consumes {
            control.leave.cancelled().await;
            return end("told to");
        }
        let request = ConsumeRequest {
            queue: QUEUE.into(),
            prefetch: 1,
            tag: String::from("program"),
        };
        let mut consumer = script.broker.consume(request).await.unwrap();
        loop {
            let next = tokio::select! {
                biased;
                () = control.leave.cancelled() => return end("told to"),
                next = poll_fn(|cx| consumer.poll_next(cx)) => next,
            };
            let delivery = next.unwrap().unwrap();
            script.holding.fetch_add(1, Ordering::Relaxed);
            let forced = async {
                tokio::select! {
                    () = control.stop.cancelled() => {}
                    () = control.kill.cancelled() => {}
                }
            };
            tokio::select! {
                () = tokio::time::sleep(script.service) => {}
                () = forced => {
                    script.killed.fetch_add(1, Ordering::Relaxed);
                    let mut end = end("ended by SIGKILL");
                    end.was_killed = true;
                    return end;
                }
            }
            script.done.fetch_add(1, Ordering::Relaxed);
            script.holding.fetch_sub(1, Ordering::Relaxed);
            delivery.ack().await.unwrap();
        }
    }

    async fn run(&mut self, _: &Job, _: JobControl) -> RunReport {
        unreachable!("the pool hands no job to a program that consumes the queue itself")
    }

    async fn stop(self: Box<Self>) {}
}

fn run(script: Script, settings: PoolSettings) -> (Supervisor, Arc<Script>) {
    let script = Arc::new(script);
    let broker = script.broker.clone();
    (start(&broker, settings, Programs(script.clone())), script)
}

#[tokio::test(start_paused = true)]
async fn programs_grow_with_the_queue_and_drain_to_none_without_a_message_lost() {
    let broker = broker();
    for n in 0..40 {
        broker.send(QUEUE, format!("job {n}"));
    }
    let (supervisor, script) = run(Script::new(&broker), settings(Policy::backlog(10).max(6)));
    let risen = until(&supervisor, "risen", |pool| {
        pool.workers.live >= 4 && pool.runners.idle + pool.runners.busy == pool.workers.live
    })
    .await;
    assert_eq!(risen.workers.bare, 0, "a program is its own runner");
    until(&supervisor, "known as busy", |pool| pool.runners.busy >= 4).await;
    until(&supervisor, "drained", |pool| {
        pool.state == PoolState::Idle && pool.workers.draining == 0
    })
    .await;
    assert_eq!((script.done(), script.killed(), script.up()), (40, 0, 0));
    assert_eq!(broker.ready(QUEUE), Some(0));
}

#[tokio::test(start_paused = true)]
async fn explain_says_what_is_assumed_of_what_programs_hold() {
    let broker = broker();
    for n in 0..40 {
        broker.send(QUEUE, format!("job {n}"));
    }
    let (supervisor, _script) = run(Script::new(&broker), settings(Policy::backlog(10).max(6)));
    let pool = until(&supervisor, "counted", |pool| {
        pool.demand > pool.depth.ready
    })
    .await;
    let decision = supervisor.explain(&name()).unwrap();
    let held = decision.inputs.held;
    assert_eq!(pool.demand, pool.depth.ready + held);
    let text = decision.to_string();
    assert!(
        text.contains("assumed: one for each consumer while messages are ready"),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn shrinking_never_ends_a_program_by_force_and_takes_as_long_as_it_takes() {
    let broker = broker();
    for n in 0..3 {
        broker.send(QUEUE, format!("job {n}"));
    }
    let script = Script {
        service: Duration::from_secs(7200),
        ..Script::new(&broker)
    };
    let (supervisor, script) = run(script, settings(Policy::fixed(3)));
    until(&supervisor, "up", |pool| pool.workers.live == 3).await;
    supervisor.pause(&name()).await.unwrap();
    throughout(
        &supervisor,
        Duration::from_secs(3000),
        "finishing",
        |pool| pool.workers.draining == 3 && pool.state == PoolState::Paused,
    )
    .await;
    assert_eq!((script.done(), script.killed()), (0, 0));
    tokio::time::sleep(Duration::from_secs(4300)).await;
    assert_eq!((script.done(), script.killed(), script.up()), (3, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_programs_by_force_when_its_time_is_over() {
    let broker = broker();
    broker.send(QUEUE, "long");
    let script = Script {
        service: Duration::from_secs(7200),
        ..Script::new(&broker)
    };
    let (supervisor, script) = run(script, settings(Policy::fixed(1)));
    until(&supervisor, "up", |pool| pool.workers.live == 1).await;
    until(&supervisor, "taken", |pool| pool.depth.ready == 0).await;
    let begun = Instant::now();
    supervisor.drain(Duration::from_secs(30)).await.ok();
    assert!((30..33).contains(&begun.elapsed().as_secs()));
    assert_eq!((script.killed(), script.up()), (1, 0));
    assert_eq!(broker.ready(QUEUE), Some(1), "the broker has it again");
}

#[tokio::test(start_paused = true)]
async fn a_program_that_ends_by_itself_after_it_worked_is_replaced_at_once() {
    let broker = broker();
    for n in 0..10 {
        broker.send(QUEUE, format!("job {n}"));
    }
    let script = Script {
        ends: AtomicBool::new(true),
        ends_after: Duration::from_secs(15),
        ..Script::new(&broker)
    };
    let (supervisor, script) = run(script, settings(Policy::fixed(2)));
    until(&supervisor, "up", |pool| pool.workers.live == 2).await;
    tokio::time::sleep(Duration::from_secs(100)).await;
    let started = script.started.load(Ordering::Relaxed);
    assert!(
        (12..=14).contains(&started),
        "{started} in 100 s of 15 s each"
    );
    assert_ne!(status(&supervisor).state, PoolState::Faulted);
}

#[tokio::test(start_paused = true)]
async fn a_crash_loop_is_a_fault_with_the_last_words_until_a_program_stays_up() {
    let broker = broker();
    for n in 0..10 {
        broker.send(QUEUE, format!("job {n}"));
    }
    let script = Script {
        ends: AtomicBool::new(true),
        ends_after: Duration::from_millis(300),
        ..Script::new(&broker)
    };
    let (supervisor, script) = run(script, settings(Policy::fixed(3)));
    let faulted = until(&supervisor, "faulted", |pool| {
        pool.state == PoolState::Faulted
    })
    .await;
    let cause = faulted.cause.unwrap();
    assert_eq!(cause, "exit code 1: no such module, 300ms after its start");
    let before = script.started.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(120)).await;
    let tried = script.started.load(Ordering::Relaxed) - before;
    assert!((2..=6).contains(&tried), "{tried} trials in two minutes");
    script.ends.store(false, Ordering::Relaxed);
    until(&supervisor, "well again", |pool| {
        pool.state == PoolState::Active && pool.workers.live == 3
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn programs_that_do_not_consume_the_queue_make_the_pool_stuck() {
    let broker = broker();
    for n in 0..10 {
        broker.send(QUEUE, format!("job {n}"));
    }
    let script = Script {
        consumes: false,
        ..Script::new(&broker)
    };
    let (supervisor, _script) = run(script, settings(Policy::fixed(2)));
    let stuck = until(&supervisor, "stuck", |pool| pool.state == PoolState::Stuck).await;
    let cause = stuck.cause.unwrap();
    assert!(cause.contains("2 programs are up"), "{cause}");
}

#[tokio::test(start_paused = true)]
async fn keep_warm_keeps_programs_on_an_empty_queue() {
    let broker = broker();
    let settings = PoolSettings {
        keep_warm: 2,
        ..settings(Policy::backlog(1).max(5))
    };
    let script = Script {
        service: Duration::from_secs(1),
        ..Script::new(&broker)
    };
    let (supervisor, script) = run(script, settings);
    until(&supervisor, "warm", |pool| pool.workers.live == 2).await;
    for n in 0..20 {
        broker.send(QUEUE, format!("job {n}"));
    }
    until(&supervisor, "risen", |pool| pool.workers.live == 5).await;
    until(&supervisor, "warm again", |pool| {
        pool.workers.live == 2 && pool.workers.draining == 0
    })
    .await;
    assert_eq!((script.done(), script.up()), (20, 2));
}

#[tokio::test(start_paused = true)]
async fn a_flush_replaces_programs_and_lets_each_finish_what_it_holds() {
    let broker = broker();
    for n in 0..10 {
        broker.send(QUEUE, format!("job {n}"));
    }
    let (supervisor, script) = run(Script::new(&broker), settings(Policy::fixed(2)));
    until(&supervisor, "busy", |pool| pool.runners.busy == 2).await;
    let kept = supervisor.flush(&name(), FlushMode::Idle).await.unwrap();
    assert_eq!(kept.metric_stats.get(&EventKind::RunnerStop), None);
    let all = supervisor.flush(&name(), FlushMode::All).await.unwrap();
    assert_eq!(all.metric_stats[&EventKind::RunnerStop], 2);
    until(&supervisor, "replaced", |pool| {
        pool.workers.live == 2 && pool.workers.draining == 0
    })
    .await;
    assert_eq!(script.started.load(Ordering::Relaxed), 4);
    assert_eq!((script.done(), script.killed()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn another_command_replaces_every_program() {
    let broker = broker();
    for n in 0..10 {
        broker.send(QUEUE, format!("job {n}"));
    }
    let (supervisor, old) = run(Script::new(&broker), settings(Policy::fixed(2)));
    until(&supervisor, "busy", |pool| pool.runners.busy == 2).await;
    let new = Arc::new(Script::new(&broker));
    let spec = PoolSpec {
        settings: settings(Policy::fixed(2)),
        runners: Arc::new(Programs(new.clone())),
    };
    supervisor.reconfigure(vec![spec]).await.unwrap();
    until(&supervisor, "replaced", |pool| pool.workers.live == 2).await;
    until(&supervisor, "old ones gone", |pool| {
        pool.workers.draining == 0
    })
    .await;
    assert_eq!((old.up(), old.done(), old.killed()), (0, 2, 0));
    assert_eq!(new.up(), 2);
}

/// A management API that counts what the programs hold, and cannot tell them apart.
#[derive(Debug)]
struct View {
    script: Arc<Script>,
    fails: AtomicBool,
}

#[async_trait::async_trait]
impl HoldingsView for View {
    async fn holdings(&self, _: &QueueName) -> Result<Holdings, BoxError> {
        if self.fails.load(Ordering::Relaxed) {
            return Err("it is away".into());
        }
        let holding = self.script.holding.load(Ordering::Relaxed);
        Ok(Holdings {
            unacknowledged: u64::try_from(holding).unwrap(),
            ..Holdings::default()
        })
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_counted_is_demand_and_keeps_as_many_programs_on_an_empty_queue() {
    let broker = broker();
    for n in 0..4 {
        broker.send(QUEUE, format!("job {n}"));
    }
    let script = Arc::new(Script {
        service: Duration::from_secs(600),
        ..Script::new(&broker)
    });
    let view = Arc::new(View {
        script: script.clone(),
        fails: AtomicBool::new(false),
    });
    let spec = PoolSpec {
        settings: settings(Policy::backlog(1).max(9)),
        runners: Arc::new(Programs(script.clone())),
    };
    let options = StartOptions {
        holdings: Some(view.clone()),
        ..StartOptions::default()
    };
    let supervisor = Supervisor::start_with(Arc::new(broker.clone()), vec![spec], options).unwrap();
    until(&supervisor, "counted", |pool| {
        (pool.depth.ready, pool.demand, pool.runners.busy) == (0, 4, 4)
    })
    .await;
    throughout(&supervisor, Duration::from_secs(300), "kept", |pool| {
        pool.workers.live == 4 && pool.workers.draining == 0
    })
    .await;
    let decision = supervisor.explain(&name()).unwrap();
    assert_eq!(decision.inputs.held_by, HeldBy::Counted { located: false });

    view.fails.store(true, Ordering::Relaxed);
    until(&supervisor, "assumed", |pool| pool.demand == 0).await;
    let explained = supervisor.explain(&name()).unwrap().to_string();
    assert!(
        explained.contains("the management API: it is away"),
        "{explained}"
    );
    until(&supervisor, "drained", |pool| {
        pool.state == PoolState::Idle && pool.workers.draining == 0
    })
    .await;
    assert_eq!((script.done(), script.killed()), (4, 0));
}
