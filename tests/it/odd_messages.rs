//! Messages that AMQP allows but no careful client sends, on a real broker. Each affects only itself.

mod frames;
mod letters;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use lapin::{
    Channel, Connection, ConnectionProperties, ExchangeKind,
    options::{
        ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions,
        QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable},
};
use tidegate::{
    BoxError, Job, Outcome, Policy, Pool, ReplySettings, RetrySettings, Supervisor,
    config::Answers, decide::PoolName, queue::HeaderValue, run::PoolStatus,
};
use tokio::{
    sync::{Semaphore, mpsc},
    time::{Instant, timeout},
};

use crate::support::{
    broker::broker_url,
    raw::{List, Raw, nested},
};

const TIMEOUT: Duration = Duration::from_secs(60);

/// Two pools on queues of their own with one driver: `test`, and a neighbour whose jobs end when the test allows it.
struct Rig {
    channel: Channel,
    _connection: Connection,
    raw: Raw,
    queue: String,
    neighbour: String,
    supervisor: Supervisor,
    jobs: mpsc::UnboundedReceiver<Job>,
    neighbours: mpsc::UnboundedReceiver<Job>,
    leave: Arc<Semaphore>,
}

impl Rig {
    async fn new(
        kind: &str,
        length: usize,
        handler: impl Fn(&Job) -> Result<Outcome, BoxError> + Send + Sync + 'static,
    ) -> Self {
        let url = broker_url();
        let connection = Connection::connect(&url, ConnectionProperties::default())
            .await
            .expect("the broker answers");
        let channel = connection.create_channel().await.unwrap();
        let mut queue = format!("tidegate-test-odd-{:016x}", rand::random::<u64>());
        while queue.len() < length {
            queue.push('q');
        }
        let neighbour = format!("tidegate-test-odd-{:016x}", rand::random::<u64>());
        for queue in [&queue, &neighbour] {
            let mut arguments = FieldTable::default();
            arguments.insert("x-queue-type".into(), AMQPValue::LongString(kind.into()));
            let options = QueueDeclareOptions {
                durable: true,
                ..QueueDeclareOptions::default()
            };
            channel
                .queue_declare(queue.as_str().into(), options, arguments)
                .await
                .unwrap();
        }
        let raw = tokio::task::block_in_place(|| Raw::connect(&url));
        let (say, jobs) = mpsc::unbounded_channel();
        let (say_too, neighbours) = mpsc::unbounded_channel();
        let leave = Arc::new(Semaphore::new(0));
        let handler = Arc::new(handler);
        let retry = RetrySettings {
            max_attempts: 2,
            backoff: Duration::from_millis(200),
            backoff_max: Duration::from_millis(200),
            ..RetrySettings::default()
        };
        let supervisor = Supervisor::builder()
            .broker(url)
            .pool(
                Pool::new("test")
                    .queue(queue.as_str())
                    .policy(Policy::fixed(2))
                    .poll_interval(Duration::from_millis(50))
                    .drain_never()
                    .retry(retry.clone())
                    .reply(ReplySettings {
                        answers: Answers::Always,
                        allow: vec![format!("{queue}.answers").parse().unwrap()],
                        ..ReplySettings::default()
                    })
                    .handler(move |job: Job| {
                        let outcome = handler(&job);
                        say.send(job).ok();
                        async move { outcome }
                    }),
            )
            .pool(
                Pool::new("neighbour")
                    .queue(neighbour.as_str())
                    .policy(Policy::fixed(1))
                    .poll_interval(Duration::from_millis(50))
                    .handler({
                        let leave = leave.clone();
                        move |job: Job| {
                            say_too.send(job).ok();
                            let leave = leave.clone();
                            async move {
                                leave.acquire().await?.forget();
                                Ok(Outcome::Done)
                            }
                        }
                    }),
            )
            .start()
            .await
            .unwrap();
        let mut rig = Self {
            channel,
            _connection: connection,
            raw,
            queue,
            neighbour,
            supervisor,
            jobs,
            neighbours,
            leave,
        };
        let neighbour = rig.neighbour.clone();
        rig.raw.publish(b"", neighbour.as_bytes(), &[0, 0], b"slow");
        timeout(TIMEOUT, rig.neighbours.recv())
            .await
            .expect("the neighbour works")
            .unwrap();
        rig
    }

    fn publish(&mut self, list: List, body: &[u8]) {
        let queue = self.queue.clone();
        self.raw.publish(b"", queue.as_bytes(), &list.bytes(), body);
    }

