//! The data that jobs get about the first publish of their message.

use lapin::{
    ExchangeKind,
    options::{ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions},
};

use super::*;

#[tokio::test]
async fn every_attempt_is_told_the_exchange_and_routing_key_of_the_first_publish() {
    let mut rig = Rig::new("origin", fail).await;
    let exchange = format!("{}-exchange", rig.queue);
    let channel = &rig.channel;
    channel
        .exchange_declare(
            exchange.as_str().into(),
            ExchangeKind::Topic,
            ExchangeDeclareOptions::default(),
            FieldTable::default(),
        )
        .await
        .unwrap();
    channel
        .queue_bind(
            rig.queue.as_str().into(),
            exchange.as_str().into(),
            "thumbnails.#".into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await
        .unwrap();
    // Forged headers are ignored on a message that came through an exchange.
    let forged = headers(vec![
        ("x-tidegate-original-exchange", long("forged")),
        ("x-tidegate-original-routing-key", long("forged")),
    ]);
    let properties = forged
        .with_type("resize".into())
        .with_app_id("shop".into())
        .with_priority(4)
        .with_timestamp(1_764_000_000)
        .with_content_encoding("gzip".into())
        .with_reply_to("answers".into());
    channel
        .basic_publish(
            exchange.as_str().into(),
            "thumbnails.large".into(),
            BasicPublishOptions::default(),
            b"x",
            properties,
        )
        .await
        .unwrap()
        .await
        .unwrap();
    for attempt in 1..=2 {
        let job = rig.job().await;
        assert_eq!(job.attempt(), attempt);
        assert_eq!(job.exchange(), exchange);
        assert_eq!(job.routing_key(), "thumbnails.large");
        let told = job.properties();
        assert_eq!(told.kind.as_deref(), Some("resize"));
        assert_eq!(told.app_id.as_deref(), Some("shop"));
        assert_eq!(told.priority, Some(4));
        assert_eq!(told.timestamp, Some(1_764_000_000));
        assert_eq!(told.content_encoding.as_deref(), Some("gzip"));
        assert_eq!(told.reply_to.as_deref(), Some("answers"));
    }
    let letter = rig.dead().await;
    let origin = header(&letter, "x-tidegate-original-exchange");
    assert_eq!(origin, Some(long(&exchange)));
    let delete = ExchangeDeleteOptions::default();
    let deleted = rig
        .channel
        .exchange_delete(exchange.as_str().into(), delete);
    deleted.await.unwrap();
    rig.end(&[]).await;
}
