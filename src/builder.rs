//! The entry point of the library: builds a supervisor from a few lines of Rust.
//!
//! Only this module and the daemon connect adapters to the supervisor. It owns nothing after the start.

use std::{fmt, sync::Arc, time::Duration};

use thiserror::Error;
use tokio::time::timeout;

use crate::{
    adapters::{
        amqp::AmqpDriver,
        handler::{BlockingManager, CallLimits, HandlerManager},
    },
    config::{
        Argument, Binding, BrokerSettings, BrokerUrl, Declare, DrainAfter, KeySettings,
        PoolSettings, ReplySettings, RetrySettings, SupervisorSettings, TlsSettings,
    },
    decide::{PolicyChoice, PoolName, QueueName, Scaling, Schedule},
    queue::{Connectivity, QueueDriver, QueueError, QueueErrorKind},
    run::{EventSink, PoolSpec, StartOptions, Supervisor, SupervisorError, TraceLink},
    runner::{BoxError, Job, Outcome, RunnerManager},
};

/// The description of a pool: a queue, a policy, and the runners for its jobs.
///
/// Starts with the defaults of the configuration file. It needs one of [`handler`](Self::handler),
/// [`handler_with`](Self::handler_with), [`blocking_handler`](Self::blocking_handler), [`exec`](Self::exec),
/// [`warm`](Self::warm), [`runners`](Self::runners), or a method that a feature adds. If several are called, the last
/// one counts.
#[derive(Debug, Clone)]
#[must_use = "a pool does nothing until a supervisor has started it"]
pub struct Pool {
    settings: PoolSettings,
    /// Whether `drain_after` is the program's. Otherwise it follows from the policy and the runners.
    drain_is_given: bool,
    runs_on: Option<RunsOn>,
    timeout: Option<Duration>,
    kill_grace: Option<Duration>,
}

/// What runs the jobs of a pool.
#[derive(Clone)]
enum RunsOn {
    /// Handlers. Created later, when their limits are known.
    Handlers(Arc<dyn Fn(CallLimits) -> Arc<dyn RunnerManager> + Send + Sync>),
    /// Runners of any other kind.
    Runners(Arc<dyn RunnerManager>),
}

impl fmt::Debug for RunsOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Handlers(_) => f.write_str("Handlers"),
            Self::Runners(manager) => manager.fmt(f),
        }
    }
}

impl Pool {
    /// A pool on the queue of its own name.
    pub fn new(name: impl Into<PoolName>) -> Self {
        Self {
            drain_is_given: false,
            ..PoolSettings::new(name).into()
        }
    }

    /// Consumes this queue instead.
    pub fn queue(mut self, queue: impl Into<QueueName>) -> Self {
        self.settings.queue = queue.into();
        self
    }

    /// Declares the queue if it is missing. Without this the pool waits until the queue exists.
    pub fn declare(mut self, declare: Declare) -> Self {
        self.settings.declare = declare;
        self
    }

    /// Declares the queue with this argument too: `.argument("x-max-priority", 10)`. Has no effect without
    /// [`declare`](Self::declare).
    pub fn argument(mut self, name: impl Into<String>, value: impl Into<Argument>) -> Self {
        self.settings.arguments.insert(name.into(), value.into());
        self
    }

    /// Binds the queue to an existing exchange when the queue is declared.
    pub fn binding(mut self, exchange: impl Into<String>, routing_key: impl Into<String>) -> Self {
        self.settings.bindings.push(Binding {
            exchange: exchange.into(),
            routing_key: routing_key.into(),
            ..Binding::default()
        });
        self
    }

    /// Deliveries that each worker may hold; 1 by default. A larger number hides the latency between two short jobs.
    pub fn prefetch(mut self, deliveries: u16) -> Self {
        self.settings.prefetch = deliveries;
        self
    }

    /// Jobs of one key run one at a time, in the order in which their messages came: `KeySettings::header("tenant")`. The
    /// order holds between first attempts in one daemon: see `docs/keys.md`.
    pub fn key(mut self, key: KeySettings) -> Self {
        self.settings.key = Some(key);
        self
    }

