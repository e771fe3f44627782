//! A walk through a queue of dead letters: which letters are wanted, and what to do with them.
//!
//! A walk reads only as many letters as the queue had at the start. So a letter that is dead-lettered again in the
//! meantime does not make the walk endless. A body is held only while its letter is being processed.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::{task::JoinSet, time};
use tokio_util::sync::CancellationToken;

use super::LetterLimit;
use tidegate::{
    decide::QueueName,
    escape::Escaped,
    queue::{Browser, Delivery, Message, Outgoing, QueueDriver, QueueError, QueueErrorKind},
    settle::{Copies, Letter, renewed},
};

/// Letters in progress at a time. Equal to the number of channels that a driver has for publishing.
const MAX_LETTERS_IN_FLIGHT: usize = 32;

/// How long to wait for a letter that was sent while the broker blocks publishers.
const ALARM_DELAY: Duration = Duration::from_secs(10);

/// Limit on the letters with a problem of their own that are named.
const NAMED: usize = 10;

/// The selection of letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Complete ids. Empty selects all letters.
    pub(crate) ids: Vec<String>,
    pub(crate) reason: Option<String>,
    pub(crate) limit: LetterLimit,
}

impl Wanted {
    fn takes(&self, letter: &Letter) -> bool {
        let by_id = self.ids.is_empty()
            || letter
                .id
                .as_ref()
                .is_some_and(|id| self.ids.iter().any(|wanted| is_named(id, wanted)));
        by_id && (self.reason.is_none() || self.reason == letter.reason)
    }

    fn allows(&self, taken: u64) -> bool {
        match self.limit {
            LetterLimit::All => true,
            LetterLimit::Count(limit) => taken < limit.get(),
        }
    }

    pub(crate) fn is_everything(&self) -> bool {
        self.ids.is_empty() && self.reason.is_none() && self.limit == LetterLimit::All
    }
}

/// Whether `wanted` is the id, or the form of the id that is shown to people.
fn is_named(id: &str, wanted: &str) -> bool {
    id == wanted || Escaped(id).to_string() == wanted
}

/// A queue of dead letters, and the number of letters at the start.
#[derive(Debug)]
pub(crate) struct DeadLetterQueue {
    pub(crate) driver: Arc<dyn QueueDriver>,
    pub(crate) queue: QueueName,
    pub(crate) letters: u64,
}

/// The result of a walk.
#[derive(Debug, Default)]
pub(crate) struct Walked {
    /// Letters that the walk has read.
    pub(crate) looked: u64,
    /// Letters that were put back or deleted.
    pub(crate) done: u64,
    /// Letters of `done` that may be in both queues, because the broker did not receive the acknowledgement.
    pub(crate) twice: u64,
    /// Letters that stay because of a problem of their own. The first of them are named.
    pub(crate) stay: u64,
    pub(crate) stay_because: Vec<(Letter, QueueError)>,
    /// Letters that were skipped and moved to the end of the queue, so that the queue does not drop them for too many
    /// returns.
    pub(crate) renewed: u64,
    /// Requested ids that no letter has.
    pub(crate) missing: Vec<String>,
    /// Why the walk ended early.
    pub(crate) problem: Option<QueueError>,
    /// Whether the walk was told to stop.
    pub(crate) stopped: bool,
}

impl DeadLetterQueue {
    /// Reads letters, and leaves the queue unchanged.
    pub(crate) async fn read(&self, wanted: &Wanted) -> Result<(Vec<Letter>, Walked), QueueError> {
        let mut letters = Vec::new();
        let walked = self.visit(wanted, |letter, _| letters.push(letter.clone()));
        let walked = walked.await?;
        Ok((letters, walked))
    }

    /// Passes each letter with its message to a callback, and leaves the queue unchanged.
    pub(crate) async fn visit(
        &self,
        wanted: &Wanted,
        mut see: impl FnMut(&Letter, &Message),
    ) -> Result<Walked, QueueError> {
        let mut walk = Walk::begin(self, wanted).await?;
        while let Some((letter, delivery)) = walk.next().await? {
            see(&letter, delivery.message());
            walk.pass_over(delivery).await?;
        }
        let walked = walk.end().await;
        match walked.problem {
            Some(error) => Err(error),
            None => Ok(walked),
        }
    }

