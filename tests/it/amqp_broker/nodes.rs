//! Several nodes of one cluster: which one is used, and when it is left. Two proxies are the nodes.

use tidegate::config::BrokerUrl;
use tokio::task::block_in_place;

use super::*;
use crate::support::{
    broker::broker_url,
    daemon::poll,
    proxy::{Network, Proxy},
};

fn until_at(driver: &AmqpDriver, node: &Proxy) {
    let node = [node.address().to_string()];
    block_in_place(|| poll(|| (driver.nodes() == node).then_some(())))
        .unwrap_or_else(|| panic!("at {:?}, not at {node:?}", driver.nodes()));
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_connections_are_made_again_on_the_next_node_and_stay_there() {
    let url = broker_url();
    let (first, second) = (Proxy::new(&url), Proxy::new(&url));
    let mut settings = settings(&first.url(&url));
    settings.others = vec![BrokerUrl::new(second.url(&url))];
    let driver = lazily(&settings);
    until_connected(&driver).await;
    until_at(&driver, &first);

    first.set(Network::Cut);
    until_at(&driver, &second);
    // Only connections that are up have a node.
    until_connected(&driver).await;
    first.set(Network::Up);
    // A connection that is opened later is on the same node.
    driver.prepare_to_publish().await.expect("a channel");
    let queue = QueueName::from("tidegate-test-nodes-absent");
    assert!(driver.probe(&queue).await.is_err());
    assert_eq!(driver.nodes(), [second.address().to_string()]);

    // A node that does not answer is left after three seconds, not after ten.
    first.set(Network::Partitioned);
    second.set(Network::Cut);
    let begun = Instant::now();
    until_disconnected(&driver).await;
    second.set(Network::Up);
    until_at(&driver, &second);
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
}
