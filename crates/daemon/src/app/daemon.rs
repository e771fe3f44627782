//! The life of the daemon: start, serve, react to signals, end.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use sd_notify::NotifyState;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tracing::{info, warn};

use super::{
    cgroups,
    control::{DaemonControl, HandOverRequest},
    error::AppError,
    instance::{self, ClaimedInstance, LastJobs, Served, with_all_causes},
    orders::OrdersFile,
    pools::PoolManagers,
    reload::{self, Reloader},
    signals::DaemonSignals,
    state::{DaemonDecision, DaemonEvent, DaemonState, Ending},
};
use crate::{
    actions::Actions,
    dead::DeadLetterAccess,
    failures::{Events, Failures},
    guard,
    history::PoolHistory,
    http::{api::Api, guard::Tokens, live::LiveStreams},
    lab::trials::Trials,
    management::Management,
    predecessors::Predecessors,
    recordings,
    reloads::Reloads,
    telemetry::{
        events_file::{EventsFile, EventsWriter},
        otlp::Otlp,
        prometheus::Prometheus,
    },
    view::View,
};
use tidegate::{
    api::v1,
    builder::{LaunchError, broker_driver},
    config::{HttpSettings, Loaded, Settings, Source},
    host::{cgroup, instance::FinishingLock},
    queue::{HoldingsView, QueueDriver},
    run::{EventSink, StartOptions, Supervisor, TraceLink, chain},
};

/// Events that may wait for the daemon. Far more than can occur at once.
const EVENTS: usize = 16;

/// How long a supervisor that hands over waits until the last orders of operators are stored.
const STORED: Duration = Duration::from_secs(2);

/// The inputs of a daemon's start.
#[derive(Debug)]
pub struct Options {
    /// The configuration.
    pub loaded: Loaded,
    /// Where the configuration comes from, to read it again.
    pub source: Source,
    /// Takes spans of jobs.
    pub otlp: Option<Otlp>,
}

/// A daemon that is ready to start. It does not yet hold anything that only one supervisor may hold.
pub struct PreparedDaemon {
    settings: Settings,
    source: Source,
    signals: DaemonSignals,
    tokens: Tokens,
    driver: Arc<dyn QueueDriver>,
    prometheus: Prometheus,
    events: Option<EventsFile>,
    events_writer: Option<EventsWriter>,
    otlp: Option<Otlp>,
}

impl std::fmt::Debug for PreparedDaemon {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PreparedDaemon").finish_non_exhaustive()
    }
}

impl PreparedDaemon {
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
        let signals = DaemonSignals::listen().map_err(AppError::Signals)?;
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
    /// Something that the daemon needs is not available. An unreachable broker is not an error: the daemon waits for
    /// it.
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
        let instance = claim(&settings.http, tokens, predecessor.as_ref()).await?;
        let lock = instance.lock.id();
        cgroups::prepare(&settings.pools, lock, &settings.http.state_dir)
            .await
            .map_err(AppError::Cgroup)?;

        let (specs, pools) = PoolManagers::new(instance.identity()).plan(&settings.pools);
        let failures = Failures::default();
        let sink: Arc<dyn EventSink> = Arc::new(Events {
            file: events.clone(),
            failures: failures.clone(),
        });
        let orders = OrdersFile::new(&settings.http.state_dir);
        let options = StartOptions {
            events: Some(sink),
            orders: orders.restore(),
            store: Some(Arc::new(orders)),
            limits: settings.supervisor,
            traces: (otlp.as_ref()).map(|otlp| -> Arc<dyn TraceLink> { Arc::new(otlp.link()) }),
            holdings: holdings(&settings),
            ..StartOptions::default()
        };
        let supervisor =
            Supervisor::start_with(driver, specs, options).map_err(LaunchError::from)?;

