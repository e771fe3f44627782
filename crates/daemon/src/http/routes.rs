//! The read-only routes. Each reads snapshots of the supervisor. No route here waits for a pool.

use axum::{
    Json, Router,
    extract::{Path, Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};

use super::{
    answers::{count, error, no_such_pool},
    api::{Api, Route},
    dashboard, dead,
    guard::{Guard, RequestRefusal},
    openapi::openapi,
    steer, stream,
};
use tidegate::{
    api::v1,
    decide::{Decision, PoolName},
};

/// The content type of Prometheus' text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How to send a token. A browser asks its user for the second one, which allows only reading.
const CHALLENGES: [&str; 2] = ["Bearer", "Basic realm=\"tidegate\", charset=\"UTF-8\""];

/// Every route.
pub(super) fn table() -> Vec<Route> {
    let reading: [Route; 8] = [
        ("/healthz", &["get"], get(healthz)),
        ("/readyz", &["get"], get(readyz)),
        ("/metrics", &["get"], get(metrics)),
        ("/api/v1/openapi.json", &["get"], get(openapi)),
        ("/api/v1/pools", &["get"], get(pools)),
        ("/api/v1/pools/{pool}", &["get"], get(pool)),
        ("/api/v1/pools/{pool}/explain", &["get"], get(explain)),
        ("/api/v1/pools/{pool}/jobs", &["get"], get(jobs)),
    ];
    let routes = reading.into_iter();
    routes
        .chain(stream::table())
        .chain(steer::table())
        .chain(dead::table())
        .collect()
}

/// Every route, for a listener whose callers are trusted.
pub fn router(api: Api) -> Router {
    let routes = table().into_iter();
    routes
        .fold(Router::new(), |router, (path, _, route)| {
            router.route(path, route)
        })
        .merge(dashboard::routes())
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
            if !request.method().is_safe()
                && let Some(act) = steer::act_of(request.uri().path())
            {
                count(act, "denied");
            }
            let mut response = error(refusal.status(), refusal.reason());
            if refusal == RequestRefusal::Unauthorized {
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

/// Answers are not cached, and a browser must not guess their type.
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

async fn no_such_route() -> Response {
    error(StatusCode::NOT_FOUND, "nothing is here")
}

async fn no_such_method() -> Response {
    error(StatusCode::METHOD_NOT_ALLOWED, "this cannot be done here")
}
