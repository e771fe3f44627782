//! Share: several daemons on one queue divide the workers of one policy.
//!
//! Each daemon sends a [`Beat`] to the others every second, and at once when something changed. [`Members`] keeps the
//! newest beat of each daemon. At a reconcile, every daemon computes the demand of the whole queue, asks the same policy
//! once, and takes its own part of the answer ([`Group::share_of`]). No daemon leads, and no daemon asks another one.
//!
//! # What holds
//!
//! - While all daemons have the same view, their shares add up to the policy's number, or to the sum of their capacities
//!   if that is less.
//! - While the views differ, each daemon takes at most the policy's number. So with `n` daemons there are at most `n`
//!   times as many workers as the policy wants. Messages are never at risk: the broker gives each message to one
//!   worker.
//! - A share only lowers the number of expected workers. The plan then stops waiting workers, and marks busy workers to
//!   stop after their job. No running job is stopped.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{Moment, QueueName};

/// Time between two beats of one daemon.
pub const BEAT: Duration = Duration::from_secs(1);
/// A daemon whose beats were not received for this time is no longer a member: five beats.
pub const FORGET_AFTER: Duration = Duration::from_secs(5);
/// If a daemon did not receive its own beats for this time, the others do not receive them either: three beats.
const DEAF_AFTER: Duration = Duration::from_secs(3);
/// Own beats whose echo may still come.
const MAX_AWAITED: usize = 64;
/// Longest name of a member, in bytes.
const MAX_NAME_BYTES: usize = 255;
/// The maximum number of members in a group. Beats of further daemons are ignored, so that a faulty sender cannot fill
/// the memory.
pub const MAX_MEMBERS: usize = 256;

/// Name of the exchange through which the daemons of a queue send their beats.
pub fn share_exchange(queue: &QueueName) -> String {
    format!("{queue}.share")
}

/// Name of a daemon in its group. Unique in the group. A daemon that restarts may have another name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MemberId(String);

impl MemberId {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<T: Into<String>> From<T> for MemberId {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl std::fmt::Display for MemberId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

/// The message of one daemon to the others about its part of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// The sender.
    pub member: MemberId,
    /// A random number that the sender chose at its start. Another number means that the sender restarted.
    pub boot: u64,
    /// Rises with each beat of one boot, so that an old beat cannot replace a newer one.
    pub sequence: u64,
    /// The sender's numbers.
    #[serde(flatten)]
    pub numbers: MemberNumbers,
    /// Jobs that the sender has removed from the queue since its start: done, moved to a retry queue, or dead-lettered.
    /// Zero from a version that does not tell it.
    #[serde(default)]
    pub gone: u64,
    /// A hash of the sender's policy. It must be the same for all members.
    pub policy: u64,
    /// Whether the sender is leaving the group. It is forgotten at once.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leaving: bool,
}

/// The workers of one member.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberNumbers {
    /// Live workers.
    pub workers: u32,
    /// Workers that hold a delivery.
    pub busy: u32,
    /// Deliveries that the workers hold. More than `busy` if prefetch is above 1.
    pub held: u64,
    /// The maximum number of workers that the member can have now. Zero if it takes no messages.
    pub capacity: u32,
    /// The number of workers that the member's operator pinned. The others divide what remains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<u32>,
}

/// The change that a beat made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a new member must be answered with a beat"]
pub enum Heard {
    /// A new member, or a member that restarted. It must get a beat at once, so that it knows this daemon.
    Joined,
    /// A member's numbers changed. The shares may be others now.
    Changed,
    /// Nothing changed but the time of the beat.
    Same,
    /// A member left.
    Left,
    /// The beat was ignored: an old one, one of this daemon itself, or one too many.
    Ignored,
}