    /// Puts letters back. Each is confirmed in its new queue before it is removed from this one.
    pub(crate) async fn put_back(
        &self,
        wanted: &Wanted,
        copies: &Copies,
        stop: &CancellationToken,
        mut at: impl FnMut(u64),
    ) -> Result<Walked, QueueError> {
        let mut walk = Walk::begin(self, wanted).await?;
        let mut under_way = JoinSet::new();
        let mut tally = Walked::default();
        let mut is_over = false;
        while !(is_over && under_way.is_empty()) {
            let moved = match is_over || under_way.len() >= MAX_LETTERS_IN_FLIGHT {
                true => under_way.join_next().await,
                false => under_way.try_join_next(),
            };
            if let Some(moved) = moved {
                // A task that panicked has dropped its letter, which stays in the queue.
                if let Ok((letter, moved)) = moved {
                    tally.count(letter, moved);
                    at(tally.done);
                }
                continue;
            }
            tally.stopped |= stop.is_cancelled();
            is_over |= tally.stopped || tally.problem.is_some();
            if is_over {
                continue;
            }
            match walk.next().await {
                Ok(Some((letter, delivery))) => {
                    let copy = copies.revive(delivery.message());
                    let moving = put_back(self.driver.clone(), self.queue.clone(), copy, delivery);
                    under_way.spawn(async move { (letter, moving.await) });
                }
                Ok(None) => is_over = true,
                Err(error) => tally.problem = Some(error),
            }
        }
        Ok(walk.end().await.with(tally))
    }

    /// Deletes letters.
    pub(crate) async fn delete(
        &self,
        wanted: &Wanted,
        stop: &CancellationToken,
        mut at: impl FnMut(u64),
    ) -> Result<Walked, QueueError> {
        let mut walk = Walk::begin(self, wanted).await?;
        let mut tally = Walked::default();
        while tally.problem.is_none() && !tally.stopped {
            match walk.next().await {
                Ok(Some((_, delivery))) => match delivery.ack().await {
                    Ok(()) => tally.done += 1,
                    Err(error) => {
                        let lost = QueueError::new(QueueErrorKind::Disconnected, "delete a letter");
                        tally.problem = Some(lost.with_source(error));
                    }
                },
                Ok(None) => break,
                Err(error) => tally.problem = Some(error),
            }
            at(tally.done);
            tally.stopped = stop.is_cancelled();
        }
        Ok(walk.end().await.with(tally))
    }
}

/// The result of putting a letter back.
#[derive(Debug)]
enum Moved {
    Done,
    Twice,
    Stays(QueueError),
}

/// Publishes, but does not wait for the end of an alarm, because the user would have to wait too. A letter that was
/// sent before the alarm may exist twice.
async fn publish(driver: &dyn QueueDriver, copy: Outgoing) -> Result<(), QueueError> {
    let mut blocked = driver.blocked();
    let operation = format!("publish to {:?}", copy.routing_key);
    let alarm = async {
        // A driver that is never blocked may have dropped the sender.
        if blocked.wait_for(|blocked| *blocked).await.is_err() {
            std::future::pending::<()>().await;
        }
        time::sleep(ALARM_DELAY).await;
    };
    tokio::select! {
        biased;
        published = driver.publish(copy) => published,
        () = alarm => {
            let what = format!("{operation}: the broker blocks publishers");
            Err(QueueError::new(QueueErrorKind::Blocked, what))
        }
    }
}

async fn put_back(
    driver: Arc<dyn QueueDriver>,
    queue: QueueName,
    copy: Outgoing,
    letter: Delivery,
) -> Moved {
    match publish(&*driver, copy).await {
        Ok(()) => match letter.ack().await {
            Ok(()) => Moved::Done,
            Err(_) => Moved::Twice,
        },
        // The letter is not settled, so it returns to the queue when the walk ends. It counts as skipped.
        Err(error) => {
            let _ = renew(driver.as_ref(), &queue, letter).await;
            Moved::Stays(error)
        }
    }
}

