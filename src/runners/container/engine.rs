//! Finds a container engine, and turns its errors into text.

use std::{io, path::PathBuf, time::Duration};

use bollard::{API_DEFAULT_VERSION, Docker, errors::Error};
use thiserror::Error;
use tokio::{sync::Mutex, time::timeout};

use super::EngineAddress;
use crate::runner::StartError;

/// How long an engine may take for the first answer.
const GREETING: Duration = Duration::from_secs(5);

/// How long an engine may take for one request. On a busy machine, the start of a container takes the longest.
const ENGINE_TIMEOUT: Duration = Duration::from_secs(60);

/// For requests that take as long as a job or a pull.
pub(super) const LONG: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Knows the addresses of possible engines, and keeps the engine that answered.
#[derive(Debug)]
pub(super) struct Finder {
    /// The addresses in the order in which they are tried, or the error if there are none.
    places: Result<Vec<EngineAddress>, String>,
    /// The first task that needs the engine searches for it. The others wait for the result.
    found: Mutex<Option<Docker>>,
}

impl Finder {
    /// Reads the environment once if `engine` gives no address.
    pub(super) fn new(engine: Option<&EngineAddress>) -> Self {
        Self {
            places: places(engine, |name| std::env::var(name).ok()),
            found: Mutex::new(None),
        }
    }

    /// The engine that has answered.
    ///
    /// # Errors
    /// No engine answers. The error names the addresses that were tried.
    ///
    /// # Cancel-safety
    /// Cancel-safe.
    pub(super) async fn engine(&self) -> Result<Docker, StartError> {
        let mut found = self.found.lock().await;
        if let Some(docker) = &*found {
            return Ok(docker.clone());
        }
        let refuse = |what| StartError { what, source: None };
        let places = self.places.as_ref().map_err(|why| refuse(why.clone()))?;
        let mut tried = Vec::new();
        for place in places {
            match connect(place).await {
                Ok(docker) => {
                    tracing::debug!(engine = %place, "container engine found");
                    *found = Some(docker.clone());
                    return Ok(docker);
                }
                Err(why) => tried.push(format!("{place} ({why})")),
            }
        }
        Err(refuse(format!(
            "no container engine answers at {}",
            tried.join(", or at ")
        )))
    }

    /// If the error means that the engine is gone, the next caller searches for an engine again.
    pub(super) async fn note(&self, error: &EngineError) {
        if error.kind == EngineErrorKind::Unreachable {
            *self.found.lock().await = None;
        }
    }
}

/// Checks whether an engine answers at the addresses for a pool.
///
/// # Errors
/// No engine answers. The error names the addresses that were tried.
pub async fn find_engine(engine: Option<&EngineAddress>) -> Result<(), StartError> {
    Finder::new(engine).engine().await.map(drop)
}

/// The addresses of possible engines. If the pool gives an address, no other engine is tried.
fn places(
    named: Option<&EngineAddress>,
    env: impl Fn(&str) -> Option<String>,
) -> Result<Vec<EngineAddress>, String> {
    let env = |name: &str| env(name).filter(|value| !value.is_empty());
    if let Some(named) = named {
        return Ok(vec![named.clone()]);
    }
    if let Some(host) = env("DOCKER_HOST") {
        let place = EngineAddress::parse(&host)
            .map_err(|fix| format!("use the engine of $DOCKER_HOST, {host:?}: {fix}"))?;
        if matches!(place, EngineAddress::Tcp(_)) && env("DOCKER_TLS_VERIFY").is_some() {
            return Err(format!(
                "use the engine of $DOCKER_HOST, {host:?}: $DOCKER_TLS_VERIFY requires TLS, which is not built in"
            ));
        }
        return Ok(vec![place]);
    }
    let ours = env("XDG_RUNTIME_DIR").map(PathBuf::from);
    let ours = ours.filter(|folder| folder.is_absolute());
    let rootless = ours.iter().flat_map(|folder| {
        [
            folder.join("docker.sock"),
            folder.join("podman/podman.sock"),
        ]
    });
    let sockets = std::iter::once(PathBuf::from("/var/run/docker.sock"))
        .chain(rootless)
        .chain([PathBuf::from("/run/podman/podman.sock")]);
    Ok(sockets.map(EngineAddress::Unix).collect())
}

/// Reads the engine's version of the API. From then on the older one of its version and ours is used.
async fn connect(place: &EngineAddress) -> Result<Docker, EngineError> {
    let seconds = ENGINE_TIMEOUT.as_secs();
    let docker = match place {
        EngineAddress::Unix(path) => {
            Docker::connect_with_unix(&path.to_string_lossy(), seconds, API_DEFAULT_VERSION)
        }
        EngineAddress::Tcp(address) => {
            Docker::connect_with_http(address, seconds, API_DEFAULT_VERSION)
        }
    }?;
    match timeout(GREETING, docker.negotiate_version()).await {
        Ok(docker) => Ok(docker?),
        Err(_) => Err(Error::RequestTimeoutError.into()),
    }
}

