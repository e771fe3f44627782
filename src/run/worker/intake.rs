//! The worker's intake: its consumer, the deliveries that wait for the worker, and why no more will come.

use std::{collections::VecDeque, future::poll_fn};

use tokio::time::Instant;
use tracing::debug;

use crate::{
    queue::{Consumer, Delivery, QueueErrorKind},
    run::worker_state::WorkerStopReason,
};
use tidegate_core::text::chain;

/// A consumer, and the deliveries that wait for the worker.
pub(super) struct WorkerIntake {
    pub(super) consumer: Box<dyn Consumer>,
    pub(super) ahead: VecDeque<ReceivedDelivery>,
    /// Why no more deliveries will come.
    pub(super) ended: Option<WorkerStopReason>,
}

/// A delivery, and when it came: the broker's consumer timeout counts from then.
pub(super) struct ReceivedDelivery {
    pub(super) delivery: Delivery,
    pub(super) at: Instant,
    /// Whether it waited behind others.
    pub(super) waited: bool,
    /// Whether it can be copied, as far as is known.
    pub(super) is_copyable: bool,
}

impl ReceivedDelivery {
    /// A delivery that the worker gets now.
    pub(super) fn now(delivery: Delivery) -> Self {
        Self {
            at: delivery.arrived().unwrap_or_else(Instant::now),
            delivery,
            waited: false,
            is_copyable: true,
        }
    }
}

impl WorkerIntake {
    /// Whether its channel is closed. The broker then redelivers unsettled messages, so a copy would duplicate a
    /// message.
    pub(super) fn is_gone(&self) -> bool {
        matches!(
            self.ended,
            Some(WorkerStopReason::Lost | WorkerStopReason::HeldTooLong)
        )
    }

    /// The next delivery, or why the consumer has ended. Pending for ever after that. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<ReceivedDelivery, WorkerStopReason> {
        if self.ended.is_some() {
            return std::future::pending().await;
        }
        match poll_fn(|cx| self.consumer.poll_next(cx)).await {
            Some(Ok(delivery)) => Ok(ReceivedDelivery::now(delivery)),
            Some(Err(error)) => {
                let why = match error.kind {
                    QueueErrorKind::HeldTooLong => WorkerStopReason::HeldTooLong,
                    _ => WorkerStopReason::Lost,
                };
                debug!(error = %chain(&error), "consumer lost");
                self.ended = Some(why);
                Err(why)
            }
            // The worker has not cancelled it, so the broker has.
            None => {
                self.ended = Some(WorkerStopReason::Cancelled);
                Err(WorkerStopReason::Cancelled)
            }
        }
    }
}
