//! Implements the queue seam with links, lanes and channel pools.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use async_trait::async_trait;
use lapin::{
    options::{QueueDeclareOptions, QueueDeleteOptions},
    types::FieldTable,
};
use tokio::{sync::watch, time};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    address::Address,
    browser::AmqpBrowser,
    consumer::AmqpConsumer,
    convert::short,
    declare::{arguments, bind},
    error::{rpc, unreadable_is_failed},
    facts::{self, ServerFacts},
    follow::{follow_blocks, follow_links},
    group::AmqpGroup,
    joint::JointChannels,
    kind::{self, QueueFacts},
    kinds::Kinds,
    lanes::Lanes,
    link::{BrokerLink, LinkState, Live},
    pool::{ChannelPool, Purpose, RPC_TIMEOUT},
    publish,
    quota::Quota,
};
use crate::{
    config::BrokerSettings,
    decide::{QueueName, may_break_error_texts},
    queue::{
        Browser, Connectivity, ConsumeRequest, Consumer, GroupChannel, NoRoute, Outgoing,
        QueueDepth, QueueDriver, QueueError, QueueErrorKind, QueueSpec,
    },
};

/// Limit on publishes in flight. Each is a round trip on its own channel.
const PUBLISHES: usize = 32;
/// Limit on declares, probes and deletes in flight, on each connection for them.
const REQUESTS: usize = 8;

/// A RabbitMQ broker.
///
/// **On drop** its connections are closed in the background.
pub struct AmqpDriver {
    quota: Arc<Quota>,
    stop: CancellationToken,
    consume: Arc<Lanes>,
    /// Consumers of queues that count returns.
    joint: Arc<JointChannels>,
    /// Knows which queues count returns.
    kinds: Arc<Kinds>,
    publish: ChannelPool,
    /// For messages that may be dropped, which are answers by direct reply-to. Opened with the first of them. If the
    /// caller of an answer is unknown, brokers before 4.2 end the connection that published the answer, and copies must
    /// not be lost with it. A connection that was ended this way is replaced at once, because the broker itself is
    /// healthy.
    answer: Mutex<Option<Arc<ChannelPool>>>,
    probe: Arc<ChannelPool>,
    /// For requests about queues whose names may make the broker fail and end the connection. Opened with the first of
    /// them. Readings of other queues must not be lost with it.
    wary: Mutex<Option<Arc<ChannelPool>>>,
    /// For the groups of daemons that share queues. Opened with the first of them.
    group: Mutex<Option<Arc<BrokerLink>>>,
    /// Written by the task that follows the links, read by pools and by readiness.
    connectivity: watch::Receiver<Connectivity>,
    /// Whether any connection that publishes is blocked. During an alarm the broker blocks each connection at its own
    /// first publish. Written by the task beside it, which is replaced together with the connection for answers. Read
    /// by workers.
    blocked: watch::Sender<bool>,
    blocks: Mutex<AbortOnDropHandle<()>>,
    /// The queues that were declared, each with its connection and declaration, so that a retry does not ask again. An
    /// entry is removed as soon as anything says that its queue no longer exists. After the loss of the connection the
    /// queue is declared again, because the broker may have come back without it.
    known: Mutex<HashMap<QueueName, (Weak<Live>, QueueSpec)>>,
}

