//! A pool of the library on a broker that the test chooses, observed through the library, and another client beside it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use lapin::{
    Channel, Confirmation, Connection, ConnectionProperties,
    options::{
        BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
        QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable},
};
use tidegate::{
    Job, Outcome, Policy, Pool, Supervisor,
    decide::PoolName,
    run::{FlushMode, PoolState, PoolStatus},
};
use tokio::{sync::Semaphore, time::Instant};

pub(crate) const TIMEOUT: Duration = Duration::from_secs(90);

pub(crate) fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

pub(crate) fn number(value: i64) -> AMQPValue {
    AMQPValue::LongLongInt(value)
}

fn table(arguments: &[(&str, AMQPValue)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in arguments {
        table.insert((*name).into(), value.clone());
    }
    table
}

/// Another client, and its queue.
pub(crate) struct Other {
    connection: Connection,
    channel: Channel,
    pub(crate) queue: String,
}

impl Other {
    pub(crate) async fn declare(url: &str, queue: &str, arguments: &[(&str, AMQPValue)]) -> Self {
        let options = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        Self::declare_with(url, queue, arguments, options).await
    }

    pub(crate) async fn declare_with(
        url: &str,
        queue: &str,
        arguments: &[(&str, AMQPValue)],
        options: QueueDeclareOptions,
    ) -> Self {
        let connection = Connection::connect(url, ConnectionProperties::default())
            .await
            .unwrap();
        let channel = connection.create_channel().await.unwrap();
        let queue = format!("{queue}-{:08x}", rand::random::<u32>());
        channel
            .queue_declare(queue.as_str().into(), options, table(arguments))
            .await
            .unwrap();
        Self {
            connection,
            channel,
            queue,
        }
    }

    pub(crate) async fn publish(&self, messages: usize) {
        for _ in 0..messages {
            let _ = self.publish_one(&self.channel).await;
        }
    }

    /// Publishes one, and says whether the queue takes it.
    pub(crate) async fn publish_confirmed(&self) -> bool {
        let channel = self.connection.create_channel().await.unwrap();
        let confirm = ConfirmSelectOptions::default();
        channel.confirm_select(confirm).await.unwrap();
        matches!(self.publish_one(&channel).await, Confirmation::Ack(_))
    }

    async fn publish_one(&self, channel: &Channel) -> Confirmation {
        let (exchange, queue) = ("".into(), self.queue.as_str().into());
        let options = BasicPublishOptions::default();
        let properties = lapin::BasicProperties::default()
            .with_delivery_mode(2)
            .with_message_id(format!("m-{:016x}", rand::random::<u64>()).into());
        let published = channel.basic_publish(exchange, queue, options, b"job", properties);
        published.await.unwrap().await.unwrap()
    }

    /// Consumes the queue as well, one message at a time.
    pub(crate) async fn consume(&self, arguments: &[(&str, AMQPValue)]) -> lapin::Consumer {
        let qos = self.channel.basic_qos(1, BasicQosOptions::default());
        qos.await.unwrap();
        let consume = self.channel.basic_consume(
            self.queue.as_str().into(),
            "theirs".into(),
            BasicConsumeOptions::default(),
            table(arguments),
        );
        consume.await.unwrap()
    }

    pub(crate) async fn ready(&self) -> u32 {
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let queue = self.queue.as_str().into();
        let seen = self
            .channel
            .queue_declare(queue, options, FieldTable::default())
            .await
            .unwrap();
        seen.message_count()
    }

    pub(crate) async fn end(self) {
        self.connection.close(200, "OK".into()).await.unwrap();
    }
}

/// How often each job was run.
type Runs = Arc<Mutex<HashMap<String, u32>>>;

/// A supervisor with one pool, and what ran on it.
pub(crate) struct Watched {
    pub(crate) supervisor: Supervisor,
    runs: Runs,
}

impl Watched {
    /// A pool whose jobs take so long.
    pub(crate) async fn start(url: &str, queue: &str, policy: Policy, takes: Duration) -> Self {
        Self::start_with(url, queue, policy, move |_| tokio::time::sleep(takes)).await
    }

    /// A pool whose jobs end when there is a permit for them, or when they are told to.
    pub(crate) async fn start_held(
        url: &str,
        queue: &str,
        policy: Policy,
    ) -> (Self, Arc<Semaphore>) {
        let leave = Arc::new(Semaphore::new(0));
        let until = leave.clone();
        let held = move |job: Job| {
            let until = until.clone();
            async move {
                tokio::select! {
                    permit = until.acquire() => permit.unwrap().forget(),
                    () = job.cancelled().cancelled() => std::future::pending().await,
                }
            }
        };
        (Self::start_with(url, queue, policy, held).await, leave)
    }

    async fn start_with<F>(
        url: &str,
        queue: &str,
        policy: Policy,
        work: impl Fn(Job) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let runs = Runs::default();
        let handler = {
            let runs = runs.clone();
            move |job: Job| {
                let id = job.id().to_string();
                *runs.lock().unwrap().entry(id).or_default() += 1;
                let work = work(job);
                async move {
                    work.await;
                    Ok(Outcome::Done)
                }
            }
        };
        let supervisor = Supervisor::builder()
            .broker(url)
            .pool(
                Pool::new("test")
                    .queue(queue)
                    .policy(policy)
                    .poll_interval(Duration::from_millis(100))
                    .handler(handler),
            )
            .start()
            .await
            .unwrap();
        Self { supervisor, runs }
    }

    pub(crate) fn name(&self) -> PoolName {
        PoolName::from("test")
    }

    /// How often each job was run so far.
    pub(crate) fn runs(&self) -> HashMap<String, u32> {
        self.runs.lock().unwrap().clone()
    }

    pub(crate) async fn until(
        &self,
        what: &str,
        looks: impl Fn(&PoolStatus) -> bool,
    ) -> PoolStatus {
        let time_limit = Instant::now() + TIMEOUT;
        loop {
            let pool = self.supervisor.pool(&self.name()).unwrap();
            if looks(&pool) {
                return pool;
            }
            assert!(Instant::now() < time_limit, "never {what}: {pool:#?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The pool is stuck with this in its cause, and not ready.
    pub(crate) async fn is_stuck(&self, why: &str) {
        let stuck = self.until("stuck", |pool| pool.state == PoolState::Stuck);
        let cause = stuck.await.cause.unwrap();
        assert!(cause.contains(why), "{cause}");
        let reasons = self.supervisor.readiness().reasons;
        assert!(reasons[0].contains(why), "{reasons:?}");
    }

    /// Stops the jobs that run, which are given back.
    pub(crate) async fn give_back_all(&self) {
        let name = self.name();
        let flushed = self.supervisor.flush(&name, FlushMode::All);
        flushed.await.unwrap();
    }

    pub(crate) async fn stop(&self) {
        let drained = self.supervisor.drain(Duration::from_secs(30));
        drained.await.unwrap();
    }
}
