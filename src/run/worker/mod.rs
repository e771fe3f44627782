//! The worker: a task that owns one consumer and runs one job at a time.
//!
//! A worker always ends in this order: a running job is finished and settled, unless it was ordered to stop; the consumer is
//! cancelled, and the broker confirms that; deliveries that wait are given back; the channel is closed.
//!
//! This file holds the worker's loop and its end. `intake` holds the consumer and what it delivers, `job` one job and its
//! settlement, `redelivered` the treatment of messages with unfinished deliveries. `program` is the other sort of worker: a
//! program that consumes the queue itself.

mod intake;
mod job;
mod job_end;
mod program;
mod redelivered;

use std::{collections::VecDeque, future::poll_fn, pin::pin, sync::Arc, time::Duration};

use tokio::{
    task::JoinSet,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use self::intake::{ReceivedDelivery, WorkerIntake};
use super::{
    keyed_intake,
    settling::WaitingReturns,
    shared::PoolShared,
    traces::DeliveryTrace,
    worker_state::{AfterSettlement, WorkerState, WorkerStopReason},
};
use crate::{
    config::{Declare, PoolSettings},
    decide::QueueName,
    queue::ConsumeRequest,
    runner::OnStart,
};
use tidegate_core::text::chain;

/// How long a worker that is told to leave while it opens its consumer waits for the consumer. If it closed the channel
/// earlier, deliveries that the broker has sent by then would count as unfinished.
const OPENING: Duration = Duration::from_secs(2);

/// How long a worker waits until copies can be published, before it opens its consumer. After that it takes jobs even if
/// copies cannot be published.
const PREPARING: Duration = Duration::from_secs(2);

/// Runs a worker to its end, and returns why it ended.
pub(crate) async fn work(shared: Arc<PoolShared>, state: Arc<WorkerState>) -> WorkerStopReason {
    match shared.fleet.consumes() {
        true => program::work(&shared, &state).await,
        false => consume(shared, state).await,
    }
}

/// Runs a worker that consumes.
async fn consume(shared: Arc<PoolShared>, state: Arc<WorkerState>) -> WorkerStopReason {
    let begun = Instant::now();
    let settings = shared.settings();
    let request = ConsumeRequest {
        queue: settings.queue.clone(),
        prefetch: settings.prefetch,
        tag: consumer_tag(&shared, &state),
    };
    if state.leave.is_cancelled() {
        return state.leave_because(WorkerStopReason::ScaledDown);
    }
    // A queue that counts deliveries may send redelivered messages. They are renewed by a copy, and the copy must not wait
    // for a channel, because until then each further crash counts. A queue that the pool declares as classic counts nothing.
    if settings.declare != Declare::Classic {
        tokio::select! {
            biased;
            () = state.leave.cancelled() => return state.leave_because(WorkerStopReason::ScaledDown),
            // An error shows again in the publish. It does not concern jobs that need no copy.
            _ = time::timeout(PREPARING, shared.broker.driver.prepare_to_publish()) => {}
        }
    }
    let mut opening = pin!(keyed_intake::consume(&shared, &state, &settings, request));
    let opened = tokio::select! {
        biased;
        opened = &mut opening => opened,
        () = state.leave.cancelled() => match time::timeout(OPENING, opening).await {
            Ok(opened) => opened,
            Err(_) => return state.leave_because(WorkerStopReason::ScaledDown),
        },
    };
    let consumer = match opened {
        Ok(consumer) => consumer,
        Err(error) => {
            debug!(error = %chain(&error), "consumer not opened");
            shared.broker.consumer_refused(shared.now(), &error);
            return state.leave_because(WorkerStopReason::NotOpened);
        }
    };
    state.consumer_opened(shared.now());
    shared.broker.consumer_opened();
    let on_start = OnStart::new(Arc::new({
        let shared = shared.clone();
        move || shared.gate.started()
    }));
    let mut worker = Worker {
        shared: &shared,
        state: &state,
        queue: settings.queue.clone(),
        intake: WorkerIntake {
            consumer,
            ahead: VecDeque::new(),
            ended: None,
        },
        renewals: JoinSet::new(),
        on_start,
        trace: DeliveryTrace::none(),
        opened_in: Some(begun.elapsed()),
        stop: None,
    };
    let why = worker.serve().await;
    worker.leave().await;
    why
}

/// The consumer tag shows people who look at the broker which worker it is. It must be unique only within a channel.
fn consumer_tag(shared: &PoolShared, state: &WorkerState) -> String {
    // A tag is a short string: 255 bytes.
    let host: String = shared.host.chars().take(64).collect();
    format!(
        "tidegate.{}.{}@{host}.{}",
        shared.name,
        state.id,
        std::process::id()
    )
}

struct Worker<'a> {
    shared: &'a Arc<PoolShared>,
    state: &'a Arc<WorkerState>,
    /// The queue that it consumes. The pool's queue may have changed since the worker started.
    queue: QueueName,
    intake: WorkerIntake,
    /// Deliveries that are being renewed while the worker works. A delivery that cannot be copied comes back from here, and
    /// runs.
    renewals: JoinSet<Option<ReceivedDelivery>>,
    on_start: OnStart,
    /// The spans of the delivery that it works on.
    trace: DeliveryTrace,
    /// The time to open the consumer, until the first job has a runner. Both together are the start-up time.
    opened_in: Option<Duration>,
    /// Stops the job that runs, with grace. A child of the token in `state`, made when it is first needed.
    stop: Option<CancellationToken>,
}