impl AmqpDriver {
    /// Makes a driver that connects in the background, and keeps trying. An unreachable broker is not an error here: it
    /// is visible in [`connectivity`](QueueDriver::connectivity).
    ///
    /// # Errors
    /// The URL is invalid.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn connect_lazily(settings: &BrokerSettings) -> Result<Arc<Self>, QueueError> {
        let quota = Quota::new(Address::new(settings)?);
        let stop = CancellationToken::new();
        let consume = Lanes::new(quota.clone(), stop.clone());
        let link = |role: &str| BrokerLink::open(role.to_owned(), quota.clone(), &stop);
        let publish = ChannelPool::new(link("publish"), Purpose::Publishing, PUBLISHES);
        let probe = Arc::new(ChannelPool::new(link("probe"), Purpose::Requests, REQUESTS));
        let links = [
            consume.first(),
            publish.link().clone(),
            probe.link().clone(),
        ];
        let (sender, connectivity) = watch::channel(Connectivity::Connecting);
        tokio::spawn(follow_links(links, sender));
        let blocked = watch::Sender::new(false);
        let blocks = follow_blocks(vec![publish.link().blocked()], blocked.clone());
        Ok(Arc::new(Self {
            quota,
            stop,
            joint: JointChannels::new(consume.clone()),
            kinds: Arc::default(),
            consume,
            publish,
            answer: Mutex::default(),
            probe,
            wary: Mutex::default(),
            group: Mutex::default(),
            connectivity,
            blocked,
            blocks: Mutex::new(blocks),
            known: Mutex::default(),
        }))
    }

    /// Waits until the broker is connected, for programs that need the broker.
    ///
    /// # Errors
    /// The time has passed without a connection. The cause is the error of the last attempt.
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

    /// Reads the broker's product and version, on a separate connection that is closed before any login.
    ///
    /// # Errors
    /// The broker did not answer, or the answer is not AMQP.
    ///
    /// # Cancel-safety
    /// Cancel-safe.
    pub async fn facts(&self) -> Result<ServerFacts, QueueError> {
        facts::ask(self.quota.address()).await
    }

    /// The type and arguments of a queue, as far as the broker shows them over AMQP. Policies are not included. Changes
    /// nothing, whether or not the queue exists. Each question writes an error to the broker's log.
    ///
    /// # Errors
    /// [`NotFound`](QueueErrorKind::NotFound), or [`AccessRefused`](QueueErrorKind::AccessRefused) if the user may not
    /// declare it.
    ///
    /// # Cancel-safety
    /// Cancel-safe.
    pub async fn queue_facts(&self, queue: &QueueName) -> Result<QueueFacts, QueueError> {
        kind::ask(&self.probe, queue).await
    }

    async fn look(&self, queue: &QueueName, operation: &str) -> Result<QueueDepth, QueueError> {
        let answer = self
            .ask(queue, operation, true, FieldTable::default())
            .await;
        answer
            .map_err(|error| match error.kind {
                // The broker failed while it wrote an error text. A missing queue is the most likely error.
                QueueErrorKind::BrokerFailed if may_break_error_texts(queue.as_str()) => {
                    let what = format!("{operation}: the broker fails at saying why not");
                    QueueError::new(QueueErrorKind::NotFound, what).with_source(error)
                }
                _ => error,
            })
            .inspect_err(|error| self.forget_if_gone(queue, error))
    }

    /// Declares a queue, or checks whether it exists.
    async fn ask(
        &self,
        queue: &QueueName,
        operation: &str,
        passive: bool,
        arguments: FieldTable,
    ) -> Result<QueueDepth, QueueError> {
        let name = short("name of a queue", queue.as_str())?;
        let pool = self.requests(queue);
        let options = QueueDeclareOptions {
            passive,
            durable: !passive,
            ..QueueDeclareOptions::default()
        };
        let asked = async {
            let lease = time::timeout(RPC_TIMEOUT, pool.lease(operation)).await;
            let timed_out = |_| Err(QueueError::new(QueueErrorKind::Timeout, operation));
            let lease = lease.unwrap_or_else(timed_out)?;
            let declare = lease.channel.queue_declare(name, options, arguments);
            let answer = rpc(operation, RPC_TIMEOUT, declare).await?;
            lease.give_back();
            Ok(QueueDepth {
                ready: answer.message_count().into(),
                consumers: answer.consumer_count(),
            })
        };
        let asked = asked
            .await
            .map_err(|error| match may_break_error_texts(queue.as_str()) {
                true => unreadable_is_failed(error),
                false => error,
            });
        asked.inspect_err(|error| replace_if_failed(&self.wary, &pool, error))
    }

    /// The channels for requests about a queue.
    fn requests(&self, queue: &QueueName) -> Arc<ChannelPool> {
        if !may_break_error_texts(queue.as_str()) {
            return self.probe.clone();
        }
        let open = || {
            let link = BrokerLink::open("names".to_owned(), self.quota.clone(), &self.stop);
            Arc::new(ChannelPool::new(link, Purpose::Requests, REQUESTS))
        };
        lock(&self.wary).get_or_insert_with(open).clone()
    }

    /// All links that were opened.
    fn links(&self) -> Vec<Arc<BrokerLink>> {
        let mut links = self.consume.links();
        links.extend([self.publish.link().clone(), self.probe.link().clone()]);
        links.extend(lock(&self.group).clone());
        for place in [&self.answer, &self.wary] {
            links.extend(lock(place).iter().map(|pool| pool.link().clone()));
        }
        links
    }

    /// The connection whose loss makes the known queues uncertain.
    fn incarnation(&self) -> Option<Arc<Live>> {
        match &*self.probe.link().subscribe().borrow() {
            LinkState::Up(live) => Some(live.clone()),
            _ => None,
        }
    }

    fn is_known(&self, queue: &QueueSpec) -> bool {
        let known = self.known();
        let known = known.get(&queue.name).filter(|(_, spec)| spec == queue);
        let since = known.and_then(|(since, _)| since.upgrade());
        since.is_some_and(|since| {
            self.incarnation()
                .is_some_and(|now| Arc::ptr_eq(&since, &now))
        })
    }

    fn forget_if_gone(&self, queue: &QueueName, error: &QueueError) {
        if matches!(
            error.kind,
            QueueErrorKind::NotFound | QueueErrorKind::Unroutable
        ) {
            self.forget(queue);
        }
    }

    fn forget(&self, queue: &QueueName) {
        self.known().remove(queue);
        self.kinds.forget(queue);
    }

    /// Whether the queue may count how often a message is returned. True if that is not known.
    async fn counts_returns(&self, queue: &QueueName) -> bool {
        // A question about it may cost the connection.
        if may_break_error_texts(queue.as_str()) {
            return true;
        }
        let incarnation = self.incarnation();
        let ask = || async {
            let facts = kind::ask(&self.probe, queue).await;
            // Each answer has cost a channel. The probe opens another one now. Later the workers have their channels,
            // and a broker that limits channels may have none left. One channel too many ends a connection.
            if let Ok(lease) = self.probe.lease("open a channel for requests").await {
                lease.give_back();
            }
            facts
        };
        self.kinds.counts_returns(queue, incarnation, ask).await
    }

    async fn answer(&self, message: &Outgoing) -> Result<(), QueueError> {
        let open = || {
            let link = BrokerLink::open("answer".to_owned(), self.quota.clone(), &self.stop);
            let links = vec![self.publish.link().blocked(), link.blocked()];
            *lock(&self.blocks) = follow_blocks(links, self.blocked.clone());
            Arc::new(ChannelPool::new(link, Purpose::Publishing, PUBLISHES))
        };
        let pool = lock(&self.answer).get_or_insert_with(open).clone();
        let published = publish::publish(&pool, message).await;
        published.inspect_err(|error| replace_if_failed(&self.answer, &pool, error))
    }

    fn known(&self) -> MutexGuard<'_, HashMap<QueueName, (Weak<Live>, QueueSpec)>> {
        lock(&self.known)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Replaces a separate connection at once if the broker ended it because of a failure in its own code: the broker
