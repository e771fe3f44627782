//! A look through a queue: a channel of its own, on which messages are fetched one by one.
//!
//! `basic.get` and not a consumer, because what is passed over stays unsettled until the end: a prefetch would either
//! stop the look there, or let the whole queue into memory.

use std::sync::Arc;

use async_trait::async_trait;
use lapin::{options::BasicGetOptions, types::ShortString};

use super::{
    consumer::{AmqpSettle, OwnChannel, WhenDropped},
    convert::{message, short},
    error::rpc,
    lanes::{Lanes, Place},
    pool::RPC_TIMEOUT,
};
use crate::{
    decide::QueueName,
    queue::{Browser, Delivery, QueueError},
};

/// An open look. Its place drops last, as a consumer's does.
pub(super) struct AmqpBrowser {
    channel: OwnChannel,
    queue: ShortString,
    operation: String,
    _place: Place,
}

impl AmqpBrowser {
    /// Opens a channel.
    ///
    /// # Cancel-safety
    /// Cancel-safe: as for a consumer.
    pub(super) async fn open(lanes: &Arc<Lanes>, queue: &QueueName) -> Result<Self, QueueError> {
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
            _place: place,
        })
    }
}

#[async_trait]
impl Browser for AmqpBrowser {
    async fn next(&mut self) -> Result<Option<Delivery>, QueueError> {
        let options = BasicGetOptions { no_ack: false };
        let get = self.channel.0.basic_get(self.queue.clone(), options);
        let got = rpc(&self.operation, RPC_TIMEOUT, get).await?;
        Ok(got.map(|got| {
            let settle = Box::new(AmqpSettle {
                acker: got.delivery.acker.clone(),
                when_dropped: WhenDropped::Hold,
            });
            Delivery::new(message(got.delivery), settle)
        }))
    }

    async fn close(self: Box<Self>) -> Result<(), QueueError> {
        // What is unsettled is not given back one by one first: a classic queue would walk past all that are back
        // already for each more, and a quorum queue would put each at its end. Closed, the first takes all back at
        // once and in order, and answers once it has; the second puts them at its head, but of more than 32 it
        // forgets the order, since to it each fetched message is a consumer.
        let close = self.channel.0.close(200, "OK".into());
        rpc(&self.operation, RPC_TIMEOUT, close).await
    }
}
