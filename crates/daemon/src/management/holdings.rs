//! What the consumers of a queue hold, by the management API.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
};

use async_trait::async_trait;
use serde::{Deserialize, Deserializer, de::IgnoredAny};

use super::{Management, ManagementError};
use tidegate::{
    decide::QueueName,
    queue::{ConsumerHolding, Holdings, HoldingsView},
    runner::BoxError,
    text::chain,
};

/// A queue, in the form of the API.
#[derive(Debug, Deserialize)]
struct QueueNumbers {
    #[serde(default)]
    messages_unacknowledged: u64,
    #[serde(default, deserialize_with = "lenient")]
    message_stats: Option<MessageStats>,
    #[serde(default)]
    consumer_details: Vec<ConsumerDetails>,
}

/// Counters since the queue began.
#[derive(Debug, Deserialize)]
struct MessageStats {
    #[serde(default)]
    deliver_get: u64,
    #[serde(default)]
    ack: u64,
}

#[derive(Debug, Deserialize)]
struct ConsumerDetails {
    #[serde(default, deserialize_with = "lenient")]
    channel_details: Option<ChannelName>,
}

#[derive(Debug, Deserialize)]
struct ChannelName {
    name: String,
}

/// A channel, in the form of the API.
#[derive(Debug, Deserialize)]
struct ChannelNumbers {
    name: String,
    #[serde(default)]
    messages_unacknowledged: u64,
    #[serde(default, deserialize_with = "lenient")]
    connection_details: Option<ConnectionDetails>,
}

#[derive(Debug, Deserialize)]
struct ConnectionDetails {
    #[serde(default)]
    peer_host: String,
    #[serde(default, deserialize_with = "lenient")]
    peer_port: Option<u16>,
}

/// The API writes an empty list or a word where it knows nothing.
fn lenient<'d, T, D>(value: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'d>,
    D: Deserializer<'d>,
{
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either<T> {
        Known(T),
        Unknown(IgnoredAny),
    }
    Ok(match Either::deserialize(value)? {
        Either::Known(value) => Some(value),
        Either::Unknown(_) => None,
    })
}

impl fmt::Debug for Management {
    // The authorization is a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Management")
            .field("base", &self.base)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl HoldingsView for Management {
    async fn holdings(&self, queue: &QueueName) -> Result<Holdings, BoxError> {
        let failed = |error: ManagementError| -> BoxError {
            format!("it failed to {}", chain(&error)).into()
        };
        let numbers: Option<QueueNumbers> = self.queue(queue).await.map_err(failed)?;
        let Some(numbers) = numbers else {
            return Err("it knows no such queue".into());
        };
        let consumes = numbers
            .consumer_details
            .iter()
            .any(|consumer| consumer.channel_details.is_some());
        let channels = match consumes {
            true => self.channels().await.map_err(failed)?,
            false => Vec::new(),
        };
        Ok(holdings(&numbers, &channels))
    }
}

/// What each consumer of a queue holds. A channel that consumes other queues too counts as a whole.
fn holdings(queue: &QueueNumbers, channels: &[ChannelNumbers]) -> Holdings {
    let channels: BTreeMap<_, _> = channels
        .iter()
        .map(|channel| (channel.name.as_str(), channel))
        .collect();
    let consumers = queue.consumer_details.iter().filter_map(|consumer| {
        let name = consumer.channel_details.as_ref()?.name.as_str();
        let channel = channels.get(name)?;
        Some(ConsumerHolding {
            address: address(channel.connection_details.as_ref()?)?,
            unacknowledged: channel.messages_unacknowledged,
        })
    });
    let stats = queue.message_stats.as_ref();
    Holdings {
        unacknowledged: queue.messages_unacknowledged,
        delivered: stats.map(|stats| stats.deliver_get),
        acknowledged: stats.map(|stats| stats.ack),
        consumers: consumers.collect(),
    }
}

/// The consumer's end of its connection, as the broker sees it.
fn address(connection: &ConnectionDetails) -> Option<SocketAddr> {
    let host: IpAddr = connection.peer_host.parse().ok()?;
    Some(SocketAddr::new(host.to_canonical(), connection.peer_port?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_each_consumer_holds_by_its_channel() {
        let queue: QueueNumbers = serde_json::from_str(
            r#"{"messages_unacknowledged": 7, "message_stats": {"deliver_get": 90, "ack": 83},
                "consumer_details": [
                    {"consumer_tag": "a", "channel_details": {"name": "one (1)", "peer_port": 4711}},
                    {"consumer_tag": "b", "channel_details": {"name": "two (1)", "peer_port": 4712}},
                    {"consumer_tag": "gone", "channel_details": []}]}"#,
        )
        .unwrap();
        let channels: Vec<ChannelNumbers> = serde_json::from_str(
            r#"[{"name": "one (1)", "messages_unacknowledged": 4,
                 "connection_details": {"peer_host": "::ffff:127.0.0.1", "peer_port": 4711}},
                {"name": "two (1)", "messages_unacknowledged": 3,
                 "connection_details": {"peer_host": "undefined", "peer_port": "undefined"}},
                {"name": "another queue's (1)", "messages_unacknowledged": 50, "connection_details": []}]"#,
        )
        .unwrap();
        let found = holdings(&queue, &channels);
        assert_eq!(found.unacknowledged, 7);
        assert_eq!((found.delivered, found.acknowledged), (Some(90), Some(83)));
        let located = ConsumerHolding {
            address: "127.0.0.1:4711".parse().unwrap(),
            unacknowledged: 4,
        };
        assert_eq!(found.consumers, [located]);
    }

    #[test]
    fn a_queue_without_statistics_holds_nothing() {
        let queue: QueueNumbers =
            serde_json::from_str(r#"{"name": "jobs", "message_stats": []}"#).unwrap();
        let found = holdings(&queue, &[]);
        assert_eq!((found.unacknowledged, found.delivered), (0, None));
    }
}
