//! The library's front door: a supervisor from a few lines of Rust.
//!
//! Only here and in [`app`](crate::surface::app) do adapters meet the supervisor. Owns nothing once it has started.

use std::{path::PathBuf, sync::Arc, time::Duration};

use thiserror::Error;

use crate::{
    adapters::{amqp::AmqpDriver, exec::ExecManager, handler::HandlerManager},
    config::{
        BrokerSettings, BrokerUrl, Declare, DrainAfter, ExecSettings, PoolSettings, RetrySettings,
        TlsSettings,
    },
    decide::{Policy, PoolName, QueueName, Scaling},
    queue::{QueueDriver, QueueError},
    run::{EventSink, PoolSpec, Supervisor, SupervisorError},
    runner::{BoxError, Job, Outcome, RunnerManager},
};

/// A pool to be: a queue, a policy, and what its jobs run on.
///
/// Starts with the defaults of the configuration file. One of [`handler`](Self::handler), [`exec`](Self::exec) and
/// [`runners`](Self::runners) is needed; the last one counts.
#[derive(Debug, Clone)]
#[must_use = "a pool does nothing until a supervisor has started it"]
pub struct Pool {
    settings: PoolSettings,
    runners: Option<Arc<dyn RunnerManager>>,
}

impl Pool {
    /// A pool on the queue of its own name.
    pub fn new(name: impl Into<PoolName>) -> Self {
        PoolSettings::new(name).into()
    }

    /// Consumes this queue instead.
    pub fn queue(mut self, queue: impl Into<QueueName>) -> Self {
        self.settings.queue = queue.into();
        self
    }

    /// Declares the queue where it is missing. Otherwise the pool waits until someone else does.
    pub fn declare(mut self, declare: Declare) -> Self {
        self.settings.declare = declare;
        self
    }

    /// Deliveries that each worker may hold; 1 by default. More hides the time between two short jobs.
    pub fn prefetch(mut self, deliveries: u16) -> Self {
        self.settings.prefetch = deliveries;
        self
    }

    /// Time between two readings of the queue's depth; 500 ms by default.
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.settings.poll_interval = interval;
        self
    }

    /// How long the queue is empty before all workers drain; 5 s by default. Zero is literal.
    pub fn drain_after(mut self, quiet: Duration) -> Self {
        self.settings.drain_after = DrainAfter::After(quiet);
        self
    }

    /// Leaves it to the policy alone how many workers an empty queue deserves.
    pub fn drain_never(mut self) -> Self {
        self.settings.drain_after = DrainAfter::Never;
        self
    }

    /// Workers, with their runners, kept on an empty queue; none by default.
    pub fn keep_warm(mut self, workers: u32) -> Self {
        self.settings.keep_warm = workers;
        self
    }

    /// Whether scaling down may stop running jobs, which are given back; no by default.
    pub fn preempt(mut self, preempt: bool) -> Self {
        self.settings.preempt = preempt;
        self
    }

    /// How long [`Supervisor::shutdown`] waits for running jobs; 30 s by default.
    pub fn shutdown_grace(mut self, grace: Duration) -> Self {
        self.settings.shutdown_grace = grace;
        self
    }

    /// Longest that a delivery is held unsettled; 30 min by default. Must be below the broker's consumer timeout.
    pub fn ack_deadline(mut self, deadline: Duration) -> Self {
        self.settings.ack_deadline = deadline;
        self
    }

    /// How many workers a demand deserves.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.settings.policy = policy;
        self
    }

    /// How fast the number of workers may move.
    pub fn scaling(mut self, scaling: Scaling) -> Self {
        self.settings.scaling = scaling;
        self
    }

    /// What becomes of jobs that fail.
    pub fn retry(mut self, retry: RetrySettings) -> Self {
        self.settings.retry = retry;
        self
    }

    /// Runs each job by calling a function of this process. A panic, and an error, is that job's failure. For a
    /// timeout, hand a [`HandlerManager`] to [`runners`](Self::runners).
    pub fn handler<H, F>(self, handler: H) -> Self
    where
        H: Fn(Job) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Outcome, BoxError>> + Send + 'static,
    {
        self.runners(HandlerManager::new(handler))
    }

    /// Runs each job as a child process.
    pub fn exec(self, settings: ExecSettings) -> Self {
        self.runners(ExecManager::new(settings))
    }

    /// Runs jobs on runners of your own kind.
    pub fn runners(mut self, manager: impl RunnerManager) -> Self {
        self.runners = Some(Arc::new(manager));
        self
    }

    /// Its settings as they are now.
    pub fn settings(&self) -> &PoolSettings {
        &self.settings
    }

    fn spec(self) -> Result<PoolSpec, LaunchError> {
        let Self { settings, runners } = self;
        let pool = || settings.name.clone();
        let wrong = [
            (settings.name.as_str().is_empty(), "a name"),
            (settings.queue.as_str().is_empty(), "a queue"),
            (settings.prefetch == 0, "a prefetch of 1 or more"),
            (
                settings.poll_interval.is_zero(),
                "a poll_interval above zero",
            ),
            (
                settings.policy.min_active > settings.policy.max,
                "a policy whose min_active is at most its max",
            ),
            (
                settings.retry.max_attempts == 0,
                "retry.max_attempts of 1 or more",
            ),
            (
                settings.retry.backoff.is_zero()
                    || settings.retry.backoff > settings.retry.backoff_max,
                "retry.backoff above zero and at most backoff_max",
            ),
        ];
        if let Some((_, wanted)) = wrong.into_iter().find(|(is_wrong, _)| *is_wrong) {
            let pool = pool();
            return Err(LaunchError::Pool { pool, wanted });
        }
        let runners = runners.ok_or_else(|| LaunchError::Pool {
            pool: pool(),
            wanted: "a handler, exec or runners",
        })?;
        Ok(PoolSpec { settings, runners })
    }
}