        let reloads = Reloads::new();
        let view = View {
            reloads: reloads.clone(),
            predecessors: Predecessors::default(),
        };
        let (live, feed) = LiveStreams::new(supervisor.clone(), view.clone());
        let history = PoolHistory::default();
        let feeds = vec![
            tokio::spawn(feed),
            tokio::spawn(history.clone().keep(supervisor.clone(), failures.clone())),
            tokio::spawn(recordings::keep(
                supervisor.clone(),
                settings.http.state_dir.clone(),
            )),
            tokio::spawn((view.predecessors.clone()).keep(settings.http.state_dir.clone())),
        ];
        let reloader = Reloader::new(reload::ReloadContext {
            supervisor: supervisor.clone(),
            source,
            lock,
            started: settings.clone(),
            pools: tokio::sync::Mutex::new(pools),
            events,
            reloads,
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
            view,
            control: Arc::new(control),
            live,
            history,
            failures,
            actions: Actions::default(),
            dead: DeadLetterAccess::at(settings.broker.clone()),
            trials: Trials::new(settings.http.state_dir.clone()),
        };
        let mut daemon = Daemon {
            supervisor,
            reloader,
            holding: Holding::Everything(instance.serve(api.clone(), &settings, feeds)),
            api,
        };
        notify_ready(predecessor.is_some());

        let ending = daemon.follow(signals, takeovers).await;
        close_events(events_writer).await;
        finish_spans(otlp).await;
        if let Some(groups) = cgroup::groups()
            && let Err(panic) = tokio::task::spawn_blocking(|| groups.leave()).await
        {
            warn!(error = %panic, "could not remove the cgroups of jobs");
        }
        daemon.holding.release().await;
        log_end(&ending);
        Ok(ending)
    }
}

/// Takes what only one daemon may have. `predecessor` has just handed over, and may still hold it for a moment.
async fn claim(
    http: &HttpSettings,
    tokens: Tokens,
    predecessor: Option<&v1::HandedOver>,
) -> Result<ClaimedInstance, AppError> {
    let taken = ClaimedInstance::take_patiently(http, tokens, predecessor.is_some()).await;
    let instance = match taken {
        Ok(instance) => instance,
        Err(error) => return Err(with_all_causes(error, http).await),
    };
    if let Some(v1::HandedOver { pid, jobs }) = predecessor {
        info!(
            predecessor = pid,
            jobs, "took over; the predecessor finishes its jobs"
        );
    }
    Ok(instance)
}

fn log_end(ending: &Ending) {
    match ending {
        Ending::Clean => info!("ended"),
        Ending::GivenBack(unfinished) => warn!(
            unfinished,
            "ended; unfinished jobs and programs were given back"
        ),
    }
}

/// The running daemon.
struct Daemon {
    supervisor: Supervisor,
    reloader: Reloader,
    holding: Holding,
    api: Api,
}

/// The resources that only one daemon may hold at a time.
enum Holding {
    /// Lock, socket and address.
    Everything(Served),
    /// Lock, socket and address were given to a successor.
    LastJobs(LastJobs),
    /// Only while they are being given away.
    Nothing,
}

impl Holding {
    async fn release(self) {
        match self {
            Self::Everything(served) => served.end().await,
            Self::LastJobs(last) => last.end().await,
            Self::Nothing => {}
        }
    }
}

impl Daemon {
    async fn follow(
        &mut self,
        mut signals: DaemonSignals,
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
                    // From here on the successor relies on the handover. If the successor has ended, no daemon would
                    // run the pools.
                    if answer.send(Ok(v1::HandedOver { pid, jobs })).is_err() {
                        warn!("not handing over: the successor has disconnected");
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
                refuse(answer, format!("the supervisor {}", chain(&error)));
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
        self.holding = Holding::LastJobs(LastJobs::serve(finishing, self.api.clone()));
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

/// A takeover that can be accepted: the channel for its answer, and the lock that it needs.
type Accepted = (
    oneshot::Sender<Result<v1::HandedOver, String>>,
    FinishingLock,
);

/// Runs `work` outside the event loop, which receives its result as an event.
fn tell(
    events: &mpsc::Sender<DaemonEvent>,
    work: impl Future<Output = DaemonEvent> + Send + 'static,
) -> JoinHandle<()> {
    let events = events.clone();
    tokio::spawn(async move {
        // After the daemon's end nothing receives this.
        let _ = events.send(work.await).await;
    })
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