/// The other daemons of the group, as this daemon knows them.
///
/// Each beat also comes back to its sender. While that does not happen, the daemon cannot know who is there: it keeps
/// the members that it knew, and its share among them.
#[derive(Debug, Clone)]
pub struct Members {
    own: MemberId,
    boot: u64,
    sequence: u64,
    policy: u64,
    gone: u64,
    /// Jobs that the others removed from the queue while this daemon heard them.
    gone_elsewhere: u64,
    /// Own beats that did not come back yet, with the time at which they were sent.
    awaited: VecDeque<(u64, Moment)>,
    /// When the newest own beat that came back was sent. At first: when this daemon joined.
    echoed: Moment,
    others: BTreeMap<MemberId, Other>,
    /// When a member last joined, restarted, left or was forgotten. At first: when this daemon joined.
    changed: Moment,
}

#[derive(Debug, Clone)]
struct Other {
    beat: Beat,
    /// When it was received, on this daemon's monotonic clock.
    heard: Moment,
    /// The boot that this one replaced. A late beat of that boot is ignored.
    replaced: Option<u64>,
}

impl Members {
    /// This daemon alone. It joins the group at `now`. `boot` is a random number.
    pub fn new(own: MemberId, boot: u64, policy: u64, now: Moment) -> Self {
        Self {
            own,
            boot,
            sequence: 0,
            policy,
            gone: 0,
            gone_elsewhere: 0,
            awaited: VecDeque::new(),
            echoed: now,
            others: BTreeMap::new(),
            changed: now,
        }
    }

    /// Sets the hash of this daemon's policy.
    pub fn set_policy(&mut self, policy: u64) {
        self.policy = policy;
    }

    /// Sets how many jobs this daemon has removed from the queue since its start.
    pub fn set_gone(&mut self, gone: u64) {
        self.gone = gone;
    }

    /// The next beat, which is sent at `now`.
    pub fn next_beat(&mut self, now: Moment, numbers: MemberNumbers) -> Beat {
        self.sequence += 1;
        if self.awaited.len() == MAX_AWAITED {
            self.awaited.pop_front();
        }
        self.awaited.push_back((self.sequence, now));
        Beat {
            member: self.own.clone(),
            boot: self.boot,
            sequence: self.sequence,
            numbers,
            gone: self.gone,
            policy: self.policy,
            leaving: false,
        }
    }

    /// The last beat: this daemon leaves.
    pub fn last_beat(&mut self, now: Moment) -> Beat {
        Beat {
            leaving: true,
            ..self.next_beat(now, MemberNumbers::default())
        }
    }

    /// Whether this daemon's own beats do not come back at `now`.
    pub fn is_deaf(&self, now: Moment) -> bool {
        now.since(self.echoed) >= DEAF_AFTER
    }

    /// This daemon's own name.
    pub fn own(&self) -> &MemberId {
        &self.own
    }

    /// Takes a beat that was received at `now`.
    pub fn hear(&mut self, now: Moment, beat: Beat) -> Heard {
        if beat.member == self.own {
            if beat.boot == self.boot {
                self.hear_own(now, beat.sequence);
            }
            return Heard::Ignored;
        }
        if beat.member.0.len() > MAX_NAME_BYTES {
            return Heard::Ignored;
        }
        let full = self.others.len() >= MAX_MEMBERS;
        let Some(known) = self.others.get_mut(&beat.member) else {
            if full || beat.leaving {
                return Heard::Ignored;
            }
            self.changed = now;
            let other = Other {
                heard: now,
                replaced: None,
                beat,
            };
            self.others.insert(other.beat.member.clone(), other);
            return Heard::Joined;
        };
        let restarted = known.beat.boot != beat.boot;
        let is_old = if restarted {
            known.replaced == Some(beat.boot)
        } else {
            beat.sequence <= known.beat.sequence
        };
        if is_old {
            return Heard::Ignored;
        }
        if !restarted {
            // What a member removed before it was heard was never missing in the readings of this daemon.
            let more = beat.gone.saturating_sub(known.beat.gone);
            self.gone_elsewhere = self.gone_elsewhere.saturating_add(more);
        }
        if beat.leaving {
            self.others.remove(&beat.member);
            self.changed = now;
            return Heard::Left;
        }
        let same = known.beat
            == Beat {
                sequence: known.beat.sequence,
                // It changes no share.
                gone: known.beat.gone,
                ..beat.clone()
            };
        if restarted {
            known.replaced = Some(known.beat.boot);
            self.changed = now;
        }
        known.beat = beat;
        known.heard = now;
        match (restarted, same) {
            (true, _) => Heard::Joined,
            (false, true) => Heard::Same,
            (false, false) => Heard::Changed,
        }
    }