impl From<PoolSettings> for Pool {
    fn from(settings: PoolSettings) -> Self {
        Self {
            settings,
            runners: None,
        }
    }
}

/// A supervisor could not be started.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// Neither [`broker`](Builder::broker) nor [`driver`](Builder::driver) was called.
    #[error("start a supervisor without a broker")]
    NoBroker,
    /// The broker's URL or certificates cannot be used. A broker that is only not there is no error.
    #[error("use the broker {url}")]
    Broker {
        /// Its URL, which shows itself without credentials.
        url: BrokerUrl,
        /// Why.
        #[source]
        source: QueueError,
    },
    /// A pool lacks something.
    #[error("start the pool {pool:?} without {wanted}", pool = .pool.as_str())]
    Pool {
        /// The pool.
        pool: PoolName,
        /// What it needs.
        wanted: &'static str,
    },
    /// The pools do not go together.
    #[error(transparent)]
    Supervisor(#[from] SupervisorError),
}

/// Builds a [`Supervisor`]. Made by [`Supervisor::builder`].
#[derive(Debug, Default)]
#[must_use = "a builder does nothing until it is started"]
pub struct Builder {
    broker: Option<BrokerUrl>,
    tls: TlsSettings,
    driver: Option<Arc<dyn QueueDriver>>,
    pools: Vec<Pool>,
    events: Option<Arc<dyn EventSink>>,
}

impl Supervisor {
    /// Begins to build a supervisor.
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

    /// Certificates for `amqps://`, where the system's are not enough.
    pub fn tls(mut self, ca: Option<PathBuf>, identity: Option<(PathBuf, PathBuf)>) -> Self {
        let (cert, key) = identity.unzip();
        self.tls = TlsSettings { ca, cert, key };
        self
    }

    /// A queue driver instead of a broker's URL: the in-memory queue, or one of your own.
    pub fn driver(mut self, driver: impl QueueDriver) -> Self {
        self.driver = Some(Arc::new(driver));
        self
    }

    /// Adds a pool.
    pub fn pool(mut self, pool: Pool) -> Self {
        self.pools.push(pool);
        self
    }

    /// Hears of every metric event.
    pub fn events(mut self, sink: impl EventSink) -> Self {
        self.events = Some(Arc::new(sink));
        self
    }

    /// Starts the supervisor. A broker that is not there yet is no error: the pools wait for it.
    ///
    /// # Errors
    /// What was built makes no sense. Nothing runs then.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn start(self) -> Result<Supervisor, LaunchError> {
        let specs: Vec<PoolSpec> = self
            .pools
            .into_iter()
            .map(Pool::spec)
            .collect::<Result<_, _>>()?;
        let driver = match (self.driver, self.broker) {
            (Some(driver), _) => driver,
            (None, Some(url)) => {
                let tls = self.tls;
                broker_driver(&BrokerSettings { url, tls })?
            }
            (None, None) => return Err(LaunchError::NoBroker),
        };
        Ok(Supervisor::start(driver, specs, self.events)?)
    }
}

/// A driver for a broker, which connects by itself from now on.
pub(crate) fn broker_driver(settings: &BrokerSettings) -> Result<Arc<AmqpDriver>, LaunchError> {
    AmqpDriver::connect_lazily(settings).map_err(|source| LaunchError::Broker {
        url: settings.url.clone(),
        source,
    })
}
