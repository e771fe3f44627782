//! The source of runners: a manager, and its answers that were read once.

use std::sync::Arc;

use crate::{
    run::{
        metrics::{KindMetrics, RunnerMetrics},
        panics::{self, PanicSite, Panics},
    },
    runner::{JobTimes, RunnerManager},
};

/// A runner manager, with its answers and with the metrics of its kind.
pub(super) struct RunnerSource {
    pub(super) manager: Arc<dyn RunnerManager>,
    pub(super) kind: &'static str,
    pub(super) times: JobTimes,
    /// Whether runners of this kind reply without being told to.
    pub(super) replies: bool,
    /// Whether runners of this kind are programs that consume the queue themselves.
    pub(super) consumes: bool,
    pub(super) metrics: KindMetrics,
    pub(super) panics: Arc<Panics>,
}

impl RunnerSource {
    pub(super) fn new(
        manager: Arc<dyn RunnerManager>,
        metrics: &RunnerMetrics,
        panics: Arc<Panics>,
    ) -> Self {
        let kind = panics::catch(|| manager.kind());
        let kind = panics.value_or(PanicSite::Describe, kind, "unknown");
        let times = panics::catch(|| manager.times());
        let replies = panics::catch(|| manager.answers());
        let consumes = panics::catch(|| manager.consumes());
        Self {
            metrics: metrics.of_kind(kind),
            times: panics.value_or(PanicSite::Describe, times, JobTimes::default()),
            replies: panics.value_or(PanicSite::Describe, replies, false),
            consumes: panics.value_or(PanicSite::Describe, consumes, false),
            manager,
            kind,
            panics,
        }
    }
}
