//! The library's front door: a supervisor from a few lines of Rust.
//!
//! Only here and in the daemon do adapters meet the supervisor. Owns nothing once it has started.

use std::{path::PathBuf, sync::Arc, time::Duration};

use thiserror::Error;
use tokio::time::timeout;

use crate::{
    adapters::{amqp::AmqpDriver, exec::ExecManager, handler::HandlerManager, warm::WarmManager},
    config::{
        Argument, Binding, BrokerSettings, BrokerUrl, Declare, DrainAfter, ExecSettings,
        PoolSettings, ReplySettings, RetrySettings, TlsSettings, WarmSettings,
    },
    decide::{PolicyChoice, PoolName, QueueName, Scaling},
    queue::{Connectivity, QueueDriver, QueueError, QueueErrorKind},
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

    /// Declares the queue with this argument too: `.argument("x-max-priority", 10)`. Means nothing without
    /// [`declare`](Self::declare).
    pub fn argument(mut self, name: impl Into<String>, value: impl Into<Argument>) -> Self {
        self.settings.arguments.insert(name.into(), value.into());
        self
    }

    /// Binds the queue to an exchange, which must be there, when it is declared.
    pub fn binding(mut self, exchange: impl Into<String>, routing_key: impl Into<String>) -> Self {
        self.settings.bindings.push(Binding {
            exchange: exchange.into(),
            routing_key: routing_key.into(),
            ..Binding::default()
        });
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

    /// How many workers a demand deserves: a [`Policy`], or an [`OwnPolicy`](crate::decide::OwnPolicy) around a
    /// [`ScalingPolicy`](crate::decide::ScalingPolicy) of yours.
    pub fn policy(mut self, policy: impl Into<PolicyChoice>) -> Self {
        (self.settings.policy, self.settings.own_policy) = match policy.into() {
            PolicyChoice::Own(own) => (own.bounds().clone(), Some(own)),
            PolicyChoice::Kind(policy) => (policy, None),
        };
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

    /// Which messages are answered, and where. By default those whose handler returns [`Outcome::Reply`], and those
    /// that fail for good, if they ask by direct reply-to.
    pub fn reply(mut self, reply: ReplySettings) -> Self {
        self.settings.reply = reply;
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

    /// Runs jobs in processes that stay, one job after another in each.
    pub fn warm(self, settings: WarmSettings) -> Self {
        self.runners(WarmManager::new(settings))
    }

    /// Runs each job in a container of its own. For one that later supervisors can tell to be yours, hand a
    /// [`ContainerManager`](crate::adapters::container::ContainerManager) to [`runners`](Self::runners).
    #[cfg(feature = "container")]
    pub fn container(self, settings: crate::config::ContainerSettings) -> Self {
        self.runners(crate::adapters::container::ContainerManager::new(settings))
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
pub fn broker_driver(settings: &BrokerSettings) -> Result<Arc<AmqpDriver>, LaunchError> {
    AmqpDriver::connect_lazily(settings).map_err(|source| LaunchError::Broker {
        url: settings.url.clone(),
        source,
    })
}

/// Waits for the first word on whether the broker can be reached: for commands that someone waits for, and that
/// are of no use without it.
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
mod tests {
    use super::*;
    use crate::{adapters::memory::MemoryBroker, decide::Policy};

    fn pool() -> Pool {
        Pool::new("a").handler(|_: Job| async { Ok(Outcome::Done) })
    }

    async fn refusal(builder: Builder) -> String {
        builder.start().await.unwrap_err().to_string()
    }

    #[tokio::test]
    async fn says_what_a_pool_lacks() {
        let never_more = RetrySettings {
            backoff: Duration::from_secs(600),
            ..RetrySettings::default()
        };
        let upside_down = Policy {
            min_active: 5,
            ..Policy::fixed(1)
        };
        for (pool, wanted) in [
            (Pool::new("a"), "a handler, exec or runners"),
            (pool().prefetch(0), "a prefetch of 1 or more"),
            (pool().queue(""), "a queue"),
            (
                pool().policy(upside_down),
                "a policy whose min_active is at most its max",
            ),
            (
                pool().poll_interval(Duration::ZERO),
                "a poll_interval above zero",
            ),
            (
                pool().retry(never_more),
                "retry.backoff above zero and at most backoff_max",
            ),
        ] {
            let builder = Supervisor::builder().driver(MemoryBroker::new()).pool(pool);
            let expected = format!("start the pool \"a\" without {wanted}");
            assert_eq!(refusal(builder).await, expected);
        }
    }

    #[tokio::test]
    async fn wants_a_broker_that_it_can_name_without_its_password() {
        let nothing = Supervisor::builder().pool(pool());
        assert_eq!(
            refusal(nothing).await,
            "start a supervisor without a broker"
        );
        let wrong = Supervisor::builder()
            .broker("http://me:s3cret@localhost/")
            .pool(pool());
        let refusal = refusal(wrong).await;
        assert_eq!(refusal, "use the broker http://me:***@localhost/");
    }

    #[tokio::test]
    async fn refuses_two_pools_on_one_queue() {
        let second = Pool::new("b")
            .queue("a")
            .handler(|_: Job| async { Ok(Outcome::Done) });
        let builder = Supervisor::builder()
            .driver(MemoryBroker::new())
            .pool(pool())
            .pool(second);
        assert_eq!(
            refusal(builder).await,
            "run the pools a and b on one queue, a"
        );
    }
}
