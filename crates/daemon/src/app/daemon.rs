//! The life of the daemon: start, serve, react to signals, end.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use sd_notify::NotifyState;
use thiserror::Error;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tracing::{info, warn};

use super::{
    cgroups,
    control::{DaemonControl, HandOverRequest},
    instance::{self, Instance, Served},
    obstacles::{StartObstacles, with_all_causes},
    orders::OrdersFile,
    pools::Pools,
    reload::{self, Reloader},
    signals::Signals,
    state::{DaemonDecision, DaemonEvent, DaemonState, Ending},
};
use crate::{
    actions::Actions,
    dead::DeadLetters,
    failures::{Events, Failures},
    guard,
    history::History,
    http::{api::Api, guard::Tokens, live::Live, socket::InstanceError},
    management::Management,
    recordings,
    reloads::Reloads,
    telemetry::{
        events_file::{EventsFile, EventsFileError, EventsWriter},
        otlp::Otlp,
        prometheus::{Prometheus, PrometheusError},
    },
};
use tidegate::{
    api::v1,
    builder::{LaunchError, broker_driver},
    config::{Loaded, PoolConfig, Settings, Source},
    host::{
        cgroup,
        instance::{FinishingLock, finishing},
    },
    queue::{HoldingsView, QueueDriver},
    run::{EventSink, StartOptions, Supervisor, TraceLink, chain},
    runner::BoxError,
};

/// Events that may wait for the daemon. Far more than can occur at once.
const EVENTS: usize = 16;

/// How long a supervisor that hands over waits until the last orders of operators are stored.
const STORED: Duration = Duration::from_secs(2);

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

/// A daemon that is ready to start. It does not yet hold anything that only one supervisor may hold.
pub struct Prepared {
    settings: Settings,
    source: Source,
    signals: Signals,
    tokens: Tokens,
    driver: Arc<dyn QueueDriver>,
    prometheus: Prometheus,
    events: Option<EventsFile>,
    events_writer: Option<EventsWriter>,
    otlp: Option<Otlp>,
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared").finish_non_exhaustive()
    }
}

