//! The settings of a supervisor and its pools: plain values, already checked. The rest of this module makes them from
//! text; a library user builds them through [`Pool`](crate::Pool).

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use super::{origin::Origins, url::BrokerUrl};
pub use crate::decide::{BreakerRules, DrainAfter};
use crate::{
    decide::{OwnPolicy, Policy, PoolName, QueueName, Rules, Scaling, Schedule},
    runners::RunnerSettings,
};
use tidegate_core::settings::ReplySettings;
pub use tidegate_core::settings::{DeadLetter, RetrySettings};

/// The whole configuration of a daemon.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The broker.
    pub broker: BrokerSettings,
    /// Its management API, for the check of a configuration against the broker.
    pub management: Option<BrokerUrl>,
    /// Health, metrics, API, and the command line's way in.
    pub http: HttpSettings,
    /// Logs.
    pub log: LogSettings,
    /// JSON-lines file of metric events.
    pub events_file: Option<PathBuf>,
    /// The pools, in the order of the file.
    pub pools: Vec<PoolConfig>,
}

/// A pool of the configuration file: its settings, and the kind of runner that the file names.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolConfig {
    /// The pool.
    pub pool: PoolSettings,
    /// What its jobs run on.
    pub runner: RunnerSettings,
}

/// How to reach the broker.
#[derive(Debug, Clone, PartialEq)]
pub struct BrokerSettings {
    /// `amqp://` or `amqps://`.
    pub url: BrokerUrl,
    /// Certificates, if the broker's are not in the system's store or it asks for a client certificate.
    pub tls: TlsSettings,
}

/// PEM files for TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// Authorities to trust besides the system's.
    pub ca: Option<PathBuf>,
    /// Our certificate, for brokers that ask for one.
    pub cert: Option<PathBuf>,
    /// Its private key.
    pub key: Option<PathBuf>,
}

impl TlsSettings {
    /// Trusts these authorities too: a PEM file.
    #[must_use]
    pub fn ca(mut self, file: impl Into<PathBuf>) -> Self {
        self.ca = Some(file.into());
        self
    }

    /// Shows this certificate to a broker that asks for one: PEM files of the certificate and its private key.
    #[must_use]
    pub fn identity(mut self, cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.cert = Some(cert.into());
        self.key = Some(key.into());
        self
    }
}

/// The addresses and sockets of the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpSettings {
    /// TCP address; `None` for none.
    pub listen: Option<std::net::SocketAddr>,
    /// Unix socket of the command line.
    pub socket: PathBuf,
    /// Instance lock and recordings.
    pub state_dir: PathBuf,
    /// File with the token that browsers and remote callers show to steer.
    pub token_file: Option<PathBuf>,
    /// File with the token that they show to read, off loopback.
    pub read_token_file: Option<PathBuf>,
}

/// Logs of the daemon.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogSettings {
    /// The format of a line.
    pub format: LogFormat,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// A pool: one queue, its policy, and how its jobs are settled.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolSettings {
    /// Its name.
    pub name: PoolName,
    /// The queue it consumes.
    pub queue: QueueName,
    /// Whether to declare the queue.
    pub declare: Declare,
    /// What it is declared with, besides its type.
    pub arguments: Arguments,
    /// What it is bound to when it is declared.
    pub bindings: Vec<Binding>,
    /// Deliveries that each worker may hold: 1 or more.
    pub prefetch: u16,
    /// Time between two readings of the queue's depth.
    pub poll_interval: Duration,
    /// How long a queue is empty before all workers drain.
    pub drain_after: DrainAfter,
    /// Workers, with their runners, kept on an empty queue.
    pub keep_warm: u32,
    /// Whether scaling down may stop running jobs.
    pub preempt: bool,
    /// How long a drain waits for running jobs.
    pub shutdown_grace: Duration,
    /// Longest that a delivery is held unsettled. Below the broker's own consumer timeout.
    pub ack_deadline: Duration,
    /// How many workers a demand deserves.
    pub policy: Policy,
    /// The policy that is asked in place of it, within its bounds: a program's own.
    pub own_policy: Option<OwnPolicy>,
    /// Bounds that change by the clock.
    pub schedule: Schedule,
    /// How fast the number may move.
    pub scaling: Scaling,
    /// Which keys of `policy` and `scaling` were given, and where. Empty for a pool that a program made.
    pub policy_origins: Origins,
    /// What becomes of jobs that fail.
    pub retry: RetrySettings,
    /// Which messages are answered, and where.
    pub reply: ReplySettings,
}

impl PoolSettings {
    /// A pool on the queue of its own name, with the defaults of the configuration file.
    pub fn new(name: impl Into<PoolName>) -> Self {
        let name = name.into();
        Self {
            queue: QueueName::from(name.as_str()),
            name,
            declare: Declare::No,
            arguments: Arguments::new(),
            bindings: Vec::new(),
            prefetch: 1,
            poll_interval: Duration::from_millis(500),
            drain_after: DrainAfter::default(),
            keep_warm: 0,
            preempt: false,
            shutdown_grace: Duration::from_secs(30),
            ack_deadline: Duration::from_secs(30 * 60),
            policy: Policy::default(),
            schedule: Schedule::default(),
            scaling: Scaling::default(),
            own_policy: None,
            policy_origins: Origins::new(),
            retry: RetrySettings::default(),
            reply: ReplySettings::default(),
        }
    }
}

/// What decides the size of a pool with these settings.
impl From<&PoolSettings> for Rules {
    fn from(settings: &PoolSettings) -> Self {
        Self {
            policy: settings.policy.clone(),
            own: settings.own_policy.clone(),
            scaling: settings.scaling,
            drain_after: settings.drain_after,
            keep_warm: settings.keep_warm,
            preempt: settings.preempt,
            schedule: settings.schedule.clone(),
        }
    }
}

/// Whether a pool declares its queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Declare {
    /// Another program declares the queue. The pool waits until it exists.
    #[default]
    No,
    /// As a durable classic queue.
    Classic,
    /// As a quorum queue.
    Quorum,
}

/// Arguments of a queue or a binding, by the broker's own names.
pub type Arguments = BTreeMap<String, Argument>;

/// The value of an argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Argument {
    /// True or false.
    Flag(bool),
    /// A whole number.
    Whole(i64),
    /// Text.
    Text(String),
    /// Several.
    List(Vec<Argument>),
}

impl From<bool> for Argument {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl From<i64> for Argument {
    fn from(number: i64) -> Self {
        Self::Whole(number)
    }
}

impl From<&str> for Argument {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// A binding of a pool's queue to an exchange.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Binding {
    /// The exchange, which must exist.
    pub exchange: String,
    /// Routing key, or a pattern. An exchange that matches headers ignores it.
    pub routing_key: String,
    /// For an exchange that matches headers.
    pub arguments: Arguments,
}
