//! What an operator, or the program, does with one pool: orders, and flushes.

use std::sync::Arc;

use super::{FlushMode, Supervisor, SupervisorError};
use crate::{
    config::PoolSettings,
    decide::{By, Order, PoolName, ReconcileResult},
    run::{
        AllOrders, Steered, metrics,
        pool::Command,
        steering::{Steering, until_stored},
    },
};

impl Supervisor {
    /// Carries out an operator's order on a pool, waits for the reconcile that follows, and says what that came to. An
    /// order that closes intake takes effect at once, any other with a fresh reading of the queue.
    ///
    /// Orders hold over [`reconfigure`](Self::reconfigure), and, where [`StartOptions::store`](crate::run::StartOptions::store) keeps them, over a restart.
    /// Which of them yield to the configuration is said at [`Orders`](crate::decide::Orders).
    ///
    /// # Errors
    /// No such pool, it has ended, or it cannot carry the order out.
    ///
    /// # Cancel-safety
    /// Cancel-safe: the order holds, and the reconcile takes place all the same.
    pub async fn steer(
        &self,
        name: &PoolName,
        order: Order,
        by: By,
    ) -> Result<Steered, SupervisorError> {
        let act = order.act();
        let steer = |answer| Command::Steer(Box::new(Steering { order, by, answer }));
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
                Ok(steered) if steered.changed => "changed",
                Ok(_) => "unchanged",
                Err(_) => "refused",
            },
        );
        let mut steered = steered?;
        if let Some(stored) = self.inner.stored.clone().filter(|_| steered.changed) {
            let changes = *self.inner.common.order_changes.borrow();
            steered.not_stored = until_stored(stored, changes).await;
        }
        Ok(steered)
    }

    /// Waits until every order so far is stored, or was tried to be stored. Returns at once where orders are not stored.
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

    /// A pool's settings as they are configured: what was set by hand is not in them.
    pub fn settings(&self, name: &PoolName) -> Result<Arc<PoolSettings>, SupervisorError> {
        Ok(self.inner.find(name)?.shared.settings())
    }

    /// Stops intake: messages stay in the queue, running jobs go on to their ends. Errors as for [`steer`](Self::steer).
    pub async fn pause(&self, name: &PoolName) -> Result<Steered, SupervisorError> {
        self.steer(name, Order::Pause { until: None }, By::program())
            .await
    }

    /// Opens intake again. Errors as for [`steer`](Self::steer).
    pub async fn resume(&self, name: &PoolName) -> Result<Steered, SupervisorError> {
        self.steer(name, Order::Resume, By::program()).await
    }

    /// Pins a pool to a number of workers, clamped to its `max`, or lets go of it, and reconciles it whole: cleanup
    /// and a fresh reading of the depth come first, as in every reconcile. Says what that came to. One whose cleanup has
    /// begun already will do.
    ///
    /// # Errors
    /// No such pool, or it has ended.
    ///
    /// # Cancel-safety
    /// Cancel-safe: the pin holds, and the reconcile takes place all the same.
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

    /// Deletes runners of a pool now, and reconciles it. Says what both came to together: deleted runners are its
    /// `metric_stats` of the kind [`RunnerStop`](crate::decide::EventKind::RunnerStop).
    ///
    /// By [`FlushMode::All`] running jobs are told to stop too, and are given back. Their ends are not waited for; each
    /// is an event of its own. The pool then works on as it should: [`pause`](Self::pause) it first if it is to stay
    /// without runners.
    ///
    /// # Errors
    /// No such pool, or it has ended.
    ///
    /// # Cancel-safety
    /// Cancel-safe: the flush and the reconcile take place all the same.
    pub async fn flush(
        &self,
        name: &PoolName,
        mode: FlushMode,
    ) -> Result<ReconcileResult, SupervisorError> {
        let flush = |answer| Command::Flush(mode, answer);
        self.inner.ask(name, flush).await
    }
}
