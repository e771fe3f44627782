//! The result of the last reload, for `status`, the API and metrics.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};

use tidegate::api::v1::RefusedReload;

const RELOADS: &str = "tidegate_reloads_total";
const SUCCESS: &str = "tidegate_config_reload_success";
/// The outcome of a reload: the label `outcome`.
pub(crate) const OUTCOMES: [&str; 2] = [TAKEN, REFUSED];
const TAKEN: &str = "taken";
const REFUSED: &str = "refused";
const TAKEN_AT: &str = "tidegate_config_reload_success_timestamp_seconds";

/// Describes the metrics of reloads.
pub(crate) fn describe() {
    describe_counter!(
        RELOADS,
        Unit::Count,
        "Configurations that were read again, by outcome."
    );
    describe_gauge!(
        SUCCESS,
        "Whether the newest configuration was applied: 0 if it was refused and an older one runs."
    );
    describe_gauge!(
        TAKEN_AT,
        Unit::Seconds,
        "When a configuration was last applied, at the start or later, in seconds since the epoch."
    );
}

/// Limit on the stored reasons of a refusal. The log has all of them.
const REASONS: usize = 10;

/// Remembers the last reload. Written by the daemon, read by the HTTP routes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reloads(Arc<Mutex<Option<RefusedReload>>>);

impl Reloads {
    /// No reload so far. The configuration of the start counts as applied.
    pub(crate) fn new() -> Self {
        describe();
        for outcome in OUTCOMES {
            counter!(RELOADS, "outcome" => outcome).absolute(0);
        }
        let reloads = Self::default();
        reloads.succeed();
        reloads
    }

    /// The configuration was applied.
    pub(crate) fn taken(&self) {
        counter!(RELOADS, "outcome" => TAKEN).increment(1);
        self.succeed();
    }

    fn succeed(&self) {
        *self.last() = None;
        gauge!(SUCCESS).set(1.0);
        gauge!(TAKEN_AT).set(Timestamp::now().as_duration().as_secs_f64());
    }

    /// The configuration was refused.
    pub(crate) fn refused(&self, file: &str, why: Vec<String>) {
        counter!(RELOADS, "outcome" => REFUSED).increment(1);
        gauge!(SUCCESS).set(0.0);
        *self.last() = Some(RefusedReload {
            at: Timestamp::now(),
            file: file.to_owned(),
            problems: why.len(),
            why: why.into_iter().take(REASONS).collect(),
        });
    }

    /// The newest configuration, if it was refused.
    pub(crate) fn refusal(&self) -> Option<RefusedReload> {
        self.last().clone()
    }

    fn last(&self) -> std::sync::MutexGuard<'_, Option<RefusedReload>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
