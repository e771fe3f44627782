//! A pool's orders: what the operator has ordered. [`decide::orders`](crate::decide::Orders) says what they mean and
//! which of them stay in force after a reload. Written by the pool's task alone; `steering` stores them.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tidegate_core::text::{counted, time};
use tokio::sync::watch;
use tracing::{info, warn};

use super::clock::Clock;
use crate::{
    config::PoolSettings,
    decide::{By, Changed, Configured, Expired, Order, OrderRefused, Orders, PoolName},
};

/// Longest time until a pool checks again whether an order has expired: the wall clock may have been set meanwhile.
const CLOCK_CHECK: Duration = Duration::from_secs(30);

/// A pool's orders, and their related state.
pub(crate) struct PoolOrders {
    pool: PoolName,
    orders: Mutex<Orders>,
    pub(crate) clock: Clock,
    /// Counts changes of any pool's orders. Read by the task that stores orders.
    changes: watch::Sender<u64>,
}

impl PoolOrders {
    pub(crate) fn new(
        pool: PoolName,
        orders: Orders,
        clock: Clock,
        changes: watch::Sender<u64>,
    ) -> Self {
        Self {
            pool,
            orders: Mutex::new(orders),
            clock,
            changes,
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Orders> {
        // An order is applied as a whole or not at all, so a panic leaves nothing half done.
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies an order of the operator. `settings` are those of the configuration.
    pub(crate) fn apply(
        &self,
        order: Order,
        by: By,
        settings: &PoolSettings,
    ) -> Result<Changed, OrderRefused> {
        if let Order::SetPolicy(set) = &order
            && set.over != configured(settings)
        {
            let why =
                "the configuration has changed meanwhile: look at it and set the policy again";
            return Err(OrderRefused::Policy(why));
        }
        let act = order.act().as_str();
        let now = self.clock.now();
        let changed = self.lock().apply(order.clone(), by.clone(), now)?;
        if changed == Changed::Yes {
            info!(pool = %self.pool, act, order = %Shown(&order), by = %by, "an operator gave an order to the pool");
            self.count_change();
        }
        Ok(changed)
    }

    /// Removes orders that have expired. Returns whether there were any.
    pub(crate) fn expire(&self) -> bool {
        let expired = self.lock().expire(self.clock.now());
        for expired in &expired {
            match expired {
                Expired::Pause => {
                    info!(pool = %self.pool, "the pause is over: the pool takes messages again")
                }
                Expired::NoShrink => {
                    info!(pool = %self.pool, "the pool may shrink again: the order has expired")
                }
            }
        }
        if !expired.is_empty() {
            self.count_change();
        }
        !expired.is_empty()
    }

    /// Drops a policy that was set by hand if the configuration under it has changed.
    pub(crate) fn yield_to(&self, settings: &PoolSettings) {
        let dropped = self.lock().yield_to(&configured(settings));
        if let Some(set) = dropped {
            warn_of_dropped_policy(&self.pool, &set.to_string());
            self.count_change();
        }
    }

    /// When the pool must check again whether an order has expired.
    pub(crate) fn next_check(&self) -> Option<Duration> {
        let due = self.lock().due(self.clock.now())?;
        Some(due.min(CLOCK_CHECK))
    }

    fn count_change(&self) {
        self.changes.send_modify(|changes| *changes += 1);
    }
}

/// The orders of an earlier run, as far as they are still valid for a pool with these settings.
pub(crate) fn restored(mut orders: Orders, settings: &PoolSettings, now: Timestamp) -> Orders {
    let name = &settings.name;
    if let Some(wrong) = orders.drop_invalid() {
        warn!(pool = %name, error = wrong, "dropped a policy that was set by hand: it cannot be carried out");
    }
    if let Some(set) = orders.yield_to(&configured(settings)) {
        warn_of_dropped_policy(name, &set.to_string());
    }
    let _ = orders.expire(now);
    if !orders.is_empty() {
        let orders = orders.to_string().replace('\n', "; ");
        info!(pool = %name, orders, "restored the orders of an earlier run");
    }
    orders
}

fn warn_of_dropped_policy(pool: &PoolName, set: &str) {
    warn!(
        pool = %pool,
        set,
        "dropped the policy that was set by hand: the pool's policy or scaling has changed in the configuration"
    );
}

/// The policy and scaling that the configuration gives a pool.
fn configured(settings: &PoolSettings) -> Configured {
    Configured {
        policy: settings.policy.clone(),
        scaling: settings.scaling,
    }
}

/// An order for the log.
struct Shown<'o>(&'o Order);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Order::Pause { until: None } => f.write_str("pause"),
            Order::Pause { until: Some(until) } => write!(f, "pause until {}", time(*until)),
            Order::Drain => f.write_str("drain"),
            Order::Resume => f.write_str("resume"),
            Order::Pin { workers } => write!(f, "pin to {}", counted(*workers, "worker")),
            Order::Unpin => f.write_str("remove the pin"),
            Order::ForbidShrinking { until: None } => f.write_str("forbid shrinking"),
            Order::ForbidShrinking { until: Some(until) } => {
                write!(f, "forbid shrinking until {}", time(*until))
            }
            Order::AllowShrinking => f.write_str("allow shrinking"),
            Order::SetPolicy(set) => write!(f, "policy: {}", set.policy),
            Order::ResetPolicy => f.write_str("the configuration's policy"),
            other => f.write_str(other.act().as_str()),
        }
    }
}
