//! The command line's side of the API: one question over the supervisor's Unix socket.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
    time,
};

use super::{
    args::{Cli, SocketArgs},
    output::{self, Exit, Failure},
};
use tidegate::{
    config::{self, Surroundings},
    runner::BoxError,
};

/// A supervisor answers from memory; one that takes longer is not well.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Most that is read of an answer: thousands of pools.
const ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// A question was not answered.
#[derive(Debug, Error)]
pub(super) enum ClientError {
    #[error("reach the supervisor at {}", socket.display())]
    Connect {
        socket: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("hear from the supervisor within {} s", TIMEOUT.as_secs())]
    Timeout,
    #[error("talk to the supervisor")]
    Talk(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The supervisor's own words.
    #[error("{operation}: {message}")]
    Refused {
        operation: &'static str,
        message: String,
        status: StatusCode,
    },
    #[error("read the supervisor's answer")]
    Answer(#[source] serde_json::Error),
}

/// Asks for `path`. `operation` reads after "failed to", for an answer that is a refusal.
pub(super) async fn get<T: DeserializeOwned>(
    socket: &Path,
    path: &str,
    operation: &'static str,
) -> Result<T, ClientError> {
    let (status, body) = time::timeout(TIMEOUT, ask(socket, path))
        .await
        .map_err(|_| ClientError::Timeout)??;
    if !status.is_success() {
        #[derive(serde::Deserialize)]
        struct Refusal {
            error: String,
        }
        let message = serde_json::from_slice(&body)
            .map_or_else(|_| status.to_string(), |refusal: Refusal| refusal.error);
        return Err(ClientError::Refused {
            operation,
            message,
            status,
        });
    }
    serde_json::from_slice(&body).map_err(ClientError::Answer)
}

async fn ask(socket: &Path, path: &str) -> Result<(StatusCode, Bytes), ClientError> {
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|source| ClientError::Connect {
            socket: socket.to_owned(),
            source,
        })?;
    let request = Request::get(path)
        .header(header::HOST, "localhost")
        .body(Empty::<Bytes>::new())
        .map_err(|error| ClientError::Talk(error.into()))?;
    exchange(stream, request, ANSWER_BYTES)
        .await
        .map_err(ClientError::Talk)
}

/// Sends one request on a connection of its own, and reads at most so many bytes of the answer.
pub(super) async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    request: Request<Empty<Bytes>>,
    most: usize,
) -> Result<(StatusCode, Bytes), BoxError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let answer = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), most);
        Ok((status, body.collect().await?.to_bytes()))
    };
    // The connection only moves while it is polled. It may end before the answer was read.
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        _ = connection => answer.await,
    }
}

/// Which socket to ask at: the one named, else the configuration's, else the default.
pub(super) fn socket(cli: &Cli, args: &SocketArgs) -> Result<PathBuf, Failure> {
    if let Some(socket) = &args.socket {
        return Ok(socket.clone());
    }
    let Ok(source) = config::find(cli.config.as_deref()) else {
        return Ok(Surroundings::of_process().socket());
    };
    // A supervisor runs on with its old configuration while the file is bad.
    let (named, problems) = config::socket_of(&source);
    let default = Surroundings::of_process().socket();
    let Some(problems) = problems else {
        return Ok(named.unwrap_or(default));
    };
    let answers = |socket: &PathBuf| std::os::unix::net::UnixStream::connect(socket).is_ok();
    let socket = match named {
        Some(named) if answers(&named) || !answers(&default) => named,
        _ => default,
    };
    let count = match problems.len() {
        1 => "has 1 problem".to_owned(),
        count => format!("has {count} problems"),
    };
    let warning = format!(
        "the configuration {} {count}, which `tidegate check` shows; asking the supervisor at {}",
        source.file().display(),
        socket.display()
    );
    output::warn(&warning);
    Ok(socket)
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let exit = match &error {
            ClientError::Connect { .. } | ClientError::Timeout | ClientError::Talk(_) => {
                Exit::Unavailable
            }
            ClientError::Refused { .. } | ClientError::Answer(_) => Exit::Unexpected,
        };
        let hint = match &error {
            ClientError::Connect { source, .. } => Some(match source.kind() {
                io::ErrorKind::PermissionDenied => {
                    "only the supervisor's own user and root may ask it"
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
