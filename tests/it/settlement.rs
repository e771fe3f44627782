//! What happens to messages on a real broker, especially to hostile messages.
//!
//! Compiled twice, as `settlement` on quorum queues and as `settlement_classic` on classic ones.

// The paths are written out because this file is compiled as two modules.
#[path = "settlement/origin.rs"]
mod origin;
#[path = "settlement/replies.rs"]
mod replies;

use std::{sync::Arc, time::Duration};

use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    options::{
        BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions,
        QueueDeleteOptions,
    },
    types::{AMQPValue, FieldArray, FieldTable, LongString, ShortString},
};
use tidegate::{
    BoxError, Job, Outcome, Policy, Pool, ReplySettings, RetrySettings, Supervisor,
    decide::PoolName, run::PoolStatus,
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

use crate::support::broker::broker_url;

const TIMEOUT: Duration = Duration::from_secs(30);

/// The type of the pools' queues.
const QUEUE_KIND: &str = match is_classic(module_path!()) {
    true => "classic",
    false => "quorum",
};

const fn is_classic(module: &str) -> bool {
    matches!(
        module.as_bytes(),
        [.., b'c', b'l', b'a', b's', b's', b'i', b'c']
    )
}

/// A pool on a queue of its own, and a plain client.
struct Rig {
    connection: Connection,
    channel: Channel,
    queue: String,
    supervisor: Supervisor,
    jobs: mpsc::UnboundedReceiver<Job>,
}

impl Rig {
    /// A pool whose jobs report their message and then do what `handler` says.
    async fn new(
        prefix: &str,
        handler: impl Fn(&Job) -> Result<Outcome, BoxError> + Send + Sync + 'static,
    ) -> Self {
        Self::answering(prefix, ReplySettings::default(), handler).await
    }

    /// The same, with these reply settings.
    async fn answering(
        prefix: &str,
        reply: ReplySettings,
        handler: impl Fn(&Job) -> Result<Outcome, BoxError> + Send + Sync + 'static,
    ) -> Self {
        let url = broker_url();
        let connection = Connection::connect(&url, ConnectionProperties::default())
            .await
            .expect("the broker answers");
        let channel = connection.create_channel().await.unwrap();
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await
            .unwrap();
        let queue = format!("tidegate-test-{prefix}-{:016x}", rand::random::<u64>());
        let options = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        let mut arguments = FieldTable::default();
        arguments.insert(
            "x-queue-type".into(),
            AMQPValue::LongString(QUEUE_KIND.into()),
        );
        channel
            .queue_declare(queue.as_str().into(), options, arguments)
            .await
            .unwrap();

        let (say, jobs) = mpsc::unbounded_channel();
        let handler = Arc::new(handler);
        let supervisor = Supervisor::builder()
            .broker(url)
            .pool(
                Pool::new("test")
                    .queue(queue.as_str())
                    .policy(Policy::fixed(2))
                    .poll_interval(Duration::from_millis(50))
                    .retry(RetrySettings {
                        max_attempts: 2,
                        backoff: Duration::from_millis(200),
                        backoff_max: Duration::from_millis(200),
                        ..RetrySettings::default()
                    })
                    .reply(reply)
                    .handler(move |job: Job| {
                        let outcome = handler(&job);
                        say.send(job).ok();
                        async move { outcome }
                    }),
            )
            .start()
            .await
            .unwrap();
        Self {
            connection,
            channel,
            queue,
            supervisor,
            jobs,
        }
    }

    async fn publish(&self, properties: BasicProperties, body: &[u8]) {
        self.channel
            .basic_publish(
                "".into(),
                self.queue.as_str().into(),
                BasicPublishOptions::default(),
                body,
                properties,
            )
            .await
            .unwrap()
            .await
            .unwrap();
    }

    async fn job(&mut self) -> Job {
        timeout(TIMEOUT, self.jobs.recv())
            .await
            .expect("a job runs")
            .unwrap()
    }

    async fn until(&self, what: &str, looks: impl Fn(&PoolStatus) -> bool) {
        let time_limit = Instant::now() + TIMEOUT;
        loop {
            let pool = self.supervisor.pool(&PoolName::from("test")).unwrap();
            if looks(&pool) {
                return;
            }
            assert!(Instant::now() < time_limit, "never {what}: {pool:#?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The one message in a queue.
    async fn get(&self, queue: &str) -> lapin::message::Delivery {
        let options = BasicGetOptions { no_ack: true };
        let message = self.channel.basic_get(queue.into(), options).await.unwrap();
        message.expect("a message").delivery
    }

    async fn dead(&self) -> lapin::message::Delivery {
        self.until("dead", |pool| pool.jobs.dead == 1).await;
        self.get(&format!("{}.dead", self.queue)).await
    }

    async fn end(self, more: &[&str]) {
        self.supervisor
            .drain(Duration::from_secs(10))
            .await
            .unwrap();
        let own = [
            self.queue.clone(),
            format!("{}.dead", self.queue),
            format!("{}.retry.200", self.queue),
        ];
        for queue in own.iter().map(String::as_str).chain(more.iter().copied()) {
            // A queue that was never made is not an error.
            let _ = self
                .channel
                .queue_delete(queue.into(), QueueDeleteOptions::default())
                .await;
        }
        self.connection.close(200, "done".into()).await.ok();
    }
}

fn fail(_: &Job) -> Result<Outcome, BoxError> {
    Err("no".into())
}

fn headers(pairs: Vec<(&str, AMQPValue)>) -> BasicProperties {
    let mut table = FieldTable::default();
    for (name, value) in pairs {
        table.insert(name.into(), value);
    }
    BasicProperties::default().with_headers(table)
}

fn long(text: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(text))
}

fn header(message: &lapin::message::Delivery, name: &str) -> Option<AMQPValue> {
    message
        .properties
        .headers()
        .as_ref()?
        .inner()
        .get(name)
        .cloned()
}

#[tokio::test]
async fn a_job_that_fails_comes_back_through_the_retry_queue_and_its_dead_letter_tells_why() {
    let mut rig = Rig::new("story", fail).await;
    let properties = BasicProperties::default()
        .with_message_id("m-1".into())
        .with_content_type("text/plain".into())
        .with_priority(3);
    rig.publish(properties, b"\xff\x00 not text").await;
    assert_eq!(rig.job().await.attempt(), 1);
    let second = rig.job().await;
    assert_eq!((second.attempt(), second.id().as_str()), (2, "m-1"));
    assert_eq!(&second.body()[..], b"\xff\x00 not text");
    let letter = rig.dead().await;
    assert_eq!(letter.data, b"\xff\x00 not text");
    assert_eq!(*letter.properties.priority(), Some(3));
    assert_eq!(*letter.properties.delivery_mode(), Some(2));
    assert_eq!(header(&letter, "x-tidegate-error"), Some(long("no")));
    assert_eq!(
        header(&letter, "x-tidegate-attempts"),
        Some(AMQPValue::LongLongInt(2))
    );
    rig.end(&[]).await;
}

#[tokio::test]
async fn a_cc_header_does_not_send_copies_elsewhere() {
    let mut rig = Rig::new("cc", fail).await;
    let elsewhere = format!("{}-elsewhere", rig.queue);
    let options = QueueDeclareOptions::default();
    rig.channel
        .queue_declare(elsewhere.as_str().into(), options, FieldTable::default())
        .await
        .unwrap();
    let mut list = FieldArray::default();
    list.push(long(&elsewhere));
    rig.publish(headers(vec![("CC", AMQPValue::FieldArray(list))]), b"x")
        .await;
    rig.job().await;
    rig.job().await;
    rig.dead().await;
    // Only the publisher's message, no copy.
    rig.get(&elsewhere).await;
    let more = rig
        .channel
        .basic_get(elsewhere.as_str().into(), BasicGetOptions { no_ack: true })
        .await
        .unwrap();
    assert!(more.is_none());
    rig.end(&[&elsewhere]).await;
}

#[tokio::test]
async fn an_expiration_and_a_user_id_neither_expire_a_copy_nor_have_it_refused() {
    let mut rig = Rig::new("user", fail).await;
    let user = url::Url::parse(&broker_url())
        .unwrap()
        .username()
        .to_owned();
    let properties = BasicProperties::default()
        .with_expiration("60000".into())
        .with_user_id(ShortString::from(user.as_str()));
    rig.publish(properties, b"x").await;
    rig.job().await;
    rig.job().await;
    let letter = rig.dead().await;
    assert_eq!(*letter.properties.expiration(), None);
    assert_eq!(*letter.properties.user_id(), None);
    assert_eq!(
        header(&letter, "x-tidegate-original-expiration"),
        Some(long("60000"))
    );
    assert_eq!(
        header(&letter, "x-tidegate-original-user-id"),
        Some(long(&user))
    );
    rig.end(&[]).await;
}

#[tokio::test]
async fn a_forged_attempt_counts_as_the_first() {
    for forged in [
        AMQPValue::LongLongInt(99),
        AMQPValue::LongLongInt(-1),
        long("2"),
    ] {
        let mut rig = Rig::new("forged", |_| Ok(Outcome::Done)).await;
        rig.publish(headers(vec![("x-tidegate-attempt", forged)]), b"x")
            .await;
        assert_eq!(rig.job().await.attempt(), 1);
        rig.until("done", |pool| pool.jobs.done == 1).await;
        rig.end(&[]).await;
    }
}

#[tokio::test]
async fn headers_that_fill_a_frame_do_not_stop_the_pool() {
    let mut rig = Rig::new("huge", |job| {
        if job.headers().contains_key("huge") {
            Err("no".into())
        } else {
            Ok(Outcome::Done)
        }
    })
    .await;
    // As much as a client can send: the frame is 128 KiB, and the rest of the content header must fit too.
    let huge = format!("{{\"json\": \"{}\"}}", "x".repeat(130_750));
    let properties = headers(vec![
        ("huge", long(&huge)),
        ("line", long("one\nx-forged: two")),
        ("nul", long("a\0b")),
    ]);
    rig.publish(properties, b"x").await;
    // The copy dropped what did not fit, so the second attempt does not see it.
    assert!(rig.job().await.headers().contains_key("huge"));
    let second = rig.job().await;
    assert!(!second.headers().contains_key("huge"));
    assert_eq!(
        second.headers()["line"].as_text(),
        Some("one\nx-forged: two")
    );
    assert!(second.headers().contains_key("x-tidegate-dropped-headers"));
    rig.until("done", |pool| pool.jobs.done == 1).await;
    rig.end(&[]).await;
}

#[tokio::test]
async fn a_body_of_16_mib_is_retried_and_dead_lettered_whole() {
    let mut rig = Rig::new("body", fail).await;
    let body = vec![0xa5; 16 * 1024 * 1024];
    rig.publish(BasicProperties::default(), &body).await;
    assert_eq!(rig.job().await.body().len(), body.len());
    assert_eq!(rig.job().await.body().len(), body.len());
    assert!(rig.dead().await.data == body);
    rig.end(&[]).await;
}

#[tokio::test]
async fn a_rejected_job_is_dead_lettered_at_once() {
    let mut rig = Rig::new("reject", |_| Ok(Outcome::reject("not a picture"))).await;
    rig.publish(BasicProperties::default(), b"x").await;
    rig.job().await;
    let letter = rig.dead().await;
    assert_eq!(header(&letter, "x-tidegate-reason"), Some(long("rejected")));
    assert_eq!(
        header(&letter, "x-tidegate-error"),
        Some(long("not a picture"))
    );
    rig.end(&[]).await;
}
