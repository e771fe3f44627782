//! The daemon's life: put together, served, told what to do, taken apart.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use sd_notify::NotifyState;
use thiserror::Error;
use tokio::{
    net::{TcpListener, UnixListener},
    sync::mpsc,
    task::JoinHandle,
    time::Instant,
};
use tracing::{error, info, warn};

use super::{
    cgroups,
    orders::OrdersFile,
    places::{InTheWay, with_the_others},
    pools::Pools,
    signals::Signals,
    state::{Decision, Ending, Event, State},
};
use crate::{
    guard,
    http::{
        guard::{Guard, Token},
        routes::{self, Api},
        server::Server,
        socket::{self, InstanceError, SocketFile},
    },
    reloads::Reloads,
    telemetry::{
        events_file::{EventsFile, EventsFileError, EventsWriter},
        prometheus::{Prometheus, PrometheusError},
    },
};
use tidegate::{
    adapters::{
        cgroup,
        instance::{Instance as Identity, InstanceLock, LockError},
    },
    builder::{LaunchError, broker_driver},
    config::{self, HttpSettings, Loaded, PoolConfig, Settings, Source},
    run::{EventSink, StartOptions, Supervisor, chain},
    runner::BoxError,
};

/// Events that may wait for the daemon: far more than can be under way.
const EVENTS: usize = 16;

/// How long a start waits for the end of another supervisor on the same state directory or socket.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often it looks again meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What a daemon is started with.
#[derive(Debug)]
pub struct Options {
    /// The configuration.
    pub loaded: Loaded,
    /// Where it comes from, to read it again.
    pub source: Source,
}