/// The error of a request to an engine.
#[derive(Debug, Error)]
#[error("{words}")]
pub(super) struct EngineError {
    pub(super) kind: EngineErrorKind,
    words: String,
}

/// The kind of an engine's error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EngineErrorKind {
    /// The object of the request does not exist.
    NotFound,
    /// The engine is already doing the same thing.
    Conflict,
    /// The engine refused the request for another reason.
    Refused,
    /// No answer.
    Unreachable,
}

impl EngineError {
    pub(super) fn new(kind: EngineErrorKind, words: impl Into<String>) -> Self {
        Self {
            kind,
            words: words.into(),
        }
    }

    /// The error as the cause of a failed start.
    pub(super) fn into_start_error(self, what: impl Into<String>) -> StartError {
        StartError {
            what: what.into(),
            source: Some(Box::new(self)),
        }
    }
}

impl From<Error> for EngineError {
    fn from(error: Error) -> Self {
        match &error {
            Error::DockerResponseServerError {
                status_code,
                message,
            } => {
                let kind = match status_code {
                    404 => EngineErrorKind::NotFound,
                    409 => EngineErrorKind::Conflict,
                    _ => EngineErrorKind::Refused,
                };
                let words = match message.trim() {
                    "" => format!("the engine answered {status_code}"),
                    // An engine's reasons can have several lines.
                    words => words.split_whitespace().collect::<Vec<_>>().join(" "),
                };
                Self::new(kind, words)
            }
            Error::DockerStreamError { error } => Self::new(EngineErrorKind::Refused, error.trim()),
            Error::RequestTimeoutError => {
                Self::new(EngineErrorKind::Unreachable, "no answer in time")
            }
            Error::SocketNotFoundError(_) => {
                Self::new(EngineErrorKind::Unreachable, "no such socket")
            }
            _ => Self::new(EngineErrorKind::Unreachable, root(&error)),
        }
    }
}

/// The text of the last cause. The errors above it repeat that text.
fn root(error: &Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    match cause.downcast_ref::<io::Error>().map(io::Error::kind) {
        Some(io::ErrorKind::PermissionDenied) => "permission denied".to_owned(),
        Some(io::ErrorKind::ConnectionRefused) => "connection refused".to_owned(),
        _ => cause.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(named: Option<&str>, env: &[(&str, &str)]) -> Result<Vec<String>, String> {
        let named = named.map(|text| EngineAddress::parse(text).expect("an address"));
        let env = |name: &str| {
            let found = env.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        places(named.as_ref(), env).map(|places| places.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn looks_at_the_given_place_or_else_at_the_usual_places_of_engines() {
        let host = ("DOCKER_HOST", "tcp://engine:2375");
        let runtime = ("XDG_RUNTIME_DIR", "/run/user/1");
        assert_eq!(
            shown(Some("unix:///named"), &[host, runtime]).unwrap(),
            ["unix:///named"]
        );
        assert_eq!(
            shown(None, &[host, runtime]).unwrap(),
            ["tcp://engine:2375"]
        );
        assert_eq!(
            shown(None, &[("DOCKER_HOST", ""), runtime]).unwrap(),
            [
                "unix:///var/run/docker.sock",
                "unix:///run/user/1/docker.sock",
                "unix:///run/user/1/podman/podman.sock",
                "unix:///run/podman/podman.sock",
            ]
        );
        let sockets = shown(None, &[("XDG_RUNTIME_DIR", "relative")]).unwrap();
        assert_eq!(sockets.len(), 2);
    }

    #[test]
    fn reports_settings_of_the_environment_that_it_does_not_support() {
        let ssh = shown(None, &[("DOCKER_HOST", "ssh://engine")]).unwrap_err();
        assert!(
            ssh.contains("$DOCKER_HOST, \"ssh://engine\": write"),
            "{ssh}"
        );
        let tls = [
            ("DOCKER_HOST", "tcp://engine:2376"),
            ("DOCKER_TLS_VERIFY", "1"),
        ];
        let tls = shown(None, &tls).unwrap_err();
        assert!(tls.contains("TLS, which is not built in"), "{tls}");
    }

    #[tokio::test]
    async fn names_every_place_that_was_tried_and_what_was_wrong_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("deserted");
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        let finder = Finder {
            places: Ok(vec![
                EngineAddress::Unix("/no/such/socket".into()),
                EngineAddress::Unix(socket.clone()),
            ]),
            found: Mutex::new(None),
        };
        let error = finder.engine().await.unwrap_err().to_string();
        assert_eq!(
            error,
            format!(
                "failed to start a runner: no container engine answers at unix:///no/such/socket (no such socket), or \
                at unix://{} (connection refused)",
                socket.display()
            )
        );
    }
}