    /// Time between two readings of the queue's depth; 500 ms by default.
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.settings.poll_interval = interval;
        self
    }

    /// How long the queue must be empty before all workers are stopped. Zero means at once. By default
    /// [the policy](crate::decide::PolicyKind::drain_after) says: 5 s for most policies, and 15 s for programs that consume
    /// the queue themselves.
    pub fn drain_after(mut self, quiet: Duration) -> Self {
        self.drain_is_given = true;
        self.settings.drain_after = DrainAfter::After(quiet);
        self
    }

    /// Never stops all workers because the queue is empty: the policy alone decides.
    pub fn drain_never(mut self) -> Self {
        self.drain_is_given = true;
        self.settings.drain_after = DrainAfter::Never;
        self
    }

    /// Workers, with their runners, that are kept on an empty queue; none by default.
    pub fn keep_warm(mut self, workers: u32) -> Self {
        self.settings.keep_warm = workers;
        self
    }

    /// Bounds that change by the clock; none by default.
    pub fn schedule(mut self, schedule: Schedule) -> Self {
        self.settings.schedule = schedule;
        self
    }

    /// Its weight where pools share the workers of [`Builder::max_workers`]; 1 by default.
    pub fn weight(mut self, weight: u32) -> Self {
        self.settings.weight = weight;
        self
    }

    /// Whether the policy is about the whole queue, and the daemons that consume it with this setting take shares of its
    /// number; no by default. They exchange messages through the exchange `<queue>.share`.
    pub fn share(mut self, share: bool) -> Self {
        self.settings.share = share;
        self
    }

    /// Whether scaling down may stop running jobs and give their messages back; no by default.
    pub fn preempt(mut self, preempt: bool) -> Self {
        self.settings.preempt = preempt;
        self
    }

    /// How long [`Supervisor::shutdown`] waits for running jobs; 30 s by default.
    pub fn shutdown_grace(mut self, grace: Duration) -> Self {
        self.settings.shutdown_grace = grace;
        self
    }

    /// Longest time that a delivery may be held unsettled; 30 min by default. Must be below the broker's consumer
    /// timeout.
    pub fn ack_deadline(mut self, deadline: Duration) -> Self {
        self.settings.ack_deadline = deadline;
        self
    }

    /// How many workers a demand needs: a [`Policy`](crate::Policy), or an [`OwnPolicy`](crate::decide::OwnPolicy) with
    /// your own [`ScalingPolicy`](crate::decide::ScalingPolicy).
    pub fn policy(mut self, policy: impl Into<PolicyChoice>) -> Self {
        (self.settings.policy, self.settings.own_policy) = match policy.into() {
            PolicyChoice::Own(own) => (own.bounds().clone(), Some(own)),
            PolicyChoice::Kind(policy) => (policy, None),
        };
        self.with_default_drain()
    }

    /// How fast the number of workers may change.
    pub fn scaling(mut self, scaling: Scaling) -> Self {
        self.settings.scaling = scaling;
        self
    }

    /// What happens to jobs that fail.
    pub fn retry(mut self, retry: RetrySettings) -> Self {
        self.settings.retry = retry;
        self
    }

    /// Which messages are answered, and where. By default these are messages whose handler returns [`Outcome::Reply`],
    /// and messages whose job finally fails, if they ask by direct reply-to.
    pub fn reply(mut self, reply: ReplySettings) -> Self {
        self.settings.reply = reply;
        self
    }

    /// Runs each job by calling an async function of this process. A panic or an error is a failure of that job.
    pub fn handler<H, F>(self, handler: H) -> Self
    where
        H: Fn(Job) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Outcome, BoxError>> + Send + 'static,
    {
        let manager = HandlerManager::new(handler);
        self.handlers(move |limits| Arc::new(manager.clone().limits(limits)))
    }

    /// Runs each job by calling an async function with a clone of `state`: a connection pool, a client, an `Arc` with
    /// shared data. Otherwise the same as [`handler`](Self::handler).
    ///
    /// ```
    /// use std::sync::{Arc, atomic::{AtomicU64, Ordering}};
    /// use tidegate::{BoxError, Job, Outcome, Pool};
    ///
    /// #[derive(Clone, Default)]
    /// struct App {
    ///     bytes: Arc<AtomicU64>,
    /// }
    ///
    /// async fn count(app: App, job: Job) -> Result<Outcome, BoxError> {
    ///     app.bytes.fetch_add(job.body().len() as u64, Ordering::Relaxed);
    ///     Ok(Outcome::Done)
    /// }
    ///
    /// let pool = Pool::new("uploads").handler_with(App::default(), count);
    /// ```
    pub fn handler_with<S, H, F>(self, state: S, handler: H) -> Self
    where
        S: Clone + Send + Sync + 'static,
        H: Fn(S, Job) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Outcome, BoxError>> + Send + 'static,
    {
        self.handler(move |job| handler(state.clone(), job))
    }

    /// Runs each job by calling a function that may block, on a thread of tokio's blocking pool. **A call cannot be
    /// stopped**: [`BlockingManager`] describes what this means for timeouts and for the end of the program.
    pub fn blocking_handler<H>(self, handler: H) -> Self
    where
        H: Fn(Job) -> Result<Outcome, BoxError> + Send + Sync + 'static,
    {
        let manager = BlockingManager::new(handler);
        self.handlers(move |limits| Arc::new(manager.clone().limits(limits)))
    }

    /// Runs each job by calling a tower service, with its layers.
    ///
    /// Each job has its own clone of `service` and waits until that clone is ready. The waiting is part of the job's
    /// time. An error, also one of a layer, is a failure of the job and spends an attempt. So use layers that wait as
    /// limits (`ConcurrencyLimit`, `RateLimit` behind a `Buffer`), not layers that reject calls.
    #[cfg(feature = "tower")]
    pub fn service<S>(self, service: S) -> Self
    where
        S: tower_service::Service<Job, Response = Outcome> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
    {
        use std::sync::{Mutex, PoisonError};

        use crate::adapters::handler::call_service;

        // Few services are `Sync`, and the mutex is only held to clone the service.
        let service = Mutex::new(service);
        self.handler(move |job| {
            let service = service.lock().unwrap_or_else(PoisonError::into_inner);
            call_service(service.clone(), job)
        })
    }

    /// How long a handler may run. At the timeout its job is [stopped](Job::is_stopped) and has failed. Without a
    /// timeout, a handler may run as long as the pool's `ack_deadline` allows. Applies to handlers of every kind. Other
    /// kinds of runner have their own settings.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// How long a handler may continue after its job was [stopped](Job::is_stopped) before it is dropped; 10 s by
    /// default.
    pub fn kill_grace(mut self, grace: Duration) -> Self {
        self.kill_grace = Some(grace);
        self
    }

    fn handlers(
        mut self,
        make: impl Fn(CallLimits) -> Arc<dyn RunnerManager> + Send + Sync + 'static,
    ) -> Self {
        self.runs_on = Some(RunsOn::Handlers(Arc::new(make)));
        self.with_default_drain()
    }

    /// Runs jobs on your own kind of runners.
    pub fn runners(mut self, manager: impl RunnerManager) -> Self {
        self.runs_on = Some(RunsOn::Runners(Arc::new(manager)));
        self.with_default_drain()
    }

    fn with_default_drain(mut self) -> Self {
        let consumes =
            matches!(&self.runs_on, Some(RunsOn::Runners(manager)) if manager.consumes());
        if !self.drain_is_given {
            self.settings.drain_after = self.settings.policy.kind.drain_after(consumes);
        }
        self
    }

    /// The current settings of the pool.
    pub fn settings(&self) -> &PoolSettings {
        &self.settings
    }

    /// The pool in the form that a running supervisor takes: see [`Supervisor::reconfigure`], which checks the
    /// settings. A pool that is replaced gets new runners, and the old runners end after their jobs.
    ///
    /// # Errors
    /// The pool is incomplete, or its settings contradict each other.
    pub fn into_spec(self) -> Result<PoolSpec, LaunchError> {
        let refuse = |pool: PoolName, problem| Err(LaunchError::Pool { pool, problem });
        let settings = self.settings;
        let default = CallLimits::default();
        let runners = match self.runs_on {
            Some(RunsOn::Handlers(make)) => make(CallLimits {
                timeout: self.timeout,
                kill_grace: self.kill_grace.unwrap_or(default.kill_grace),
            }),
            Some(RunsOn::Runners(_)) if self.timeout.is_some() || self.kill_grace.is_some() => {
                return refuse(
                    settings.name,
                    "timeout and kill_grace are for handlers: set those of its runners in their own settings",
                );
            }
            Some(RunsOn::Runners(runners)) => runners,
            None => return refuse(settings.name, "it needs a handler, exec, warm or runners"),
        };
        Ok(PoolSpec { settings, runners })
    }
}

