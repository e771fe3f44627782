//! `tidegate run --takeover`: asks the running supervisor to hand over.

use std::{io, time::Duration};

use hyper::Method;
use jiff::Timestamp;

use super::{
    client::{self, ClientError},
    supervisor::RemoteSupervisor,
};
use crate::output::{CommandFailure, Exit};
use tidegate::{
    api::v1::{HandedOver, Takeover},
    config::HttpSettings,
    host::instance::id_of_lock,
};

/// How long the running supervisor may take to answer. It answers before it ends anything.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Asks the supervisor at the configured socket to hand over. After it has agreed, it hands everything over within
/// about a second.
pub(super) async fn ask(http: &HttpSettings) -> Result<HandedOver, CommandFailure> {
    let lock = match id_of_lock(&http.state_dir) {
        Ok((device, inode)) => [device, inode],
        Err(source) => {
            let what = format!(
                "take over: no supervisor has run with the state_dir {}",
                http.state_dir.display()
            );
            return Err(nobody(anyhow::Error::new(source).context(what)));
        }
    };
    let body = Takeover {
        lock,
        before: Timestamp::now() + TIMEOUT,
    };
    let path = "/api/v1/takeover";
    let operation = "take over";
    let supervisor = RemoteSupervisor::at(http.socket.clone());
    client::act(&supervisor, Method::POST, path, &body, TIMEOUT, operation)
        .await
        .map_err(|error| failure(error, http))
}

fn failure(error: ClientError, http: &HttpSettings) -> CommandFailure {
    match error {
        ClientError::Connect { source, .. } => {
            let hint = match source.kind() {
                io::ErrorKind::PermissionDenied => {
                    "another user's supervisor runs there; only its own user can take over"
                }
                _ => "none runs with this configuration: start without --takeover",
            };
            let what = format!("take over from the supervisor at {}", http.socket.display());
            let error = anyhow::Error::new(source).context(what);
            CommandFailure::new(Exit::Unavailable, error).hint(hint)
        }
        ClientError::Timeout(_) => CommandFailure::new(Exit::Unavailable, error)
            .hint("it does not hand over after this time; it still has its pools"),
        ClientError::Refused { status, .. } if status == hyper::StatusCode::NOT_FOUND => {
            CommandFailure::new(Exit::Unexpected, error)
                .hint("the running version cannot hand over: stop it, and start this one")
        }
        error => CommandFailure::from(error),
    }
}

fn nobody(error: anyhow::Error) -> CommandFailure {
    CommandFailure::new(Exit::Unavailable, error)
        .hint("none runs with this configuration: start without --takeover")
}
