//! The connection to the broker, followed for metrics and the log.

use std::sync::Arc;

use tracing::{info, warn};

use super::super::metrics::BrokerMetrics;
use crate::queue::{Connectivity, QueueDriver};

/// Follows the connection for metrics and the log.
pub(super) async fn watch_connection(driver: Arc<dyn QueueDriver>) {
    let mut connectivity = driver.connectivity();
    let metrics = BrokerMetrics::new();
    let mut was_connected = false;
    let mut shown = None;
    loop {
        let state = connectivity.borrow_and_update().clone();
        metrics.connected.set(if state == Connectivity::Connected {
            1.0
        } else {
            0.0
        });
        if shown.as_ref() != Some(&state) {
            match &state {
                Connectivity::Connecting => {}
                Connectivity::Connected => {
                    if was_connected {
                        metrics.reconnects.increment(1);
                    }
                    was_connected = true;
                    let nodes = driver.nodes();
                    let nodes = (!nodes.is_empty()).then(|| nodes.join(", "));
                    info!(nodes, "connected to the broker");
                }
                Connectivity::Disconnected { error } => {
                    warn!(
                        error,
                        "not connected to the broker: trying again with backoff"
                    );
                }
            }
            shown = Some(state);
        }
        if connectivity.changed().await.is_err() {
            return;
        }
    }
}
