//! The queue seam over links, lanes and pools.

use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use lapin::{
    options::{QueueDeclareOptions, QueueDeleteOptions},
    types::{AMQPValue, FieldTable},
};
use tokio::{sync::watch, time};
use tokio_util::sync::CancellationToken;

use super::{
    address::Address,
    browser::AmqpBrowser,
    consumer::AmqpConsumer,
    convert::short,
    error::rpc,
    facts::{self, ServerFacts},
    kind::{self, QueueFacts},
    lanes::Lanes,
    link::{Link, LinkState},
    pool::{ChannelPool, Purpose, RPC_TIMEOUT},
    publish,
};
use crate::{
    config::BrokerSettings,
    decide::QueueName,
    queue::{
        Browser, Connectivity, ConsumeRequest, Consumer, NoRoute, Outgoing, QueueDepth,
        QueueDriver, QueueError, QueueErrorKind, QueueKind, QueueSpec,
    },
};

/// Publishes in flight. Each is a round trip on a channel of its own.
const PUBLISHES: usize = 32;
/// Declares, probes and deletes in flight.
const REQUESTS: usize = 8;

/// A RabbitMQ broker.
///
/// **On drop** its connections are closed in the background.
pub struct AmqpDriver {
    address: Arc<Address>,
    stop: CancellationToken,
    consume: Arc<Lanes>,
    publish: ChannelPool,
    /// For messages that may be dropped, which is to say answers by direct reply-to: opened with the first. Brokers
    /// before 4.2 end the connection of whoever answers a caller that they cannot place, and copies must not go
    /// with it. One that was ended so is replaced at once, since it says nothing of the broker.
    answer: Mutex<Option<Arc<ChannelPool>>>,
    probe: ChannelPool,
    /// Written by the task that follows the links, read by everyone.
    connectivity: watch::Receiver<Connectivity>,
    /// Queues that were seen or declared, so that each retry does not ask again. A name goes as soon as anything
    /// says that its queue is gone.
    known: Mutex<HashSet<QueueName>>,
}

