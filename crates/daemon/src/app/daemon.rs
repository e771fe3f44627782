//! The life of the daemon: start, serve, react to signals, end.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sd_notify::NotifyState;
use thiserror::Error;
use tokio::{
    net::{TcpListener, UnixListener},
    sync::mpsc,
    task::JoinHandle,
    time::Instant,
};
use tracing::{info, warn};

use super::{
    cgroups,
    obstacles::{StartObstacles, with_all_causes},
    orders::OrdersFile,
    pools::Pools,
    reload::{self, Reloader},
    signals::Signals,
    state::{DaemonDecision, DaemonEvent, DaemonState, Ending},
};
use crate::{
    actions::Actions,
    failures::{Events, Failures},
    history::History,
    http::{
        api::Api,
        guard::{Guard, Token, Tokens},
        live::Live,
        routes,
        server::Server,
        socket::{self, InstanceError, SocketFile},
    },
    reloads::Reloads,
    telemetry::{
        events_file::{EventsFile, EventsFileError, EventsWriter},
        otlp::Otlp,
        prometheus::{Prometheus, PrometheusError},
    },
};
use tidegate::{
    builder::{LaunchError, broker_driver},
    config::{HttpSettings, Loaded, PoolConfig, Settings, Source},
    host::{
        cgroup,
        instance::{Instance as Identity, InstanceLock, LockError},
    },
    run::{EventSink, StartOptions, Supervisor, TraceLink},
    runner::BoxError,
};

/// Events that may wait for the daemon. Far more than can occur at once.
const EVENTS: usize = 16;

/// How long a start waits for another supervisor on the same state directory or socket to end.
const PATIENCE: Duration = Duration::from_secs(3);
/// Time between two tries meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What a daemon needs to start.
#[derive(Debug)]
pub struct Options {
    /// The configuration.
    pub loaded: Loaded,
    /// Where the configuration comes from, to read it again.
    pub source: Source,
    /// Takes spans of jobs.
    pub otlp: Option<Otlp>,
}

