//! Containers that no task watches any more, and when to search for them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bollard::{Docker, query_parameters::ListContainersOptions};
use futures_util::StreamExt as _;
use tokio::time::Instant;

use super::{
    engine::EngineError,
    making::{SUPERVISOR, is_ours, owner},
    ours,
};
use crate::host::instance::{Instance, Life};

/// Time to the next search after a search that succeeded, and after one that failed.
const INTERVAL: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_secs(5);

/// Containers that are removed at the same time.
const MAX_PARALLEL_REMOVALS: usize = 8;

/// Supervisors for which it was logged that their containers are not removed. Written and read by searches.
static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// A container that no task watches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stray {
    pub(super) name: String,
    /// Whether a dead supervisor left it. Otherwise this supervisor has lost it.
    pub(super) is_orphan: bool,
}

/// When to search. Pure: `now` is an argument.
#[derive(Debug)]
pub(super) struct Rounds {
    next: Option<Instant>,
    under_way: bool,
}

impl Rounds {
    /// The first search is due at once.
    pub(super) fn new() -> Self {
        Self {
            next: None,
            under_way: false,
        }
    }

    /// Whether to search now. If so, the caller calls [`over`](Self::over) after the search.
    pub(super) fn begin(&mut self, now: Instant) -> bool {
        let is_due = !self.under_way && self.next.is_none_or(|next| next <= now);
        self.under_way |= is_due;
        is_due
    }

    /// A search has ended.
    pub(super) fn over(&mut self, now: Instant, went_well: bool) {
        self.under_way = false;
        self.next = Some(now + if went_well { INTERVAL } else { AGAIN });
    }
}

/// Searches for strays.
///
/// # Errors
/// The engine does not answer.
pub(super) async fn find(
    docker: &Docker,
    us: Option<&Instance>,
) -> Result<Vec<Stray>, EngineError> {
    // Read before and after the request, because a container may be created or removed while the engine answers.
    let mut attended = ours::names();
    let options = ListContainersOptions {
        all: true,
        filters: Some(HashMap::from([(
            "label".to_owned(),
            vec![SUPERVISOR.to_owned()],
        )])),
        ..ListContainersOptions::default()
    };
    let listed = docker.list_containers(Some(options)).await?;
    attended.append(&mut ours::names());

    let mut strays = Vec::new();
    let mut others: BTreeMap<String, (Option<Instance>, Vec<String>)> = BTreeMap::new();
    for container in listed {
        let labels = container.labels.unwrap_or_default();
        let name = container.names.unwrap_or_default().into_iter().next();
        let Some(name) = name.or(container.id) else {
            continue;
        };
        let name = name.trim_start_matches('/').to_owned();
        if !is_ours(us, &labels) {
            let supervisor = labels.get(SUPERVISOR).cloned().unwrap_or_default();
            let (_, names) = others
                .entry(supervisor)
                .or_insert_with(|| (owner(&labels), Vec::new()));
            names.push(name);
        } else if !attended.contains(&name) {
            strays.push(Stray {
                name,
                is_orphan: false,
            });
        }
    }
    // The files may be on a slow file system, so this runs on a thread for blocking work.
    let lives = tokio::task::spawn_blocking(move || {
        let life = |owner: Option<&Instance>| owner.map_or(Life::Unknown, Instance::life);
        let lives = others.into_iter().map(|(supervisor, (owner, names))| {
            let life = life(owner.as_ref());
            (supervisor, owner, names, life)
        });
        lives.collect::<Vec<_>>()
    });
    for (supervisor, owner, names, life) in lives.await.unwrap_or_default() {
        match life {
            Life::Alive => {}
            Life::Dead => strays.extend(names.into_iter().map(|name| Stray {
                name,
                is_orphan: true,
            })),
            Life::Unknown => warn_of_unknown_owner(supervisor, owner.as_ref(), names.len()),
        }
    }
    Ok(strays)
}

/// Logs once that the containers of a supervisor are not removed.
fn warn_of_unknown_owner(supervisor: String, owner: Option<&Instance>, containers: usize) {
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if !said.insert(supervisor.clone()) {
        return;
    }
    drop(said);
    let lock = owner.map(|owner| owner.lock.display().to_string());
    tracing::info!(
        supervisor,
        containers,
        lock,
        "containers are not removed: it cannot be checked from here whether their supervisor is alive"
    );
}

/// Removes strays, and calls `orphan` for each container of a dead supervisor.
pub(super) async fn remove(docker: &Docker, strays: Vec<Stray>, orphan: impl Fn()) -> bool {
    let removals = strays.into_iter().map(|stray| async move {
        let removed = ours::remove(docker, &stray.name).await;
        (stray, removed)
    });
    let mut removals = futures_util::stream::iter(removals).buffer_unordered(MAX_PARALLEL_REMOVALS);
    let mut went_well = true;
    while let Some((Stray { name, is_orphan }, removed)) = removals.next().await {
        match removed {
            Ok(true) if is_orphan => {
                tracing::info!(container = name, "removed a container of a dead supervisor");
                orphan();
            }
            Ok(_) => {}
            Err(error) => {
                went_well = false;
                tracing::warn!(container = name, %error, "container not removed");
            }
        }
    }
    went_well
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn looks_at_once_and_then_at_intervals() {
        let mut rounds = Rounds::new();
        let start = Instant::now();
        assert!(rounds.begin(start));
        assert!(!rounds.begin(start + INTERVAL), "one at a time");
        rounds.over(start, true);
        assert!(!rounds.begin(start + INTERVAL - Duration::from_millis(1)));
        assert!(rounds.begin(start + INTERVAL));
        rounds.over(start + INTERVAL, false);
        assert!(!rounds.begin(start + INTERVAL));
        assert!(rounds.begin(start + INTERVAL + AGAIN));
    }
}
