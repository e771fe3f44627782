//! Declares a pool's queue as its settings say, and remembers a failure.
//!
//! If the queue exists with other arguments, it stays unchanged and the pool consumes it: jobs must not wait until a
//! person decides which declaration is right. The pool's cause and the log show the difference.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tracing::{error, info};

use crate::{
    config::{Argument, Arguments, Declare, PoolSettings},
    decide::PoolName,
    queue::{
        HeaderValue, Headers, QueueBinding, QueueDriver, QueueError, QueueErrorKind, QueueKind,
        QueueSpec,
    },
    settle::{dead_queue, dead_queue_spec},
};
use tidegate_core::text::chain;

/// Time until a declaration that failed is tried again. Each try is an error in the broker's log.
const AGAIN_AFTER: Duration = Duration::from_secs(30);

/// The last failure to declare a pool's queue. Written by the pool's reading, read for its status.
#[derive(Debug, Default)]
pub(crate) struct Declaring(Mutex<Option<Failed>>);

#[derive(Debug)]
struct Failed {
    spec: QueueSpec,
    cause: String,
    again: Instant,
}

impl Declaring {
    /// Declares the queue as the settings say. Sends no request while the driver knows that the queue is declared like
    /// this.
    ///
    /// # Cancel-safety
    /// Cancel-safe: the next call does it again.
    pub(crate) async fn keep(&self, driver: &dyn QueueDriver, settings: &PoolSettings) {
        let Some(spec) = spec(settings) else {
            *self.failed() = None;
            return;
        };
        if let Some(failed) = &*self.failed()
            && failed.spec == spec
            && Instant::now() < failed.again
        {
            return;
        }
        let declared = declare(driver, settings).await;
        self.record(&settings.name, spec, declared);
    }

    fn record(&self, pool: &PoolName, spec: QueueSpec, declared: Result<(), QueueError>) {
        let mut failed = self.failed();
        match declared {
            Ok(()) => {
                if failed.take().is_some() {
                    info!(pool = %pool, queue = %spec.name, "the queue is declared as configured now");
                }
            }
            // A problem of the connection, which is reported elsewhere.
            Err(error)
                if matches!(
                    error.kind,
                    QueueErrorKind::Disconnected | QueueErrorKind::Timeout
                ) => {}
            Err(error) => {
                let cause = cause(&error);
                if failed.as_ref().is_none_or(|known| known.cause != cause) {
                    error!(
                        pool = %pool,
                        queue = %spec.name,
                        error = %cause,
                        "the queue's declaration differs from the configuration: an existing queue is used unchanged"
                    );
                }
                *failed = Some(Failed {
                    spec,
                    cause,
                    again: Instant::now() + AGAIN_AFTER,
                });
            }
        }
    }

    /// Why the queue differs from the settings, if it does.
    pub(crate) fn cause(&self) -> Option<String> {
        self.failed().as_ref().map(|failed| failed.cause.clone())
    }

    fn failed(&self) -> MutexGuard<'_, Option<Failed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn cause(error: &QueueError) -> String {
    let advice = match error.kind {
        QueueErrorKind::Mismatch => {
            "; write its own kind and arguments in the pool, or declare = \"no\", or delete the queue"
        }
        QueueErrorKind::AccessRefused => {
            "; grant the user the permission to configure it, or write declare = \"no\""
        }
        _ => "",
    };
    format!("{}{advice}", chain(error))
}

/// How a pool's queue is declared; `None` if the pool does not declare it.
pub fn spec(settings: &PoolSettings) -> Option<QueueSpec> {
    let kind = match settings.declare {
        Declare::No => return None,
        Declare::Classic => QueueKind::Classic,
        Declare::Quorum => QueueKind::Quorum,
    };
    let bindings = settings.bindings.iter().map(|binding| QueueBinding {
        exchange: binding.exchange.clone(),
        routing_key: binding.routing_key.clone(),
        arguments: headers(&binding.arguments),
    });
    Some(QueueSpec {
        arguments: headers(&settings.arguments),
        bindings: bindings.collect(),
        ..QueueSpec::new(settings.queue.clone(), kind)
    })
}

/// Declares the queue, and also the dead-letter queue if the arguments send dead letters there.
pub(crate) async fn declare(
    driver: &dyn QueueDriver,
    settings: &PoolSettings,
) -> Result<(), QueueError> {
    let Some(spec) = spec(settings) else {
        return Ok(());
    };
    let text = |name: &str| settings.arguments.get(name);
    let dead = dead_queue(&settings.queue);
    if text("x-dead-letter-exchange") == Some(&"".into())
        && text("x-dead-letter-routing-key") == Some(&dead.as_str().into())
    {
        driver.declare(&dead_queue_spec(&settings.queue)).await?;
    }
    driver.declare(&spec).await
}

fn headers(arguments: &Arguments) -> Headers {
    let entries = arguments.iter();
    entries
        .map(|(name, argument)| (name.clone(), header(argument)))
        .collect()
}

fn header(argument: &Argument) -> HeaderValue {
    match argument {
        Argument::Flag(flag) => (*flag).into(),
        Argument::Whole(number) => (*number).into(),
        Argument::Text(text) => text.as_str().into(),
        Argument::List(values) => HeaderValue::List(values.iter().map(header).collect()),
    }
}
