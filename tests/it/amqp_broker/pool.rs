//! A whole pool on a broker that is killed under it.

use std::{sync::Arc, time::Duration};

use tidegate::{
    Job, Outcome, Policy, Pool, Supervisor,
    decide::PoolName,
    queue::{Outgoing, Properties, QueueDriver},
    run::{PoolState, PoolStatus},
};
use tokio::sync::{Semaphore, mpsc};

use super::{connect, declare, to, within};
use crate::support::broker::faulty_broker;

async fn until(supervisor: &Supervisor, what: &str, looks: impl Fn(&PoolStatus) -> bool) {
    let name = PoolName::from("test");
    within(what, async {
        while !supervisor.pool(&name).is_some_and(|pool| looks(&pool)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_loses_a_settlement_but_no_job_when_its_broker_is_killed_and_comes_back_by_itself() {
    let mut broker = faulty_broker().await;
    let driver = connect(&broker.url()).await;
    let queue = declare(&driver, "pool").await;
    let (say, mut started) = mpsc::unbounded_channel();
    let leave = Arc::new(Semaphore::new(0));
    let handler = {
        let leave = leave.clone();
        move |job: Job| {
            say.send(job).ok();
            let leave = leave.clone();
            async move {
                leave.acquire().await?.forget();
                Ok(Outcome::Done)
            }
        }
    };
    let supervisor = Supervisor::builder()
        .broker(broker.url())
        .pool(
            Pool::new("test")
                .queue(queue.as_str())
                .policy(Policy::fixed(2))
                .poll_interval(Duration::from_millis(100))
                .handler(handler),
        )
        .start()
        .await
        .expect("a supervisor");
    let message = Outgoing {
        routing_key: queue.as_str().to_owned(),
        properties: Properties {
            delivery_mode: Some(2),
            ..Properties::default()
        },
        ..Outgoing::default()
    };
    driver.publish(message).await.expect("a publish");
    within("a job", started.recv()).await.expect("a job");

    to(&mut broker, |broker| broker.kill());
    until(&supervisor, "disconnected", |pool| {
        pool.state == PoolState::Disconnected
    })
    .await;
    leave.add_permits(1);
    until(&supervisor, "lost", |pool| pool.jobs.lost == 1).await;

    to(&mut broker, |broker| broker.restart());
    let again = within("the job again", started.recv())
        .await
        .expect("a job");
    assert!(again.message().redelivered);
    leave.add_permits(1);
    until(&supervisor, "done", |pool| pool.jobs.done == 1).await;
    supervisor
        .drain(Duration::from_secs(10))
        .await
        .expect("drained");
}
