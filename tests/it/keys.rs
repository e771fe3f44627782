//! The order of keys on a real broker, when one daemon ends and another goes on.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions},
    types::{AMQPValue, FieldTable},
};
use tidegate::{
    Job, KeySettings, Outcome, Policy, Pool, Supervisor,
    decide::PoolName,
    run::{IntakeStatus, PoolStatus},
};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

use crate::support::broker::broker_url;

const TIMEOUT: Duration = Duration::from_secs(30);
const KEYS: [&str; 3] = ["a", "b", "c"];
const OF_EACH: usize = 20;

/// What ran, by key, and what runs.
#[derive(Default)]
struct Ran {
    started: BTreeMap<String, Vec<String>>,
    running: BTreeMap<String, usize>,
    overlaps: Vec<String>,
}

struct Rig {
    channel: Channel,
    queue: String,
    ran: Arc<Mutex<Ran>>,
    leave: Arc<Semaphore>,
}

impl Rig {
    /// A queue of this type with all messages, the keys in turn.
    async fn new(kind: &str, single: bool) -> Self {
        let connection = Connection::connect(&broker_url(), ConnectionProperties::default())
            .await
            .expect("the broker answers");
        let channel = connection.create_channel().await.unwrap();
        let confirm = ConfirmSelectOptions::default();
        channel.confirm_select(confirm).await.unwrap();
        let queue = format!("tidegate-test-keys-{:016x}", rand::random::<u64>());
        let options = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString(kind.into()));
        if single {
            let name = "x-single-active-consumer".into();
            arguments.insert(name, AMQPValue::Boolean(true));
        }
        let declare = channel.queue_declare(queue.as_str().into(), options, arguments);
        declare.await.unwrap();
        let rig = Self {
            channel,
            queue,
            ran: Arc::default(),
            leave: Arc::new(Semaphore::new(0)),
        };
        for n in 0..OF_EACH {
            for key in KEYS {
                rig.publish(key, n).await;
            }
        }
        rig
    }

    async fn publish(&self, key: &str, n: usize) {
        let mut headers = FieldTable::default();
        headers.insert("tenant".into(), AMQPValue::LongString(key.into()));
        let properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_headers(headers);
        let body = n.to_string();
        let confirm = self.channel.basic_publish(
            "".into(),
            self.queue.as_str().into(),
            BasicPublishOptions::default(),
            body.as_bytes(),
            properties,
        );
        confirm.await.unwrap().await.unwrap();
    }

    /// A daemon whose jobs end when they may.
    async fn supervisor(&self) -> Supervisor {
        let (ran, leave) = (self.ran.clone(), self.leave.clone());
        let handler = move |job: Job| {
            let (ran, leave) = (ran.clone(), leave.clone());
            let key = job.headers()["tenant"].as_text().unwrap().to_owned();
            let body = String::from_utf8_lossy(job.body()).into_owned();
            async move {
                {
                    let mut ran = ran.lock().unwrap();
                    let running = ran.running.entry(key.clone()).or_default();
                    *running += 1;
                    let overlaps = *running > 1;
                    if overlaps {
                        ran.overlaps.push(format!("{key}{body}"));
                    }
                    ran.started.entry(key.clone()).or_default().push(body);
                }
                leave.acquire().await?.forget();
                *ran.lock().unwrap().running.get_mut(&key).unwrap() -= 1;
                Ok(Outcome::Done)
            }
        };
        Supervisor::builder()
            .broker(broker_url())
            .pool(
                Pool::new("test")
                    .queue(self.queue.as_str())
                    .key(KeySettings::header("tenant").window(30))
                    .policy(Policy::fixed(3))
                    .poll_interval(Duration::from_millis(50))
                    .handler(handler),
            )
            .start()
            .await
            .unwrap()
    }

    async fn end(self) {
        let _ = self
            .channel
            .queue_delete(self.queue.as_str().into(), QueueDeleteOptions::default())
            .await;
    }
}

fn status(supervisor: &Supervisor) -> PoolStatus {
    supervisor.pool(&PoolName::from("test")).unwrap()
}

async fn until(supervisor: &Supervisor, what: &str, looks: impl Fn(&PoolStatus) -> bool) {
    let time_limit = Instant::now() + TIMEOUT;
    loop {
        let pool = status(supervisor);
        if looks(&pool) {
            return;
        }
        assert!(Instant::now() < time_limit, "never {what}: {pool:#?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// One daemon takes messages and is shut down, and another one goes on. `single`: the other one waits meanwhile.
async fn hand_over(kind: &str, single: bool) {
    let rig = Rig::new(kind, single).await;
    let first = rig.supervisor().await;
    until(&first, "full", |pool| {
        pool.runners.busy == 3 && pool.taken_ahead.is_some_and(|ahead| ahead.blocked == 27)
    })
    .await;
    let reserve = match single {
        true => Some(rig.supervisor().await),
        false => None,
    };
    let drain = tokio::spawn({
        let first = first.clone();
        async move { first.drain(Duration::from_secs(20)).await }
    });
    until(&first, "draining", |pool| {
        pool.intake == IntakeStatus::Draining
    })
    .await;
    rig.leave.add_permits(3);
    timeout(TIMEOUT, drain).await.unwrap().unwrap().unwrap();
    let second = match reserve {
        Some(reserve) => reserve,
        None => rig.supervisor().await,
    };
    rig.leave.add_permits(1000);
    let left = (KEYS.len() * OF_EACH - 3) as u64;
    until(&second, "done", |pool| pool.jobs.done == left).await;
    second.drain(Duration::from_secs(20)).await.unwrap();
    {
        let ran = rig.ran.lock().unwrap();
        let expected: Vec<_> = (0..OF_EACH).map(|n| n.to_string()).collect();
        for key in KEYS {
            assert_eq!(ran.started[key], expected, "{kind}, key {key}");
        }
        assert!(ran.overlaps.is_empty(), "{kind}: {:?}", ran.overlaps);
    }
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_classic_queue_keeps_the_order_of_keys_over_a_restart() {
    hand_over("classic", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quorum_queue_keeps_the_order_of_keys_over_a_restart() {
    hand_over("quorum", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_in_reserve_goes_on_in_order_when_the_active_one_is_shut_down() {
    hand_over("classic", true).await;
    hand_over("quorum", true).await;
}
