//! A look through a queue: a channel of its own, on which messages are fetched one by one.
//!
//! `basic.get` and not a consumer, because what is passed over stays unsettled until the end: a prefetch would either
//! stop the look there, or let the whole queue into memory.

use std::sync::Arc;

use async_trait::async_trait;
use lapin::{
    options::{BasicGetOptions, BasicNackOptions},
    types::ShortString,
};

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

/// Unsettled messages that are given back one by one, at most.
///
/// RabbitMQ takes each fetched message for a consumer of its own, and puts each back by itself: in order, but a classic
/// queue walks past all that are back already. Beyond this the channel is only closed: a classic queue then takes all
/// of them back at once and in order, a quorum queue in no order.
const ONE_BY_ONE: u32 = 1000;

/// An open look. Its place drops last, as a consumer's does.
pub(super) struct AmqpBrowser {
    channel: OwnChannel,
    queue: ShortString,
    operation: String,
    handed_out: u32,
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
        let (place, live) = lanes.place(&operation).await?;
        let open = live.connection.create_channel();
        let channel = OwnChannel(rpc(&operation, RPC_TIMEOUT, open).await?);
        Ok(Self {
            channel,
            queue,
            operation,
            handed_out: 0,
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
        self.handed_out = self.handed_out.saturating_add(u32::from(got.is_some()));
        Ok(got.map(|got| {
            let settle = Box::new(AmqpSettle {
                acker: got.delivery.acker.clone(),
                when_dropped: WhenDropped::Hold,
            });
            Delivery::new(message(got.delivery), settle)
        }))
    }

    async fn close(self: Box<Self>) -> Result<(), QueueError> {
        let channel = &self.channel.0;
        let close = async {
            if self.handed_out <= ONE_BY_ONE {
                // Closing would do, but as a lost connection it counts towards the delivery limit of a quorum queue
                // on RabbitMQ 4.3, where this does not. Tag 0 is everything unsettled.
                let everything = BasicNackOptions {
                    multiple: true,
                    requeue: true,
                };
                channel.basic_nack(0, everything).await?;
            }
            // Is answered once a classic queue has seen to all that the channel asked for before.
            channel.close(200, "OK".into()).await
        };
        rpc(&self.operation, RPC_TIMEOUT, close).await
    }
}
