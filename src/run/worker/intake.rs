//! The worker's intake: its consumer, what that was sent ahead of need, and why no more will come.

use std::{collections::VecDeque, future::poll_fn};

use tokio::time::Instant;
use tracing::debug;

use crate::{
    queue::{Consumer, Delivery, QueueErrorKind},
    run::worker_state::WorkerStopReason,
};
use tidegate_core::text::chain;

/// A consumer, and what it was sent ahead of need.
pub(super) struct WorkerIntake {
    pub(super) consumer: Box<dyn Consumer>,
    pub(super) ahead: VecDeque<ReceivedDelivery>,
    /// Why no more will come.
    pub(super) ended: Option<WorkerStopReason>,
}

/// A delivery and when it came: from then on the broker counts.
pub(super) struct ReceivedDelivery {
    pub(super) delivery: Delivery,
    pub(super) at: Instant,
    /// Whether others were before it.
    pub(super) waited: bool,
    /// Whether a copy of it can be made, as far as is known.
    pub(super) is_copyable: bool,
}

impl ReceivedDelivery {
    /// One that comes now.
    pub(super) fn now(delivery: Delivery) -> Self {
        Self {
            delivery,
            at: Instant::now(),
            waited: false,
            is_copyable: true,
        }
    }
}

impl WorkerIntake {
    /// Whether its channel is gone: then the broker hands out anew what is not settled, and a copy would be a second one.
    pub(super) fn is_gone(&self) -> bool {
        matches!(
            self.ended,
            Some(WorkerStopReason::Lost | WorkerStopReason::HeldTooLong)
        )
    }

    /// The next thing that the consumer says. Pending for ever once it has ended. Cancel-safe.
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
            // Nobody here has cancelled it.
            None => {
                self.ended = Some(WorkerStopReason::Cancelled);
                Err(WorkerStopReason::Cancelled)
            }
        }
    }
}
