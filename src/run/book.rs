//! The book of a pool's orders: what the operator wants, under a lock.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::wall::Clock;
use crate::decide::Orders;

/// A pool's orders, and what goes with them. Written by the pool's task alone.
pub(crate) struct OrderBook {
    orders: Mutex<Orders>,
    pub(crate) clock: Clock,
    /// Counts changes of any pool's orders. Read by the task that stores orders.
    changes: watch::Sender<u64>,
}

impl OrderBook {
    pub(crate) fn new(orders: Orders, clock: Clock, changes: watch::Sender<u64>) -> Self {
        Self {
            orders: Mutex::new(orders),
            clock,
            changes,
        }
    }

    pub(crate) fn orders(&self) -> MutexGuard<'_, Orders> {
        // An order is taken in whole or not at all, so a panic leaves nothing half done.
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn changed(&self) {
        self.changes.send_modify(|changes| *changes += 1);
    }
}