    async fn job(&mut self) -> Job {
        timeout(TIMEOUT, self.jobs.recv())
            .await
            .expect("a job runs")
            .unwrap()
    }

    async fn until(&self, what: &str, looks: impl Fn(&PoolStatus) -> bool) {
        self.until_in("test", what, looks).await;
    }

    async fn until_in(&self, pool: &str, what: &str, looks: impl Fn(&PoolStatus) -> bool) {
        let time_limit = Instant::now() + TIMEOUT;
        loop {
            let pool = self.supervisor.pool(&PoolName::from(pool)).unwrap();
            if looks(&pool) {
                return;
            }
            assert!(Instant::now() < time_limit, "never {what}: {pool:#?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// No connection was lost: the deliveries that the neighbour holds are settled on their channels, and nothing ran
    /// twice.
    async fn end(mut self) {
        self.leave.add_permits(1);
        self.until_in("neighbour", "done", |pool| pool.jobs.done == 1)
            .await;
        assert!(self.neighbours.try_recv().is_err(), "it ran once");
        assert!(self.jobs.try_recv().is_err(), "nothing more ran");
        for pool in ["test", "neighbour"] {
            let jobs = self.supervisor.pool(&PoolName::from(pool)).unwrap().jobs;
            assert_eq!(jobs.lost, 0, "{pool}");
        }
        self.supervisor
            .drain(Duration::from_secs(10))
            .await
            .unwrap();
        let queue = &self.queue;
        for queue in [
            queue.clone(),
            format!("{queue}.dead"),
            format!("{queue}.retry.200"),
            format!("{queue}.answers"),
            self.neighbour.clone(),
        ] {
            // A queue that was never made is not an error.
            let _ = self
                .channel
                .queue_delete(queue.as_str().into(), QueueDeleteOptions::default())
                .await;
        }
    }
}

/// How often each body ran, after this number of runs.
async fn runs(rig: &mut Rig, count: usize) -> BTreeMap<Vec<u8>, Vec<Job>> {
    let mut ran: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for _ in 0..count {
        let job = rig.job().await;
        ran.entry(job.body().to_vec()).or_default().push(job);
    }
    ran
}

fn fail_odd_ones_once(job: &Job) -> Result<Outcome, BoxError> {
    match job.body().starts_with(b"odd") && job.attempt() == 1 {
        true => Err("no".into()),
        false => Ok(Outcome::Done),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_that_are_not_utf8_run_and_keep_their_bytes_on_copies_and_answers() {
    const RAW: &[u8] = b"\xff\xfe\x80raw";
    for kind in ["classic", "quorum"] {
        let mut rig = Rig::new(kind, 0, fail_odd_ones_once).await;
        let answers = format!("{}.answers", rig.queue);
        let options = QueueDeclareOptions::default();
        rig.channel
            .queue_declare(answers.as_str().into(), options, FieldTable::default())
            .await
            .unwrap();
        for good in 0..5_u8 {
            rig.publish(List::default(), &[b'0' + good]);
        }
        let property = List::default()
            .correlation_id(RAW)
            .reply_to(answers.as_bytes());
        rig.publish(property, b"odd property");
        let name = List::default()
            .text_header(b"na\xc3me", b"value")
            .text_header(b"tenant", b"acme");
        rig.publish(name, b"odd name");
        // Every text property, and a name inside a table inside a list.
        let mut all = List::default();
        for place in [0, 1, 8, 10, 12, 13] {
            all = all.text(place, b"\x80\\x");
        }
        let table = [b"A\0\0\0\x09F\0\0\0\x04\x02\xe2\x82V".as_slice()].concat();
        rig.publish(all.header(b"t", &table), b"odd all");

        let ran = runs(&mut rig, 5 + 3 * 2).await;
        for good in 0..5_u8 {
            assert_eq!(ran[&vec![b'0' + good]].len(), 1);
        }
        for attempt in &ran[b"odd property".as_slice()] {
            let properties = &attempt.message().properties;
            assert_eq!(
                properties.correlation_id.as_deref(),
                Some(r"\xff\xfe\x80raw")
            );
            assert_eq!(properties.raw.bytes(r"\xff\xfe\x80raw"), RAW);
        }
        for attempt in &ran[b"odd name".as_slice()] {
            let headers = attempt.headers();
            assert_eq!(headers[r"na\xc3me"].as_text(), Some("value"));
            assert_eq!(headers["tenant"].as_text(), Some("acme"));
            assert_eq!(
                attempt.message().properties.raw.bytes(r"na\xc3me"),
                b"na\xc3me"
            );
        }
        let [_, again] = ran[b"odd all".as_slice()].as_slice() else {
            panic!("it ran twice");
        };
        let properties = &again.message().properties;
        for text in [
            &properties.content_type,
            &properties.content_encoding,
            &properties.message_id,
            &properties.kind,
            &properties.app_id,
            &properties.cluster_id,
        ] {
            assert_eq!(text.as_deref(), Some(r"\x80\\x"));
        }
        assert_eq!(properties.raw.bytes(r"\x80\\x"), b"\x80\\x");
        assert_eq!(
            again.headers()["t"],
            HeaderValue::List(vec![HeaderValue::Table(
                [(r"\xe2\x82".to_owned(), HeaderValue::Void)].into()
            )])
        );
        rig.until("done", |pool| pool.jobs.done == 8).await;
        let answer = rig.raw.take(answers.as_bytes()).expect("an answer");
        // Flags: content type (or not), headers, delivery mode, correlation id.
        let id = [&[RAW.len() as u8], RAW].concat();
        assert!(
            answer.list.windows(id.len()).any(|bytes| bytes == id),
            "{:?}",
            String::from_utf8_lossy(&answer.list)
        );
        rig.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_routing_key_that_is_not_utf8_is_kept_with_its_bytes() {
    let mut rig = Rig::new("quorum", 0, |_| Err("no".into())).await;
    let exchange = format!("{}-exchange", rig.queue);
    rig.channel
        .exchange_declare(
            exchange.as_str().into(),
            ExchangeKind::Fanout,
            ExchangeDeclareOptions::default(),
            FieldTable::default(),
        )
        .await
        .unwrap();
    rig.channel
        .queue_bind(
            rig.queue.as_str().into(),
            exchange.as_str().into(),
            "".into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await
        .unwrap();
    let key = b"order.\xff\xfe";
    rig.raw
        .publish(exchange.as_bytes(), key, &[0, 0], b"with a key");
    let job = rig.job().await;
    assert_eq!(job.message().routing_key, r"order.\xff\xfe");
    assert_eq!(job.message().exchange, exchange);
    rig.job().await;
    rig.until("dead", |pool| pool.jobs.dead == 1).await;
    let dead = format!("{}.dead", rig.queue);
    let letter = rig.raw.take(dead.as_bytes()).expect("a letter");
    let expected = [
        b"x-tidegate-original-routing-keyS\0\0\0\x08".as_slice(),
        key,
    ]
    .concat();
    assert!(
        letter
            .list
            .windows(expected.len())
            .any(|bytes| bytes == expected),
        "{:?}",
        String::from_utf8_lossy(&letter.list)
    );
    assert_eq!(letter.body, b"with a key");
    rig.channel
        .exchange_delete(exchange.as_str().into(), ExchangeDeleteOptions::default())
        .await
        .unwrap();
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_of_any_depth_affect_no_other_message_and_stay_whole_on_copies() {
    for kind in ["classic", "quorum"] {
        let mut rig = Rig::new(kind, 0, |job| match job.body().starts_with(b"deep") {
            true => Err("no".into()),
            false => Ok(Outcome::Done),
        })
        .await;
        // The greatest depth that a frame can hold besides what a copy adds.
        let deep = [
            nested(63, b'F'),
            nested(64, b'F'),
            nested(2_000, b'F'),
            nested(21_000, b'F'),
            nested(64, b'A'),
            nested(2_000, b'A'),
            nested(25_000, b'A'),
        ];
        for (index, value) in deep.iter().enumerate() {
            rig.publish(
                List::default().header(b"k", value),
                format!("deep {index}").as_bytes(),
            );
            rig.publish(List::default(), format!("good {index}").as_bytes());
        }
        let ran = runs(&mut rig, deep.len() * 3).await;
        for index in 0..deep.len() {
            assert_eq!(ran[format!("good {index}").as_bytes()].len(), 1);
            assert_eq!(ran[format!("deep {index}").as_bytes()].len(), 2);
        }
        rig.until("dead", |pool| pool.jobs.dead == deep.len() as u64)
            .await;
        let dead = format!("{}.dead", rig.queue);
        for _ in 0..deep.len() {
            let letter = rig.raw.take(dead.as_bytes()).expect("a letter");
            let text = String::from_utf8(letter.body).unwrap();
            let index: usize = text.strip_prefix("deep ").unwrap().parse().unwrap();
            let expected = [b"\x01k".as_slice(), &deep[index]].concat();
            let is_there = letter
                .list
                .windows(expected.len())
                .any(|bytes| bytes == expected);
            assert!(is_there, "{text}");
        }
        rig.end().await;
    }
}
