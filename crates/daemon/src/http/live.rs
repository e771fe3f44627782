//! The event stream: a snapshot of every pool each second, made once for all readers.
//!
//! A slow reader gets the newest snapshot when it is ready, and misses the ones between. Nothing is buffered for a
//! reader: all share the bytes of a snapshot. No pool waits for a reader.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
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

/// The content type of server-sent events.
pub(super) const EVENTS_TYPE: &str = "text/event-stream";

/// Limit on readers, of both listeners together. The other connections stay free for other clients.
const READERS: usize = 128;

/// The source of the streams. Written by its feed, read by each stream.
#[derive(Debug, Clone)]
pub struct LiveStreams {
    snapshots: watch::Receiver<Bytes>,
    seats: Arc<Semaphore>,
}

#[derive(Serialize)]
struct Snapshot {
    /// Seconds since 1970.
    at: i64,
    pools: Vec<v1::Pool>,
}

impl LiveStreams {
    /// The source and its feed. Dropping the feed ends every stream.
    pub fn new(
        supervisor: Supervisor,
        view: View,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (send, snapshots) = watch::channel(Bytes::new());
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
    pub(super) fn stream(&self, first: Bytes) -> Option<Body> {
        let seat = self.seats.clone().try_acquire_owned().ok()?;
        let mut snapshots = self.snapshots.clone();
        snapshots.mark_unchanged();
        let events = stream::unfold(
            (snapshots, Some(first), seat),
            async |(mut snapshots, first, seat)| {
                let event = match first {
                    Some(first) => first,
                    None => next(&mut snapshots).await?,
                };
                Some((Ok::<_, Infallible>(event), (snapshots, None, seat)))
            },
        );
        Some(Body::from_stream(events))
    }
}

/// The newest event that this reader has not had, or a sign of life. `None` at the end of the feed.
async fn next(snapshots: &mut watch::Receiver<Bytes>) -> Option<Bytes> {
    match time::timeout(KEEP_ALIVE, snapshots.changed()).await {
        Ok(changed) => {
            changed.ok()?;
            Some(snapshots.borrow_and_update().clone())
        }
        Err(_) => Some(Bytes::from_static(b":\n\n")),
    }
}

/// The current status of every pool, as an event.
pub(super) fn snapshot(supervisor: &Supervisor, view: &View) -> Bytes {
    let pools = supervisor.pools().into_iter();
    let snapshot = Snapshot {
        at: Timestamp::now().as_second(),
        pools: pools.map(|pool| view.of(pool)).collect(),
    };
    event(&snapshot)
}

/// A server-sent event. JSON on one line needs no further escaping.
fn event(data: &impl Serialize) -> Bytes {
    let mut text = b"event: pools\ndata: ".to_vec();
    serde_json::to_writer(&mut text, data).expect("every key of a snapshot is text");
    text.extend_from_slice(b"\n\n");
    text.into()
}

#[cfg(test)]
mod tests {
    use axum::body::BodyDataStream;
    use futures_util::{FutureExt as _, StreamExt as _};

    use super::*;

    /// A source without its feed.
    fn source() -> (watch::Sender<Bytes>, LiveStreams) {
        let (send, snapshots) = watch::channel(Bytes::new());
        let seats = Arc::new(Semaphore::new(READERS));
        (send, LiveStreams { snapshots, seats })
    }

    fn reader(live: &LiveStreams) -> Option<BodyDataStream> {
        Some(live.stream(event(&"first"))?.into_data_stream())
    }

    /// What a reader gets without waiting.
    fn ready(reader: &mut BodyDataStream) -> Option<String> {
        let piece = reader.next().now_or_never()??;
        let piece = piece.expect("a stream without errors");
        Some(String::from_utf8(piece.to_vec()).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_gets_the_newest_snapshot_and_misses_the_ones_between() {
        let (feed, live) = source();
        let (mut quick, mut slow) = (reader(&live).unwrap(), reader(&live).unwrap());
        let text = |data: &str| Some(format!("event: pools\ndata: \"{data}\"\n\n"));
        assert_eq!(ready(&mut quick), text("first"));
        assert_eq!(ready(&mut quick), None);
        for data in ["1", "2", "3"] {
            feed.send_replace(event(&data));
            assert_eq!(ready(&mut quick), text(data));
        }
        assert_eq!(ready(&mut slow), text("first"));
        assert_eq!(ready(&mut slow), text("3"));
        assert_eq!(ready(&mut slow), None);
    }

    #[tokio::test(start_paused = true)]
    async fn has_so_many_seats_and_takes_one_back_from_a_reader_that_leaves() {
        let (_feed, live) = source();
        let mut readers: Vec<_> = (0..READERS).map(|_| reader(&live).unwrap()).collect();
        assert!(reader(&live).is_none());
        readers.pop();
        assert!(reader(&live).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_feed_gives_signs_of_life_and_its_end_is_the_end_of_the_stream() {
        let (feed, live) = source();
        let mut reader = reader(&live).unwrap();
        reader.next().await;
        let start = time::Instant::now();
        let sign = reader.next().await.unwrap().unwrap();
        assert_eq!(&sign[..], b":\n\n");
        assert_eq!(start.elapsed().as_secs(), KEEP_ALIVE.as_secs());
        drop(feed);
        assert!(reader.next().await.is_none());
    }
}
