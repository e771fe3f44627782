//! The lock, the address and the socket of this supervisor: taken before anything runs, and released at the end or
//! handed over to a successor.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    net::{TcpListener, UnixListener},
    task::JoinHandle,
    time::Instant,
};
use tracing::{info, warn};

use super::{error::AppError, obstacles::StartObstacles};
use crate::{
    files::{self, Links},
    http::{
        api::Api,
        guard::{AccessRules, Token, Tokens},
        routes,
        server::Server,
        socket::{self, InstanceError, SocketFile},
    },
};
use tidegate::{
    config::{HttpSettings, Settings},
    host::instance::{FinishingLock, Instance as Identity, InstanceLock, LockError},
    run::chain,
};

/// How long a start waits for another supervisor on the same state directory or socket to end.
const START_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a successor waits for the lock, address and socket of its predecessor. It usually takes less than a second.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(15);
/// The largest file of a token.
const TOKEN_BYTES: u64 = 64 << 10;
/// Time between two tries.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// The locks and addresses that make this process the only supervisor here. Taken before anything runs.
pub(super) struct ClaimedInstance {
    pub(super) lock: InstanceLock,
    tcp: Option<(TcpListener, AccessRules)>,
    unix: UnixListener,
    socket_file: SocketFile,
}

impl ClaimedInstance {
    /// Takes lock, address and socket, but waits for a supervisor that is ending. A killed process keeps its files for
    /// a moment, and so does a supervisor that is being replaced. `successor`: that supervisor has said that it hands
    /// over.
    pub(super) async fn take_patiently(
        http: &HttpSettings,
        tokens: Tokens,
        successor: bool,
    ) -> Result<Self, AppError> {
        let time_limit = match successor {
            true => HANDOVER_TIMEOUT,
            false => START_TIMEOUT,
        };
        let deadline = Instant::now() + time_limit;
        let mut is_waiting = successor;
        loop {
            let error = match Self::take(http, tokens.clone()).await {
                Err(error) if Instant::now() < deadline => error,
                taken => return taken,
            };
            match &error {
                AppError::Instance(
                    InstanceError::Running { .. } | InstanceError::Lock(LockError::Held { .. }),
                ) => {}
                // The port may be held by the supervisor that we wait for, or by any other program.
                AppError::Listen { source, .. }
                    if is_waiting && source.kind() == io::ErrorKind::AddrInUse => {}
                _ => return Err(error),
            }
            if !is_waiting {
                is_waiting = true;
                info!(
                    state_dir = %http.state_dir.display(),
                    seconds = time_limit.as_secs(),
                    "another supervisor is running: waiting until it ends"
                );
            }
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
    }

    async fn take(http: &HttpSettings, tokens: Tokens) -> Result<Self, AppError> {
        let lock = InstanceLock::take(&http.state_dir).map_err(InstanceError::from)?;
        let tcp = match http.listen {
            None => None,
            Some(listen) => {
                let failed = |source| AppError::Listen { listen, source };
                let listener = TcpListener::bind(listen).await.map_err(failed)?;
                let bound = listener.local_addr().map_err(failed)?;
                Some((listener, AccessRules::new(bound, tokens)))
            }
        };
        let (unix, socket_file) = socket::listen(&http.socket)?;
        let unix = UnixListener::from_std(unix).map_err(|source| InstanceError::Listen {
            path: http.socket.clone(),
            source,
        })?;
        Ok(Self {
            lock,
            tcp,
            unix,
            socket_file,
        })
    }

    pub(super) fn identity(&self) -> Identity {
        self.lock.instance().clone()
    }

    /// Serves the API, and logs the addresses in one line. `feeds` end with the server: event streams have no other end.
    pub(super) fn serve(self, api: Api, settings: &Settings, feeds: Vec<JoinHandle<()>>) -> Served {
        let server = Server::new();
        let listen = self.tcp.as_ref().map(|(listener, _)| listener.local_addr());
        let listen = match listen {
            Some(Ok(address)) => address.to_string(),
            _ => "off".to_owned(),
        };
        if let Some((listener, guard)) = self.tcp {
            server.serve(listener, routes::guarded(api.clone(), guard));
        }
        server.serve(self.unix, routes::router(api));
        info!(
            version = env!("CARGO_PKG_VERSION"),
            pools = settings.pools.len(),
            broker = %settings.broker,
            listen,
            socket = %settings.http.socket.display(),
            "started"
        );
        Served {
            server,
            socket_file: self.socket_file,
            lock: self.lock,
            feeds,
        }
    }
}

/// The error of a start, with all other causes that would make the start fail, so that the operator can fix them at
/// once. Releases everything that it takes for the check.
pub(super) async fn with_all_causes(first: AppError, http: &HttpSettings) -> AppError {
    if !matches!(first, AppError::Instance(_) | AppError::Listen { .. }) {
        return first;
    }
    let mut found: Vec<(&'static str, String)> = Vec::new();
    if let Err(error) = InstanceLock::take(&http.state_dir) {
        found.push(("state_dir", operation(&error)));
    }
    if let Err(error) = socket::listen(&http.socket) {
        found.push(("socket", operation(&error)));
    }
    if let Some(listen) = http.listen
        && let Err(source) = TcpListener::bind(listen).await
    {
        found.push(("listen", operation(&AppError::Listen { listen, source })));
    }
    // The cause may have passed by now.
    match StartObstacles::of(found) {
        Some(obstacles) if obstacles.are_several() => AppError::StartObstacles(obstacles),
        _ => first,
    }
}

/// The failure and its causes, without the first words of an error of the library.
fn operation(error: &dyn std::error::Error) -> String {
    let text = chain(error);
    text.strip_prefix("failed to ")
        .map_or(text.clone(), str::to_owned)
}

/// The tokens in the configured files.
pub(super) fn tokens(http: &HttpSettings) -> Result<Tokens, AppError> {
    let read = |path: &Option<PathBuf>| -> Result<_, AppError> {
        Ok(path.as_deref().map(token).transpose()?.flatten())
    };
    Ok(Tokens {
        steer: read(&http.token_file)?,
        read: read(&http.read_token_file)?,
    })
}

/// The token in a file.
fn token(path: &Path) -> Result<Option<Token>, AppError> {
    let text =
        files::read_text(path, Links::Follow, TOKEN_BYTES).map_err(|source| AppError::Token {
            path: path.to_owned(),
            source,
        })?;
    Ok(Token::new(&text))
}

/// An instance that serves its API.
pub(super) struct Served {
    server: Server,
    socket_file: SocketFile,
    lock: InstanceLock,
    feeds: Vec<JoinHandle<()>>,
}

impl Served {
    /// Takes the lock by which other processes see that this supervisor is alive after it has handed over.
    pub(super) fn finishing(&self) -> Result<FinishingLock, LockError> {
        self.lock.finishing()
    }

    /// Ends the server, and releases everything that the next instance needs.
    pub(super) async fn end(self) {
        self.end_after(std::future::ready(())).await;
    }

    /// Like `end`, but waits for `last` before it releases the socket and the lock. The lock is released last, because
    /// our socket would block a next instance that has the lock.
    pub(super) async fn end_after(self, last: impl Future<Output = ()>) {
        for feed in &self.feeds {
            feed.abort();
        }
        self.server.end().await;
        last.await;
        drop(self.socket_file);
        drop(self.lock);
    }
}

/// The resources of a supervisor that has handed over: a lock that shows others that it is alive, and a socket that says
/// which jobs it still runs.
pub(super) struct LastJobs {
    server: Server,
    /// `None` if the socket could not be made. The jobs are finished all the same.
    socket_file: Option<SocketFile>,
    lock: FinishingLock,
}

impl LastJobs {
    pub(super) fn serve(lock: FinishingLock, api: Api) -> Self {
        let server = Server::new();
        let listener = socket::listen(&lock.socket()).and_then(|(listener, file)| {
            let path = lock.socket();
            let failed = |source| InstanceError::Listen { path, source };
            Ok((UnixListener::from_std(listener).map_err(failed)?, file))
        });
        let socket_file = match listener {
            Ok((listener, file)) => {
                server.serve(listener, routes::last_jobs(api));
                Some(file)
            }
            Err(error) => {
                warn!(
                    error = chain(&error),
                    "the successor cannot show the jobs that still run here"
                );
                None
            }
        };
        Self {
            server,
            socket_file,
            lock,
        }
    }

    pub(super) async fn end(self) {
        self.server.end().await;
        drop(self.socket_file);
        drop(self.lock);
    }
}