impl Worker<'_> {
    /// Takes deliveries and works on them, until something ends the worker.
    async fn serve(&mut self) -> WorkerStopReason {
        loop {
            let arrived = match self.wait().await {
                Ok(arrived) => arrived,
                Err(why) => return self.state.leave_because(why),
            };
            if !self.state.begin_job() {
                self.intake.ahead.push_front(arrived);
                return self.state.leave_because(WorkerStopReason::ScaledDown);
            }
            self.shared.stats.delivery_taken(self.shared.now());
            if let Err(why) = self.job(arrived).await {
                return self.state.leave_because(why);
            }
            match self.state.finish_job(self.buffered()) {
                AfterSettlement::Stay => {}
                AfterSettlement::Leave(why) => return why,
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

    /// Ends the worker: cancels the consumer, gives back the deliveries that wait, closes the channel.
    async fn leave(mut self) {
        loop {
            let left = self.give_back_waiting().await;
            if left.is_empty() {
                break;
            }
            for arrived in left {
                // If the channel is closed, the broker has given it back already.
                if !self.intake.is_gone() {
                    // The worker leaves in any case, and its reason is known.
                    let _ = self.job(arrived).await;
                }
            }
        }
        // If the broker does not answer any more, the drop closes the consumer without waiting.
        let _ = self
            .shared
            .broker
            .answered(self.intake.consumer.close())
            .await;
    }

    /// Cancels the consumer and gives back the deliveries that wait. Returns those that cannot go back as a copy: without a
    /// copy, the broker would count the delivery.
    async fn give_back_waiting(&mut self) -> Vec<ReceivedDelivery> {
        self.cancel().await;
        let mut left = Vec::new();
        let mut returns = WaitingReturns::new(self.shared, &self.state.stop, self.settings());
        if self.intake.is_gone() {
            returns = returns.without_copies();
        }
        while let Some(arrived) = self.intake.ahead.pop_front() {
            if arrived.is_copyable {
                returns.give_back(arrived.delivery, arrived.at).await;
            } else {
                left.push(arrived);
            }
        }
        while let Some(renewed) = self.renewals.join_next().await {
            left.extend(renewed.ok().flatten());
        }
        left
    }

    /// Waits for a delivery.
    async fn wait(&mut self) -> Result<ReceivedDelivery, WorkerStopReason> {
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
        self.shared.roster.begin_waiting();
        let next = loop {
            let next = tokio::select! {
                biased;
                () = self.state.leave.cancelled() => break None,
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
            // The worker counts as waiting until the broker has confirmed that nothing more will come.
            None => {
                self.cancel().await;
                Err(WorkerStopReason::ScaledDown)
            }
            Some(Ok(arrived)) => Ok(arrived),
            Some(Err(why)) => {
                self.state.consumer_closed();
                Err(why)
            }
        };
        self.shared.roster.end_waiting();
        result
    }

    fn buffered(&self) -> u32 {
        u32::try_from(self.intake.ahead.len()).unwrap_or(u32::MAX)
    }

    /// Cancels the consumer, once.
    async fn cancel(&mut self) {
        self.state.consumer_closed();
        if self.intake.ended.is_some() {
            return;
        }
        self.intake.ended = Some(WorkerStopReason::ScaledDown);
        let cancelled = self
            .shared
            .broker
            .answered(self.intake.consumer.cancel())
            .await;
        let Some(cancelled) = cancelled else {
            // The deliveries that wait go back when the channel is closed.
            return;
        };
        if let Err(error) = cancelled {
            // The channel is closed, so the broker gives back the deliveries that wait.
            debug!(error = %chain(&error), "consumer not cancelled: its channel is closed");
            self.intake.ended = Some(WorkerStopReason::Lost);
            return;
        }
        // Deliveries that the broker sent before it got the cancel.
        while let Some(Ok(delivery)) = poll_fn(|cx| self.intake.consumer.poll_next(cx)).await {
            self.keep(ReceivedDelivery::now(delivery));
        }
    }
}
