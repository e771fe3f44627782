//! The read-only routes. Each reads snapshots of the supervisor. No route here waits for a pool.

use std::collections::BTreeSet;

use axum::{
    Json, Router,
    extract::{Path, Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};

use super::{
    answers::{count, error, no_such_pool},
    api::{Api, HttpRoute},
    dashboard, dead,
    guard::{AccessRules, RequestRefusal},
    openapi::openapi,
    steer, stream,
};
use tidegate::{
    api::v1,
    decide::{Decision, PoolName, SteeringOutcome},
    run::PoolStatus,
};

/// The content type of Prometheus' text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How to send a token. A browser asks its user for the second one, which allows only reading.
const CHALLENGES: [&str; 2] = ["Bearer", "Basic realm=\"tidegate\", charset=\"UTF-8\""];

/// Every route.
pub(super) fn table() -> Vec<HttpRoute> {
    let reading: [HttpRoute; 10] = [
        ("/healthz", &["get"], get(healthz)),
        ("/readyz", &["get"], get(readyz)),
        ("/metrics", &["get"], get(metrics)),
        ("/api/v1/openapi.json", &["get"], get(openapi)),
        ("/api/v1/jobs", &["get"], get(all_jobs)),
        ("/api/v1/leaving", &["get"], get(leaving)),
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
    finish(of(table()).merge(dashboard::routes()), api)
}

/// The routes of a supervisor that has handed over: its jobs, and how one is stopped. Nothing here changes what belongs
/// to the successor.
pub fn last_jobs(api: Api) -> Router {
    let routes: Vec<HttpRoute> = vec![
        ("/api/v1/jobs", &["get"], get(own_jobs)),
        (
            "/api/v1/pools/{pool}/jobs/{id}/stop",
            &["post"],
            post(steer::stop),
        ),
    ];
    finish(of(routes), api)
}

fn of(routes: Vec<HttpRoute>) -> Router<Api> {
    let routes = routes.into_iter();
    routes.fold(Router::new(), |router, (path, _, route)| {
        router.route(path, route)
    })
}

fn finish(router: Router<Api>, api: Api) -> Router {
    router
        .fallback(no_such_route)
        .method_not_allowed_fallback(no_such_method)
        .with_state(api)
        .layer(middleware::map_response(plain_headers))
}

/// Every route behind a guard, for a listener that anyone can reach.
pub fn guarded(api: Api, guard: AccessRules) -> Router {
    router(api).layer(middleware::from_fn_with_state(guard, turn_away))
}

async fn turn_away(State(guard): State<AccessRules>, request: Request, next: Next) -> Response {
    match guard.check(request.method(), request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => {
            if !request.method().is_safe()
                && let Some(act) = steer::act_of(request.uri().path())
            {
                count(act, SteeringOutcome::Denied);
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
    Json(pools.map(|status| api.view.of(status)).collect())
}

/// The pools that a reload has removed and that still drain.
async fn leaving(State(api): State<Api>) -> Json<Vec<v1::Pool>> {
    let pools = api.supervisor.leaving().into_iter();
    Json(pools.map(|status| api.view.of_removed(status)).collect())
}

async fn pool(State(api): State<Api>, Path(name): Path<PoolName>) -> Response {
    match api.supervisor.pool(&name) {
        Some(status) => Json(api.view.of(status)).into_response(),
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
    if api.supervisor.jobs(&name).is_none() {
        return no_such_pool(&name);
    }
    let jobs = jobs_of(&api).into_iter().filter(|job| job.pool == name);
    let jobs = jobs.map(
        |v1::Job {
             job, predecessor, ..
         }| v1::JobOfPool { job, predecessor },
    );
    Json(jobs.collect::<Vec<_>>()).into_response()
}

async fn all_jobs(State(api): State<Api>) -> Json<Vec<v1::Job>> {
    Json(jobs_of(&api))
}

async fn own_jobs(State(api): State<Api>) -> Json<Vec<v1::Job>> {
    Json(own_jobs_of(&api))
}

/// The jobs of this supervisor, and of those that have handed over to it.
fn jobs_of(api: &Api) -> Vec<v1::Job> {
    let mut jobs = own_jobs_of(api);
    jobs.extend(api.view.predecessors.jobs());
    jobs
}

fn own_jobs_of(api: &Api) -> Vec<v1::Job> {
    let pools = [api.supervisor.pools(), api.supervisor.leaving()].concat();
    // A pool may have been removed, and added again.
    let pools: BTreeSet<PoolName> = pools
        .into_iter()
        .map(|PoolStatus { name, .. }| name)
        .collect();
    let mut all = Vec::new();
    for pool in pools {
        let jobs = api.supervisor.jobs(&pool).unwrap_or_default().into_iter();
        all.extend(jobs.map(|job| v1::Job {
            pool: pool.clone(),
            job,
            predecessor: None,
        }));
    }
    all
}

async fn no_such_route() -> Response {
    error(StatusCode::NOT_FOUND, "nothing is here")
}

async fn no_such_method() -> Response {
    error(StatusCode::METHOD_NOT_ALLOWED, "this cannot be done here")
}
