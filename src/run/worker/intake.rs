//! The worker's intake: its consumer, what that was sent ahead of need, and why no more will come.

use std::{collections::VecDeque, future::poll_fn};

use tokio::time::Instant;
use tracing::debug;

use super::Worker;
use crate::{
    queue::{Consumer, Delivery, QueueErrorKind},
    run::{cell::Leaving, settling::chain},
};

/// A consumer, and what it was sent ahead of need.
pub(super) struct Intake {
    pub(super) consumer: Box<dyn Consumer>,
    pub(super) ahead: VecDeque<Arrived>,
    /// Why no more will come.
    pub(super) ended: Option<Leaving>,
}

/// A delivery and when it came: from then on the broker counts.
pub(super) struct Arrived {
    pub(super) delivery: Delivery,
    pub(super) at: Instant,
    /// Whether others were before it.
    pub(super) waited: bool,
    /// Whether a copy of it can be made, as far as is known.
    pub(super) is_copyable: bool,
}

impl Arrived {
    /// One that comes now.
    fn now(delivery: Delivery) -> Self {
        Self {
            delivery,
            at: Instant::now(),
            waited: false,
            is_copyable: true,
        }
    }
}

impl Intake {
    /// Whether its channel is gone: then the broker hands out anew what is not settled, and a copy would be a second one.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self.ended, Some(Leaving::Lost | Leaving::HeldTooLong))
    }

    /// The next thing that the consumer says. Pending for ever once it has ended. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Arrived, Leaving> {
        if self.ended.is_some() {
            return std::future::pending().await;
        }
        match poll_fn(|cx| self.consumer.poll_next(cx)).await {
            Some(Ok(delivery)) => Ok(Arrived::now(delivery)),
            Some(Err(error)) => {
                let why = match error.kind {
                    QueueErrorKind::HeldTooLong => Leaving::HeldTooLong,
                    _ => Leaving::Lost,
                };
                debug!(error = %chain(&error), "consumer lost");
                self.ended = Some(why);
                Err(why)
            }
            // Nobody here has cancelled it.
            None => {
                self.ended = Some(Leaving::Cancelled);
                Err(Leaving::Cancelled)
            }
        }
    }
}

impl Worker<'_> {
    /// Waits for a delivery.
    pub(super) async fn wait(&mut self) -> Result<Arrived, Leaving> {
        if let Some(why) = self.intake.ended.filter(|_| self.intake.is_gone()) {
            return Err(why);
        }
        if let Some(mut arrived) = self.intake.ahead.pop_front() {
            arrived.waited = true;
            return Ok(arrived);
        }
        if let Some(why) = self.intake.ended {
            return Err(why);
        }
        self.shared.waiting_more();
        let next = loop {
            let next = tokio::select! {
                biased;
                () = self.cell.leave.cancelled() => break None,
                Some(renewed) = self.renewals.join_next() => match renewed {
                    Ok(Some(arrived)) => break Some(Ok(arrived)),
                    _ => continue,
                },
                next = self.intake.next() => next,
            };
            match next {
                Ok(arrived) => {
                    self.keep(arrived);
                    if let Some(arrived) = self.intake.ahead.pop_front() {
                        break Some(Ok(arrived));
                    }
                }
                Err(why) => break Some(Err(why)),
            }
        };
        let result = match next {
            // Still counted as waiting until the broker has confirmed that nothing more will come.
            None => {
                self.cancel().await;
                Err(Leaving::ScaledDown)
            }
            Some(Ok(arrived)) => Ok(arrived),
            Some(Err(why)) => {
                self.cell.not_consuming();
                Err(why)
            }
        };
        self.shared.waiting_less();
        result
    }

    pub(super) fn held(&self) -> u32 {
        u32::try_from(self.intake.ahead.len()).unwrap_or(u32::MAX)
    }

    /// Cancels the consumer, once.
    pub(super) async fn cancel(&mut self) {
        self.cell.not_consuming();
        if self.intake.ended.is_some() {
            return;
        }
        self.intake.ended = Some(Leaving::ScaledDown);
        let cancelled = self.shared.answered(self.intake.consumer.cancel()).await;
        let Some(cancelled) = cancelled else {
            // What it was sent ahead goes back with its channel.
            return;
        };
        if let Err(error) = cancelled {
            // The broker gives back by itself what was sent ahead on a channel that is gone.
            debug!(error = %chain(&error), "consumer not cancelled: its channel is gone");
            self.intake.ended = Some(Leaving::Lost);
            return;
        }
        // What was sent before the broker heard of it.
        while let Some(Ok(delivery)) = poll_fn(|cx| self.intake.consumer.poll_next(cx)).await {
            self.keep(Arrived::now(delivery));
        }
    }
}
