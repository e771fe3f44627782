//! The event stream: a snapshot of every pool each second, made once for all readers.
//!
//! A slow reader gets the newest snapshot when it is ready, and misses the ones between. Nothing is buffered for a
//! reader: all share the bytes of a snapshot. No pool waits for a reader.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Extension, Json,
    body::Body,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use futures_util::stream;
use jiff::Timestamp;
use serde::Serialize;
use tokio::{
    sync::{Semaphore, watch},
    time::{self, MissedTickBehavior},
};

use super::{
    answers::{error, no_such_pool},
    api::{Api, Route},
    server::LongLived,
};
use crate::{
    actions::Action,
    failures::Recent,
    history::{Columns, NamedColumns},
    reloads::Reloads,
};
use tidegate::{api::v1, decide::PoolName, run::Supervisor};

/// Time between two snapshots.
const STEP: Duration = Duration::from_secs(1);

/// Longest silence on a stream. The dashboard treats a silence of 40 s as a lost connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The content type of server-sent events.
const EVENTS_TYPE: &str = "text/event-stream";

/// Limit on readers, of both listeners together. The other connections stay free for other clients.
const READERS: usize = 128;

/// The source of the streams. Written by its feed, read by each stream.
#[derive(Debug, Clone)]
pub struct Live {
    snapshots: watch::Receiver<Bytes>,
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
        reloads: Reloads,
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
                    send.send_replace(snapshot(&supervisor, &reloads));
                }
            }
        };
        (live, feed)
    }

    /// A stream for one reader that begins with `first`. `None` if there are too many readers.
    fn stream(&self, first: Bytes) -> Option<Body> {
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

/// The stream, and the data that a reader may have missed.
pub(super) fn table() -> [Route; 5] {
    [
        ("/api/v1/events", &["get"], get(events)),
        ("/api/v1/history", &["get"], get(overview)),
        ("/api/v1/pools/{pool}/history", &["get"], get(history)),
        ("/api/v1/pools/{pool}/failures", &["get"], get(failures)),
        ("/api/v1/actions", &["get"], get(actions)),
    ]
}

async fn events(State(api): State<Api>, connection: Option<Extension<LongLived>>) -> Response {
    let first = snapshot(&api.supervisor, &api.reloads);
    let Some(stream) = api.live.stream(first) else {
        let why = "too many clients read the event stream";
        return error(StatusCode::SERVICE_UNAVAILABLE, why);
    };
    if let Some(Extension(connection)) = connection {
        connection.mark();
    }
    ([(header::CONTENT_TYPE, EVENTS_TYPE)], stream).into_response()
}

async fn overview(State(api): State<Api>) -> Json<Overview> {
    Json(Overview {
        pools: api.history.overview(),
    })
}

async fn history(State(api): State<Api>, Path(name): Path<PoolName>) -> Response {
    match api.supervisor.pool(&name) {
        Some(_) => Json::<Columns>(api.history.of(&name)).into_response(),
        None => no_such_pool(&name),
    }
}

async fn failures(State(api): State<Api>, Path(name): Path<PoolName>) -> Response {
    match api.supervisor.pool(&name) {
        Some(_) => {
            let kept = api.failures.of(&name);
            let kept: Vec<&Recent> = kept.iter().map(AsRef::as_ref).collect();
            Json(kept).into_response()
        }
        None => no_such_pool(&name),
    }
}

async fn actions(State(api): State<Api>) -> Json<Vec<Action>> {
    Json(api.actions.all())
}

/// The last hour of every pool.
#[derive(Serialize)]
struct Overview {
    pools: Vec<NamedColumns>,
}

/// The current status of every pool, as an event.
fn snapshot(supervisor: &Supervisor, reloads: &Reloads) -> Bytes {
    let pools = supervisor.pools().into_iter();
    let snapshot = Snapshot {
        at: Timestamp::now().as_second(),
        pools: pools.map(|pool| reloads.view(pool)).collect(),
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
    fn source() -> (watch::Sender<Bytes>, Live) {
        let (send, snapshots) = watch::channel(Bytes::new());
        let seats = Arc::new(Semaphore::new(READERS));
        (send, Live { snapshots, seats })
    }

    fn reader(live: &Live) -> Option<BodyDataStream> {
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
