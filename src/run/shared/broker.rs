//! The broker as one pool sees it: the driver, whether it is connected, whether it answers, and whether it lets the
//! pool open consumers.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    decide::{ConsumerRefusal, Moment, Openings, PoolName, RefusalKind},
    queue::{Connectivity, QueueDriver, QueueError, QueueErrorKind},
};
use tidegate_core::text::chain;

/// The time that the broker has for an answer after everything was stopped at once.
pub(crate) const ANSWER: Duration = Duration::from_secs(1);

/// Whether the broker answers after everything was stopped at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BrokerSilence {
    /// The broker answers. Its last answer came at this time; `None` before the first answer.
    Since(Option<Instant>),
    /// The broker does not answer.
    Is,
}

impl Default for BrokerSilence {
    fn default() -> Self {
        Self::Since(None)
    }
}

/// A pool's access to the broker.
pub(crate) struct Broker {
    pool: PoolName,
    pub(crate) driver: Arc<dyn QueueDriver>,
    /// Written by the supervisor's driver.
    connectivity: watch::Receiver<Connectivity>,
    /// Results of opening consumers. Written by workers and by the pool, read by the pool and for the status.
    openings: Mutex<Openings>,
    /// The pool's order to stop everything at once.
    kill: CancellationToken,
    /// Used only after `kill`. Written and read by workers.
    silence: Mutex<BrokerSilence>,
}

impl Broker {
    pub(super) fn new(
        pool: PoolName,
        driver: Arc<dyn QueueDriver>,
        kill: CancellationToken,
    ) -> Self {
        Self {
            pool,
            connectivity: driver.connectivity(),
            driver,
            openings: Mutex::default(),
            kill,
            silence: Mutex::default(),
        }
    }

    pub(crate) fn is_connected(&self) -> bool {
        *self.connectivity.borrow() == Connectivity::Connected
    }

    pub(crate) fn connectivity(&self) -> Connectivity {
        self.connectivity.borrow().clone()
    }

    /// A worker could not open its consumer.
    pub(crate) fn consumer_refused(&self, now: Moment, error: &QueueError) {
        let kind = match error.kind {
            QueueErrorKind::ChannelLimit => RefusalKind::Full,
            // The error ends as soon as the queue is declared.
            QueueErrorKind::NotFound => RefusalKind::Temporary,
            _ if error.is_transient() => RefusalKind::Temporary,
            _ => RefusalKind::Permanent,
        };
        let why = chain(error);
        self.openings().failed(now, ConsumerRefusal { kind, why });
    }

    /// A worker has opened its consumer.
    pub(crate) fn consumer_opened(&self) {
        self.openings().opened();
    }

    pub(crate) fn openings(&self) -> MutexGuard<'_, Openings> {
        self.openings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the broker's answer to a request.
    ///
    /// After `kill` the wait is short: it ends when the broker has not answered any worker of the pool for [`ANSWER`].
    /// The result is then `None`, and every later call returns `None` after one poll of its request. That one poll
    /// still sends the request if the driver can send at once.
    pub(crate) async fn answered<T>(&self, request: impl Future<Output = T>) -> Option<T> {
        let mut request = std::pin::pin!(request);
        tokio::select! {
            biased;
            answer = &mut request => return Some(answer),
            () = self.kill.cancelled() => {}
        }
        let since = Instant::now();
        loop {
            let heard = match *self.silence() {
                BrokerSilence::Is => return None,
                BrokerSilence::Since(heard) => heard.map_or(since, |heard| heard.max(since)),
            };
            tokio::select! {
                biased;
                answer = &mut request => {
                    let mut silence = self.silence();
                    if *silence != BrokerSilence::Is {
                        *silence = BrokerSilence::Since(Some(Instant::now()));
                    }
                    return Some(answer);
                }
                () = time::sleep_until(heard + ANSWER) => {}
            }
            let mut silence = self.silence();
            if let BrokerSilence::Since(last) = *silence
                && last.is_none_or(|last| last <= heard)
            {
                *silence = BrokerSilence::Is;
                warn!(pool = %self.pool, "the broker does not answer: held messages go back when it closes the connection");
            }
        }
    }

    fn silence(&self) -> MutexGuard<'_, BrokerSilence> {
        self.silence.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