    /// Takes the echo of an own beat.
    fn hear_own(&mut self, now: Moment, sequence: u64) {
        let was_deaf = self.is_deaf(now);
        while let Some(&(awaited, sent)) = self.awaited.front()
            && awaited <= sequence
        {
            self.echoed = sent;
            self.awaited.pop_front();
        }
        if was_deaf && !self.is_deaf(now) {
            // The others were not silent: this daemon did not receive their beats. They get five beats again.
            for other in self.others.values_mut() {
                other.heard = now;
            }
            self.changed = now;
        }
    }

    /// Forgets the members that were not heard for [`FORGET_AFTER`], and returns their names. It forgets no member
    /// while this daemon does not even hear itself.
    pub fn forget_silent(&mut self, now: Moment) -> Vec<MemberId> {
        if self.is_deaf(now) {
            return Vec::new();
        }
        let silent = |other: &Other| now.since(other.heard) >= FORGET_AFTER;
        let gone: Vec<MemberId> = self
            .others
            .iter()
            .filter(|(_, other)| silent(other))
            .map(|(id, _)| id.clone())
            .collect();
        if !gone.is_empty() {
            self.others.retain(|_, other| !silent(other));
            self.changed = now;
        }
        gone
    }

    /// The group at `now`, with this daemon's own numbers.
    ///
    /// A daemon that hears nothing keeps to its share of the members that it knew, and acts alone if it never knew one. It
    /// may grow to that share after [`FORGET_AFTER`]: a broker that takes no messages during an alarm must not keep a pool
    /// empty.
    pub fn group(&self, now: Moment, numbers: MemberNumbers) -> Group {
        let others = self.others.values().map(|other| &other.beat);
        let differing = others
            .clone()
            .filter(|beat| beat.policy != self.policy)
            .map(|beat| beat.member.clone())
            .collect();
        let own = Member {
            id: self.own.clone(),
            numbers,
        };
        let of = |beat: &Beat| Member {
            id: beat.member.clone(),
            numbers: beat.numbers,
        };
        let mut members: Vec<Member> = others.map(of).chain([own]).collect();
        members.sort_by(|a, b| a.id.cmp(&b.id));
        let deaf = self.is_deaf(now);
        let settled = if deaf {
            now.since(self.changed) >= FORGET_AFTER
        } else {
            now.since(self.changed) >= BEAT
        };
        Group {
            own: self.own.clone(),
            members,
            gone_elsewhere: self.gone_elsewhere,
            settled,
            deaf,
            differing,
        }
    }
}

/// One member of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its name.
    pub id: MemberId,
    /// Its workers.
    #[serde(flatten)]
    pub numbers: MemberNumbers,
}

/// The daemons that share a queue, as one of them sees them at one instant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// The daemon that sees it.
    pub own: MemberId,
    /// All members, this daemon included, sorted by name.
    pub members: Vec<Member>,
    /// Jobs that the other members removed from the queue while this daemon heard them. With the own ones they say how
    /// many messages arrive in the whole queue.
    #[serde(default)]
    pub gone_elsewhere: u64,
    /// Whether no member joined or left for a beat. Until then this daemon does not grow.
    pub settled: bool,
    /// Whether this daemon's own beats do not come back, so that it cannot know who is there.
    pub deaf: bool,
    /// Members with a different policy. While there are any, no daemon grows.
    pub differing: Vec<MemberId>,
}

