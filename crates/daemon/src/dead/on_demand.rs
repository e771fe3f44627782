//! Dead letters for the API: browsing, retrying and purging, each on a connection of its own.
//!
//! The connection is opened for one piece of work and closed after it. So the pools' connections and channels stay
//! free for the pools, whatever their state. Each piece of work is limited in time, in letters, and to one for a pool
//! at a time: two walks through one queue would hide letters from each other. A request that comes during another one
//! waits for its turn, in the order of arrival. So clients that read in a loop do not block a retry.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;
use thiserror::Error;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use super::{DeadLetterQueue, LetterLimit, Walked, Wanted};
use tidegate::{
    builder::{broker_driver, reach},
    config::BrokerSettings,
    decide::{PoolName, QueueName},
    queue::{Message, QueueDriver, QueueError, QueueErrorKind},
    settle::{Copies, Letter},
};

/// Longest time for the connection and the login.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// After this time no further letter is begun. The answer says how many are done.
const WORK_TIME: Duration = Duration::from_secs(20);

/// The longest time for browsing.
const LOOK_TIMEOUT: Duration = Duration::from_secs(15);

/// The maximum number of letters that are browsed at once. A quorum queue takes this many back in order.
pub(crate) const LISTED: u64 = 32;

/// Longest wait for letters that were given back.
const RETURN_TIMEOUT: Duration = Duration::from_secs(1);
/// Time between two checks whether they are back.
const RETURN_CHECK: Duration = Duration::from_millis(10);
/// Longest wait for a turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);
/// Pools whose dead letters may be worked on at the same time.
const POOLS_AT_ONCE: usize = 4;

/// The work on dead letters could not be done.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum DeadLettersError {
    /// Someone works on the dead letters of this pool.
    #[error(
        "other requests read, retried or purged the dead letters of this pool for {} s: try again in a moment",
        TURN_TIMEOUT.as_secs()
    )]
    Busy,
    /// Too much is under way.
    #[error("too many requests work on dead letters: try again in a moment")]
    TooMany,
    /// The broker did not do it.
    #[error("failed to {operation}")]
    Broker {
        /// The failed operation.
        operation: &'static str,
        /// The cause.
        #[source]
        source: QueueError,
    },
    /// Browsing took too long.
    #[error("reading the dead letters took longer than {} s", LOOK_TIMEOUT.as_secs())]
    TooLong,
}

/// A pool's dead letters.
#[derive(Debug, Clone)]
pub(crate) struct DeadLetterPlace {
    /// The pool.
    pub(crate) pool: PoolName,
    /// The queue of its jobs.
    pub(crate) jobs: QueueName,
    /// The queue of its dead letters.
    pub(crate) dead: QueueName,
}

/// The letters of a retry or a purge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LetterChoice {
    /// All that are there at the start.
    All,
    /// Those with these ids.
    Ids(Vec<String>),
}

impl LetterChoice {
    fn wanted(self) -> Wanted {
        Wanted {
            ids: match self {
                Self::All => Vec::new(),
                Self::Ids(ids) => ids,
            },
            reason: None,
            limit: LetterLimit::All,
        }
    }
}

/// The result of a retry or a purge.
#[derive(Debug)]
pub(crate) struct Worked {
    /// Letters that were there at the start.
    pub(crate) letters: u64,
    /// The result of the walk. Its `stopped` is true if the time was over.
    pub(crate) walked: Walked,
}

type Connection = Result<Arc<dyn QueueDriver>, QueueError>;
type Connect = Arc<dyn Fn() -> BoxFuture<'static, Connection> + Send + Sync>;

/// The access to dead letters. Cheap to clone.
#[derive(Clone)]
pub struct DeadLetterAccess {
    connect: Connect,
    /// The turns of each pool with work under way. Written by the work itself, at its start.
    turns: Arc<Mutex<BTreeMap<PoolName, Arc<Semaphore>>>>,
    /// The pools that may be worked on at the same time.
    pools: Arc<Semaphore>,
}

/// The right to work on a pool's dead letters, until it is dropped.
type Turn = (OwnedSemaphorePermit, OwnedSemaphorePermit);

impl fmt::Debug for DeadLetterAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetterAccess")
            .field("turns", &self.turns)
            .finish_non_exhaustive()
    }
}

impl DeadLetterAccess {
    /// Access by connections to this broker.
    pub(crate) fn at(broker: BrokerSettings) -> Self {
        let broker = Arc::new(broker);
        Self::by(Arc::new(move || {
            let broker = broker.clone();
            Box::pin(async move { connect(&broker).await })
        }))
    }

    fn by(connect: Connect) -> Self {
        Self {
            connect,
            turns: Arc::default(),
            pools: Arc::new(Semaphore::new(POOLS_AT_ONCE)),
        }
    }

