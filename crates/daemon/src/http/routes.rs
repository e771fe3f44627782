//! What is answered. Each route is a reading of the supervisor's snapshots; none waits for a pool.

use axum::{
    Extension, Json, Router,
    extract::{Path, Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Serialize;
use serde_json::json;

use super::{
    dashboard,
    guard::{Guard, Refusal},
    live::{self, Live},
    server::LongLived,
};
use crate::{
    actions::{Action, Actions},
    failures::{Failures, Recent},
    history::{Columns, History},
    reloads::{PoolView, Reloads},
    telemetry::prometheus::Prometheus,
};
use tidegate::{
    decide::{Decision, PoolName},
    run::{PoolStatus, Supervisor},
};

/// What Prometheus calls its text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How to show the token. A browser asks its user for the second one, which is only good for reading.
const CHALLENGES: [&str; 2] = ["Bearer", "Basic realm=\"tidegate\", charset=\"UTF-8\""];

/// What the routes read.
#[derive(Debug, Clone)]
pub struct Api {
    /// The pools.
    pub supervisor: Supervisor,
    /// The recorder behind `/metrics`.
    pub prometheus: Prometheus,
    /// What became of reading the configuration again.
    pub reloads: Reloads,
    /// The source of the event stream.
    pub live: Live,
    /// The last hour of every pool.
    pub history: History,
    /// The last failures of every pool.
    pub failures: Failures,
    /// What was done by hand.
    pub actions: Actions,
}

/// The answer of `explain`.
#[derive(Debug, Serialize)]
struct Explanation {
    name: PoolName,
    status: PoolStatus,
    /// The record; absent before the first decision.
    decision: Option<Decision>,
    /// The record as the command line prints it.
    text: Option<String>,
}

/// Every route, for a listener whose callers are known to be ours.
pub fn router(api: Api) -> Router {
    Router::new()
        .route("/", get(dashboard::page))
        .route("/dashboard/{file}", get(file))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/api/v1/pools", get(pools))
        .route("/api/v1/pools/{pool}", get(pool))
        .route("/api/v1/pools/{pool}/explain", get(explain))
        .route("/api/v1/pools/{pool}/history", get(history))
        .route("/api/v1/pools/{pool}/failures", get(failures))
        .route("/api/v1/actions", get(actions))
        .route("/api/v1/history", get(overview))
        .route("/api/v1/events", get(events))
        .fallback(no_such_route)
        .method_not_allowed_fallback(no_such_method)
        .with_state(api)
        .layer(middleware::map_response(plain_headers))
}

/// Every route behind a guard, for a listener that anyone can reach.
pub fn guarded(api: Api, guard: Guard) -> Router {
    router(api).layer(middleware::from_fn_with_state(guard, turn_away))
}

async fn turn_away(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    match guard.check(request.method(), request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => {
            let mut response = error(refusal.status(), refusal.reason());
            if refusal == Refusal::Unauthorized {
                for scheme in CHALLENGES {
                    let scheme = header::HeaderValue::from_static(scheme);
                    response
                        .headers_mut()
                        .append(header::WWW_AUTHENTICATE, scheme);
                }
            }
            response
        }
    }
}

/// Answers are of the moment, and never a document that a browser may guess a type for.
async fn plain_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    let value = header::HeaderValue::from_static;
    headers.insert(header::CACHE_CONTROL, value("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, value("nosniff"));
    response
}

async fn file(Path(name): Path<String>) -> Response {
    match dashboard::named(&name) {
        Some(file) => file,
        None => no_such_route().await,
    }
}

async fn healthz() -> Json<serde_json::Value> {
    Json(json!({"status": "ok"}))
}

async fn readyz(State(api): State<Api>) -> Response {
    let readiness = api.supervisor.readiness();
    let status = match readiness.is_ready() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let body = json!({"ready": readiness.is_ready(), "reasons": readiness.reasons});
    (status, Json(body)).into_response()
}

async fn metrics(State(api): State<Api>) -> Response {
    (
        [(header::CONTENT_TYPE, METRICS_TYPE)],
        api.prometheus.render(),
    )
        .into_response()
}

async fn pools(State(api): State<Api>) -> Json<Vec<PoolView>> {
    let pools = api.supervisor.pools().into_iter();
    Json(pools.map(|status| api.reloads.view(status)).collect())
}

async fn pool(State(api): State<Api>, Path(name): Path<PoolName>) -> Response {
    match api.supervisor.pool(&name) {
        Some(status) => Json(api.reloads.view(status)).into_response(),
        None => no_such_pool(&name),
    }
}

async fn explain(State(api): State<Api>, Path(name): Path<PoolName>) -> Response {
    let Some(status) = api.supervisor.pool(&name) else {
        return no_such_pool(&name);
    };
    let decision = api.supervisor.explain(&name);
    Json(Explanation {
        name,
        status,
        text: decision.as_ref().map(Decision::to_string),
        decision,
    })
    .into_response()
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

async fn overview(State(api): State<Api>) -> Response {
    Json(json!({"pools": api.history.overview()})).into_response()
}

async fn events(State(api): State<Api>, connection: Option<Extension<LongLived>>) -> Response {
    let first = live::snapshot(&api.supervisor, &api.reloads);
    let Some(stream) = api.live.stream(first) else {
        return error(
            StatusCode::SERVICE_UNAVAILABLE,
            "too many read the event stream",
        );
    };
    if let Some(Extension(connection)) = connection {
        connection.mark();
    }
    stream.into_response()
}

fn no_such_pool(name: &PoolName) -> Response {
    error(StatusCode::NOT_FOUND, &format!("no pool named {name}"))
}

async fn no_such_route() -> Response {
    error(StatusCode::NOT_FOUND, "nothing is here")
}

async fn no_such_method() -> Response {
    error(StatusCode::METHOD_NOT_ALLOWED, "this cannot be done here")
}

fn error(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({"error": message}))).into_response()
}
