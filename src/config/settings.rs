//! The settings of a supervisor and its pools: plain values, already checked. The rest of this module makes them from
//! text; a library user builds them through [`Pool`](crate::Pool).

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use super::{origin::Origins, url::BrokerUrl};
pub use crate::decide::{BreakerRules, DrainAfter};
use crate::decide::{OwnPolicy, Policy, PoolName, QueueName, Rules, Scaling, Schedule};
pub use tidegate_core::keys::{KeySettings, KeySource};
use tidegate_core::settings::ReplySettings;
pub use tidegate_core::settings::{DeadLetter, RetrySettings};

/// More workers than any machine or broker can serve. This limit catches typing mistakes.
pub(crate) const MAX_WORKERS: u32 = 1_000_000;

/// Number of workers of a quorum queue that share a channel. If the daemon dies or a connection is lost, the broker may
/// count one return of a message for each channel that consumes the queue.
///
/// Measured with empty jobs at 1 to 1,000 workers: a shared channel is faster than a channel for each worker, and takes
/// down to half the processor time. But if most jobs are long, each settlement on a channel of 500 workers costs the
/// broker 50 % more.
pub const CONSUMERS_PER_CHANNEL: usize = 100;

/// Largest frame size that is accepted, in bytes. The client uses memory for 64 frames on each connection.
pub(crate) const FRAME_MAX: u32 = 1 << 20;

/// The addresses of the broker, and its certificates.
#[derive(Debug, Clone, PartialEq)]
pub struct BrokerSettings {
    /// `amqp://` or `amqps://`.
    pub url: BrokerUrl,
    /// Other nodes of the same cluster, used in this order if `url` does not answer.
    pub others: Vec<BrokerUrl>,
    /// Certificates, if the broker's are not in the system's store or it asks for a client certificate.
    pub tls: TlsSettings,
}

impl fmt::Display for BrokerSettings {
    /// All URLs, without passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.url)?;
        self.others.iter().try_for_each(|url| write!(f, ", {url}"))
    }
}

impl From<BrokerUrl> for BrokerSettings {
    /// One node, without certificates.
    fn from(url: BrokerUrl) -> Self {
        Self {
            url,
            others: Vec::new(),
            tls: TlsSettings::default(),
        }
    }
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

    /// Uses this certificate for a broker that requires one: PEM files of the certificate and its private key.
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
    /// TCP address. `None` if the daemon has no HTTP server on TCP.
    pub listen: Option<std::net::SocketAddr>,
    /// Unix socket of the command line.
    pub socket: PathBuf,
    /// Instance lock and recordings.
    pub state_dir: PathBuf,
    /// File with the token that browsers and remote callers need for changes.
    pub token_file: Option<PathBuf>,
    /// File with the token that they need to read from other machines.
    pub read_token_file: Option<PathBuf>,
}

/// Logs of the daemon.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogSettings {
    /// The format of a line.
    pub format: LogFormat,
}

/// The format of a log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object per line.
    Json,
}

/// Limits over all pools.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SupervisorSettings {
    /// The maximum number of workers of all pools together. `None` means no limit.
    pub max_workers: Option<u32>,
    /// Memory pressure in percent above which no pool grows.
    pub max_memory_pressure: Option<u8>,
    /// Processor pressure in percent above which no pool grows.
    pub max_cpu_pressure: Option<u8>,
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
    /// The arguments of its declaration, besides its type.
    pub arguments: Arguments,
    /// The bindings that are created when it is declared.
    pub bindings: Vec<Binding>,
    /// Deliveries that each worker may hold: 1 or more.
    pub prefetch: u16,
    /// Whether jobs of one key run one at a time and in order, and where a message has its key.
    pub key: Option<KeySettings>,
    /// Time between two readings of the queue's depth.
    pub poll_interval: Duration,
    /// How long a queue must be empty before all workers drain.
    pub drain_after: DrainAfter,
    /// Workers, with their runners, that are kept while the queue is empty.
    pub keep_warm: u32,
    /// Whether scaling down may stop running jobs.
    pub preempt: bool,
    /// How long a drain waits for running jobs.
    pub shutdown_grace: Duration,
    /// Longest time that a delivery is held unsettled. Below the broker's own consumer timeout.
    pub ack_deadline: Duration,
    /// How many workers run for which demand.
    pub policy: Policy,
    /// The program's own policy, which is used instead of `policy`, within the bounds of `policy`.
    pub own_policy: Option<OwnPolicy>,
    /// Bounds that change by the clock.
    pub schedule: Schedule,
    /// How fast the number of workers may change.
    pub scaling: Scaling,
    /// Its weight among pools that share the supervisor's workers: 1 or more.
    pub weight: u32,
    /// Whether the policy is about the whole queue, and daemons that consume it take shares of it.
    pub share: bool,
    /// The maximum number of workers of this daemon, if the queue is shared. `None` means the policy's `max`.
    pub local_max: Option<u32>,
    /// The sources of the keys of `policy` and `scaling` that were given. Empty for a pool that a program made.
    pub policy_origins: Origins,
    /// How failed jobs are handled.
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
            key: None,
            poll_interval: Duration::from_millis(500),
            drain_after: DrainAfter::default(),
            keep_warm: 0,
            preempt: false,
            shutdown_grace: Duration::from_secs(30),
            ack_deadline: Duration::from_secs(30 * 60),
            policy: Policy::default(),
            schedule: Schedule::default(),
            scaling: Scaling::default(),
            weight: 1,
            share: false,
            local_max: None,
            own_policy: None,
            policy_origins: Origins::new(),
            retry: RetrySettings::default(),
            reply: ReplySettings::default(),
        }
    }
}

/// The part of these settings that decides the size of the pool.
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
    /// Several values.
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