impl Prepared {
    /// Does each step that can fail and that needs nothing that another, running supervisor holds. Logs must be
    /// set up.
    ///
    /// # Errors
    /// Something that the daemon needs is not available.
    pub fn new(options: Options) -> Result<Self, AppError> {
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
        let tokens = instance::tokens(&settings.http)?;
        let driver = broker_driver(&settings.broker)?;
        let prometheus = Prometheus::install()?;
        let events = settings.events_file.as_deref().map(EventsFile::open);
        let (events, events_writer) = events.transpose()?.unzip();
        Ok(Self {
            settings,
            source,
            signals,
            tokens,
            driver,
            prometheus,
            events,
            events_writer,
            otlp,
        })
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Runs the supervisor until it is told to end. `predecessor` is a supervisor that hands over to this one.
    ///
    /// # Errors
    /// Something that the daemon needs is not available. An unreachable broker is no error: the daemon waits for it.
    pub async fn run(self, predecessor: Option<v1::HandedOver>) -> Result<Ending, AppError> {
        let Self {
            settings,
            source,
            signals,
            tokens,
            driver,
            prometheus,
            events,
            events_writer,
            otlp,
        } = self;
        let taken = Instance::take_patiently(&settings.http, tokens, predecessor.is_some()).await;
        let instance = match taken {
            Ok(instance) => instance,
            Err(error) => return Err(with_all_causes(error, &settings.http).await),
        };
        if let Some(v1::HandedOver { pid, jobs }) = predecessor {
            info!(
                predecessor = pid,
                jobs, "took over; the predecessor finishes its jobs"
            );
        }
        let lock = instance.lock.id();
        prepare_cgroups(&settings.pools, lock, &settings.http.state_dir)
            .await
            .map_err(AppError::Cgroup)?;
        let upkeep = tokio::spawn(prometheus.clone().keep_up());

        let (specs, pools) = Pools::new(instance.identity()).plan(&settings.pools);
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
            limits: settings.supervisor,
            traces: (otlp.as_ref()).map(|otlp| -> Arc<dyn TraceLink> { Arc::new(otlp.link()) }),
            holdings: holdings(&settings),
            ..StartOptions::default()
        };
        let supervisor =
            Supervisor::start_with(driver, specs, options).map_err(LaunchError::from)?;

        let reloads = Reloads::new();
        let (live, feed) = Live::new(supervisor.clone(), reloads.clone());
        let history = History::default();
        let feeds = vec![
            tokio::spawn(feed),
            tokio::spawn(history.clone().keep(supervisor.clone(), failures.clone())),
            tokio::spawn(recordings::keep(
                supervisor.clone(),
                settings.http.state_dir.clone(),
            )),
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
        let (handovers, takeovers) = mpsc::channel(1);
        let control = DaemonControl {
            reloader: reloader.clone(),
            handovers,
            lock,
        };
        let api = Api {
            supervisor: supervisor.clone(),
            prometheus,
            reloads,
            control: Arc::new(control),
            live,
            history,
            failures,
            actions: Actions::default(),
            dead: DeadLetters::at(settings.broker.clone()),
        };
        let mut daemon = Daemon {
            supervisor,
            reloader,
            holding: Holding::Everything(instance.serve(api, &settings, feeds)),
        };
        notify_ready(predecessor.is_some());

        let ending = daemon.follow(signals, takeovers).await;
        upkeep.abort();
        close_events(events_writer).await;
        finish_spans(otlp).await;
        if let Some(groups) = cgroup::groups()
            && let Err(panic) = tokio::task::spawn_blocking(|| groups.leave()).await
        {
            warn!(error = %panic, "could not remove the cgroups of jobs");
        }
        daemon.holding.release().await;
        match ending {
            Ending::Clean => info!("ended"),
            Ending::GivenBack(messages) => {
                warn!(messages, "ended; unfinished messages were given back")
            }
        }
        Ok(ending)
    }
}

/// The running daemon.
struct Daemon {
    supervisor: Supervisor,
    reloader: Reloader,
    holding: Holding,
}

/// What the daemon holds that no other may hold at the same time.
enum Holding {
    /// Lock, socket and address.
    Everything(Served),
    /// Lock, socket and address were given to a successor. This lock shows others that this daemon is still alive.
    LastJobs(#[expect(dead_code, reason = "held until it is dropped")] FinishingLock),
    /// Only while they are being given away.
    Nothing,
}

impl Holding {
    async fn release(self) {
        if let Self::Everything(served) = self {
            served.end().await;
        }
    }
}

impl Daemon {
    async fn follow(
        &mut self,
        mut signals: Signals,
        mut takeovers: mpsc::Receiver<HandOverRequest>,
    ) -> Ending {
        let mut state = DaemonState::new();
        let (events, mut inbox) = mpsc::channel(EVENTS);
        loop {
            let mut takeover = None;
            let event = tokio::select! {
                signal = signals.next() => {
                    info!(signal = signal.as_str(), "received a signal");
                    DaemonEvent::Signal(signal)
                }
                Some(event) = inbox.recv() => event,
                Some(request) = takeovers.recv() => match self.may_hand_over(request) {
                    Some(accepted) => {
                        takeover = Some(accepted);
                        DaemonEvent::Takeover
                    }
                    None => continue,
                }
            };
            match state.handle(&event) {
                // A takeover that is not accepted is answered by dropping it: this supervisor is ending.
                DaemonDecision::Nothing => {}
                DaemonDecision::HandOver => {
                    let Some((answer, finishing)) = takeover else {
                        continue;
                    };
                    let jobs = self.busy();
                    let pid = std::process::id();
                    // From here on the successor relies on the handover. A successor that is gone would run no pool.
                    if answer.send(Ok(v1::HandedOver { pid, jobs })).is_err() {
                        warn!("not handing over: the successor is gone");
                        state.not_handed_over();
                        continue;
                    }
                    info!(
                        jobs,
                        "handing over to a successor; finishing the running jobs"
                    );
                    let supervisor = self.supervisor.clone();
                    tell(&events, async move {
                        DaemonEvent::Drained(supervisor.drain(Duration::MAX).await)
                    });
                    self.hand_over(finishing).await;
                }
                DaemonDecision::Drain => {
                    self.notify_stopping();
                    info!("draining");
                    let supervisor = self.supervisor.clone();
                    tell(&events, async move {
                        DaemonEvent::Drained(supervisor.shutdown().await)
                    });
                }
                DaemonDecision::StopNow => {
                    self.notify_stopping();
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

    /// Takes the lock that a supervisor needs to hand over. Answers a request that cannot be accepted.
    fn may_hand_over(&self, request: HandOverRequest) -> Option<Accepted> {
        let HandOverRequest { before, answer } = request;
        let refuse = |answer: oneshot::Sender<_>, why: String| {
            warn!(why, "not handing over to a successor");
            // The caller may have left.
            let _ = answer.send(Err(why));
        };
        if before < Timestamp::now() {
            refuse(answer, "the successor does not wait any longer".to_owned());
            return None;
        }
        let Holding::Everything(served) = &self.holding else {
            refuse(
                answer,
                "the supervisor already hands over to another successor".to_owned(),
            );
            return None;
        };
        match served.finishing() {
            Ok(finishing) => Some((answer, finishing)),
            Err(error) => {
                refuse(
                    answer,
                    format!("the supervisor failed to {}", chain(&error)),
                );
                None
            }
        }
    }

    /// Gives lock, socket and address away.
    async fn hand_over(&mut self, finishing: FinishingLock) {
        if let Holding::Everything(served) = std::mem::replace(&mut self.holding, Holding::Nothing)
        {
            // The successor reads the operators' orders when it has the lock.
            let stored = tokio::time::timeout(STORED, self.supervisor.orders_stored());
            let stored = async {
                let _ = stored.await;
            };
            served.end_after(stored).await;
        }
        self.holding = Holding::LastJobs(finishing);
        info!("handed over");
    }

    /// Jobs that run now.
    fn busy(&self) -> u32 {
        let pools = self.supervisor.pools();
        pools.iter().map(|pool| pool.runners.busy).sum()
    }

    /// Tells systemd that the service stops. After a handover it does not: the successor is the service.
    fn notify_stopping(&self) {
        if matches!(self.holding, Holding::Everything(_)) {
            notify(&[NotifyState::Stopping]);
        }
    }
}

/// A takeover that can be accepted: where its answer goes, and the lock that it needs.
type Accepted = (
    oneshot::Sender<Result<v1::HandedOver, String>>,
    FinishingLock,
);

/// Prepares the cgroups for these pools' jobs. Blocks while old processes in the cgroups die.
pub(super) async fn prepare_cgroups(
    pools: &[PoolConfig],
    lock: (u64, u64),
    state_dir: &Path,
) -> Result<(), BoxError> {
    let (pools, state_dir) = (pools.to_vec(), state_dir.to_owned());
    let prepared =
        tokio::task::spawn_blocking(move || cgroups::prepare(&pools, lock, &finishing(&state_dir)));
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
        ("broker.management_url", old.management != new.management),
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

/// Tells systemd that the service has started. A successor also names the main process of the service. Until now
/// this was the predecessor's guard.
fn notify_ready(is_successor: bool) {
    let main = guard::pid().map_or_else(std::process::id, |guard| guard.as_raw().cast_unsigned());
    match is_successor {
        true => notify(&[NotifyState::MainPid(main), NotifyState::Ready]),
        false => notify(&[NotifyState::Ready]),
    }
}

/// Notifies systemd, if systemd started us and asked for it.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(error = %error, "could not notify the service manager");
    }
}

/// What shows the messages that programs hold which consume a queue themselves. `None` without a management API.
fn holdings(settings: &Settings) -> Option<Arc<dyn HoldingsView>> {
    let url = settings.management.as_ref()?;
    let broker = &settings.broker;
    match Management::new(url, &broker.url, broker.tls.ca.as_deref()) {
        Ok(management) => Some(Arc::new(management)),
        Err(error) => {
            let error = format!("failed to {}", chain(&error));
            warn!(
                error,
                "the management API cannot be asked: what programs hold is assumed"
            );
            None
        }
    }
}
