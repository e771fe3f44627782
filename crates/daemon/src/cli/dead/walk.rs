//! A walk through a queue of dead letters: who is wanted, and what is done with them.
//!
//! Only as many letters are looked at as were there when it began, so one that dies again meanwhile is not sent round
//! for ever. Bodies are held for no longer than a letter is under way.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::{task::JoinSet, time};
use tokio_util::sync::CancellationToken;

use super::super::args::dead::Most;
use tidegate::{
    decide::QueueName,
    escape::Escaped,
    queue::{Browser, Delivery, Message, Outgoing, QueueDriver, QueueError, QueueErrorKind},
    settle::{Copies, Letter, renewed},
};

/// Letters under way at a time. As many publishes as a driver has channels for.
const AT_ONCE: usize = 32;

/// How long a letter that was sent is waited for while the broker blocks publishers.
const ALARM_PATIENCE: Duration = Duration::from_secs(10);

/// Letters that stay for reasons of their own and are named, at most.
const NAMED: usize = 10;

/// Which letters are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Whole ids; empty for any.
    pub(super) ids: Vec<String>,
    pub(super) reason: Option<String>,
    pub(super) limit: Most,
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
            Most::All => true,
            Most::Count(limit) => taken < limit.get(),
        }
    }

    pub(super) fn is_everything(&self) -> bool {
        self.ids.is_empty() && self.reason.is_none() && self.limit == Most::All
    }
}

/// Whether `wanted` is the id, or what a person sees of it.
fn is_named(id: &str, wanted: &str) -> bool {
    id == wanted || Escaped(id).to_string() == wanted
}

/// A queue of dead letters, and how many there were when we came.
#[derive(Debug)]
pub(super) struct Graveyard {
    pub(super) driver: Arc<dyn QueueDriver>,
    pub(super) queue: QueueName,
    pub(super) letters: u64,
}

/// What came of a walk.
#[derive(Debug, Default)]
pub(super) struct Walked {
    /// Letters that were looked at.
    pub(super) looked: u64,
    /// Letters that were put back, or deleted.
    pub(super) done: u64,
    /// Of those, letters that may be in both places: the broker did not hear that they are done.
    pub(super) twice: u64,
    /// Letters that stay for a reason of their own, and the first of them by name.
    pub(super) stay: u64,
    pub(super) stay_because: Vec<(Letter, QueueError)>,
    /// Letters that were passed over and went to the end of the queue, lest it gives them up for having been looked at
    /// so often.
    pub(super) renewed: u64,
    /// Ids that were asked for and that nothing had.
    pub(super) missing: Vec<String>,
    /// Why it ended before its end.
    pub(super) trouble: Option<QueueError>,
    /// It was told to stop.
    pub(super) stopped: bool,
}

impl Graveyard {
    /// Reads letters, and leaves the queue as it was.
    pub(super) async fn read(&self, wanted: &Wanted) -> Result<(Vec<Letter>, Walked), QueueError> {
        let mut letters = Vec::new();
        let walked = self.visit(wanted, |letter, _| letters.push(letter.clone()));
        let walked = walked.await?;
        Ok((letters, walked))
    }

    /// Hands each letter out with its message, and leaves the queue as it was.
    pub(super) async fn visit(
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
        match walked.trouble {
            Some(error) => Err(error),
            None => Ok(walked),
        }
    }

