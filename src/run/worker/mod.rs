//! The worker: a task that owns one consumer and runs one job at a time.
//!
//! Order of its end, whatever ends it: the consumer is cancelled and the broker's confirmation awaited, what had
//! been sent ahead is given back, the channel is closed. A running job comes before all of that: it is finished
//! and settled first, unless it was ordered to stop.
//!
//! Here is its life; what its consumer sends is in `intake`, one job and its settlement in `job`.

mod intake;
mod job;

use std::{collections::VecDeque, sync::Arc};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use self::intake::{Arrived, Intake};
use super::{
    cell::{After, Leaving, WorkerCell},
    settling::chain,
    shared::Shared,
};
use crate::{
    config::PoolSettings,
    decide::QueueName,
    queue::ConsumeRequest,
    runner::OnStart,
    settle::{History, give_back},
};

/// Runs a worker to its end, and says why it ended.
pub(crate) async fn work(shared: Arc<Shared>, cell: Arc<WorkerCell>) -> Leaving {
    let settings = shared.settings();
    let request = ConsumeRequest {
        queue: settings.queue.clone(),
        prefetch: settings.prefetch,
        tag: consumer_tag(&shared, &cell),
    };
    let opened = tokio::select! {
        biased;
        () = cell.leave.cancelled() => return cell.go(Leaving::ScaledDown),
        opened = shared.driver.consume(request) => opened,
    };
    let consumer = match opened {
        Ok(consumer) => consumer,
        Err(error) => {
            debug!(error = %chain(&error), "consumer not opened");
            shared.open_failed(&error);
            return cell.go(Leaving::NotOpened);
        }
    };
    cell.consuming(shared.now());
    shared.opened();
    let on_start = OnStart::new(Arc::new({
        let shared = shared.clone();
        move || shared.gate.started()
    }));
    let mut worker = Worker {
        shared: &shared,
        cell: &cell,
        queue: settings.queue.clone(),
        intake: Intake {
            consumer,
            ahead: VecDeque::new(),
            ended: None,
        },
        on_start,
        stop: None,
    };
    let why = worker.serve().await;
    worker.leave().await;
    why
}

/// Consumer tags name their worker to whoever looks at the broker, and are unique to a channel anyway.
fn consumer_tag(shared: &Shared, cell: &WorkerCell) -> String {
    // A tag is a short string: 255 bytes.
    let host: String = shared.host.chars().take(64).collect();
    format!(
        "tidegate.{}.{}@{host}.{}",
        shared.name,
        cell.id,
        std::process::id()
    )
}

struct Worker<'a> {
    shared: &'a Arc<Shared>,
    cell: &'a WorkerCell,
    /// The queue that it consumes: the pool's own may have changed since.
    queue: QueueName,
    intake: Intake,
    on_start: OnStart,
    /// Ends the job that runs, with grace. A child of the cell's, made when first needed.
    stop: Option<CancellationToken>,
}

impl Worker<'_> {
    /// Takes deliveries and works on them, until something ends it.
    async fn serve(&mut self) -> Leaving {
        loop {
            let arrived = match self.wait().await {
                Ok(arrived) => arrived,
                Err(why) => return self.cell.go(why),
            };
            if !self.cell.take() {
                self.intake.ahead.push_front(arrived);
                return self.cell.go(Leaving::ScaledDown);
            }
            self.shared.delivery_taken();
            if let Err(why) = self.job(arrived).await {
                return self.cell.go(why);
            }
            match self.cell.finish(self.held()) {
                After::Stay => {}
                After::Go(why) => return why,
            }
        }
    }

    /// The pool's settings, with the queue that this worker consumes.
    fn settings(&self) -> Arc<PoolSettings> {
        let settings = self.shared.settings();
        if settings.queue == self.queue {
            return settings;
        }
        Arc::new(PoolSettings {
            queue: self.queue.clone(),
            ..PoolSettings::clone(&settings)
        })
    }

    /// Ends the worker: consumer cancelled, what was sent ahead given back, channel closed.
    async fn leave(mut self) {
        self.cancel().await;
        let settings = self.settings();
        let deadline = Instant::now();
        while let Some(Arrived { delivery, .. }) = self.intake.ahead.pop_front() {
            let history = History::of(delivery.message(), &settings.retry);
            let verdict = give_back(history, &settings.retry);
            let _ = self
                .settle(&settings, None, delivery, history, verdict, deadline)
                .await;
        }
        self.intake.consumer.close().await;
    }
}
