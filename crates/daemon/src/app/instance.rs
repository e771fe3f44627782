//! The lock, the address and the socket of this supervisor: taken before anything runs, released at the end, or given
//! away to a successor.

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
use tracing::info;

use super::daemon::AppError;
use crate::http::{
    api::Api,
    guard::{Guard, Token, Tokens},
    routes,
    server::Server,
    socket::{self, InstanceError, SocketFile},
};
use tidegate::{
    config::{HttpSettings, Settings},
    host::instance::{FinishingLock, Instance as Identity, InstanceLock, LockError},
};

/// How long a start waits for another supervisor on the same state directory or socket to end.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a successor waits for what its predecessor gives away. That takes about a second at most.
const HANDOVER: Duration = Duration::from_secs(15);
/// Time between two tries meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What makes this process the only supervisor here. Taken before anything runs.
pub(super) struct Instance {
    pub(super) lock: InstanceLock,
    tcp: Option<(TcpListener, Guard)>,
    unix: UnixListener,
    socket_file: SocketFile,
}

impl Instance {
    /// Takes lock, address and socket, but waits for a supervisor that is ending. A killed process keeps its files for
    /// a moment, and so does a supervisor that is being replaced. `successor`: that supervisor has said that it hands
    /// over.
    pub(super) async fn take_patiently(
        http: &HttpSettings,
        tokens: Tokens,
        successor: bool,
    ) -> Result<Self, AppError> {
        let patience = match successor {
            true => HANDOVER,
            false => PATIENCE,
        };
        let deadline = Instant::now() + patience;
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
                    seconds = patience.as_secs(),
                    "another supervisor is here: waiting for its end"
                );
            }
            tokio::time::sleep(LOOK_AGAIN).await;
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
                Some((listener, Guard::new(bound, tokens)))
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
    let text = std::fs::read_to_string(path).map_err(|source| AppError::Token {
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
    /// Takes the lock that keeps this supervisor alive in the eyes of others after it has handed over.
    pub(super) fn finishing(&self) -> Result<FinishingLock, LockError> {
        self.lock.finishing()
    }

    /// Ends the server, and releases everything that the next instance needs.
    pub(super) async fn end(self) {
        self.end_after(std::future::ready(())).await;
    }

    /// The same, but keeps the lock until `last` is over. The lock is released last. Before that, our socket would block
    /// the next instance.
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