impl AmqpDriver {
    /// A driver that connects in the background, and keeps trying: a broker that is not there is no error here,
    /// and shows in [`connectivity`](QueueDriver::connectivity).
    ///
    /// # Errors
    /// The URL cannot be read.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn connect_lazily(settings: &BrokerSettings) -> Result<Arc<Self>, QueueError> {
        let address = Arc::new(Address::new(settings)?);
        let stop = CancellationToken::new();
        let consume = Lanes::new(address.clone(), stop.clone());
        let link = |role: &str| Link::open(role.to_owned(), address.clone(), &stop);
        let publish = ChannelPool::new(link("publish"), Purpose::Publishing, PUBLISHES);
        let probe = ChannelPool::new(link("probe"), Purpose::Requests, REQUESTS);
        let links = [
            consume.first(),
            publish.link().clone(),
            probe.link().clone(),
        ];
        let (sender, connectivity) = watch::channel(Connectivity::Connecting);
        tokio::spawn(follow(links, sender));
        Ok(Arc::new(Self {
            address,
            stop,
            consume,
            publish,
            answer: Mutex::default(),
            probe,
            connectivity,
            known: Mutex::default(),
        }))
    }

    /// Waits until the broker is connected: for programs that are of no use without it.
    ///
    /// # Errors
    /// It was not within the time. The cause is the last attempt's.
    ///
    /// # Cancel-safety
    /// Cancel-safe.
    pub async fn until_connected(&self, within: Duration) -> Result<(), QueueError> {
        let mut connectivity = self.connectivity.clone();
        let connected = connectivity.wait_for(|seen| *seen == Connectivity::Connected);
        if matches!(time::timeout(within, connected).await, Ok(Ok(_))) {
            return Ok(());
        }
        let error = QueueError::new(QueueErrorKind::Disconnected, "connect to the broker");
        Err(match &*self.connectivity.borrow() {
            Connectivity::Disconnected { error: why } => error.with_source(why.as_str()),
            _ => error,
        })
    }

    /// Asks the broker who it is, on a connection made for it and closed before any login.
    ///
    /// # Errors
    /// The broker did not answer, or not as a broker does.
    ///
    /// # Cancel-safety
    /// Cancel-safe.
    pub async fn facts(&self) -> Result<ServerFacts, QueueError> {
        facts::ask(&self.address).await
    }

    /// What a queue is, as far as the broker lets on over AMQP: its type and arguments, and not its policies. Changes
    /// nothing, whether the queue is there or not; each question is an error in the broker's log.
    ///
    /// # Errors
    /// [`NotFound`](QueueErrorKind::NotFound); [`AccessRefused`](QueueErrorKind::AccessRefused) where the user may not
    /// declare it.
    ///
    /// # Cancel-safety
    /// Cancel-safe.
    pub async fn queue_facts(&self, queue: &QueueName) -> Result<QueueFacts, QueueError> {
        kind::ask(&self.probe, queue).await
    }

    async fn look(&self, queue: &QueueName, operation: &str) -> Result<QueueDepth, QueueError> {
        let name = short("name of a queue", queue.as_str())?;
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let lease = time::timeout(RPC_TIMEOUT, self.probe.lease(operation)).await;
        let lease =
            lease.unwrap_or_else(|_| Err(QueueError::new(QueueErrorKind::Timeout, operation)))?;
        let declare = lease
            .channel
            .queue_declare(name, options, FieldTable::default());
        let answer = rpc(operation, RPC_TIMEOUT, declare).await;
        let answer = answer.inspect_err(|error| self.forget_if_gone(queue, error))?;
        lease.give_back();
        Ok(QueueDepth {
            ready: answer.message_count().into(),
            consumers: answer.consumer_count(),
        })
    }

    fn forget_if_gone(&self, queue: &QueueName, error: &QueueError) {
        if matches!(
            error.kind,
            QueueErrorKind::NotFound | QueueErrorKind::Unroutable
        ) {
            self.known().remove(queue);
        }
    }

    async fn answer(&self, message: &Outgoing) -> Result<(), QueueError> {
        let open = || {
            let link = Link::open("answer".to_owned(), self.address.clone(), &self.stop);
            Arc::new(ChannelPool::new(link, Purpose::Publishing, PUBLISHES))
        };
        let pool = self.answers().get_or_insert_with(open).clone();
        let published = publish::publish(&pool, message).await;
        published.inspect_err(|error| {
            if error.kind == QueueErrorKind::BrokerFailed {
                pool.link().close();
                self.answers()
                    .take_if(|current| Arc::ptr_eq(current, &pool));
            }
        })
    }

    fn answers(&self) -> MutexGuard<'_, Option<Arc<ChannelPool>>> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> MutexGuard<'_, HashSet<QueueName>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl QueueDriver for AmqpDriver {
    async fn probe(&self, queue: &QueueName) -> Result<QueueDepth, QueueError> {
        self.look(queue, &format!("probe the queue {queue}")).await
    }

    async fn declare(&self, queue: &QueueSpec) -> Result<(), QueueError> {
        let name = &queue.name;
        if self.known().contains(name) {
            return Ok(());
        }
        let operation = format!("declare the queue {name}");
        match self.look(name, &operation).await {
            Ok(_) => {}
            Err(error) if error.kind == QueueErrorKind::NotFound => {
                let lease = self.probe.lease(&operation).await?;
                let options = QueueDeclareOptions {
                    durable: true,
                    ..QueueDeclareOptions::default()
                };
                let text = short("name of a queue", name.as_str())?;
                let declare = lease.channel.queue_declare(text, options, arguments(queue));
                match rpc(&operation, RPC_TIMEOUT, declare).await {
                    Ok(_) => lease.give_back(),
                    // Someone else declared it in between, in another way: it is taken as it is.
                    Err(error) if error.kind == QueueErrorKind::Conflict => {
                        self.look(name, &operation).await?;
                    }
                    Err(error) => return Err(error),
                }
            }
            Err(error) => return Err(error),
        }
        self.known().insert(name.clone());
        Ok(())
    }

    async fn delete(&self, queue: &QueueName) -> Result<(), QueueError> {
        let operation = format!("delete the queue {queue}");
        self.known().remove(queue);
        let lease = self.probe.lease(&operation).await?;
        let name = short("name of a queue", queue.as_str())?;
        let delete = lease
            .channel
            .queue_delete(name, QueueDeleteOptions::default());
        rpc(&operation, RPC_TIMEOUT, delete).await?;
        lease.give_back();
        Ok(())
    }

    async fn consume(&self, request: ConsumeRequest) -> Result<Box<dyn Consumer>, QueueError> {
        let opened = AmqpConsumer::open(&self.consume, &request).await;
        let consumer = opened.inspect_err(|error| self.forget_if_gone(&request.queue, error))?;
        Ok(Box::new(consumer))
    }

    async fn browse(&self, queue: &QueueName) -> Result<Box<dyn Browser>, QueueError> {
        Ok(Box::new(AmqpBrowser::open(&self.consume, queue).await?))
    }

    async fn publish(&self, message: Outgoing) -> Result<(), QueueError> {
        if message.no_route == NoRoute::Drop {
            return self.answer(&message).await;
        }
        let published = publish::publish(&self.publish, &message).await;
        published.inspect_err(|error| {
            self.forget_if_gone(&QueueName::from(message.routing_key.as_str()), error);
        })
    }

    fn header_limit(&self) -> usize {
        match &*self.publish.link().subscribe().borrow() {
            LinkState::Up(live) => publish::header_limit(Some(live)),
            _ => publish::header_limit(None),
        }
    }

    fn connectivity(&self) -> watch::Receiver<Connectivity> {
        self.connectivity.clone()
    }

    async fn close(&self) {
        self.stop.cancel();
        let mut links = self.consume.links();
        links.extend([self.publish.link().clone(), self.probe.link().clone()]);
        links.extend(self.answers().iter().map(|pool| pool.link().clone()));
        for link in links {
            link.closed().await;
        }
    }
}

