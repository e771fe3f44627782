//! Answers that several routes share: errors, and their count.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};

use tidegate::{
    api::v1,
    decide::{PoolName, SteeringAct, SteeringOutcome},
    run::{SupervisorError, metrics},
};

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

pub(super) fn no_such_pool(name: &PoolName) -> Response {
    error(StatusCode::NOT_FOUND, &format!("no pool named {name}"))
}

/// The answer for an error of the supervisor.
pub(super) fn failed(name: &PoolName, failed: &SupervisorError) -> Response {
    let status = match failed {
        SupervisorError::NoSuchPool(_) => return no_such_pool(name),
        SupervisorError::Refused { why, .. } => {
            return error(StatusCode::UNPROCESSABLE_ENTITY, &why.to_string());
        }
        SupervisorError::Ending | SupervisorError::Ended(_) => StatusCode::CONFLICT,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    error(status, &failed.to_string())
}

pub(super) fn count(act: SteeringAct, outcome: SteeringOutcome) {
    metrics::steered(act, outcome);
}
