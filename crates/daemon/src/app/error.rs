//! The errors of a daemon's start.

use std::{io, path::PathBuf};

use thiserror::Error;

use super::obstacles::StartObstacles;
use crate::{
    http::socket::InstanceError,
    telemetry::{events_file::EventsFileError, prometheus::PrometheusError},
};
use tidegate::{builder::LaunchError, runner::BoxError};

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