/// The daemon could not be started.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AppError {
    /// The lock or the socket could not be had.
    #[error(transparent)]
    Instance(#[from] InstanceError),
    /// Several of the lock, the socket and the address could not be had.
    #[error(transparent)]
    InTheWay(InTheWay),
    /// The HTTP address could not be listened on.
    #[error("listen on {listen}")]
    Listen {
        /// The address.
        listen: std::net::SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The token's file could not be read.
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
    /// Jobs' limits depend on cgroups that could not be had.
    #[error("give jobs cgroups of their own")]
    Cgroup(#[source] BoxError),
    /// The recorder could not be installed.
    #[error(transparent)]
    Metrics(#[from] PrometheusError),
    /// The pools could not be started.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// The signals could not be listened to.
    #[error("listen to signals")]
    Signals(#[source] io::Error),
}

/// Runs the supervisor until it is told to end. Logs must have been set up.
///
/// # Errors
/// Something that it needs could not be had. A broker that is not there is waited for, and no error.
pub async fn run(options: Options) -> Result<Ending, AppError> {
    let Options { loaded, source } = options;
    // Before anything else, so that a signal which comes early is not the end of the process.
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
        Err(error) => return Err(with_the_others(error, &settings.http).await),
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
    let sink = events
        .clone()
        .map(|file| Arc::new(file) as Arc<dyn EventSink>);
    let orders = OrdersFile::new(&settings.http.state_dir);
    let options = StartOptions {
        events: sink,
        orders: orders.take_up(),
        store: Some(Arc::new(orders)),
        ..StartOptions::default()
    };
    let supervisor = Supervisor::start_with(driver, specs, options).map_err(LaunchError::from)?;

    let reloads = Reloads::new();
    let api = Api {
        supervisor: supervisor.clone(),
        prometheus,
        reloads: reloads.clone(),
    };
    let daemon = Daemon {
        supervisor,
        source,
        lock,
        settings,
        pools: Arc::new(tokio::sync::Mutex::new(pools)),
        events,
        reloads,
    };
    let served = instance.serve(api, &daemon.settings);
    notify(&[NotifyState::Ready]);

    let ending = daemon.follow(signals).await;
    upkeep.abort();
    close_events(events_writer).await;
    if let Some(groups) = cgroup::groups()
        && let Err(panic) = tokio::task::spawn_blocking(|| groups.leave()).await
    {
        warn!(error = %panic, "could not remove the cgroups of jobs");
    }
    served.end().await;
    match ending {
        Ending::Clean => info!("ended"),
        Ending::GivenBack(jobs) => warn!(jobs, "ended, with jobs that were stopped and given back"),
    }
    Ok(ending)
}

/// What makes this process the one supervisor here: taken before anything runs.
struct Instance {
    lock: InstanceLock,
    tcp: Option<(TcpListener, Guard)>,
    unix: UnixListener,
    socket_file: SocketFile,
}

impl Instance {
    /// As [`take`](Self::take), once one that is on its way out has ended: a process that was killed has its files a
    /// little longer, and so has one that is being replaced.
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
                // What holds the port may be the one that we wait for, or anything.
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
        let token = match &http.token_file {
            None => None,
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|source| AppError::Token {
                    path: path.clone(),
                    source,
                })?;
                Token::new(&text)
            }
        };
        let tcp = match http.listen {
            None => None,
            Some(listen) => {
                let failed = |source| AppError::Listen { listen, source };
                let listener = TcpListener::bind(listen).await.map_err(failed)?;
                let bound = listener.local_addr().map_err(failed)?;
                if !bound.ip().to_canonical().is_loopback() && token.is_none() {
                    warn!(
                        listen = %bound,
                        "without http.token_file only health and metrics are served beyond this machine"
                    );
                }
                Some((listener, Guard::new(bound, token)))
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

    /// Serves the API, and says in one line where.
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

/// An instance that can be asked.
struct Served {
    server: Server,
    socket_file: SocketFile,
    lock: InstanceLock,
}

impl Served {
    /// The lock goes last: until then the next instance would find our socket in its way.
    async fn end(self) {
        self.server.end().await;
        drop(self.socket_file);
        drop(self.lock);
    }
}

/// The running daemon.
struct Daemon {
    supervisor: Supervisor,
    source: Source,
    /// Tells this instance from others.
    lock: (u64, u64),
    /// As it was started: what only a restart changes is compared with these.
    settings: Settings,
    /// Written by one reload at a time.
    pools: Arc<tokio::sync::Mutex<Pools>>,
    events: Option<EventsFile>,
    reloads: Reloads,
}

impl Daemon {
    async fn follow(&self, mut signals: Signals) -> Ending {
        let mut state = State::new();
        let (events, mut inbox) = mpsc::channel(EVENTS);
        loop {
            let event = tokio::select! {
                signal = signals.next() => {
                    info!(signal = ?signal, "was sent a signal");
                    Event::Signal(signal)
                }
                Some(event) = inbox.recv() => event,
            };
            match state.handle(&event) {
                Decision::Nothing => {}
                Decision::Drain => {
                    notify(&[NotifyState::Stopping]);
                    info!("draining");
                    let supervisor = self.supervisor.clone();
                    tell(&events, async move {
                        Event::Drained(supervisor.shutdown().await)
                    });
                }
                Decision::StopNow => {
                    notify(&[NotifyState::Stopping]);
                    warn!("stopping at once; what runs is given back");
                    let supervisor = self.supervisor.clone();
                    tell(&events, async move {
                        Event::Stopped(supervisor.stop_now().await)
                    });
                }
                Decision::Reload => {
                    let reload = self.reload();
                    tell(&events, async move {
                        reload.await;
                        Event::Reloaded
                    });
                }
                Decision::Dump => self.supervisor.dump(),
                Decision::End(ending) => return ending,
            }
        }
    }

    /// Reads the configuration again and takes it over, or refuses it whole.
    fn reload(&self) -> impl Future<Output = ()> + Send + 'static {
        if let Some(events) = &self.events {
            events.reopen();
        }
        let (source, started) = (self.source.clone(), self.settings.clone());
        let lock = self.lock;
        let (supervisor, pools) = (self.supervisor.clone(), Arc::clone(&self.pools));
        let reloads = self.reloads.clone();
        async move {
            let file = source.file().display().to_string();
            let read = tokio::task::spawn_blocking(move || {
                let loaded = config::load(&source)?;
                let problems = loaded.inspect_limits(guard::pid());
                problems.is_empty().then_some(loaded).ok_or(problems)
            });
            let loaded = match read.await {
                Ok(Ok(loaded)) => loaded,
                Ok(Err(problems)) => {
                    let why = problems.iter().map(ToString::to_string);
                    reloads.refused(&file, why.collect());
                    for problem in &problems {
                        error!(
                            place = %problem.place,
                            key = problem.key,
                            found = problem.found,
                            fix = problem.fix,
                            "a problem in the configuration"
                        );
                    }
                    error!(
                        file,
                        problems = problems.len(),
                        "refused the configuration; the old one stays"
                    );
                    return;
                }
                Err(panic) => {
                    reloads.refused(&file, vec![format!("failed to read it: {panic}")]);
                    error!(error = %panic, "could not read the configuration; the old one stays");
                    return;
                }
            };
            for key in needs_restart(&started, &loaded.settings) {
                warn!(key, "changed, which takes effect at the next start");
            }
            let mut current = pools.lock().await;
            if let Err(error) = prepare_cgroups(loaded.settings.pools.clone(), lock).await {
                let error = chain(&*error);
                reloads.refused(&file, vec![format!("failed to {error}")]);
                error!(error, "refused the configuration; the old one stays");
                return;
            }
            let (specs, new) = current.plan(&loaded.settings.pools);
            let count = specs.len();
            match supervisor.reconfigure(specs).await {
                Ok(()) => {
                    let changes = new.changes_since(&current);
                    *current = new;
                    reloads.taken();
                    info!(
                        file,
                        pools = count,
                        added = changes.added,
                        removed = changes.removed,
                        changed = changes.changed,
                        "took the configuration over"
                    );
                }
                Err(error) => {
                    reloads.refused(&file, vec![format!("failed to {error}")]);
                    error!(error = %error, "refused the configuration; the old one stays");
                }
            }
        }
    }
}

/// Sees to the cgroups of these pools' jobs. What dies in there may take a moment.
async fn prepare_cgroups(pools: Vec<PoolConfig>, lock: (u64, u64)) -> Result<(), BoxError> {
    let prepared = tokio::task::spawn_blocking(move || cgroups::prepare(&pools, lock));
    Ok(prepared.await??)
}

/// Does something beside the event loop, which hears of its end.
fn tell(
    events: &mpsc::Sender<Event>,
    work: impl Future<Output = Event> + Send + 'static,
) -> JoinHandle<()> {
    let events = events.clone();
    tokio::spawn(async move {
        // Nobody listens once the daemon has ended.
        let _ = events.send(work.await).await;
    })
}

/// Keys outside the pools that differ.
fn needs_restart(old: &Settings, new: &Settings) -> Vec<&'static str> {
    let differs = [
        ("broker", old.broker != new.broker),
        ("http", old.http != new.http),
        ("log", old.log != new.log),
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

/// Tells systemd, where it started us and wants to know.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(error = %error, "could not notify the service manager");
    }
}
