//! The event stream, and the data that a reader may have missed.

use axum::{
    Extension, Json,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Serialize;

use super::{
    answers::{error, no_such_pool},
    api::{Api, HttpRoute},
    live::{EVENTS_TYPE, snapshot},
    server::LongLived,
};
use crate::{
    actions::Action,
    failures::Recent,
    history::{Columns, NamedColumns},
};
use tidegate::decide::PoolName;

pub(super) fn table() -> [HttpRoute; 5] {
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
