//! Steering: how an operator's order reaches a pool, its result, and how the orders of all pools are stored.
//!
//! `pool_orders` applies orders. If a store is given, one task writes every change to it.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::FutureExt as _;
use serde::Serialize;
use tokio::{
    sync::{oneshot, watch},
    time,
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{EventSink, PressureSource, TraceLink, clock::Clock, panics};
use crate::{
    config::SupervisorSettings,
    decide::{By, Decision, Order, OrderRefused, Orders, PoolName, ReconcileResult, fault_pause},
    queue::HoldingsView,
    runner::BoxError,
};
use tidegate_core::text::chain;

/// The orders of every pool that has any.
pub type AllOrders = BTreeMap<PoolName, Orders>;

/// Longest time that a store may take.
const STORING: Duration = Duration::from_secs(10);

/// Options for the start of a supervisor.
#[derive(Debug, Clone, Default)]
pub struct StartOptions {
    /// Receives every metric event.
    pub events: Option<Arc<dyn EventSink>>,
    /// Orders of an earlier run. Orders of pools that do not exist are dropped.
    pub orders: AllOrders,
    /// Stores orders. Without a store they end with the supervisor.
    pub store: Option<Arc<dyn OrdersStore>>,
    /// The wall clock; the system's by default.
    pub clock: Clock,
    /// Limits over all pools.
    pub limits: SupervisorSettings,
    /// Where the host's pressure is read; the kernel by default.
    pub pressure: PressureSource,
    /// Connects the spans of jobs with the traces of their messages.
    pub traces: Option<Arc<dyn TraceLink>>,
    /// Shows what consumers hold that are not the pools' own. Without it, that is assumed.
    pub holdings: Option<Arc<dyn HoldingsView>>,
    /// Seed of the random numbers: pauses between tries, and ids of jobs whose messages have none. For tests that repeat a
    /// run exactly. By default the system chooses it.
    pub seed: Option<u64>,
}

/// Stores the operator's orders, so that they are still in force after a restart.
#[async_trait]
pub trait OrdersStore: Send + Sync + 'static {
    /// Stores the orders of all pools, and replaces those that were stored before. One task calls this with the newest
    /// orders, and calls it again if it fails.
    async fn store(&self, orders: &AllOrders) -> Result<(), BoxError>;
}

impl fmt::Debug for dyn OrdersStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OrdersStore")
    }
}

/// What a pool would decide now with another policy, beside what it decides with its own. Nothing was changed.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Foresight {
    /// With the policy in force.
    pub before: Decision,
    /// With the other policy.
    pub after: Decision,
}

/// The result of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Steered {
    /// Whether the order changed anything. `false` if it was already in force.
    pub changed: bool,
    /// The pool's orders from now on.
    pub orders: Orders,
    /// How many workers there should be, as of the reconcile that followed.
    pub expected: u32,
    /// The result of that reconcile.
    #[serde(flatten)]
    pub result: ReconcileResult,
    /// Why the orders could not be stored, if that failed. They are in force nevertheless, and storing them is tried
    /// again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_stored: Option<String>,
}

/// An order on its way to its pool.
#[derive(Debug)]
pub(crate) struct Steering {
    pub(crate) order: Order,
    pub(crate) by: By,
    pub(crate) answer: oneshot::Sender<Result<Steered, OrderRefused>>,
}

/// Which orders are already stored.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stored {
    /// The number of changes up to which storing was tried.
    changes: u64,
    /// Why that failed.
    error: Option<String>,
}

/// Stores every change of orders.
pub(crate) struct Storing {
    store: Arc<dyn OrdersStore>,
    /// Counts changes. Written by pools and by the supervisor's handle.
    changes: watch::Receiver<u64>,
    /// Read by the callers that wait until an order is stored.
    stored: watch::Sender<Stored>,
}

impl Storing {
    pub(crate) fn new(store: Arc<dyn OrdersStore>, changes: watch::Receiver<u64>) -> Self {
        Self {
            store,
            changes,
            stored: watch::Sender::default(),
        }
    }

    pub(crate) fn stored(&self) -> watch::Receiver<Stored> {
        self.stored.subscribe()
    }

    /// Stores the orders that `all` returns at each change, until `ending`. Then it stores what is not stored yet, and ends.
    /// `all` returns `None` when the supervisor has ended.
    pub(crate) async fn run(
        mut self,
        all: impl Fn() -> Option<AllOrders>,
        ending: CancellationToken,
    ) {
        let mut failures = 0;
        loop {
            let again = async {
                match failures {
                    0 => std::future::pending().await,
                    failures => time::sleep(fault_pause(failures)).await,
                }
            };
            let ended = tokio::select! {
                biased;
                changed = self.changes.changed() => changed.is_err(),
                () = ending.cancelled() => true,
                () = again => false,
            };
            // Read before the orders, so that the orders may be newer than this number, but never older.
            let changes = *self.changes.borrow_and_update();
            if changes > self.stored.borrow().changes || failures > 0 {
                let Some(orders) = all() else { return };
                let error = self.try_to_store(&orders).await.err();
                failures = match &error {
                    None => 0,
                    Some(error) => {
                        if failures == 0 {
                            warn!(
                                error,
                                "orders could not be stored: they would be lost at a restart; trying again"
                            );
                        }
                        failures + 1
                    }
                };
                self.stored.send_replace(Stored { changes, error });
            }
            if ended {
                return;
            }
        }
    }

    async fn try_to_store(&self, orders: &AllOrders) -> Result<(), String> {
        let stored = panics::catch_future(|| self.store.store(orders).boxed());
        match time::timeout(STORING, stored).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(error))) => Err(chain(&*error)),
            Ok(Err(panicked)) => Err(format!("the store panicked: {panicked}")),
            Err(_) => Err(format!("no answer within {} s", STORING.as_secs())),
        }
    }
}

/// Waits until storing was tried for the orders as of `changes`. Returns why it failed, if it did.
pub(crate) async fn until_stored(
    mut stored: watch::Receiver<Stored>,
    changes: u64,
) -> Option<String> {
    let stored = stored.wait_for(|stored| stored.changes >= changes).await;
    match stored {
        Ok(stored) => stored.error.clone(),
        Err(_) => Some(String::from("the supervisor has ended")),
    }
}
