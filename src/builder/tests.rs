//! Tests of the builder: what it refuses, and what it sets.

use super::*;
use crate::{adapters::memory::MemoryBroker, config::ExecSettings};

fn pool() -> Pool {
    Pool::new("a").handler(|_: Job| async { Ok(Outcome::Done) })
}

async fn refusal(builder: Builder) -> String {
    builder.start().await.unwrap_err().to_string()
}

#[tokio::test]
async fn names_what_a_pool_lacks() {
    let never_more = RetrySettings {
        backoff: Duration::from_secs(600),
        ..RetrySettings::default()
    };
    let second = Duration::from_secs(1);
    for (pool, problem) in [
        (
            Pool::new("a"),
            "cannot be started: it needs a handler, exec, warm or runners",
        ),
        (
            Pool::new("a")
                .exec(ExecSettings::new(["true"]))
                .timeout(second),
            "cannot be started: timeout and kill_grace are for handlers: set those of its runners in their own \
             settings",
        ),
        (
            pool().prefetch(0),
            "has invalid settings: prefetch must be 1 or more",
        ),
        (
            pool().retry(never_more),
            "has invalid settings: retry.backoff must be above zero and at most retry.backoff_max",
        ),
    ] {
        let builder = Supervisor::builder().driver(MemoryBroker::new()).pool(pool);
        assert_eq!(refusal(builder).await, format!("the pool \"a\" {problem}"));
    }
}

#[tokio::test]
async fn requires_a_broker_that_it_can_name_without_its_password() {
    let nothing = Supervisor::builder().pool(pool());
    assert_eq!(
        refusal(nothing).await,
        "a supervisor needs a broker: its URL, or a driver"
    );
    let wrong = Supervisor::builder()
        .broker("http://me:s3cret@localhost/")
        .pool(pool());
    let refusal = refusal(wrong).await;
    assert_eq!(
        refusal,
        "the broker http://me:***@localhost/ cannot be used"
    );
}

#[tokio::test]
async fn refuses_two_pools_on_one_queue() {
    let second = Pool::new("b")
        .queue("a")
        .handler(|_: Job| async { Ok(Outcome::Done) });
    let builder = Supervisor::builder()
        .driver(MemoryBroker::new())
        .pool(pool())
        .pool(second);
    assert_eq!(
        refusal(builder).await,
        "the pools a and b cannot work on one queue, a"
    );
}

#[tokio::test(start_paused = true)]
async fn a_timeout_holds_for_a_handler_that_is_named_before_or_after_it() {
    let second = Duration::from_secs(1);
    let endless = |pool: Pool| pool.handler(|_: Job| std::future::pending());
    let once = RetrySettings {
        max_attempts: 1,
        ..RetrySettings::default()
    };
    for pool in [
        endless(Pool::new("a").timeout(second)),
        endless(Pool::new("a")).timeout(second),
    ] {
        let broker = MemoryBroker::new();
        broker.declare_queue("a", crate::queue::QueueKind::Classic);
        broker.send("a", "x");
        let pool = pool.kill_grace(Duration::ZERO).retry(once.clone());
        let builder = Supervisor::builder().driver(broker.clone()).pool(pool);
        let supervisor = builder.start().await.unwrap();
        let dead = async {
            while broker.ready("a.dead") != Some(1) {
                tokio::time::sleep(second).await;
            }
        };
        timeout(60 * second, dead).await.expect("a dead letter");
        supervisor.drain(second).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_pool_joins_a_supervisor_that_runs() {
    let second = Duration::from_secs(1);
    let broker = MemoryBroker::new();
    for queue in ["a", "b"] {
        broker.declare_queue(queue, crate::queue::QueueKind::Classic);
    }
    let builder = Supervisor::builder().driver(broker.clone()).pool(pool());
    let supervisor = builder.start().await.unwrap();
    let other = Pool::new("b").handler(|_: Job| async { Ok(Outcome::Done) });
    let pools = [pool(), other].map(|pool| pool.into_spec().unwrap());
    supervisor.reconfigure(pools.into()).await.unwrap();
    broker.send("b", "x");
    let done = async {
        while supervisor.pool(&"b".into()).unwrap().jobs.done == 0 {
            tokio::time::sleep(second).await;
        }
    };
    timeout(60 * second, done).await.expect("the job is done");
}