/// Replaces a letter with a fresh copy if its queue counts returns. Returns whether it did.
async fn renew(
    driver: &dyn QueueDriver,
    queue: &QueueName,
    letter: Delivery,
) -> Result<bool, QueueError> {
    let Some(copy) = renewed(letter.message(), queue) else {
        return Ok(false);
    };
    publish(driver, copy).await?;
    // If the acknowledgement is lost, the letter exists twice, which is better than a lost letter.
    let _ = letter.ack().await;
    Ok(true)
}

impl Walked {
    fn count(&mut self, letter: Letter, moved: Moved) {
        match moved {
            Moved::Done => self.done += 1,
            Moved::Twice => {
                self.done += 1;
                self.twice += 1;
            }
            // Only this letter has the problem: the next one may succeed.
            Moved::Stays(error) if error.kind == QueueErrorKind::TooLarge => {
                self.stay += 1;
                if self.stay_because.len() < NAMED {
                    self.stay_because.push((letter, error));
                }
            }
            Moved::Stays(error) => {
                self.problem.get_or_insert(error);
            }
        }
    }

    /// Combines the walk's own counts with the counts of the work.
    fn with(self, tally: Self) -> Self {
        Self {
            looked: self.looked,
            renewed: self.renewed,
            // If the walk ended early, ids that it did not reach are not missing.
            missing: match tally.problem.is_some() || tally.stopped {
                true => Vec::new(),
                false => self.missing,
            },
            problem: tally.problem.or(self.problem),
            ..tally
        }
    }
}

/// Iterates over the wanted letters.
struct Walk<'a> {
    driver: &'a dyn QueueDriver,
    queue: &'a QueueName,
    look: Box<dyn Browser>,
    wanted: &'a Wanted,
    left: u64,
    looked: u64,
    taken: u64,
    found: BTreeSet<String>,
    renewed: u64,
}

impl<'a> Walk<'a> {
    async fn begin(of: &'a DeadLetterQueue, wanted: &'a Wanted) -> Result<Self, QueueError> {
        Ok(Self {
            driver: of.driver.as_ref(),
            queue: &of.queue,
            look: of.driver.browse(&of.queue).await?,
            wanted,
            left: of.letters,
            looked: 0,
            taken: 0,
            found: BTreeSet::new(),
            renewed: 0,
        })
    }

    async fn next(&mut self) -> Result<Option<(Letter, Delivery)>, QueueError> {
        while self.left > 0 && self.wanted.allows(self.taken) {
            let Some(delivery) = self.look.next().await? else {
                // Another consumer took the other letters.
                self.left = 0;
                break;
            };
            self.left -= 1;
            self.looked += 1;
            let letter = Letter::of(delivery.message());
            if !self.wanted.takes(&letter) {
                self.pass_over(delivery).await?;
                continue;
            }
            self.taken += 1;
            if !self.wanted.ids.is_empty()
                && let Some(id) = &letter.id
            {
                self.found.insert(id.clone());
            }
            return Ok(Some((letter, delivery)));
        }
        Ok(None)
    }

    /// Skips a letter. It returns to the queue when the walk ends. If its queue counts returns, the queue could drop
    /// the letter, so it is replaced with a fresh copy.
    ///
    /// # Errors
    /// A fresh copy cannot be made now. The walk must end, because it would also count up the letters behind this one.
    async fn pass_over(&mut self, letter: Delivery) -> Result<(), QueueError> {
        match renew(self.driver, self.queue, letter).await {
            Ok(is_new) => self.renewed += u64::from(is_new),
            // Only this letter has the problem.
            Err(error) if error.kind == QueueErrorKind::TooLarge => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn end(self) -> Walked {
        let Self { wanted, found, .. } = &self;
        let is_missing = |wanted: &&String| !found.iter().any(|id| is_named(id, wanted));
        Walked {
            looked: self.looked,
            renewed: self.renewed,
            missing: wanted.ids.iter().filter(is_missing).cloned().collect(),
            problem: self.look.close().await.err(),
            ..Walked::default()
        }
    }
}

#[cfg(test)]
mod tests;
