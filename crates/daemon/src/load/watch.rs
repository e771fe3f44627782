//! A watch: samples the queue's depth and the pool's workers during the load, on a connection of its own.

use std::{future::Future, pin::Pin, time::Duration};

use tokio::{
    sync::watch,
    time::{self, MissedTickBehavior},
};
use tokio_util::task::AbortOnDropHandle;

use tidegate::adapters::amqp::bulk::DepthProbe;

/// Time between two samples.
const EVERY: Duration = Duration::from_millis(200);

/// Asks for the number of workers of the pools on the queue; `None` if it is not known.
pub(crate) type AskWorkers =
    Box<dyn Fn() -> Pin<Box<dyn Future<Output = Option<u32>> + Send>> + Send + Sync>;

/// The last observation.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sight {
    /// Messages ready in the queue.
    pub(super) ready: Option<u64>,
    /// Workers of the pools on it.
    pub(super) workers: Option<u32>,
}

impl Sight {
    /// Whether a pool is seen that still works, or has work.
    pub(super) fn is_working(self) -> bool {
        self.workers
            .is_some_and(|workers| workers > 0 || self.ready.is_some_and(|ready| ready > 0))
    }
}

/// A task that takes samples. Ends on drop.
#[derive(Debug)]
pub(super) struct Watch {
    /// Written by the task, read by the course.
    seen: watch::Receiver<Sight>,
    _task: AbortOnDropHandle<()>,
}

impl Watch {
    pub(super) fn start(mut probe: DepthProbe, workers: Option<AskWorkers>) -> Self {
        let (sender, seen) = watch::channel(Sight::default());
        let task = async move {
            let mut looks = time::interval(EVERY);
            looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                looks.tick().await;
                let ready = probe.look().await.ok().map(|depth| depth.ready);
                let workers = match &workers {
                    Some(ask) => ask().await,
                    None => None,
                };
                sender.send_replace(Sight { ready, workers });
            }
        };
        Self {
            seen,
            _task: AbortOnDropHandle::new(tokio::spawn(task)),
        }
    }

    pub(super) fn seen(&self) -> Sight {
        *self.seen.borrow()
    }
}
