//! Combines the states of several links into one that pools, workers and readiness read.

use std::sync::Arc;

use futures_util::FutureExt as _;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::link::{BrokerLink, LinkState};
use crate::queue::Connectivity;

/// Combines the states of the links that every operation needs. Ends with the driver, whose links live as long as it
/// does.
pub(super) async fn follow_links(
    links: [Arc<BrokerLink>; 3],
    connectivity: watch::Sender<Connectivity>,
) {
    let mut states = links.map(|link| link.subscribe());
    loop {
        let seen: Vec<LinkState> = states
            .iter_mut()
            .map(|state| state.borrow_and_update().clone())
            .collect();
        let now = connectivity_of(&seen);
        connectivity.send_if_modified(|before| {
            let changed = *before != now;
            *before = now;
            changed
        });
        let [a, b, c] = &mut states;
        let changed = tokio::select! {
            changed = a.changed() => changed,
            changed = b.changed() => changed,
            changed = c.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

/// Reports whether any of these connections is blocked. Ends when it is dropped.
pub(super) fn follow_blocks(
    mut links: Vec<watch::Receiver<bool>>,
    blocked: watch::Sender<bool>,
) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            // All of them are read. A receiver that is not read would report its change again at once.
            let looked = links.iter_mut().map(|link| *link.borrow_and_update());
            let now = looked.fold(false, |any, blocked| any | blocked);
            blocked.send_if_modified(|before| std::mem::replace(before, now) != now);
            let changes = links.iter_mut().map(|link| link.changed().boxed());
            // A closed link reports nothing more, but the others do.
            if futures_util::future::select_all(changes).await.0.is_err() {
                links.retain(|link| link.has_changed().is_ok());
            }
            if links.is_empty() {
                return;
            }
        }
    }))
}

fn connectivity_of(links: &[LinkState]) -> Connectivity {
    let down = links.iter().find_map(|link| match link {
        LinkState::Down(why) => Some(why),
        _ => None,
    });
    match down {
        Some(why) => Connectivity::Disconnected {
            error: why.as_ref().to_owned(),
        },
        None if links
            .iter()
            .any(|link| matches!(link, LinkState::Connecting)) =>
        {
            Connectivity::Connecting
        }
        None => Connectivity::Connected,
    }
}
