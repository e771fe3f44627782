//! Reads a queue message by message, on a channel of its own.
//!
//! It uses `basic.get` and no consumer, because skipped messages stay unsettled until the end. With a consumer, a
//! prefetch limit would stop the browser early, and no limit would load the whole queue into memory.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use lapin::{
    options::{BasicGetOptions, QueueDeclareOptions},
    types::{FieldTable, ShortString},
};
use tokio::time::{self, Instant};

use super::{
    consumer::{AmqpSettle, OwnChannel, WhenDropped},
    convert::{message, short},
    error::rpc,
    lanes::{LaneSlot, Lanes},
    pool::{ChannelPool, RPC_TIMEOUT},
};
use crate::{
    decide::QueueName,
    queue::{Browser, Delivery, QueueError, Settle, SettleError},
};

/// How long a closing browser waits until the broker has returned all messages.
const RETURN_TIMEOUT: Duration = Duration::from_secs(3);
/// The first pause between two such checks. It doubles up to `LAST_PAUSE`.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LAST_PAUSE: Duration = Duration::from_millis(50);

/// An open browser. Its slot is dropped last, as in a consumer.
pub(super) struct AmqpBrowser {
    channel: OwnChannel,
    queue: ShortString,
    operation: String,
    /// For reading the queue's depth.
    requests: Arc<ChannelPool>,
    /// Messages that were handed out and not settled. Written here and by their settlements, read when the browser
    /// closes.
    held: Arc<AtomicU64>,
    _place: LaneSlot,
}

impl AmqpBrowser {
    /// Opens a channel.
    ///
    /// # Cancel-safety
    /// Cancel-safe, for the same reason as a consumer.
    pub(super) async fn open(
        lanes: &Arc<Lanes>,
        requests: Arc<ChannelPool>,
        queue: &QueueName,
    ) -> Result<Self, QueueError> {
        let operation = format!("look through the queue {queue}");
        let queue = short("name of a queue", queue.as_str())?;
        let (mut place, live) = lanes.place(&operation).await?;
        let open = rpc(&operation, RPC_TIMEOUT, live.create_channel());
        let opened = open.await.inspect_err(|error| place.ticket.note(error));
        let channel = OwnChannel(opened?);
        place.ticket.opened();
        Ok(Self {
            channel,
            queue,
            operation,
            requests,
            held: Arc::default(),
            _place: place,
        })
    }

    /// The number of ready messages. The number of consumers does not matter: a quorum queue before RabbitMQ 4 counts
    /// each fetched message as one.
    async fn ready(&self) -> Result<u64, QueueError> {
        let lease = self.requests.lease(&self.operation).await?;
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let declare =
            lease
                .channel
                .queue_declare(self.queue.clone(), options, FieldTable::default());
        let seen = rpc(&self.operation, RPC_TIMEOUT, declare).await?;
        lease.give_back();
        Ok(seen.message_count().into())
    }

    /// Waits until this many messages are ready. The wait is limited, because other consumers may take the messages, or
    /// they may expire.
    async fn until_back(&self, all: u64) {
        let deadline = Instant::now() + RETURN_TIMEOUT;
        let mut pause = FIRST_PAUSE;
        while let Ok(ready) = self.ready().await
            && ready < all
            && Instant::now() < deadline
        {
            time::sleep(pause).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }
}

/// The settlement of a message that was handed out. An unsettled message is still held.
struct Settling {
    settle: AmqpSettle,
    held: Arc<AtomicU64>,
}

impl Settling {
    fn count_settled(&self) {
        self.held.fetch_sub(1, Ordering::Relaxed);
    }
}

#[async_trait]
impl Settle for Settling {
    async fn ack(self: Box<Self>) -> Result<(), SettleError> {
        self.count_settled();
        Box::new(self.settle).ack().await
    }

    async fn requeue(self: Box<Self>) -> Result<(), SettleError> {
        self.count_settled();
        Box::new(self.settle).requeue().await
    }

    async fn reject(self: Box<Self>) -> Result<(), SettleError> {
        self.count_settled();
        Box::new(self.settle).reject().await
    }

    fn abandon(self: Box<Self>) {
        Box::new(self.settle).abandon();
    }
}

#[async_trait]
impl Browser for AmqpBrowser {
    async fn next(&mut self) -> Result<Option<Delivery>, QueueError> {
        let options = BasicGetOptions { no_ack: false };
        let get = self.channel.0.basic_get(self.queue.clone(), options);
        let got = rpc(&self.operation, RPC_TIMEOUT, get).await?;
        Ok(got.map(|got| {
            self.held.fetch_add(1, Ordering::Relaxed);
            let settle = Box::new(Settling {
                settle: AmqpSettle {
                    acker: got.delivery.acker.clone(),
                    when_dropped: WhenDropped::Hold,
                },
                held: self.held.clone(),
            });
            Delivery::new(message(got.delivery), settle)
        }))
    }

    async fn close(self: Box<Self>) -> Result<(), QueueError> {
        // Unsettled messages are not given back one by one. A classic queue would then walk past all returned messages
        // for each further one, and a quorum queue would put each at its end. When the channel is closed, a classic
        // queue takes all back at once and in order. A quorum queue puts them at its head, but loses the order of more
        // than 32, because it treats each fetched message as a consumer.
        let held = self.held.load(Ordering::Relaxed);
        let before = match held {
            0 => None,
            _ => self.ready().await.ok(),
        };
        let close = self.channel.0.close(200, "OK".into());
        rpc(&self.operation, RPC_TIMEOUT, close).await?;
        // RabbitMQ 4 answers the close before the queue has processed it. For a quorum queue, all versions do.
        if let Some(before) = before {
            self.until_back(before + held).await;
        }
        Ok(())
    }
}
