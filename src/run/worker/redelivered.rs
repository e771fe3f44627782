//! Messages that come back: they were held when a daemon, a connection or a channel died, and one of them may be why.
//!
//! A queue that counts deliveries gives a message up after as few as two such deaths, and does not tell. So one that
//! comes back is made new at once, before anything else and beside whatever the worker does. When the copy comes, it
//! waits until everything else that came back is made new too. One that no copy can be made of runs as it is: an
//! acknowledgement is all that its success needs. After [`SUSPECT`](crate::settle::SUSPECT) deaths it is a
//! suspect, and runs only while no worker holds another suspect.

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
    /// Looks at what the consumer was sent. Returns what may run; the rest is made new.
    pub(super) fn sift(&mut self, arrived: ReceivedDelivery) -> Option<ReceivedDelivery> {
        if !arrived.delivery.message().redelivered {
            return Some(arrived);
        }
        let settings = self.settings();
        let history = History::of(arrived.delivery.message(), &settings.retry);
        if !history.came_back() {
            return Some(arrived);
        }
        let under_way = self.shared.redeliveries.begin();
        self.shared.stats.delivery_taken(self.shared.now());
        // Those that are done are forgotten, so that the set does not grow with the number of messages.
        while let Some(done) = self.renewals.try_join_next() {
            self.intake.ahead.extend(done.ok().flatten());
        }
        let renewal = renewed(
            self.shared.clone(),
            self.state.clone(),
            settings,
            arrived,
            under_way,
        );
        self.renewals.spawn(renewal.in_current_span());
        None
    }

    /// Keeps what the consumer was sent ahead of need.
    pub(super) fn keep(&mut self, arrived: ReceivedDelivery) {
        if let Some(arrived) = self.sift(arrived) {
            self.intake.ahead.push_back(arrived);
        }
    }

    /// Waits until what came back is made new, for a message that did not: its job may be the one that kills, and would
    /// take them with it. `false` where something ends the wait before.
    pub(super) async fn until_quiet(&mut self) -> bool {
        let until = self.shared.redeliveries.may_run_at(Instant::now());
        self.wait_until(until).await
    }

    /// What comes before a message runs that was delivered and not finished. Returns what becomes of it where it does not run now.
    /// One that cannot be copied runs wherever it can: to put it aside would be one more count.
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
            let left = self.hold_nothing().await;
            self.intake.ahead.extend(left);
            // Other suspects that are held now are put aside by then.
            until = until.max(Instant::now() + QUIET);
        }
        match self.wait_until(until).await {
            false if is_copyable || self.intake.is_gone() => Some(give_back(history)),
            _ => None,
        }
    }

    /// Waits, and minds the intake meanwhile. `false` where something ends the wait before.
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

/// Makes a message new that came back, or ends it. Returns one that no copy can be made of: it is to run as it is.
async fn renewed(
    shared: Arc<PoolShared>,
    state: Arc<WorkerState>,
    settings: Arc<PoolSettings>,
    arrived: ReceivedDelivery,
    under_way: RenewalGuard,
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
            Err(held) => {
                warn!(
                    pool = %shared.name,
                    "a message that came back is not taken as a copy: its job runs all the same"
                );
                Some(ReceivedDelivery {
                    delivery: held.delivery,
                    at: held.since,
                    waited: true,
                    is_copyable: false,
                })
            }
        };
        drop(under_way);
        unsettled
    }
    .instrument(span)
    .await
}
