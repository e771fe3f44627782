//! Steering: the routes that change something. Each gives one order to one pool and answers with the result.
//!
//! The guard decides who may do this. The library owns the meaning of an order. This module turns a request into an
//! order.

use axum::{
    Extension, Json,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use jiff::Timestamp;
use nix::unistd::Uid;

use super::{
    answers::{count, error, failed, no_such_pool, refusal},
    api::{Api, HttpRoute},
    body::Body,
    caller::Caller,
    policy,
};
use crate::actions::{as_typed, done};
use tidegate::{
    api::v1::{self, TimeSpan, Workers},
    decide::{
        By, EventKind, JobId, Order, PoolName, ReconcileResult, SteeringAct, SteeringOutcome,
    },
    run::{FlushMode, Stopping},
};

/// The routes of this module, for [`routes::table`](super::routes::table).
pub(super) fn table() -> [HttpRoute; 9] {
    [
        ("/api/v1/reload", &["post"], post(reload)),
        ("/api/v1/takeover", &["post"], post(takeover)),
        ("/api/v1/pools/{pool}/pause", &["post"], post(pause)),
        ("/api/v1/pools/{pool}/resume", &["post"], post(resume)),
        ("/api/v1/pools/{pool}/drain", &["post"], post(drain)),
        ("/api/v1/pools/{pool}/flush", &["post"], post(flush)),
        ("/api/v1/pools/{pool}/scale", &["put"], put(scale)),
        (
            "/api/v1/pools/{pool}/policy",
            &["get", "put", "patch", "delete"],
            get(policy::get)
                .put(policy::put)
                .patch(policy::patch)
                .delete(policy::delete),
        ),
        ("/api/v1/pools/{pool}/jobs/{id}/stop", &["post"], post(stop)),
    ]
}

/// The action of a path under the API, for the count of refused requests.
pub(super) fn act_of(path: &str) -> Option<SteeringAct> {
    Some(match path.rsplit('/').next()? {
        "pause" => SteeringAct::Pause,
        "resume" => SteeringAct::Resume,
        "drain" => SteeringAct::Drain,
        "flush" => SteeringAct::Flush,
        "scale" => SteeringAct::Scale,
        "policy" => SteeringAct::Policy,
        "reload" => SteeringAct::Reload,
        "takeover" => SteeringAct::Takeover,
        "stop" => SteeringAct::StopJob,
        "retry" => SteeringAct::DeadRetry,
        "purge" => SteeringAct::DeadPurge,
        _ => return None,
    })
}

type PoolRequest = (State<Api>, Extension<Caller>, Path<PoolName>);

async fn pause(
    (State(api), Extension(caller), Path(name)): PoolRequest,
    body: Body<v1::Pause>,
) -> Response {
    let v1::Pause { span, shrinking } = body.0;
    let until = match span.map(end_of) {
        Some(None) => {
            let what = "the body is invalid: the time is beyond the end of the calendar";
            return error(StatusCode::BAD_REQUEST, what);
        }
        until => until.flatten(),
    };
    let order = match shrinking {
        true => Order::ForbidShrinking { until },
        false => Order::Pause { until },
    };
    steer(&api, caller, &name, order).await
}

async fn resume(
    (State(api), Extension(caller), Path(name)): PoolRequest,
    body: Body<v1::Resume>,
) -> Response {
    let order = match body.0.shrinking {
        true => Order::AllowShrinking,
        false => Order::Resume,
    };
    steer(&api, caller, &name, order).await
}

async fn drain(
    (State(api), Extension(caller), Path(name)): PoolRequest,
    _: Body<v1::Nothing>,
) -> Response {
    steer(&api, caller, &name, Order::Drain).await
}

async fn scale(
    (State(api), Extension(caller), Path(name)): PoolRequest,
    body: Body<v1::Scale>,
) -> Response {
    let order = match body.0.workers {
        Workers::Auto => Order::Unpin,
        Workers::Count(workers) => Order::Pin { workers },
    };
    steer(&api, caller, &name, order).await
}

async fn flush(
    (State(api), Extension(caller), Path(name)): PoolRequest,
    body: Body<v1::Flush>,
) -> Response {
    let mode = match body.0.busy {
        true => FlushMode::All,
        false => FlushMode::Idle,
    };
    match api.supervisor.flush(&name, mode).await {
        Ok(result) => {
            let (stopped, told) = (runners_stopped(&result), result.jobs_told);
            let changed = stopped + told > 0;
            count(SteeringAct::Flush, SteeringOutcome::of(changed));
            let by = caller.name().await;
            let act = match body.0.busy {
                true => "flush --busy",
                false => "flush",
            };
            api.actions.add(Some(&name), act, &by, done(changed));
            tracing::info!(
                pool = %name, act, runners_stopped = stopped, jobs_told = told, by, "an operator gave an order to the pool"
            );
            answer(&api, &name, changed, &result, None)
        }
        Err(error) => {
            count(SteeringAct::Flush, SteeringOutcome::Refused);
            failed(&name, &error)
        }
    }
}

pub(super) async fn stop(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path((name, id)): Path<(PoolName, JobId)>,
    body: Body<v1::StopJob>,
) -> Response {
    let v1::StopJob { then } = body.0;
    let by = caller.name().await;
    let stopping = Stopping {
        then,
        by: by.clone(),
    };
    match api.supervisor.stop_job(&name, &id, &stopping) {
        Ok(own) => {
            let elsewhere = api.view.predecessors.stop(&name, &id, then).await;
            let stopped = own + elsewhere;
            if stopped == 0 {
                count(SteeringAct::StopJob, SteeringOutcome::Refused);
                let what = format!("no job with this id runs in the pool {name}");
                return error(StatusCode::NOT_FOUND, &what);
            }
            count(SteeringAct::StopJob, SteeringOutcome::Changed);
            let act = format!("stop job {}, then {}", id.as_str(), then.as_str());
            api.actions.add(Some(&name), &act, &by, done(true));
            Json(v1::StoppedJobs { stopped, then }).into_response()
        }
        Err(error) => {
            count(SteeringAct::StopJob, SteeringOutcome::Refused);
            failed(&name, &error)
        }
    }
}

async fn reload(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    _: Body<v1::Nothing>,
) -> Response {
    let by = caller.name().await;
    match api.control.reload().await {
        Ok(reloaded) => {
            count(SteeringAct::Reload, SteeringOutcome::Changed);
            api.actions.add(None, "reload", &by, "done");
            Json(reloaded).into_response()
        }
        Err(why) => {
            count(SteeringAct::Reload, SteeringOutcome::Refused);
            api.actions.add(None, "reload", &by, "refused");
            refusal(StatusCode::UNPROCESSABLE_ENTITY, why)
        }
    }
}

async fn takeover(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    body: Body<v1::Takeover>,
) -> Response {
    // Root could ask, but a successor of another user would run the jobs as that user.
    let own = Uid::effective().as_raw();
    if caller != Caller::User(own) {
        count(SteeringAct::Takeover, SteeringOutcome::Denied);
        let what =
            "only a process of the supervisor's own user may take over, over the Unix socket";
        return error(StatusCode::FORBIDDEN, what);
    }
    match api.control.hand_over(body.0).await {
        Ok(handed_over) => {
            count(SteeringAct::Takeover, SteeringOutcome::Changed);
            Json(handed_over).into_response()
        }
        Err(why) => {
            count(SteeringAct::Takeover, SteeringOutcome::Refused);
            error(StatusCode::CONFLICT, &why)
        }
    }
}

/// Gives an order, and answers with the result.
async fn steer(api: &Api, caller: Caller, name: &PoolName, order: Order) -> Response {
    let by = caller.name().await;
    let act = as_typed(&order);
    match api.supervisor.steer(name, order, By::new(by.clone())).await {
        Ok(steered) => {
            api.actions
                .add(Some(name), &act, &by, done(steered.changed));
            answer(
                api,
                name,
                steered.changed,
                &steered.result,
                steered.not_stored,
            )
        }
        Err(error) => failed(name, &error),
    }
}

fn answer(
    api: &Api,
    name: &PoolName,
    changed: bool,
    result: &ReconcileResult,
    not_stored: Option<String>,
) -> Response {
    // A reload may have removed the pool after the order.
    let Some(status) = api.supervisor.pool(name) else {
        return no_such_pool(name);
    };
    Json(v1::Steered {
        changed,
        workers_diff: result.workers_diff,
        runners_stopped: runners_stopped(result),
        jobs_told: result.jobs_told,
        not_stored,
        pool: api.view.of(status),
    })
    .into_response()
}

fn runners_stopped(result: &ReconcileResult) -> u64 {
    let stopped = result.metric_stats.get(&EventKind::RunnerStop);
    stopped.copied().unwrap_or_default()
}

/// The end of a duration that begins now. `None` if it is beyond the range of timestamps.
fn end_of(TimeSpan(span): TimeSpan) -> Option<Timestamp> {
    Timestamp::now().checked_add(span).ok()
}
