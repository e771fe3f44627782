//! Keeps a pool in the group of daemons that share its queue.
//!
//! One task for each pool ([`attend`]) sends the pool's beats, receives those of the others, and writes them into the
//! pool's `PoolGroup`, which the pool reads at each reconcile. The task never waits for the pool, and the pool never
//! waits for the task.

use std::{ops::ControlFlow, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::{self, Instant, MissedTickBehavior};
use tracing::{debug, info, warn};

use super::{
    policy_hash::policy_hash,
    shared::{HeldCounts, PoolShared},
};
use crate::{
    decide::{
        BEAT, Beat, Counts, Heard, Intake, MemberId, MemberNumbers, Members, QueueName, TakenAhead,
    },
    queue::{GroupChannel, QueueError},
};
use tidegate_core::text::chain;

/// The minimum time between two beats of one pool.
const BEATS_APART: Duration = Duration::from_millis(100);
/// Largest beat that is read. Anything larger is not a beat.
const MAX_BEAT_BYTES: usize = 4096;
/// Time between two attempts to join a group that the broker refuses: each is a line in the broker's log.
const REFUSED_AGAIN: Duration = Duration::from_secs(15);
/// Time for the last beat when the pool ends.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);

/// The numbers that a pool sends to the others.
fn numbers(shared: &PoolShared) -> MemberNumbers {
    let (census, held) = shared.census(shared.now());
    numbers_with(shared, &census.counts(), &held)
}

/// The same, with a census that was just taken.
pub(crate) fn numbers_with(
    shared: &PoolShared,
    counts: &Counts,
    held: &HeldCounts,
) -> MemberNumbers {
    let settings = shared.settings();
    let (by_hand, pinned) = {
        let orders = shared.orders.lock();
        let by_hand = orders.policy.as_ref();
        (by_hand.map(|set| set.what.policy.max), orders.pinned())
    };
    let ahead = shared.keyed.ahead(&settings);
    let ahead = ahead.as_ref().map_or(0, TakenAhead::taken);
    let intake = shared.intake();
    let max = settings
        .local_max
        .or(by_hand)
        .unwrap_or(settings.policy.max);
    let room = shared.budget.room(&shared.name).unwrap_or(u32::MAX);
    let capacity = match intake {
        _ if !shared.broker.is_connected() => 0,
        Intake::Open => max.min(room),
        trial if trial.is_trial() => 1,
        _ => 0,
    };
    MemberNumbers {
        workers: counts.live(),
        busy: held.holders,
        held: held.held.saturating_add(ahead),
        capacity,
        pinned: pinned.filter(|_| capacity > 0),
    }
}

/// Keeps the pool in its group, as long as its settings say so. Ends after [`PoolGroup::end`].
pub(crate) async fn attend(shared: Arc<PoolShared>) {
    let shared = &*shared;
    loop {
        let settings = shared.settings();
        if !settings.share {
            let was_member = shared.group.members().take().is_some();
            shared.group.set_cause(None);
            if was_member {
                shared.group.heard.notify_one();
            }
            tokio::select! {
                biased;
                () = shared.group.told.notified() => continue,
                () = shared.group.ending.cancelled() => return,
            }
        }
        let visited = visit(shared, &settings.queue).await;
        if shared.group.ending.is_cancelled() {
            return;
        }
        if let Err(error) = visited {
            let cause = chain(&error);
            let text = format!("the group cannot be heard: {cause}");
            if shared.group.set_cause(Some(text)) {
                warn!(pool = %shared.name, error = cause, "cannot hear the other daemons of the queue");
            }
            shared.group.heard.notify_one();
            let pause = match error.is_transient() {
                true => BEAT,
                false => REFUSED_AGAIN,
            };
            if rest(shared, &settings.queue, pause).await.is_break() {
                return;
            }
        }
    }
}

/// Waits before the next attempt to join, unless the settings name another group, or none. Breaks at the pool's end.
async fn rest(shared: &PoolShared, queue: &QueueName, pause: Duration) -> ControlFlow<()> {
    let until = Instant::now() + pause;
    loop {
        tokio::select! {
            biased;
            () = shared.group.ending.cancelled() => return ControlFlow::Break(()),
            () = time::sleep_until(until) => return ControlFlow::Continue(()),
            () = shared.group.told.notified() => {
                let settings = shared.settings();
                if !settings.share || settings.queue != *queue {
                    return ControlFlow::Continue(());
                }
            }
        }
    }
}

/// Joins the group and stays, until the queue is changed or no longer shared, or the connection is lost.
async fn visit(shared: &PoolShared, queue: &QueueName) -> Result<(), QueueError> {
    ensure_member(shared);
    let mut channel = tokio::select! {
        biased;
        joined = shared.broker.driver.join_group(queue) => joined?,
        () = shared.group.ending.cancelled() => return Ok(()),
    };
    let mut sent: Option<(Instant, MemberNumbers)> = None;
    let mut beats = time::interval(BEAT);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = false;
    loop {
        // A beat on change waits for its turn, so that a busy pool does not send thousands.
        let turn = sent.map(|(at, _)| at + BEATS_APART);
        let is_due = async {
            if let Some(turn) = turn {
                time::sleep_until(turn).await;
            }
        };
        tokio::select! {
            biased;
            () = shared.group.ending.cancelled() => {
                leave(shared, channel.as_mut()).await;
                return Ok(());
            }
            // Beats come first: messages without end must not keep this daemon silent.
            _ = beats.tick() => {
                forget_silent(shared);
                sent = Some(send(shared, channel.as_mut()).await?);
                told = false;
            }
            () = is_due, if told => {
                sent = Some(send(shared, channel.as_mut()).await?);
                told = false;
            }
            received = channel.next() => told |= hear(shared, &received?),
            () = shared.group.told.notified() => {
                let settings = shared.settings();
                if !settings.share || settings.queue != *queue {
                    leave(shared, channel.as_mut()).await;
                    return Ok(());
                }
                told |= sent.is_none_or(|(_, before)| before != numbers(shared));
            }
        }
    }
}

fn ensure_member(shared: &PoolShared) {
    let mut members = shared.group.members();
    if members.is_none() {
        let boot = shared.random.number();
        let id = MemberId::from(format!("{}-{:08x}", shared.host, boot >> 32));
        *members = Some(Members::new(id, boot, 0, shared.now()));
        drop(members);
        shared.group.heard.notify_one();
    }
}

/// Takes a message of the group. Returns whether it must be answered with a beat.
fn hear(shared: &PoolShared, message: &Bytes) -> bool {
    let beat = (message.len() <= MAX_BEAT_BYTES)
        .then(|| serde_json::from_slice::<Beat>(message).ok())
        .flatten();
    let Some(beat) = beat else {
        debug!(pool = %shared.name, bytes = message.len(), "a message of the group is not a beat");
        return false;
    };
    let member = beat.member.clone();
    let (heard, is_own) = match shared.group.members().as_mut() {
        Some(members) => {
            let is_own = beat.member == *members.own();
            (members.hear(shared.now(), beat), is_own)
        }
        None => return false,
    };
    // Only an own beat that came back shows that this daemon can both send and hear.
    if is_own && shared.group.set_cause(None) {
        info!(pool = %shared.name, "the other daemons of the queue can be heard again");
    }
    match heard {
        Heard::Joined => {
            debug!(pool = %shared.name, %member, "a daemon joined the group of the queue")
        }
        Heard::Left => debug!(pool = %shared.name, %member, "a daemon left the group of the queue"),
        Heard::Changed => {}
        Heard::Same | Heard::Ignored => return false,
    }
    shared.group.heard.notify_one();
    heard == Heard::Joined
}

fn forget_silent(shared: &PoolShared) {
    let now = shared.now();
    let silent = match shared.group.members().as_mut() {
        Some(members) => members.forget_silent(now),
        None => return,
    };
    for member in &silent {
        warn!(pool = %shared.name, %member, "a daemon of the group is silent: its share goes to the others");
    }
    // Growth depends on time alone, so the pool checks again at each beat.
    shared.group.heard.notify_one();
}

async fn send(
    shared: &PoolShared,
    channel: &mut dyn GroupChannel,
) -> Result<(Instant, MemberNumbers), QueueError> {
    let numbers = numbers(shared);
    let hash = policy_hash(&shared.settings(), &shared.orders.lock());
    let beat = match shared.group.members().as_mut() {
        Some(members) => {
            members.set_policy(hash);
            members.set_gone(shared.stats.gone());
            members.next_beat(shared.now(), numbers)
        }
        None => return Ok((Instant::now(), numbers)),
    };
    if let Err(error) = channel.send(encoded(&beat)).await {
        // A blocked connection recovers. Until then this daemon does not receive its own beats, so the pool keeps its share.
        if error.kind != crate::queue::QueueErrorKind::Blocked {
            return Err(error);
        }
    }
    Ok((Instant::now(), numbers))
}

/// Tells the others that the pool leaves. The members are forgotten in any case.
async fn leave(shared: &PoolShared, channel: &mut dyn GroupChannel) {
    let last = shared.group.members().take();
    if let Some(mut members) = last {
        members.set_gone(shared.stats.gone());
        let beat = members.last_beat(shared.now());
        let _ = time::timeout(LEAVE_TIMEOUT, channel.send(encoded(&beat))).await;
    }
}

fn encoded(beat: &Beat) -> Bytes {
    // Numbers and short texts: this cannot fail.
    serde_json::to_vec(beat).unwrap_or_default().into()
}