impl fmt::Debug for AmqpDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AmqpDriver")
            .field("address", &self.address)
            .field("consume", &self.consume)
            .finish_non_exhaustive()
    }
}

impl Drop for AmqpDriver {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Makes one state of the links that everything needs. Ends with the driver, whose links it does not outlive.
async fn follow(links: [Arc<Link>; 3], connectivity: watch::Sender<Connectivity>) {
    let mut states = links.map(|link| link.subscribe());
    loop {
        let seen: Vec<LinkState> = states
            .iter_mut()
            .map(|state| state.borrow_and_update().clone())
            .collect();
        let now = connectivity_of(&seen);
        connectivity.send_if_modified(|before| {
            let changed = *before != now;
            *before = now;
            changed
        });
        let [a, b, c] = &mut states;
        let changed = tokio::select! {
            changed = a.changed() => changed,
            changed = b.changed() => changed,
            changed = c.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

fn connectivity_of(links: &[LinkState]) -> Connectivity {
    let down = links.iter().find_map(|link| match link {
        LinkState::Down(why) => Some(why),
        _ => None,
    });
    match down {
        Some(why) => Connectivity::Disconnected {
            error: why.as_ref().to_owned(),
        },
        None if links
            .iter()
            .any(|link| matches!(link, LinkState::Connecting)) =>
        {
            Connectivity::Connecting
        }
        None => Connectivity::Connected,
    }
}

fn arguments(queue: &QueueSpec) -> FieldTable {
    let mut table = FieldTable::default();
    let mut text = |key: &str, value: &str| {
        table.insert(key.into(), AMQPValue::LongString(value.into()));
    };
    // Said for classic too: a virtual host may have another default.
    text(
        "x-queue-type",
        match queue.kind {
            QueueKind::Classic => "classic",
            QueueKind::Quorum => "quorum",
        },
    );
    if let Some(target) = &queue.dead_letter_to {
        text("x-dead-letter-exchange", "");
        text("x-dead-letter-routing-key", target.as_str());
        if queue.kind == QueueKind::Quorum {
            text("x-dead-letter-strategy", "at-least-once");
            text("x-overflow", "reject-publish");
        }
    }
    if let Some(ttl) = queue.message_ttl {
        let ms = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
        table.insert("x-message-ttl".into(), AMQPValue::LongLongInt(ms));
    }
    table
}
