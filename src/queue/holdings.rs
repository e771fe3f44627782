//! What the consumers of a queue hold. AMQP does not show it; a broker's management API does.

use std::{error::Error, fmt, net::SocketAddr};

use async_trait::async_trait;

use super::QueueName;

/// Shows what the consumers of a queue hold. Asked for pools whose programs consume the queue themselves.
#[async_trait]
pub trait HoldingsView: Send + Sync + fmt::Debug + 'static {
    /// What they hold now, or some seconds ago.
    async fn holdings(&self, queue: &QueueName) -> Result<Holdings, Box<dyn Error + Send + Sync>>;
}

/// What the consumers of a queue hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holdings {
    /// Messages that are delivered and not settled, of all consumers.
    pub unacknowledged: u64,
    /// Messages that were ever delivered.
    pub delivered: Option<u64>,
    /// Messages that were ever acknowledged.
    pub acknowledged: Option<u64>,
    /// The consumers that it can tell apart.
    pub consumers: Vec<ConsumerHolding>,
}

/// What one consumer holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerHolding {
    /// The consumer's end of its connection, as the broker sees it.
    pub address: SocketAddr,
    /// Messages that are delivered to its channel and not settled.
    pub unacknowledged: u64,
}