/// itself is healthy.
fn replace_if_failed(
    place: &Mutex<Option<Arc<ChannelPool>>>,
    pool: &Arc<ChannelPool>,
    error: &QueueError,
) {
    if error.kind == QueueErrorKind::BrokerFailed {
        let taken = lock(place).take_if(|current| Arc::ptr_eq(current, pool));
        if let Some(pool) = taken {
            pool.link().close();
        }
    }
}

#[async_trait]
impl QueueDriver for AmqpDriver {
    async fn probe(&self, queue: &QueueName) -> Result<QueueDepth, QueueError> {
        self.look(queue, &format!("probe the queue {queue}")).await
    }

    async fn declare(&self, queue: &QueueSpec) -> Result<(), QueueError> {
        let name = &queue.name;
        if self.is_known(queue) {
            return Ok(());
        }
        self.kinds.forget(name);
        // Read before the request: an answer on a connection that was lost in the meantime does not count.
        let incarnation = self.incarnation();
        let operation = format!("declare the queue {name}");
        if let Err(error) = self.ask(name, &operation, false, arguments(queue)?).await {
            // If the user may not declare the queue, another program may have declared it.
            if error.kind != QueueErrorKind::AccessRefused
                || self.look(name, &operation).await.is_err()
            {
                return Err(error);
            }
        }
        bind(&self.requests(name), queue).await?;
        if let Some(live) = incarnation {
            let known = (Arc::downgrade(&live), queue.clone());
            self.known().insert(name.clone(), known);
        }
        Ok(())
    }

