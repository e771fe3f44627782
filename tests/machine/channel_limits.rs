//! A limit on the channels of a whole node, which RabbitMQ has since 3.12.

use std::time::Duration;

use tidegate::Policy;

use crate::needs::Need;
use crate::support::{
    broker::PrivateBroker,
    watched::{Other, Watched},
};

trials! {
    tasks(Need::RabbitMq4): [
        a_pool_works_with_the_channels_that_a_node_has_and_runs_each_job_once,
    ],
}

async fn a_pool_works_with_the_channels_that_a_node_has_and_runs_each_job_once() {
    const JOBS: usize = 24;
    let broker = PrivateBroker::start();
    let set = "application:set_env(rabbit, channel_max_per_node, 10).";
    broker.ctl(&["eval", set]);
    let other = Other::declare(&broker.url(), "node", &[]).await;
    let policy = Policy::backlog(1).max(20);
    let takes = Duration::from_secs(1);
    let pool = Watched::start(&broker.url(), &other.queue, policy, takes).await;
    other.publish(JOBS).await;
    pool.until("limited", |pool| {
        let cause = pool.cause.as_deref();
        cause.is_some_and(|cause| cause.contains("channels opened on node"))
    })
    .await;
    let done = pool
        .until("done", |pool| pool.jobs.done == JOBS as u64)
        .await;
    assert_eq!((done.jobs.lost, done.jobs.requeued), (0, 0));
    let runs = pool.runs();
    assert_eq!(runs.len(), JOBS);
    assert!(runs.values().all(|runs| *runs == 1), "{runs:?}");
    pool.stop().await;
    other.end().await;
}
