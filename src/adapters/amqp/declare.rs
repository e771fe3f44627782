//! The arguments and bindings of a queue's declaration.

use lapin::{
    options::QueueBindOptions,
    types::{AMQPValue, FieldTable},
};
use tokio::time;

use super::{
    convert::{field_table, short},
    error::rpc,
    pool::{ChannelPool, RPC_TIMEOUT},
};
use crate::queue::{QueueBinding, QueueError, QueueErrorKind, QueueKind, QueueSpec};

/// The arguments of the declaration.
///
/// # Errors
/// The name of an argument is too long for AMQP.
pub(super) fn arguments(queue: &QueueSpec) -> Result<FieldTable, QueueError> {
    let mut table = FieldTable::default();
    let mut text = |key: &str, value: &str| {
        table.insert(key.into(), AMQPValue::LongString(value.into()));
    };
    // Also sent for classic queues, because a virtual host may have another default.
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
    for (name, value) in field_table(&queue.arguments)?.inner() {
        table.insert(name.clone(), value.clone());
    }
    Ok(table)
}

/// Binds an existing queue. Bindings that exist already do not change.
pub(super) async fn bind(pool: &ChannelPool, queue: &QueueSpec) -> Result<(), QueueError> {
    for binding in &queue.bindings {
        let QueueBinding {
            exchange,
            routing_key,
            arguments,
        } = binding;
        let operation = format!("bind the queue {} to the exchange {exchange}", queue.name);
        let lease = time::timeout(RPC_TIMEOUT, pool.lease(&operation)).await;
        let timed_out = |_| Err(QueueError::new(QueueErrorKind::Timeout, &operation));
        let lease = lease.unwrap_or_else(timed_out)?;
        let bind = lease.channel.queue_bind(
            short("name of a queue", queue.name.as_str())?,
            short("name of an exchange", exchange)?,
            short("routing key", routing_key)?,
            QueueBindOptions::default(),
            field_table(arguments)?,
        );
        let bound = rpc(&operation, RPC_TIMEOUT, bind).await;
        bound.map_err(|mut error| {
            // The exchange is missing. To the caller, `NotFound` would mean a missing queue.
            if error.kind == QueueErrorKind::NotFound {
                error.kind = QueueErrorKind::Other;
            }
            error
        })?;
        lease.give_back();
    }
    Ok(())
}
