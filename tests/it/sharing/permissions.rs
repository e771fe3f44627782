//! What a daemon says that shares a queue, but may not use the exchange of its group.

use tidegate::{
    adapters::amqp::AmqpDriver,
    queue::{Outgoing, QueueDriver as _, QueueKind, QueueSpec},
};
use tokio::task::block_in_place;

use crate::support::{
    broker::{TestQueue, faulty_broker, settings},
    daemon::{DEADLINE, Daemon},
};

const ALL: &str = ".*";
const ALL_BUT_THE_GROUP: &str = "^(?!.*[.]share$).*";

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_may_not_use_the_groups_exchange_says_so_and_works_alone() {
    let broker = faulty_broker().await;
    let owner = AmqpDriver::connect_lazily(&settings(&broker.url())).unwrap();
    owner.until_connected(DEADLINE).await.unwrap();
    let mut daemons = Vec::new();
    for (what, permissions) in [
        ("configure", [ALL_BUT_THE_GROUP, ALL, ALL]),
        ("write", [ALL, ALL_BUT_THE_GROUP, ALL]),
        ("read", [ALL, ALL, ALL_BUT_THE_GROUP]),
    ] {
        let queue = TestQueue::at(&broker.url(), what);
        let spec = QueueSpec::new(queue.name(), QueueKind::Classic);
        owner.declare(&spec).await.unwrap();
        let job = Outgoing {
            routing_key: queue.name().as_str().to_owned(),
            ..Outgoing::default()
        };
        for _ in 0..3 {
            owner.publish(job.clone()).await.unwrap();
        }
        let user = format!("may-not-{what}-{:08x}", rand::random::<u32>());
        let [configure, write, read] = permissions;
        let daemon = block_in_place(|| {
            broker.ctl(&["add_user", &user, "secret"]);
            broker.ctl(&["set_permissions", &user, configure, write, read]);
            let url = broker
                .url()
                .replace("guest:guest", &format!("{user}:secret"));
            let pools = format!(
                "[pools.jobs]\nqueue = \"{}\"\nshare = true\npoll_interval = \"100ms\"\n\
                 policy = {{kind = \"backlog\", jobs_per_worker = 1, max = 3}}\n\
                 runner.command = [\"sleep\", \"600\"]\nrunner.kill_grace = \"100ms\"\n",
                queue.name()
            );
            Daemon::start(&url, &pools)
        });
        daemons.push((what, queue, user, daemon));
    }
    block_in_place(|| {
        for (what, queue, user, daemon) in daemons {
            let exchange = format!("{}.share", queue.name());
            let pool = daemon.wait_for_pool("jobs", |pool| {
                pool["workers"]["live"] == 3 && pool["cause"].is_string()
            });
            let cause = pool["cause"].as_str().unwrap();
            assert!(
                cause.starts_with("the group cannot be heard: ")
                    && cause.contains("ACCESS_REFUSED")
                    && cause.contains(&exchange),
                "{what}: {cause}"
            );
            let warnings = daemon.said();
            let warnings = warnings.matches("cannot hear the other daemons of the queue");
            assert_eq!(warnings.count(), 1, "{what}: {}", daemon.said());
            drop(daemon);
            broker.ctl(&["delete_user", &user]);
        }
    });
    owner.close().await;
}
