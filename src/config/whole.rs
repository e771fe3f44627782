//! The whole configuration of a daemon.

use std::path::PathBuf;

use super::{
    otlp::OtlpSettings,
    settings::{BrokerSettings, HttpSettings, LogSettings, PoolSettings, SupervisorSettings},
    url::BrokerUrl,
};
use crate::runners::RunnerSettings;

/// The whole configuration of a daemon.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The broker.
    pub broker: BrokerSettings,
    /// Its management API, for the check of a configuration against the broker.
    pub management: Option<BrokerUrl>,
    /// Health, metrics, API, and the socket of the command line.
    pub http: HttpSettings,
    /// Limits over all pools.
    pub supervisor: SupervisorSettings,
    /// Logs.
    pub log: LogSettings,
    /// Where spans of jobs are sent.
    pub otlp: Option<OtlpSettings>,
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
    /// The runner of its jobs.
    pub runner: RunnerSettings,
}
