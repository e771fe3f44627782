//! The errors of a demo.

use std::{io, time::Duration};

use crate::output::{CommandFailure, Exit};
use tidegate::{builder::LaunchError, config::BrokerUrl, queue::QueueError};

/// The demo failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum DemoError {
    #[error("reach the broker {url}")]
    Unreachable {
        url: BrokerUrl,
        #[source]
        source: QueueError,
    },
    #[error("prepare the demo's queue")]
    Queue(#[source] QueueError),
    #[error("write the demo's job file")]
    JobFile(#[source] io::Error),
    #[error("publish a job")]
    Publish(#[source] QueueError),
    #[error("start the demo's pool")]
    Launch(#[source] LaunchError),
    #[error("show the demo")]
    Screen(#[source] io::Error),
    #[error("finish the demo: it was interrupted")]
    Interrupted,
    #[error("finish the demo within {} s", .0.as_secs())]
    Late(Duration),
    #[error("run every job and drain to zero: {0}")]
    Amiss(String),
}

impl From<DemoError> for CommandFailure {
    fn from(error: DemoError) -> Self {
        let (exit, hint) = match &error {
            DemoError::Unreachable { .. } => (
                Exit::Unavailable,
                Some("see AMQP_URL; without one, the demo runs on a queue in memory"),
            ),
            DemoError::Launch(_) => (Exit::Usage, Some("see AMQP_URL")),
            DemoError::Queue(_) => (
                Exit::Unexpected,
                Some("this user must be allowed to declare queues named tidegate-demo-*"),
            ),
            DemoError::Late(_) => (
                Exit::Unexpected,
                Some("this machine or the broker is too busy for the demo"),
            ),
            _ => (Exit::Unexpected, None),
        };
        let failure = Self::new(exit, error);
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}
