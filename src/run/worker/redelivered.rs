//! Redelivered messages: they were held when a daemon, a connection or a channel ended, and one of them may be the cause.
//!
//! A queue that counts deliveries may drop a message after two such ends, and does not report it. So a redelivered message
//! is renewed at once: a new copy of it is published and the original acknowledged. This happens in a task of its own,
//! while the worker works. When the copy arrives, it waits until all other redelivered messages are renewed too. A message
//! that cannot be copied runs as it is, because its success needs only an acknowledgement. After
//! [`SUSPECT`](crate::settle::SUSPECT) ends a message is a suspect. It runs only while no worker holds another suspect.

use std::{pin::pin, sync::Arc};

use tokio::{
    sync::OwnedSemaphorePermit,
    time::{self, Instant},
};
use tracing::{Instrument as _, debug_span, warn};

use super::{Worker, intake::ReceivedDelivery};
use crate::{
    config::PoolSettings,
    decide::JobId,
    escape::Escaped,
    run::{
        redeliveries::{QUIET, RenewalGuard},
        settling::{HeldDelivery, HoldUntil, prepare, stay_blocked},
        shared::PoolShared,
        worker_state::{WorkerState, WorkerStopReason},
    },
    settle::{History, Verdict, carried_job_id, give_back, park, renew},
};

impl Worker<'_> {
    /// Starts the renewal of a redelivered message. Returns any other message: it may run.
    pub(super) fn renew_or_return(
        &mut self,
        arrived: ReceivedDelivery,
    ) -> Option<ReceivedDelivery> {
        if !arrived.delivery.message().redelivered {
            return Some(arrived);
        }
        let settings = self.settings();
        let history = History::of(arrived.delivery.message(), &settings.retry);
        if !history.keeping_places(settings.key.is_some()).came_back() {
            return Some(arrived);
        }
        let renewing = self.shared.redeliveries.begin();
        self.shared.stats.delivery_taken(self.shared.now());
        // Finished renewals are removed, so that the set does not grow with the number of messages.
        while let Some(done) = self.renewals.try_join_next() {
            self.intake.ahead.extend(done.ok().flatten());
        }
        let renewal = renewed(
            self.shared.clone(),
            self.state.clone(),
            settings,
            arrived,
            renewing,
        );
        self.renewals.spawn(renewal.in_current_span());
        None
    }

    /// Keeps a delivery until the worker is free, or starts its renewal.
    pub(super) fn keep(&mut self, arrived: ReceivedDelivery) {
        if let Some(arrived) = self.renew_or_return(arrived) {
            self.intake.ahead.push_back(arrived);
        }
    }

    /// Waits until all redelivered messages are renewed, before a job of another message runs: that job may be the one that
    /// ends the daemon, and then they would be counted again. `false` if something ends the wait before.
    pub(super) async fn until_quiet(&mut self) -> bool {
        let until = self.shared.redeliveries.may_run_at(Instant::now());
        self.wait_until(until).await
    }

    /// The steps before a message runs that was delivered before and not finished. Returns its verdict if it does not
    /// run now. A message that cannot be copied runs if at all possible: deferring it would count as one more delivery.
    pub(super) async fn before_it_runs_again(
        &mut self,
        held: &mut HeldDelivery,
        is_copyable: bool,
        turn: &mut Option<OwnedSemaphorePermit>,
    ) -> Option<Verdict> {
        let (history, retry) = (held.history, &held.settings.retry);
        let mut until = self.shared.redeliveries.may_run_at(Instant::now());
        if history.is_suspect() {
            *turn = self.shared.redeliveries.turn();
            if turn.is_none() && is_copyable {
                return Some(park(history, retry));
            }
            let job = held.job.as_ref().map(|id| Escaped(id.as_str()));
            warn!(
                pool = %self.shared.name,
                job.id = job.as_ref().map(tracing::field::display),
                unfinished = history.unfinished(),
                "job runs alone: its message was held at so many deaths that it may be their cause"
            );
            self.state.leave_because(WorkerStopReason::Alone);
            let left = self.give_back_waiting().await;
            self.intake.ahead.extend(left);
            // By then, the other suspects that are held now are deferred.
            until = until.max(Instant::now() + QUIET);
        }
        match self.wait_until(until).await {
            false if is_copyable || self.intake.is_gone() => Some(give_back(history)),
            _ => None,
        }
    }

    /// Waits, and reads the consumer meanwhile. `false` if something ends the wait before.
    async fn wait_until(&mut self, mut until: Instant) -> bool {
        let taken = Instant::now();
        loop {
            let wait = pin!(time::sleep_until(until));
            tokio::select! {
                biased;
                () = self.state.leave.cancelled() => return false,
                () = self.state.stop.cancelled() => return false,
                () = self.shared.kill.cancelled() => return false,
                next = self.intake.next() => match next {
                    Ok(arrived) => {
                        self.keep(arrived);
                        self.state.set_held(1 + self.buffered());
                    }
                    Err(_) => {
                        self.state.consumer_closed();
                        return false;
                    }
                },
                () = wait => {
                    let later = self.shared.redeliveries.may_run_at(taken);
                    if later <= Instant::now() {
                        return true;
                    }
                    until = later;
                }
            }
        }
    }
}

/// Renews a redelivered message, or ends it. Returns a message that cannot be copied: it runs as it is.
async fn renewed(
    shared: Arc<PoolShared>,
    state: Arc<WorkerState>,
    settings: Arc<PoolSettings>,
    arrived: ReceivedDelivery,
    renewing: RenewalGuard,
) -> Option<ReceivedDelivery> {
    let ReceivedDelivery { delivery, at, .. } = arrived;
    let mut held = HeldDelivery::new(&shared, settings, delivery, at);
    let hold = HoldUntil::new(held.settle_at(), &state.stop, &shared.kill);
    let message = held.message();
    let own = message.properties.message_id.as_deref();
    let own = own.filter(|id| !id.is_empty()).map(JobId::from);
    held.job = own.or_else(|| carried_job_id(message));
    let span = debug_span!(
        "renewal",
        job.id = held
            .job
            .as_ref()
            .map(|id| tracing::field::display(Escaped(id.as_str())))
    );
    let verdict = renew(held.history, &held.settings.retry);
    async {
        let prepared = prepare(&shared, held, verdict, hold).await;
        let unsettled = match prepared.or_runs() {
            Ok(prepared) => {
                if prepared.is_requeued() {
                    stay_blocked(&shared);
                }
                prepared.settle(&shared).await;
                None
            }
            Err(delivery) => {
                warn!(
                    pool = %shared.name,
                    "a returned message could not be replaced by a fresh copy: its job still runs"
                );
                Some(ReceivedDelivery {
                    delivery,
                    at,
                    waited: true,
                    is_copyable: false,
                })
            }
        };
        drop(renewing);
        unsettled
    }
    .instrument(span)
    .await
}
