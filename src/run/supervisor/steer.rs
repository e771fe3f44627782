//! Orders for one pool by an operator or by the program, and flushes.

use std::sync::Arc;

use super::{FlushMode, Supervisor, SupervisorError};
use crate::{
    config::PoolSettings,
    decide::{By, Order, PoolName, ReconcileResult, SetPolicy, SteeringOutcome},
    run::{
        AllOrders, Foresight, Steered, metrics,
        pool::PoolCommand,
        steering::{Steering, until_stored},
    },
};

impl Supervisor {
    /// Carries out an operator's order on a pool, waits for the reconcile that follows, and returns the result. An order
    /// that closes intake takes effect at once, any other order with a fresh reading of the queue.
    ///
    /// Orders still hold after [`reconfigure`](Self::reconfigure), and after a restart if
    /// [`StartOptions::store`](crate::run::StartOptions::store) stores them. [`Orders`](crate::decide::Orders)
    /// describes which of them end when the configuration changes.
    ///
    /// # Errors
    /// No such pool, it has ended, or it cannot carry out the order.
    ///
    /// # Cancel-safety
    /// Cancel-safe: the order is in force and the reconcile takes place, also if this future is dropped.
    pub async fn steer(
        &self,
        name: &PoolName,
        order: Order,
        by: By,
    ) -> Result<Steered, SupervisorError> {
        let act = order.act();
        let steer = |answer| PoolCommand::Steer(Box::new(Steering { order, by, answer }));
        let steered = match self.inner.ask(name, steer).await {
            Ok(Ok(steered)) => Ok(steered),
            Ok(Err(why)) => Err(SupervisorError::Refused {
                pool: name.clone(),
                why,
            }),
            Err(error) => Err(error),
        };
        metrics::steered(
            act,
            match &steered {
                Ok(steered) => SteeringOutcome::of(steered.changed),
                Err(_) => SteeringOutcome::Refused,
            },
        );
        let mut steered = steered?;
        if let Some(stored) = self.inner.stored.clone().filter(|_| steered.changed) {
            let changes = *self.inner.common.order_changes.borrow();
            steered.not_stored = until_stored(stored, changes).await;
        }
        Ok(steered)
    }

    /// Waits until every order so far is stored, or until storing was tried. Returns at once if orders are not stored.
    pub async fn orders_stored(&self) {
        if let Some(stored) = self.inner.stored.clone() {
            let changes = *self.inner.common.order_changes.borrow();
            // Why it failed was logged.
            let _ = until_stored(stored, changes).await;
        }
    }

    /// The orders of every pool that has any.
    pub fn orders(&self) -> AllOrders {
        self.inner.orders()
    }

    /// A pool's settings as they are configured, without what was set by hand.
    pub fn settings(&self, name: &PoolName) -> Result<Arc<PoolSettings>, SupervisorError> {
        Ok(self.inner.find(name)?.shared.settings())
    }

    /// What a pool would decide now with this policy set by hand, or with none, beside what it decides with the policy in
    /// force. Changes nothing.
    ///
    /// # Errors
    /// No such pool, or it has ended.
    ///
    /// # Cancel-safety
    /// Cancel-safe.
    pub async fn foresee(
        &self,
        name: &PoolName,
        set: Option<SetPolicy>,
    ) -> Result<Foresight, SupervisorError> {
        let foresee = |answer| PoolCommand::Foresee(set.map(Box::new), answer);
        self.inner.ask(name, foresee).await
    }

    /// Stops intake: messages stay in the queue, and running jobs come to their ends. Errors as for [`steer`](Self::steer).
    pub async fn pause(&self, name: &PoolName) -> Result<Steered, SupervisorError> {
        self.steer(name, Order::Pause { until: None }, By::program())
            .await
    }

    /// Opens intake again. Errors as for [`steer`](Self::steer).
    pub async fn resume(&self, name: &PoolName) -> Result<Steered, SupervisorError> {
        self.steer(name, Order::Resume, By::program()).await
    }

    /// Pins a pool to a number of workers, at most its `max`, or removes the pin. Then it reconciles the pool completely,
    /// with cleanup and a fresh reading of the depth, and returns the result. A reconcile whose cleanup has already begun is
    /// sufficient.
    ///
    /// # Errors
    /// No such pool, or it has ended.
    ///
    /// # Cancel-safety
    /// Cancel-safe: the pin is in force and the reconcile takes place, also if this future is dropped.
    ///
    /// ```
    /// # use tidegate::{Job, Outcome, Pool, Supervisor, adapters::memory::MemoryBroker, queue::QueueKind};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let broker = MemoryBroker::new();
    /// # broker.declare_queue("thumbnails", QueueKind::Classic);
    /// # let pool = Pool::new("thumbnails").handler(|_: Job| async { Ok(Outcome::Done) });
    /// let supervisor = Supervisor::builder().driver(broker).pool(pool).start().await?;
    /// let result = supervisor.scale(&"thumbnails".into(), Some(3)).await?;
    /// assert_eq!(result.workers_diff, 3);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn scale(
        &self,
        name: &PoolName,
        workers: Option<u32>,
    ) -> Result<ReconcileResult, SupervisorError> {
        let order = match workers {
            Some(workers) => Order::Pin { workers },
            None => Order::Unpin,
        };
        Ok(self.steer(name, order, By::program()).await?.result)
    }

    /// Deletes runners of a pool now, and reconciles it. Returns the result of both: deleted runners are in its
    /// `metric_stats` as [`RunnerStop`](crate::decide::EventKind::RunnerStop).
    ///
    /// With [`FlushMode::All`] running jobs are told to stop too, and are given back. Their number is in `jobs_told`. This
    /// does not wait for their ends; each is an event of its own. The pool then continues. [`pause`](Self::pause) it first
    /// if it should stay without runners.
    ///
    /// # Errors
    /// No such pool, or it has ended.
    ///
    /// # Cancel-safety
    /// Cancel-safe: the flush and the reconcile take place, also if this future is dropped.
    pub async fn flush(
        &self,
        name: &PoolName,
        mode: FlushMode,
    ) -> Result<ReconcileResult, SupervisorError> {
        let flush = |answer| PoolCommand::Flush(mode, answer);
        self.inner.ask(name, flush).await
    }
}
