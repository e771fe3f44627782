//! What a supervisor and its pools are told: plain values, already checked. Text becomes these in the rest of
//! this module; a library user builds them through [`Pool`](crate::Pool).

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use super::{ContainerSettings, Limits, Origins, ReplySettings};
pub use crate::decide::{BreakerRules, DrainAfter};
use crate::decide::{OwnPolicy, Policy, PoolName, QueueName, Rules, Scaling};
pub use tidegate_core::settings::{DeadLetter, RetrySettings};

/// The whole configuration of a daemon.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The broker.
    pub broker: BrokerSettings,
    /// Its management API, for whoever checks a configuration against it.
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

/// A URL that may hold a password. Shows itself without one, in Debug and Display alike.
#[derive(Clone, PartialEq, Eq)]
pub struct BrokerUrl(String);

impl BrokerUrl {
    /// Takes the text as it is; a configuration checks it, a connection refuses it.
    pub fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// The text with its credentials. For connecting, never for showing.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether the text can be shown without its password, and so be taken apart as it was meant.
    pub(super) fn is_readable(&self) -> bool {
        url::Url::parse(&self.0).is_ok_and(|url| is_split_as_meant(&url))
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A text that does not parse could have its password anywhere, so nothing of it is shown.
        match url::Url::parse(&self.0) {
            Ok(mut url) if is_split_as_meant(&url) => {
                if url.password().is_some() {
                    let _ = url.set_password(Some("***"));
                }
                url.set_query(None);
                url.set_fragment(None);
                f.write_str(url.as_str())
            }
            _ => f.write_str("<unreadable url>"),
        }
    }
}

/// Whether host and credentials are where the parser thinks. An `@` behind the host means that a `/`, `?` or `#`
/// in a password was taken for the end of it, and what looks like a port is the password's start.
fn is_split_as_meant(url: &url::Url) -> bool {
    let has_host = url.host_str().is_some_and(|host| !host.is_empty());
    has_host && !url[url::Position::AfterPort..].contains('@')
}

impl fmt::Debug for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BrokerUrl({self})")
    }
}

/// How to reach the broker.
#[derive(Debug, Clone, PartialEq)]
pub struct BrokerSettings {
    /// `amqp://` or `amqps://`.
    pub url: BrokerUrl,
    /// Certificates, where the broker's are not in the system's store or it wants one of ours.
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

/// The daemon's ways in.
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
}

/// Logs of the daemon.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogSettings {
    /// How a line looks.
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

/// A pool: one queue, its policy, and what becomes of its jobs.
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
        }
    }
}

/// Whether a pool declares its queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Declare {
    /// Someone else does; until then the pool waits.
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
    /// The exchange, which must be there.
    pub exchange: String,
    /// Routing key, or a pattern of them. Of no meaning to an exchange that matches headers.
    pub routing_key: String,
    /// For an exchange that matches headers.
    pub arguments: Arguments,
}

/// A kind of runner, as the configuration file names it.
#[derive(Debug, Clone, PartialEq)]
pub enum RunnerSettings {
    /// A process for each job.
    Exec(ExecSettings),
    /// Processes that stay, and are handed job after job.
    Warm(WarmSettings),
    /// A container for each job.
    Container(ContainerSettings),
}

impl RunnerSettings {
    /// How its processes are started, where they are processes of this machine.
    pub fn process(&self) -> Option<&ExecSettings> {
        match self {
            Self::Exec(exec) => Some(exec),
            Self::Warm(warm) => Some(&warm.process),
            Self::Container(_) => None,
        }
    }
}

/// A process for each job.
#[derive(Clone, PartialEq, Eq)]
pub struct ExecSettings {
    /// Program and arguments: never a shell line, never with anything of a message in it.
    pub command: Vec<String>,
    /// How long a job may run.
    pub timeout: Duration,
    /// Time between TERM and KILL.
    pub kill_grace: Duration,
    /// Variables for the job, besides the job's own.
    pub env: BTreeMap<String, String>,
    /// Variables of the supervisor's environment that the job is given too.
    pub env_pass: Vec<String>,
    /// Directory that the job starts in; `None` is the supervisor's own.
    pub working_dir: Option<PathBuf>,
    /// Who its processes are, and what they may use.
    pub limits: Limits,
}

impl ExecSettings {
    /// The command with the defaults of the configuration file.
    pub fn new(command: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            command: command.into_iter().map(Into::into).collect(),
            timeout: Duration::from_secs(300),
            kill_grace: Duration::from_secs(10),
            env: BTreeMap::new(),
            env_pass: Vec::new(),
            working_dir: None,
            limits: Limits::default(),
        }
    }
}

impl fmt::Debug for ExecSettings {
    // Variables are where jobs' passwords are, so only their names are shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecSettings")
            .field("command", &self.command)
            .field("timeout", &self.timeout)
            .field("kill_grace", &self.kill_grace)
            .field("env", &self.env.keys())
            .field("env_pass", &self.env_pass)
            .field("working_dir", &self.working_dir)
            .field("limits", &self.limits)
            .finish()
    }
}

/// Processes that stay, and are handed job after job. Limits that are `None` are none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WarmSettings {
    /// How a process is started. Its `timeout` is for each job, and begins anew with each word of progress;
    /// `kill_grace` is also how long a process may take to end when its input has ended.
    pub process: ExecSettings,
    /// How long a process may take to say that it is ready.
    pub start_timeout: Duration,
    /// Jobs after which a process is replaced: somewhere in the last quarter before this, so that processes which
    /// started together do not go together.
    pub max_jobs: Option<u32>,
    /// Age at which a process is replaced, with the same spread.
    pub max_age: Option<Duration>,
    /// How long a process may wait for a job before it is ended.
    pub idle_timeout: Option<Duration>,
    /// Resident bytes of a process beyond which it is replaced. Looked at between jobs.
    pub max_memory: Option<u64>,
    /// Processes brought up before a job asks for them: at most one for each worker that waits.
    pub prestart: u32,
}

impl WarmSettings {
    /// The command with the defaults of the configuration file.
    pub fn new(command: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            process: ExecSettings::new(command),
            start_timeout: Duration::from_secs(30),
            max_jobs: None,
            max_age: None,
            idle_timeout: None,
            max_memory: None,
            prestart: 0,
        }
    }
}