impl Group {
    /// Deliveries that the other members hold.
    pub fn held_by_others(&self) -> u64 {
        self.others()
            .fold(0, |sum, member| sum.saturating_add(member.numbers.held))
    }

    /// Deliveries that wait behind the running jobs of the other members.
    pub fn waiting_in_others(&self) -> u64 {
        self.others().fold(0, |sum, Member { numbers, .. }| {
            sum.saturating_add(numbers.held.saturating_sub(u64::from(numbers.busy)))
        })
    }

    /// Workers of the other members that hold a delivery.
    pub fn busy_elsewhere(&self) -> u32 {
        sum(self.others().map(|member| member.numbers.busy))
    }

    /// Live workers of the other members.
    pub fn workers_elsewhere(&self) -> u32 {
        sum(self.others().map(|member| member.numbers.workers))
    }

    /// This daemon's part of `whole` workers.
    pub fn share_of(&self, whole: u32) -> u32 {
        let shares = split(whole, &self.members);
        let own = self.members.iter().position(|each| each.id == self.own);
        own.map_or(0, |own| shares[own])
    }

    fn others(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.id != self.own)
    }
}

/// Divides `whole` workers among the members, in their order.
///
/// A pinned member counts with its pinned number. The others get parts in proportion to their capacity, by the method of
/// largest remainders: each gets its quota rounded down, and the workers that remain go to the largest fractions. Equal
/// fractions are served in the order of the names. No member gets more than its capacity.
///
/// ```
/// use tidegate_core::decide::{Member, MemberNumbers, split};
///
/// let member = |id: &str, capacity| Member {
///     id: id.into(),
///     numbers: MemberNumbers { capacity, ..MemberNumbers::default() },
/// };
/// // 10 workers over capacities of 10, 10 and 20: quotas are 2.5, 2.5 and 5.
/// assert_eq!(split(10, &[member("a", 10), member("b", 10), member("c", 20)]), [3, 2, 5]);
/// ```
pub fn split(whole: u32, members: &[Member]) -> Vec<u32> {
    let pinned = sum(members.iter().filter_map(|member| member.numbers.pinned));
    let capacity = |member: &Member| match member.numbers.pinned {
        Some(_) => 0,
        None => u64::from(member.numbers.capacity),
    };
    let room: u64 = members.iter().map(capacity).sum();
    let whole = u64::from(whole.saturating_sub(pinned)).min(room);
    if room == 0 {
        return members
            .iter()
            .map(|each| each.numbers.pinned.unwrap_or(0))
            .collect();
    }
    // Both factors are below 2^32, or the sum of 256 numbers below 2^32: the product fits 128 bits.
    let quota = |member: &Member| u128::from(whole) * u128::from(capacity(member));
    let mut shares: Vec<u64> = members
        .iter()
        .map(|member| u64::try_from(quota(member) / u128::from(room)).unwrap_or(u64::MAX))
        .collect();
    let missing = whole.saturating_sub(shares.iter().sum());
    let mut order: Vec<usize> = (0..members.len()).collect();
    order.sort_by_key(|&at| {
        let fraction = quota(&members[at]) % u128::from(room);
        (std::cmp::Reverse(fraction), &members[at].id)
    });
    for at in order
        .into_iter()
        .take(usize::try_from(missing).unwrap_or(usize::MAX))
    {
        shares[at] += 1;
    }
    let share = |(member, share): (&Member, u64)| {
        let share = u32::try_from(share).unwrap_or(u32::MAX);
        member.numbers.pinned.unwrap_or(share)
    };
    members.iter().zip(shares).map(share).collect()
}

fn sum(numbers: impl Iterator<Item = u32>) -> u32 {
    numbers.fold(0, u32::saturating_add)
}

#[cfg(test)]
mod tests;