impl From<PoolSettings> for Pool {
    fn from(settings: PoolSettings) -> Self {
        Self {
            settings,
            drain_is_given: true,
            runs_on: None,
            timeout: None,
            kill_grace: None,
        }
    }
}

/// A supervisor could not be started.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// Neither [`broker`](Builder::broker) nor [`driver`](Builder::driver) was called.
    #[error("a supervisor needs a broker: its URL, or a driver")]
    NoBroker,
    /// The broker's URL or certificates cannot be used. An unreachable broker is not an error.
    #[error("the broker {url} cannot be used")]
    Broker {
        /// The URL. It is displayed without credentials.
        url: BrokerUrl,
        /// The cause.
        #[source]
        source: QueueError,
    },
    /// A pool is incomplete, or its settings contradict each other.
    #[error("the pool {pool:?} cannot be started: {problem}", pool = .pool.as_str())]
    Pool {
        /// The pool.
        pool: PoolName,
        /// The problem of the pool.
        problem: &'static str,
    },
    /// The settings of a pool are invalid, or two pools conflict.
    #[error(transparent)]
    Supervisor(#[from] SupervisorError),
}

/// Builds a [`Supervisor`]. Created by [`Supervisor::builder`].
#[derive(Debug, Default)]
#[must_use = "a builder does nothing until it is started"]
pub struct Builder {
    broker: Option<BrokerUrl>,
    other_nodes: Vec<BrokerUrl>,
    tls: TlsSettings,
    driver: Option<Arc<dyn QueueDriver>>,
    pools: Vec<Pool>,
    events: Option<Arc<dyn EventSink>>,
    traces: Option<Arc<dyn TraceLink>>,
    limits: SupervisorSettings,
}