/// The daemon could not be started.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AppError {
    /// The lock or the socket could not be taken.
    #[error(transparent)]
    Instance(#[from] InstanceError),
    /// Several of the lock, the socket and the address could not be taken.
    #[error(transparent)]
    StartObstacles(StartObstacles),
    /// The HTTP address could not be listened on.
    #[error("listen on {listen}")]
    Listen {
        /// The address.
        listen: std::net::SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A token's file could not be read.
    #[error("read the token in {}", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The events file could not be opened.
    #[error(transparent)]
    Events(#[from] EventsFileError),
    /// Limits on jobs need cgroups that could not be set up.
    #[error("give jobs cgroups of their own")]
    Cgroup(#[source] BoxError),
    /// The recorder could not be installed.
    #[error(transparent)]
    Metrics(#[from] PrometheusError),
    /// The pools could not be started.
    #[error("start the pools")]
    Launch(#[from] LaunchError),
    /// The signal handlers could not be installed.
    #[error("listen to signals")]
    Signals(#[source] io::Error),
}

/// Runs the supervisor until it is told to end. Logs must be set up.
///
/// # Errors
/// Something that the daemon needs is not available. An unreachable broker is no error: the daemon waits for it.
pub async fn run(options: Options) -> Result<Ending, AppError> {
    let Options {
        loaded,
        source,
        otlp,
    } = options;
    // The first step, so that an early signal does not kill the process.
    let signals = Signals::listen().map_err(AppError::Signals)?;
    for warning in &loaded.warnings {
        warn!(place = %warning.place, key = warning.key, "{}", warning.fix);
    }
    for problem in loaded.inspect_machine().iter().chain(&loaded.suspicions()) {
        warn!(place = %problem.place, key = problem.key, found = problem.found, "{}", problem.fix);
    }
    let settings = loaded.settings;
    let instance = match Instance::take_patiently(&settings.http).await {
        Ok(instance) => instance,
        Err(error) => return Err(with_all_causes(error, &settings.http).await),
    };
    let lock = instance.lock.id();
    prepare_cgroups(settings.pools.clone(), lock)
        .await
        .map_err(AppError::Cgroup)?;
    let prometheus = Prometheus::install()?;
    let upkeep = tokio::spawn(prometheus.clone().keep_up());
    let events = settings.events_file.as_deref().map(EventsFile::open);
    let (events, events_writer) = events.transpose()?.unzip();

    let (specs, pools) = Pools::new(instance.identity()).plan(&settings.pools);
    let driver = broker_driver(&settings.broker)?;
    let failures = Failures::default();
    let sink: Arc<dyn EventSink> = Arc::new(Events {
        file: events.clone(),
        failures: failures.clone(),
    });
    let orders = OrdersFile::new(&settings.http.state_dir);
    let options = StartOptions {
        events: Some(sink),
        orders: orders.take_up(),
        store: Some(Arc::new(orders)),
        traces: (otlp.as_ref()).map(|otlp| -> Arc<dyn TraceLink> { Arc::new(otlp.link()) }),
        ..StartOptions::default()
    };
    let supervisor = Supervisor::start_with(driver, specs, options).map_err(LaunchError::from)?;

    let reloads = Reloads::new();
    let (live, feed) = Live::new(supervisor.clone(), reloads.clone());
    let history = History::default();
    let feeds = [
        tokio::spawn(feed),
        tokio::spawn(history.clone().keep(supervisor.clone(), failures.clone())),
    ];
    let reloader = Reloader::new(reload::Inner {
        supervisor: supervisor.clone(),
        source,
        lock,
        started: settings.clone(),
        pools: tokio::sync::Mutex::new(pools),
        events,
        reloads: reloads.clone(),
    });
    let api = Api {
        supervisor: supervisor.clone(),
        prometheus,
        reloads,
        control: Arc::new(reloader.clone()),
        live,
        history,
        failures,
        actions: Actions::default(),
    };
    let daemon = Daemon {
        supervisor,
        reloader,
    };
    let served = instance.serve(api, &settings);
    notify(&[NotifyState::Ready]);

    let ending = daemon.follow(signals).await;
    upkeep.abort();
    // Event streams have no other end.
    for feed in feeds {
        feed.abort();
    }
    close_events(events_writer).await;
    finish_spans(otlp).await;
    if let Some(groups) = cgroup::groups()
        && let Err(panic) = tokio::task::spawn_blocking(|| groups.leave()).await
    {
        warn!(error = %panic, "could not remove the cgroups of jobs");
    }
    served.end().await;
    match ending {
        Ending::Clean => info!("ended"),
        Ending::GivenBack(jobs) => warn!(jobs, "ended; some jobs were stopped and given back"),
    }
    Ok(ending)
}

/// What makes this process the only supervisor here. Taken before anything runs.
struct Instance {
    lock: InstanceLock,
    tcp: Option<(TcpListener, Guard)>,
    unix: UnixListener,
    socket_file: SocketFile,
}

impl Instance {
    /// Like [`take`](Self::take), but waits for a supervisor that is ending. A killed process keeps its files for a
    /// moment, and so does a supervisor that is being replaced.
    async fn take_patiently(http: &HttpSettings) -> Result<Self, AppError> {
        let deadline = Instant::now() + PATIENCE;
        let mut is_waiting = false;
        loop {
            let error = match Self::take(http).await {
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
                    seconds = PATIENCE.as_secs(),
                    "another supervisor is here: waiting for its end"
                );
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn take(http: &HttpSettings) -> Result<Self, AppError> {
        let lock = InstanceLock::take(&http.state_dir).map_err(InstanceError::from)?;
        let tokens = Tokens {
            steer: http.token_file.as_deref().map(token).transpose()?.flatten(),
            read: http
                .read_token_file
                .as_deref()
                .map(token)
                .transpose()?
                .flatten(),
        };
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

    fn identity(&self) -> Identity {
        self.lock.instance().clone()
    }

    /// Serves the API, and logs the addresses in one line.
    fn serve(self, api: Api, settings: &Settings) -> Served {
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
            broker = %settings.broker.url,
            listen,
            socket = %settings.http.socket.display(),
            "started"
        );
        Served {
            server,
            socket_file: self.socket_file,
            lock: self.lock,
        }
    }
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
struct Served {
    server: Server,
    socket_file: SocketFile,
    lock: InstanceLock,
}

impl Served {
    /// The lock is released last. Before that, our socket would block the next instance.
    async fn end(self) {
        self.server.end().await;
        drop(self.socket_file);
        drop(self.lock);
    }
}

/// The running daemon.
struct Daemon {
    supervisor: Supervisor,
    reloader: Reloader,
}

impl Daemon {
    async fn follow(&self, mut signals: Signals) -> Ending {
        let mut state = DaemonState::new();
        let (events, mut inbox) = mpsc::channel(EVENTS);
        loop {
            let event = tokio::select! {
                signal = signals.next() => {
                    info!(signal = ?signal, "received a signal");
                    DaemonEvent::Signal(signal)
                }
                Some(event) = inbox.recv() => event,
            };
            match state.handle(&event) {
                DaemonDecision::Nothing => {}
                DaemonDecision::Drain => {
                    notify(&[NotifyState::Stopping]);
                    info!("draining");
                    let supervisor = self.supervisor.clone();
                    tell(&events, async move {
                        DaemonEvent::Drained(supervisor.shutdown().await)
                    });
                }
                DaemonDecision::StopNow => {
                    notify(&[NotifyState::Stopping]);
                    warn!("stopping at once; running jobs are given back");
                    let supervisor = self.supervisor.clone();
                    tell(&events, async move {
                        DaemonEvent::Stopped(supervisor.stop_now().await)
                    });
                }
                DaemonDecision::Reload => {
                    let reload = self.reloader.clone().reload();
                    tell(&events, async move {
                        // What came of it is logged, and shown by the API.
                        let _ = reload.await;
                        DaemonEvent::Reloaded
                    });
                }
                DaemonDecision::Dump => self.supervisor.dump(),
                DaemonDecision::End(ending) => return ending,
            }
        }
    }
}

/// Prepares the cgroups for these pools' jobs. Blocks while old processes in the cgroups die.
pub(super) async fn prepare_cgroups(
    pools: Vec<PoolConfig>,
    lock: (u64, u64),
) -> Result<(), BoxError> {
    let prepared = tokio::task::spawn_blocking(move || cgroups::prepare(&pools, lock));
    Ok(prepared.await??)
}

/// Runs `work` outside the event loop, which receives its result as an event.
fn tell(
    events: &mpsc::Sender<DaemonEvent>,
    work: impl Future<Output = DaemonEvent> + Send + 'static,
) -> JoinHandle<()> {
    let events = events.clone();
    tokio::spawn(async move {
        // After the daemon's end nobody receives this.
        let _ = events.send(work.await).await;
    })
}

/// Changed keys outside the pools. They need a restart.
pub(super) fn needs_restart(old: &Settings, new: &Settings) -> Vec<&'static str> {
    let differs = [
        ("broker", old.broker != new.broker),
        ("http", old.http != new.http),
        ("log", old.log != new.log),
        ("otlp", old.otlp != new.otlp),
        ("events_file", old.events_file != new.events_file),
    ];
    let differs = differs.into_iter().filter(|(_, differs)| *differs);
    differs.map(|(key, _)| key).collect()
}

async fn close_events(writer: Option<EventsWriter>) {
    let Some(writer) = writer else { return };
    if tokio::task::spawn_blocking(|| writer.close())
        .await
        .is_err()
    {
        warn!("could not write the last events");
    }
}

async fn finish_spans(otlp: Option<Otlp>) {
    let Some(otlp) = otlp else { return };
    if tokio::task::spawn_blocking(move || otlp.finish())
        .await
        .is_err()
    {
        warn!("could not send the last spans");
    }
}

/// Notifies systemd, if systemd started us and asked for it.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(error = %error, "could not notify the service manager");
    }
}