    /// Reads the oldest letters, at most [`LISTED`], and passes each to `see`. Returns the number of all letters.
    ///
    /// # Cancel-safety
    /// Cancel-safe: the queue takes its letters back.
    pub(crate) async fn look(
        &self,
        place: &DeadLetterPlace,
        see: impl FnMut(&Letter, &Message),
    ) -> Result<u64, DeadLettersError> {
        let _turn = self.turn(&place.pool).await?;
        let operation = "look at the dead letters";
        let look = self.with_queue(place, operation, async |letters| {
            let limit =
                std::num::NonZeroU64::new(LISTED).map_or(LetterLimit::All, LetterLimit::Count);
            let wanted = Wanted {
                ids: Vec::new(),
                reason: None,
                limit,
            };
            letters.visit(&wanted, see).await
        });
        let looked = time::timeout(LOOK_TIMEOUT, look).await;
        Ok(looked.map_err(|_| DeadLettersError::TooLong)??.letters)
    }

    /// Puts letters back into the pool's queue. Each is confirmed there before it leaves the dead letters.
    ///
    /// # Cancel-safety
    /// If the future is dropped, no letter is lost, and a few may be in both queues.
    pub(crate) async fn retry(
        &self,
        place: &DeadLetterPlace,
        choice: LetterChoice,
    ) -> Result<Worked, DeadLettersError> {
        let _turn = self.turn(&place.pool).await?;
        let wanted = choice.wanted();
        self.with_queue(place, "put dead letters back", async |letters| {
            let copies = Copies {
                pool: place.pool.clone(),
                queue: place.jobs.clone(),
                host: String::new(),
                job: None,
                header_limit: letters.driver.header_limit(),
            };
            in_time(async |stop| letters.put_back(&wanted, &copies, stop, |_| ()).await).await
        })
        .await
    }

    /// Deletes letters permanently.
    ///
    /// # Cancel-safety
    /// If the future is dropped, letters may be deleted that were not counted.
    pub(crate) async fn purge(
        &self,
        place: &DeadLetterPlace,
        choice: LetterChoice,
    ) -> Result<Worked, DeadLettersError> {
        let _turn = self.turn(&place.pool).await?;
        let wanted = choice.wanted();
        self.with_queue(place, "delete dead letters", async |letters| {
            in_time(async |stop| letters.delete(&wanted, stop, |_| ()).await).await
        })
        .await
    }

    async fn with_queue(
        &self,
        place: &DeadLetterPlace,
        operation: &'static str,
        work: impl AsyncFnOnce(&DeadLetterQueue) -> Result<Walked, QueueError>,
    ) -> Result<Worked, DeadLettersError> {
        let failed = |source| DeadLettersError::Broker { operation, source };
        let driver = (self.connect)().await.map_err(failed)?;
        let worked = match driver.probe(&place.dead).await {
            Ok(depth) => {
                let letters = DeadLetterQueue {
                    driver: driver.clone(),
                    queue: place.dead.clone(),
                    letters: depth.ready,
                };
                let walked = work(&letters).await;
                if let Ok(walked) = &walked {
                    let left = depth.ready.saturating_sub(walked.done);
                    until_returned(&letters, left).await;
                }
                walked.map(|walked| (depth.ready, walked))
            }
            // The pool creates the queue for its first dead letter.
            Err(error) if error.kind == QueueErrorKind::NotFound => Ok((0, Walked::default())),
            Err(error) => Err(error),
        };
        driver.close().await;
        let (letters, walked) = worked.map_err(failed)?;
        Ok(Worked { letters, walked })
    }

    /// Waits for the turn to work on a pool's dead letters. Semaphores give permits in the order of arrival.
    async fn turn(&self, pool: &PoolName) -> Result<Turn, DeadLettersError> {
        let deadline = Instant::now() + TURN_TIMEOUT;
        let of_pool = time::timeout_at(deadline, self.turns_of(pool).acquire_owned());
        let of_pool = of_pool.await.map_err(|_| DeadLettersError::Busy)?;
        let of_all = time::timeout_at(deadline, self.pools.clone().acquire_owned());
        let of_all = of_all.await.map_err(|_| DeadLettersError::TooMany)?;
        let open = "the semaphores are never closed";
        Ok((of_pool.expect(open), of_all.expect(open)))
    }

    /// The semaphore of a pool. Those that nobody holds or waits for are dropped.
    fn turns_of(&self, pool: &PoolName) -> Arc<Semaphore> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turns| Arc::strong_count(turns) > 1);
        let turns = turns.entry(pool.clone());
        turns.or_insert_with(|| Arc::new(Semaphore::new(1))).clone()
    }
}

async fn connect(broker: &BrokerSettings) -> Connection {
    let driver = broker_driver(broker).map_err(|error| {
        QueueError::new(QueueErrorKind::Other, "connect to the broker").with_source(error)
    })?;
    match reach(&driver, CONNECT_TIMEOUT).await {
        Ok(()) => Ok(driver),
        Err(error) => {
            driver.close().await;
            Err(error)
        }
    }
}