impl Supervisor {
    /// Begins to build a supervisor.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tidegate::{Job, Outcome, Policy, Pool, Supervisor, adapters::memory::MemoryBroker, queue::QueueKind};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let broker = MemoryBroker::new(); // or, below, .broker("amqp://guest:guest@localhost:5672/%2f")
    /// broker.declare_queue("thumbnails", QueueKind::Classic);
    /// broker.send("thumbnails", "cat.png");
    ///
    /// let (done, mut names) = tokio::sync::mpsc::channel(8);
    /// let supervisor = Supervisor::builder()
    ///     .driver(broker)
    ///     .pool(Pool::new("thumbnails")
    ///         .policy(Policy::backlog(10).max(50))
    ///         .handler(move |job: Job| {
    ///             let done = done.clone();
    ///             async move {
    ///                 done.send(String::from_utf8(job.body().to_vec())?).await?;
    ///                 Ok(Outcome::Done)
    ///             }
    ///         }))
    ///     .start().await?;
    /// assert_eq!(names.recv().await.as_deref(), Some("cat.png"));
    /// supervisor.drain(Duration::from_secs(30)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder() -> Builder {
        Builder::default()
    }
}

impl Builder {
    /// The broker's URL: `amqp://`, or `amqps://` for TLS.
    pub fn broker(mut self, url: impl Into<String>) -> Self {
        self.broker = Some(BrokerUrl::new(url));
        self
    }

    /// The URLs of other nodes of the broker's cluster. They are used in this order if the broker's URL does not answer, or
    /// the connection to it is lost; after the last one follows the broker's URL again.
    pub fn other_nodes(mut self, urls: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.other_nodes = urls.into_iter().map(BrokerUrl::new).collect();
        self
    }

    /// Certificates for `amqps://`, if the system's certificates are not enough.
    ///
    /// ```
    /// use tidegate::{Supervisor, TlsSettings};
    ///
    /// let tls = TlsSettings::default().ca("/etc/ssl/ours.pem").identity("/etc/ssl/me.pem", "/etc/ssl/me.key");
    /// let builder = Supervisor::builder().broker("amqps://me@broker.example/%2f").tls(tls);
    /// ```
    pub fn tls(mut self, tls: TlsSettings) -> Self {
        self.tls = tls;
        self
    }

    /// Uses a queue driver instead of a broker's URL: the in-memory broker, or your own driver.
    pub fn driver(mut self, driver: impl QueueDriver) -> Self {
        self.driver = Some(Arc::new(driver));
        self
    }

    /// Adds a pool.
    pub fn pool(mut self, pool: Pool) -> Self {
        self.pools.push(pool);
        self
    }

