//! Configuration: from a TOML file and the environment to checked settings, with all problems at once.
mod settings;

pub use self::settings::{
    BrokerSettings, BrokerUrl, DeadLetter, Declare, DrainAfter, ExecSettings, HttpSettings,
    LogFormat, LogSettings, PoolConfig, PoolSettings, RetrySettings, RunnerSettings, Settings,
    TlsSettings,
};