/// Waits until the letters that stay are ready again. A broker counts returned messages only after a moment, and the
/// next browse or purge would miss them. Another consumer may have taken them, so this ends after [`RETURN_TIMEOUT`].
async fn until_returned(letters: &DeadLetterQueue, left: u64) {
    let returned = async {
        while let Ok(depth) = letters.driver.probe(&letters.queue).await {
            if depth.ready >= left {
                break;
            }
            time::sleep(RETURN_CHECK).await;
        }
    };
    let _ = time::timeout(RETURN_TIMEOUT, returned).await;
}

/// Tells the work to stop after [`WORK_TIME`], and waits for what it has begun.
async fn in_time(
    work: impl AsyncFnOnce(&CancellationToken) -> Result<Walked, QueueError>,
) -> Result<Walked, QueueError> {
    let stop = CancellationToken::new();
    let mut work = std::pin::pin!(work(&stop));
    tokio::select! {
        walked = work.as_mut() => return walked,
        () = time::sleep(WORK_TIME) => stop.cancel(),
    }
    work.await
}

#[cfg(test)]
mod tests {
    use tidegate::{
        adapters::memory::MemoryBroker,
        queue::{Outgoing, QueueKind},
    };

    use super::*;

    fn place() -> DeadLetterPlace {
        DeadLetterPlace {
            pool: "p".into(),
            jobs: "q".into(),
            dead: "q.dead".into(),
        }
    }

    /// A new broker for each connection, with this number of letters.
    fn letters(count: usize) -> DeadLetterAccess {
        DeadLetterAccess::by(Arc::new(move || {
            let broker = MemoryBroker::new();
            broker.declare_queue("q", QueueKind::Classic);
            broker.declare_queue("q.dead", QueueKind::Classic);
            for _ in 0..count {
                broker.send_message(Outgoing {
                    routing_key: "q.dead".to_owned(),
                    ..Outgoing::default()
                });
            }
            Box::pin(async move { Ok(Arc::new(broker) as Arc<dyn QueueDriver>) })
        }))
    }

    #[tokio::test(start_paused = true)]
    async fn browsing_shows_only_the_oldest_letters_and_counts_all() {
        let mut seen = 0;
        let all = letters(50).look(&place(), |_, _| seen += 1).await.unwrap();
        assert_eq!((all, seen), (50, LISTED));
    }

    #[tokio::test(start_paused = true)]
    async fn a_missing_queue_has_no_letters() {
        let elsewhere = DeadLetterPlace {
            dead: "none.dead".into(),
            ..place()
        };
        assert_eq!(letters(3).look(&elsewhere, |_, _| ()).await.unwrap(), 0);
        let worked = letters(3)
            .purge(&elsewhere, LetterChoice::All)
            .await
            .unwrap();
        assert_eq!((worked.letters, worked.walked.done), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn only_one_request_works_on_the_letters_of_a_pool_and_only_a_few_on_all_pools() {
        let letters = letters(1);
        let turn = letters.turn(&"p".into()).await.unwrap();
        let begun = time::Instant::now();
        let busy = letters
            .retry(&place(), LetterChoice::All)
            .await
            .unwrap_err();
        assert!(matches!(busy, DeadLettersError::Busy), "{busy}");
        assert_eq!(begun.elapsed(), TURN_TIMEOUT);
        let mut others = Vec::new();
        for pool in ["a", "b", "c"] {
            others.push(letters.turn(&pool.into()).await.unwrap());
        }
        let many = letters.turn(&"d".into()).await.unwrap_err();
        assert!(matches!(many, DeadLettersError::TooMany), "{many}");
        drop((turn, others));
        let worked = letters.retry(&place(), LetterChoice::All).await.unwrap();
        assert_eq!((worked.letters, worked.walked.done), (1, 1));
        drop(letters.turn(&"e".into()).await.unwrap());
        let kept = letters.turns.lock().unwrap().len();
        assert_eq!(kept, 1, "only the newest pool's turns are kept");
    }

    async fn looks(letters: &DeadLetterAccess) {
        loop {
            let _turn = letters.turn(&"p".into()).await.unwrap();
            time::sleep(Duration::from_secs(1)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_retry_has_its_turn_while_others_look_in_a_loop() {
        let letters = letters(1);
        let looks = async {
            tokio::join!(looks(&letters), looks(&letters), looks(&letters));
        };
        let retry = async {
            // The others are in their loops.
            time::sleep(Duration::from_millis(100)).await;
            letters.retry(&place(), LetterChoice::All).await
        };
        tokio::select! {
            () = looks => unreachable!("they have no end"),
            worked = retry => assert_eq!(worked.unwrap().walked.done, 1),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_takes_too_long_is_told_to_stop_and_waited_for() {
        let begun = time::Instant::now();
        let walked = in_time(async |stop| {
            stop.cancelled().await;
            time::sleep(Duration::from_secs(1)).await;
            Ok(Walked {
                done: 7,
                stopped: true,
                ..Walked::default()
            })
        });
        assert_eq!(walked.await.unwrap().done, 7);
        assert_eq!(begun.elapsed(), WORK_TIME + Duration::from_secs(1));
    }
}
