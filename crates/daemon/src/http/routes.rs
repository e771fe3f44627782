//! What is answered. Each route here is a reading of the supervisor's snapshots; none waits for a pool.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};

use super::{
    control::Control,
    guard::{Guard, Refusal},
};
use crate::{reloads::Reloads, telemetry::prometheus::Prometheus};
use tidegate::{
    api::v1,
    decide::{Decision, PoolName},
    run::Supervisor,
};

/// What Prometheus calls its text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the routes read.
#[derive(Debug, Clone)]
pub struct Api {
    /// The pools.
    pub supervisor: Supervisor,
    /// The recorder behind `/metrics`.
    pub prometheus: Prometheus,
    /// What became of reading the configuration again.
    pub reloads: Reloads,
    /// The daemon as a whole.
    pub control: Arc<dyn Control>,
}

/// Every route, for a listener whose callers are known to be ours.
pub fn router(api: Api) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/api/v1/pools", get(pools))
        .route("/api/v1/pools/{pool}", get(pool))
        .route("/api/v1/pools/{pool}/explain", get(explain))
        .route("/api/v1/pools/{pool}/jobs", get(jobs))
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
                let scheme = header::HeaderValue::from_static("Bearer");
                response
                    .headers_mut()
                    .insert(header::WWW_AUTHENTICATE, scheme);
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

async fn healthz() -> Json<v1::Health> {
    Json(v1::Health {
        status: "ok".to_owned(),
    })
}

async fn readyz(State(api): State<Api>) -> Response {
    let readiness = api.supervisor.readiness();
    let status = match readiness.is_ready() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let body = v1::Ready {
        ready: readiness.is_ready(),
        reasons: readiness.reasons,
    };
    (status, Json(body)).into_response()
}

async fn metrics(State(api): State<Api>) -> Response {
    (
        [(header::CONTENT_TYPE, METRICS_TYPE)],
        api.prometheus.render(),
    )
        .into_response()
}

async fn pools(State(api): State<Api>) -> Json<Vec<v1::Pool>> {
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
    Json(v1::Explanation {
        name,
        status,
        text: decision.as_ref().map(Decision::to_string),
        decision,
    })
    .into_response()
}

async fn jobs(State(api): State<Api>, Path(name): Path<PoolName>) -> Response {
    match api.supervisor.jobs(&name) {
        Some(jobs) => Json(jobs).into_response(),
        None => no_such_pool(&name),
    }
}

pub(super) fn no_such_pool(name: &PoolName) -> Response {
    error(StatusCode::NOT_FOUND, &format!("no pool named {name}"))
}

async fn no_such_route() -> Response {
    error(StatusCode::NOT_FOUND, "nothing is here")
}

async fn no_such_method() -> Response {
    error(StatusCode::METHOD_NOT_ALLOWED, "this cannot be done here")
}

pub(super) fn error(status: StatusCode, message: &str) -> Response {
    let error = message.to_owned();
    let why = v1::Refusal {
        error,
        ..v1::Refusal::default()
    };
    refusal(status, why)
}

pub(super) fn refusal(status: StatusCode, why: v1::Refusal) -> Response {
    (status, Json(why)).into_response()
}