    /// Puts letters back: each is confirmed in its new place before it leaves this one.
    pub(super) async fn put_back(
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
            let moved = match is_over || under_way.len() >= AT_ONCE {
                true => under_way.join_next().await,
                false => under_way.try_join_next(),
            };
            if let Some(moved) = moved {
                // A task that panicked has dropped its letter, which stays.
                if let Ok((letter, moved)) = moved {
                    tally.count(letter, moved);
                    at(tally.done);
                }
                continue;
            }
            tally.stopped |= stop.is_cancelled();
            is_over |= tally.stopped || tally.trouble.is_some();
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
                Err(error) => tally.trouble = Some(error),
            }
        }
        Ok(walk.end().await.with(tally))
    }

    /// Deletes letters.
    pub(super) async fn delete(
        &self,
        wanted: &Wanted,
        stop: &CancellationToken,
        mut at: impl FnMut(u64),
    ) -> Result<Walked, QueueError> {
        let mut walk = Walk::begin(self, wanted).await?;
        let mut tally = Walked::default();
        while tally.trouble.is_none() && !tally.stopped {
            match walk.next().await {
                Ok(Some((_, delivery))) => match delivery.ack().await {
                    Ok(()) => tally.done += 1,
                    Err(error) => {
                        let lost = QueueError::new(QueueErrorKind::Disconnected, "delete a letter");
                        tally.trouble = Some(lost.with_source(error));
                    }
                },
                Ok(None) => break,
                Err(error) => tally.trouble = Some(error),
            }
            at(tally.done);
            tally.stopped = stop.is_cancelled();
        }
        Ok(walk.end().await.with(tally))
    }
}

/// What became of a letter that was to be put back.
#[derive(Debug)]
enum Moved {
    Done,
    Twice,
    Stays(QueueError),
}

/// Publishes, and waits for no alarm to end: a person does not. A letter that was sent before it may be there twice.
async fn publish(driver: &dyn QueueDriver, copy: Outgoing) -> Result<(), QueueError> {
    let mut blocked = driver.blocked();
    let operation = format!("publish to {:?}", copy.routing_key);
    let alarm = async {
        // A driver that is never blocked may keep no one to say so.
        if blocked.wait_for(|blocked| *blocked).await.is_err() {
            std::future::pending::<()>().await;
        }
        time::sleep(ALARM_PATIENCE).await;
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
        // Unsettled, the letter goes back when the walk ends. It was looked at for nothing, as one that is passed over.
        Err(error) => {
            let _ = renew(driver.as_ref(), &queue, letter).await;
            Moved::Stays(error)
        }
    }
}

/// Makes a letter new where its queue has counted returns. Returns whether it did.
async fn renew(
    driver: &dyn QueueDriver,
    queue: &QueueName,
    letter: Delivery,
) -> Result<bool, QueueError> {
    let Some(copy) = renewed(letter.message(), queue) else {
        return Ok(false);
    };
    publish(driver, copy).await?;
    // Where that is lost, it is there twice, which is better than not at all.
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
            // This letter's own trouble: the next one may well pass.
            Moved::Stays(error) if error.kind == QueueErrorKind::TooLarge => {
                self.stay += 1;
                if self.stay_because.len() < NAMED {
                    self.stay_because.push((letter, error));
                }
            }
            Moved::Stays(error) => {
                self.trouble.get_or_insert(error);
            }
        }
    }

    /// What the walk itself knows, with what was done on it.
    fn with(self, tally: Self) -> Self {
        Self {
            looked: self.looked,
            renewed: self.renewed,
            // Ids that were not come to are not missing.
            missing: match tally.trouble.is_some() || tally.stopped {
                true => Vec::new(),
                false => self.missing,
            },
            trouble: tally.trouble.or(self.trouble),
            ..tally
        }
    }
}

/// The letters that are wanted, one after another.
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
    async fn begin(of: &'a Graveyard, wanted: &'a Wanted) -> Result<Self, QueueError> {
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
                // Someone else took the rest.
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

    /// Leaves a letter where it is, which gives it back when the walk ends. A queue that counts that might give it up:
    /// then it is made new.
    ///
    /// # Errors
    /// It cannot be made new now, and neither can the ones behind it, which a longer walk would count up too.
    async fn pass_over(&mut self, letter: Delivery) -> Result<(), QueueError> {
        match renew(self.driver, self.queue, letter).await {
            Ok(is_new) => self.renewed += u64::from(is_new),
            // Its own trouble.
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
            trouble: self.look.close().await.err(),
            ..Walked::default()
        }
    }
}

#[cfg(test)]
mod tests;
