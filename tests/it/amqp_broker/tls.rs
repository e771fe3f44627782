//! `amqps://`, with a broker that requires a client certificate.

use tidegate::{
    config::{BrokerSettings, BrokerUrl, TlsSettings},
    queue::QueueDriver,
};

use super::{
    TIMEOUT, consume, declare, delivery, lazily, publish, to, until_connected, until_disconnected,
};
use crate::support::broker::{PrivateBroker, faulty_broker};

fn tls(broker: &PrivateBroker) -> BrokerSettings {
    let file = |name: &str| Some(broker.folder().join(name));
    BrokerSettings {
        url: BrokerUrl::new(broker.tls_url()),
        tls: TlsSettings {
            ca: file("ca.pem"),
            cert: file("client.pem"),
            key: file("client.key"),
        },
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn works_over_tls_with_a_certificate_of_its_own() {
    let mut broker = faulty_broker().await;
    let driver = lazily(&tls(&broker));
    driver.until_connected(TIMEOUT).await.expect("a broker");
    let queue = declare(&driver, "over tls").await;
    publish(&driver, &queue, "a").await.expect("a publish");
    let mut consumer = consume(&driver, &queue).await.expect("a consumer");
    delivery(&mut consumer).await.ack().await.expect("an ack");
    let facts = driver.facts().await.expect("a broker");
    assert_eq!(facts.product.as_deref(), Some("RabbitMQ"));
    // Asks the broker, because the client would report the same on a plain socket.
    let listed = to(&mut broker, |broker| {
        broker.ctl(&["list_connections", "ssl"])
    });
    assert!(listed.lines().all(|line| line.trim() == "true"), "{listed}");
    driver.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_with_a_certificate_of_an_unknown_authority_is_not_trusted() {
    let broker = faulty_broker().await;
    let mut settings = tls(&broker);
    settings.tls.ca = Some(broker.folder().join("stranger.pem"));
    let why = until_disconnected(&lazily(&settings)).await;
    assert!(why.contains("certificate"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_with_a_certificate_for_another_name_is_not_trusted() {
    let broker = faulty_broker().await;
    let mut settings = tls(&broker);
    // This address reaches the same listener, but the certificate is for localhost and 127.0.0.1.
    settings.url = BrokerUrl::new(broker.tls_url().replace("127.0.0.1", "0.0.0.0"));
    let why = until_disconnected(&lazily(&settings)).await;
    assert!(why.contains("certificate"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_certificate_the_broker_refuses() {
    let broker = faulty_broker().await;
    let mut settings = tls(&broker);
    settings.tls.cert = None;
    settings.tls.key = None;
    until_disconnected(&lazily(&settings)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_corrected_on_disk_is_read_again() {
    let broker = faulty_broker().await;
    let folder = tempfile::tempdir().expect("a folder");
    let ca = folder.path().join("ca.pem");
    let mut settings = tls(&broker);
    settings.tls.ca = Some(ca.clone());
    let driver = lazily(&settings);
    let why = until_disconnected(&driver).await;
    assert!(why.contains("ca.pem"), "{why}");
    std::fs::copy(broker.folder().join("ca.pem"), &ca).expect("a copy");
    until_connected(&driver).await;
}
