//! The event stream: a snapshot of every pool each second, made once for all readers.
//!
//! A slow reader gets the newest snapshot when it is ready, and misses the ones between. Nothing is buffered for a
//! reader, and no pool waits for it.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::{Stream, stream};
use jiff::Timestamp;
use serde::Serialize;
use tokio::{
    sync::{Semaphore, watch},
    time::{self, MissedTickBehavior},
};

use crate::view::View;
use tidegate::{api::v1, run::Supervisor};

/// Time between two snapshots.
const STEP: Duration = Duration::from_secs(1);

/// Longest silence on a stream. The dashboard treats a silence of 40 s as a lost connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Limit on readers, of both listeners together. The other connections stay free for other clients.
const READERS: usize = 128;

/// The source of the streams. Written by its feed, read by each stream.
#[derive(Debug, Clone)]
pub struct Live {
    snapshots: watch::Receiver<Arc<str>>,
    seats: Arc<Semaphore>,
}

#[derive(Serialize)]
struct Snapshot {
    /// Seconds since 1970.
    at: i64,
    pools: Vec<v1::Pool>,
}

impl Live {
    /// The source and its feed. Dropping the feed ends every stream.
    pub fn new(
        supervisor: Supervisor,
        view: View,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (send, snapshots) = watch::channel(Arc::from(""));
        let seats = Arc::new(Semaphore::new(READERS));
        let live = Self {
            snapshots,
            seats: seats.clone(),
        };
        let feed = async move {
            let mut ticks = time::interval(STEP);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            loop {
                ticks.tick().await;
                let has_readers = seats.available_permits() < READERS;
                if has_readers {
                    send.send_replace(snapshot(&supervisor, &view));
                }
            }
        };
        (live, feed)
    }

    /// A stream for one reader that begins with `first`. `None` if there are too many readers.
    pub(super) fn stream(
        &self,
        first: Arc<str>,
    ) -> Option<Sse<impl Stream<Item = Result<Event, Infallible>> + use<>>> {
        let seat = self.seats.clone().try_acquire_owned().ok()?;
        let mut snapshots = self.snapshots.clone();
        snapshots.mark_unchanged();
        let events = stream::unfold(
            (snapshots, Some(first), seat),
            async |(mut snapshots, first, seat)| {
                let text = match first {
                    Some(first) => first,
                    None => {
                        snapshots.changed().await.ok()?;
                        snapshots.borrow_and_update().clone()
                    }
                };
                let event = Event::default().event("pools").data(&*text);
                Some((Ok(event), (snapshots, None, seat)))
            },
        );
        Some(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
    }
}

/// The current status of every pool, as JSON.
pub(super) fn snapshot(supervisor: &Supervisor, view: &View) -> Arc<str> {
    let pools = supervisor.pools().into_iter();
    let snapshot = Snapshot {
        at: Timestamp::now().as_second(),
        pools: pools.map(|pool| view.of(pool)).collect(),
    };
    serde_json::to_string(&snapshot)
        .expect("every key of a snapshot is text")
        .into()
}
