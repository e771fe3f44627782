//! The connections that share the channels of consumers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use super::{
    link::{BrokerLink, Live, disconnected},
    quota::{ConsumerTicket, Quota},
};
use crate::queue::QueueError;

/// Channels on one connection. Far below RabbitMQ's usual limit of 2,047, because all channels of a connection share
/// one process at the broker and one thread here.
const PER_LANE: usize = 500;

/// All lanes. The first exists from the start. More are opened as workers need them, and empty ones are closed from the
/// end.
pub(super) struct Lanes {
    quota: Arc<Quota>,
    stop: CancellationToken,
    lanes: Mutex<Vec<Lane>>,
}

struct Lane {
    link: Arc<BrokerLink>,
    load: usize,
}

/// One channel's slot on a lane, and in the broker's quota. Given back on drop.
#[derive(Debug)]
pub(super) struct LaneSlot {
    lanes: Arc<Lanes>,
    link: Arc<BrokerLink>,
    pub(super) ticket: ConsumerTicket,
}

impl Lanes {
    pub(super) fn new(quota: Arc<Quota>, stop: CancellationToken) -> Arc<Self> {
        let lanes = Self {
            lanes: Mutex::new(Vec::new()),
            quota,
            stop,
        };
        let first = lanes.open(0);
        lanes.lock().push(first);
        Arc::new(lanes)
    }

    /// The link that exists from the start.
    pub(super) fn first(&self) -> Arc<BrokerLink> {
        self.lock()[0].link.clone()
    }

    /// A slot on the first lane that has room and a connection, or on a new lane if all are full.
    pub(super) async fn place(
        self: &Arc<Self>,
        operation: &str,
    ) -> Result<(LaneSlot, Arc<Live>), QueueError> {
        // The broker's limit is known after its answer. If the first lane is down, the broker is not reachable.
        let first = self.first().live(operation).await?;
        let capacity = capacity(first.connection.configuration().channel_max());
        let ticket = self.quota.consumer(operation).await?;
        let link = match self.take(capacity) {
            Ok(link) => link,
            // The lane gives the error.
            Err(down) => {
                down.live(operation).await?;
                return Err(disconnected(operation));
            }
        };
        let place = LaneSlot {
            lanes: self.clone(),
            link: link.clone(),
            ticket,
        };
        let live = link.live(operation).await?;
        Ok((place, live))
    }

    /// Counts one more channel on a lane. The error is a lane that has room but no connection.
    fn take(&self, capacity: usize) -> Result<Arc<BrokerLink>, Arc<BrokerLink>> {
        let mut lanes = self.lock();
        let mut down = None;
        let mut found = None;
        for (index, lane) in lanes.iter().enumerate() {
            if lane.load >= capacity {
                continue;
            }
            if lane.link.is_down() {
                down = Some(lane.link.clone());
            } else {
                found = Some(index);
                break;
            }
        }
        let index = match (found, down) {
            (Some(index), _) => index,
            // Its keeper is reconnecting. Another connection would only add an attempt on the same broker.
            (None, Some(down)) => return Err(down),
            (None, None) => {
                let lane = self.open(lanes.len());
                lanes.push(lane);
                lanes.len() - 1
            }
        };
        lanes[index].load += 1;
        Ok(lanes[index].link.clone())
    }

    fn open(&self, index: usize) -> Lane {
        let role = format!("consume {}", index + 1);
        Lane {
            link: BrokerLink::open(role, self.quota.clone(), &self.stop),
            load: 0,
        }
    }

    fn give_back(&self, link: &Arc<BrokerLink>) {
        let mut lanes = self.lock();
        if let Some(lane) = lanes.iter_mut().find(|lane| Arc::ptr_eq(&lane.link, link)) {
            lane.load -= 1;
        }
        while lanes.len() > 1 && lanes.last().is_some_and(|lane| lane.load == 0) {
            if let Some(lane) = lanes.pop() {
                lane.link.close();
            }
        }
    }

    pub(super) fn links(&self) -> Vec<Arc<BrokerLink>> {
        self.lock().iter().map(|lane| lane.link.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Lane>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Limit on our channels on one connection of a broker with this `channel_max`. 0 means no limit.
fn capacity(channel_max: u16) -> usize {
    match channel_max {
        0 => PER_LANE,
        limit => PER_LANE.min(usize::from(limit) / 2).max(1),
    }
}

impl std::fmt::Debug for Lanes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let loads: Vec<_> = self.lock().iter().map(|lane| lane.load).collect();
        f.debug_struct("Lanes").field("loads", &loads).finish()
    }
}

impl Drop for LaneSlot {
    fn drop(&mut self) {
        self.lanes.give_back(&self.link);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_stays_well_under_the_brokers_limit() {
        assert_eq!(capacity(2047), 500);
        assert_eq!(capacity(0), 500);
        assert_eq!(capacity(100), 50);
        assert_eq!(capacity(1), 1);
    }
}