    /// Sets the sink that receives every metric event.
    pub fn events(mut self, sink: impl EventSink) -> Self {
        self.events = Some(Arc::new(sink));
        self
    }

    /// The maximum number of workers of all pools together. There is no limit by default. Each pool with work first
    /// gets its floor. The pools divide the rest by weight and need.
    pub fn max_workers(mut self, workers: u32) -> Self {
        self.limits.max_workers = Some(workers);
        self
    }

    /// Connects the spans of jobs with the traces of their messages. For each job there are the `tracing` spans
    /// `receive`, `process` (around the handler) and `settle`, with the target [`TARGET`](crate::run::traces::TARGET).
    /// Only the program's subscriber knows their ids, so the link is the program's too. Without a link a job gets the
    /// `traceparent` of its message unchanged.
    ///
    /// With `tracing-opentelemetry` it is:
    ///
    /// ```ignore
    /// use opentelemetry::{Context, trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState}};
    /// use tidegate::queue::TraceContext;
    /// use tracing_opentelemetry::OpenTelemetrySpanExt;
    ///
    /// Supervisor::builder().traces(|span: &tracing::Span, parent: Option<&TraceContext>| {
    ///     let context = parent.and_then(|parent| Some(SpanContext::new(
    ///         TraceId::from_hex(parent.trace_id()).ok()?,
    ///         SpanId::from_hex(parent.span_id()).ok()?,
    ///         if parent.is_sampled() { TraceFlags::SAMPLED } else { TraceFlags::default() },
    ///         true,
    ///         TraceState::default(),
    ///     )));
    ///     let root = Context::new();
    ///     span.set_parent(context.map_or(root.clone(), |context| root.with_remote_span_context(context))).ok()?;
    ///     let own = span.context().span().span_context().clone();
    ///     let text = format!("00-{}-{}-{:02x}", own.trace_id(), own.span_id(), own.trace_flags());
    ///     TraceContext::new(&text, None)
    /// })
    /// ```
    pub fn traces(mut self, link: impl TraceLink) -> Self {
        self.traces = Some(Arc::new(link));
        self
    }

    /// Starts the supervisor. An unreachable broker is not an error: the pools wait for it.
    ///
    /// # Errors
    /// The settings are invalid or incomplete. Nothing runs then.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn start(self) -> Result<Supervisor, LaunchError> {
        let specs: Vec<PoolSpec> = self
            .pools
            .into_iter()
            .map(Pool::into_spec)
            .collect::<Result<_, _>>()?;
        let driver = match (self.driver, self.broker) {
            (Some(driver), _) => driver,
            (None, Some(url)) => broker_driver(&BrokerSettings {
                url,
                others: self.other_nodes,
                tls: self.tls,
            })?,
            (None, None) => return Err(LaunchError::NoBroker),
        };
        let options = StartOptions {
            events: self.events,
            traces: self.traces,
            limits: self.limits,
            ..StartOptions::default()
        };
        Ok(Supervisor::start_with(driver, specs, options)?)
    }
}

/// Makes a driver for a broker. The driver starts to connect at once.
pub fn broker_driver(settings: &BrokerSettings) -> Result<Arc<AmqpDriver>, LaunchError> {
    AmqpDriver::connect_lazily(settings).map_err(|source| LaunchError::Broker {
        url: settings.url.clone(),
        source,
    })
}

/// Waits for the result of the first connection attempt. For commands that a person waits for and that need the broker.
///
/// # Errors
/// The first attempt failed, or took longer than `within`.
pub async fn reach(driver: &AmqpDriver, within: Duration) -> Result<(), QueueError> {
    let mut link = driver.connectivity();
    let settled = link.wait_for(|link| *link != Connectivity::Connecting);
    let word = timeout(within, settled).await;
    let failed = |kind, why: String| {
        let error = QueueError::new(kind, "connect to the broker");
        Err(error.with_source(why))
    };
    match word.as_ref().map(|word| word.as_deref()) {
        Ok(Ok(Connectivity::Connected)) => Ok(()),
        Ok(Ok(Connectivity::Disconnected { error })) => {
            failed(QueueErrorKind::Disconnected, error.clone())
        }
        _ => failed(
            QueueErrorKind::Timeout,
            format!("no answer within {} s", within.as_secs()),
        ),
    }
}

#[cfg(test)]
mod tests;
