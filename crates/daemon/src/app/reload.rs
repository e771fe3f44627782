//! Reads the configuration again, after a signal or a request. Applies all of it, or refuses all of it.

use std::sync::Arc;

use tracing::{error, info, warn};

use super::{
    cgroups,
    pools::{Changes, PoolManagers},
};
use crate::{guard, reloads::Reloads, telemetry::events_file::EventsFile};
use tidegate::{
    api::v1,
    config::{self, Settings, Source},
    run::{Supervisor, chain},
    text::counted,
};

/// Reads the configuration again. Cheap to clone: all clones share their state.
#[derive(Clone)]
pub(super) struct Reloader(Arc<ReloadContext>);

/// The state that a reload needs.
pub(super) struct ReloadContext {
    pub(super) supervisor: Supervisor,
    pub(super) source: Source,
    /// Distinguishes this instance from others.
    pub(super) lock: (u64, u64),
    /// The settings of the start. Keys that need a restart are compared with these.
    pub(super) started: Settings,
    /// Written by one reload at a time. A reload holds the lock from before it reads the file, so the newest reading is
    /// applied last.
    pub(super) pools: tokio::sync::Mutex<PoolManagers>,
    pub(super) events: Option<EventsFile>,
    pub(super) reloads: Reloads,
}

impl Reloader {
    pub(super) fn new(inner: ReloadContext) -> Self {
        Self(Arc::new(inner))
    }

    /// Reads the configuration again. Applies all of it, or refuses all of it.
    pub(super) async fn reload(self) -> Result<v1::Reloaded, v1::Refusal> {
        let inner = &*self.0;
        if let Some(events) = &inner.events {
            events.reopen();
        }
        let file = inner.source.file().display().to_string();
        let mut pools = inner.pools.lock().await;
        let source = inner.source.clone();
        let read = tokio::task::spawn_blocking(move || {
            let loaded = config::load(&source)?;
            let problems = loaded.inspect_limits(guard::pid());
            problems.is_empty().then_some(loaded).ok_or(problems)
        });
        let loaded = match read.await {
            Ok(Ok(loaded)) => loaded,
            Ok(Err(problems)) => {
                for problem in &problems {
                    error!(
                        place = %problem.place,
                        key = problem.key,
                        found = problem.found,
                        fix = problem.fix,
                        "a problem in the configuration"
                    );
                }
                let why: Vec<_> = problems.iter().map(ToString::to_string).collect();
                error!(
                    file,
                    problems = why.len(),
                    "refused the configuration; the old one stays"
                );
                return Err(inner.refused(&file, why));
            }
            Err(panic) => {
                error!(error = %panic, "could not read the configuration; the old one stays");
                return Err(inner.refused(&file, vec![format!("failed to read it: {panic}")]));
            }
        };
        let needs_restart = needs_restart(&inner.started, &loaded.settings);
        for key in &needs_restart {
            warn!(key, "changed, which takes effect at the next start");
        }
        let state_dir = &inner.started.http.state_dir;
        if let Err(error) = cgroups::prepare(&loaded.settings.pools, inner.lock, state_dir).await {
            let error = chain(&*error);
            error!(error, "refused the configuration; the old one stays");
            return Err(inner.refused(&file, vec![error]));
        }
        let (specs, new) = pools.plan(&loaded.settings.pools);
        let count = specs.len();
        // The limits only after the pools: a configuration that is refused changes nothing. The configuration was checked,
        // so its limits are valid.
        let changed = inner.supervisor.reconfigure(specs).await;
        let changed = changed.and_then(|_| inner.supervisor.set_limits(loaded.settings.supervisor));
        if let Err(error) = changed {
            error!(error = %error, "refused the configuration; the old one stays");
            return Err(inner.refused(&file, vec![error.to_string()]));
        }
        let Changes {
            added,
            removed,
            changed,
        } = new.changes_since(&pools);
        *pools = new;
        inner.reloads.taken();
        let names = |names: &[String]| (!names.is_empty()).then(|| names.join(", "));
        info!(
            file,
            pools = count,
            added = names(&added),
            removed = names(&removed),
            changed = names(&changed),
            "applied the configuration"
        );
        Ok(v1::Reloaded {
            file,
            pools: count,
            added,
            removed,
            changed,
            needs_restart: needs_restart.into_iter().map(str::to_owned).collect(),
        })
    }
}

impl ReloadContext {
    fn refused(&self, file: &str, why: Vec<String>) -> v1::Refusal {
        self.reloads.refused(file, why.clone());
        let count = counted(why.len(), "problem");
        v1::Refusal {
            error: format!("the configuration {file} was refused, and the old one stays: {count}"),
            problems: why,
        }
    }
}

/// Changed keys outside the pools. They need a restart.
fn needs_restart(old: &Settings, new: &Settings) -> Vec<&'static str> {
    let differs = [
        ("broker", old.broker != new.broker),
        ("http", old.http != new.http),
        ("log", old.log != new.log),
        ("otlp", old.otlp != new.otlp),
        ("broker.management_url", old.management != new.management),
        ("events_file", old.events_file != new.events_file),
    ];
    let differs = differs.into_iter().filter(|(_, differs)| *differs);
    differs.map(|(key, _)| key).collect()
}
