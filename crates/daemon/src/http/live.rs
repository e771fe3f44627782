//! The event stream: a snapshot of every pool each second, made once for all readers.
//!
//! A slow reader gets the newest snapshot when it is ready, and misses the ones between. Nothing is buffered for a
//! reader, and no pool waits for it.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Extension, Json,
    extract::{Path, State},
    http::StatusCode,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
    routing::get,
};
use futures_util::{Stream, stream};
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
    view::View,
};
use tidegate::{api::v1, decide::PoolName, run::Supervisor};

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
    fn stream(
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
    let first = snapshot(&api.supervisor, &api.view);
    let Some(stream) = api.live.stream(first) else {
        let why = "too many clients read the event stream";
        return error(StatusCode::SERVICE_UNAVAILABLE, why);
    };
    if let Some(Extension(connection)) = connection {
        connection.mark();
    }
    stream.into_response()
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

/// The current status of every pool, as JSON.
fn snapshot(supervisor: &Supervisor, view: &View) -> Arc<str> {
    let pools = supervisor.pools().into_iter();
    let snapshot = Snapshot {
        at: Timestamp::now().as_second(),
        pools: pools.map(|pool| view.of(pool)).collect(),
    };
    serde_json::to_string(&snapshot)
        .expect("every key of a snapshot is text")
        .into()
}