    async fn delete(&self, queue: &QueueName) -> Result<(), QueueError> {
        let operation = format!("delete the queue {queue}");
        self.forget(queue);
        let pool = self.requests(queue);
        let lease = pool.lease(&operation).await?;
        let name = short("name of a queue", queue.as_str())?;
        let delete = lease
            .channel
            .queue_delete(name, QueueDeleteOptions::default());
        let deleted = rpc(&operation, RPC_TIMEOUT, delete).await;
        deleted.inspect_err(|error| replace_if_failed(&self.wary, &pool, error))?;
        lease.give_back();
        Ok(())
    }

    async fn consume(&self, request: ConsumeRequest) -> Result<Box<dyn Consumer>, QueueError> {
        let queue = request.queue.clone();
        let opened: Result<Box<dyn Consumer>, QueueError> = match self.counts_returns(&queue).await
        {
            true => match self.joint.open(request).await {
                Ok(consumer) => Ok(Box::new(consumer)),
                Err(error) => Err(error),
            },
            false => match AmqpConsumer::open(&self.consume, &self.kinds, &request).await {
                Ok(consumer) => Ok(Box::new(consumer)),
                Err(error) => Err(error),
            },
        };
        opened.inspect_err(|error| self.forget_if_gone(&queue, error))
    }

    async fn browse(&self, queue: &QueueName) -> Result<Box<dyn Browser>, QueueError> {
        let requests = self.requests(queue);
        let browser = AmqpBrowser::open(&self.consume, requests, queue).await?;
        Ok(Box::new(browser))
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

    async fn losses(&self, queue: &QueueName) -> Vec<String> {
        let facts = self.queue_facts(queue).await;
        facts.map_or_else(|_| Vec::new(), |facts| facts.losses())
    }

    async fn prepare_to_publish(&self) -> Result<(), QueueError> {
        let lease = self.publish.lease("open a channel to publish on").await?;
        lease.give_back();
        Ok(())
    }

    async fn join_group(&self, queue: &QueueName) -> Result<Box<dyn GroupChannel>, QueueError> {
        let open = || BrokerLink::open("group".to_owned(), self.quota.clone(), &self.stop);
        let link = lock(&self.group).get_or_insert_with(open).clone();
        Ok(Box::new(AmqpGroup::join(&link, queue).await?))
    }

    fn header_limit(&self) -> usize {
        match &*self.publish.link().subscribe().borrow() {
            LinkState::Up(live) => publish::header_limit(Some(live)),
            _ => publish::header_limit(None),
        }
    }

    fn blocked(&self) -> watch::Receiver<bool> {
        self.blocked.subscribe()
    }

    fn connectivity(&self) -> watch::Receiver<Connectivity> {
        self.connectivity.clone()
    }

    fn nodes(&self) -> Vec<String> {
        let nodes = self.links().iter().filter_map(|link| link.node()).collect();
        let nodes: BTreeSet<String> = nodes;
        nodes.into_iter().collect()
    }

    async fn close(&self) {
        self.stop.cancel();
        for link in self.links() {
            link.closed().await;
        }
    }
}

impl fmt::Debug for AmqpDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AmqpDriver")
            .field("address", self.quota.address())
            .field("consume", &self.consume)
            .finish_non_exhaustive()
    }
}

impl Drop for AmqpDriver {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
