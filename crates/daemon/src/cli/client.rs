//! The client side of the API: one request over the supervisor's Unix socket.

use std::{error::Error, io, path::PathBuf, time::Duration};

use http_body_util::Full;
use hyper::{Method, Request, StatusCode, body::Bytes, header};
use hyperlocal::UnixConnector;
use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;
use tokio::time;

use super::supervisor::RemoteSupervisor;
use crate::{
    exchange::{client, exchange},
    output::{CommandFailure, Exit},
};
use tidegate::{api::v1, runner::BoxError};

/// A supervisor answers from memory. If it takes longer, it has a problem.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Largest answer that is read: enough for thousands of pools.
const ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// A request that failed.
#[derive(Debug, Error)]
pub(super) enum ClientError {
    #[error("reach the supervisor at {}", any_of(tried))]
    Connect {
        tried: Vec<PathBuf>,
        #[source]
        source: io::Error,
    },
    #[error("get an answer from the supervisor within {} s", .0.as_secs())]
    Timeout(Duration),
    #[error("communicate with the supervisor")]
    Talk(#[source] BoxError),
    /// The supervisor refused. The text is its own.
    #[error("{operation}: {}", refusal.error)]
    Refused {
        operation: &'static str,
        refusal: v1::Refusal,
        status: StatusCode,
    },
    #[error("encode the request")]
    Question(#[source] serde_json::Error),
    #[error("read the supervisor's answer")]
    Answer(#[source] serde_json::Error),
}

/// Sends a GET request for `path`. `operation` is read after "failed to", in the error for a refusal.
pub(super) async fn get<T: DeserializeOwned>(
    supervisor: &RemoteSupervisor,
    path: &str,
    operation: &'static str,
) -> Result<T, ClientError> {
    ask(
        supervisor,
        Method::GET,
        path,
        Bytes::new(),
        TIMEOUT,
        operation,
    )
    .await
}

/// Sends a request for an action at `path`, and waits up to `time_limit`. `operation` as for [`get`].
pub(super) async fn act<T: DeserializeOwned>(
    supervisor: &RemoteSupervisor,
    method: Method,
    path: &str,
    body: &impl Serialize,
    time_limit: Duration,
    operation: &'static str,
) -> Result<T, ClientError> {
    let body = serde_json::to_vec(body).map_err(ClientError::Question)?;
    ask(supervisor, method, path, body.into(), time_limit, operation).await
}

async fn ask<T: DeserializeOwned>(
    supervisor: &RemoteSupervisor,
    method: Method,
    path: &str,
    body: Bytes,
    time_limit: Duration,
    operation: &'static str,
) -> Result<T, ClientError> {
    let uri: hyper::Uri = hyperlocal::Uri::new(supervisor.socket(), path).into();
    let mut request = Request::builder()
        .method(method)
        .uri(uri)
        // A Unix socket has a path, and no host name.
        .header(header::HOST, "localhost");
    if !body.is_empty() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    let request = request
        .body(Full::new(body))
        .map_err(|error| ClientError::Talk(error.into()))?;
    let client = client(UnixConnector);
    let asked = time::timeout(time_limit, exchange(&client, request, ANSWER_BYTES)).await;
    let (status, body) = asked
        .map_err(|_| ClientError::Timeout(time_limit))?
        .map_err(|error| match not_connected(&*error) {
            Some(source) => ClientError::Connect {
                tried: supervisor.tried().to_vec(),
                source,
            },
            None => ClientError::Talk(error),
        })?;
    if !status.is_success() {
        let refusal = serde_json::from_slice(&body).unwrap_or_else(|_| v1::Refusal {
            error: status.to_string(),
            ..v1::Refusal::default()
        });
        return Err(ClientError::Refused {
            operation,
            refusal,
            status,
        });
    }
    serde_json::from_slice(&body).map_err(ClientError::Answer)
}

/// Paths as text: `a, b or c`.
fn any_of(paths: &[PathBuf]) -> String {
    let words: Vec<String> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    match words.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, before)) => format!("{} or {last}", before.join(", ")),
        None => String::new(),
    }
}

/// The system error of a failed connection.
fn not_connected(error: &(dyn Error + 'static)) -> Option<io::Error> {
    let error = error.downcast_ref::<hyper_util::client::legacy::Error>()?;
    let source = error.is_connect().then(|| error.source()).flatten()?;
    let source = source.downcast_ref::<io::Error>()?;
    Some(match source.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(source.kind(), source.to_string()),
    })
}

impl From<ClientError> for CommandFailure {
    fn from(error: ClientError) -> Self {
        let exit = match &error {
            ClientError::Connect { .. } | ClientError::Timeout(_) | ClientError::Talk(_) => {
                Exit::Unavailable
            }
            // The supervisor understood the request, but the requested policy or the configuration is invalid.
            ClientError::Refused { status, .. } if *status == StatusCode::UNPROCESSABLE_ENTITY => {
                Exit::BadConfiguration
            }
            ClientError::Refused { .. } | ClientError::Question(_) | ClientError::Answer(_) => {
                Exit::Unexpected
            }
        };
        let hint = match &error {
            ClientError::Connect { source, .. } => Some(match source.kind() {
                io::ErrorKind::PermissionDenied => {
                    "only the supervisor's own user and root may connect to it"
                }
                _ => {
                    "start one with `tidegate run`, or name the running one's configuration \
                     (--config) or socket (--socket)"
                }
            }),
            ClientError::Refused { status, .. } if *status == StatusCode::NOT_FOUND => {
                Some("`tidegate status` names the pools")
            }
            _ => None,
        };
        let failure = Self::new(exit, error);
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}
