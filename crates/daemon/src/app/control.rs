//! The daemon's side of the API's requests that concern the whole daemon: a reload, and a takeover.

use std::pin::Pin;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};

use super::reload::Reloader;
use crate::http::control::Control;
use tidegate::api::v1;

/// A request to hand over, on its way to the daemon.
#[derive(Debug)]
pub(super) struct HandOverRequest {
    /// Nobody waits for the answer after this time.
    pub(super) before: Timestamp,
    pub(super) answer: oneshot::Sender<Result<v1::HandedOver, String>>,
}

/// What the API may do with the daemon.
pub(super) struct DaemonControl {
    pub(super) reloader: Reloader,
    /// Read by the daemon's loop.
    pub(super) handovers: mpsc::Sender<HandOverRequest>,
    /// The lock of this instance.
    pub(super) lock: (u64, u64),
}

impl Control for DaemonControl {
    fn reload(&self) -> Pin<Box<dyn Future<Output = Result<v1::Reloaded, v1::Refusal>> + Send>> {
        // A separate task, so that the reload continues if the caller disconnects.
        let reload = tokio::spawn(self.reloader.clone().reload());
        Box::pin(async move {
            reload.await.unwrap_or_else(|panic| {
                Err(v1::Refusal {
                    error: format!("failed to read the configuration: {panic}"),
                    ..v1::Refusal::default()
                })
            })
        })
    }

    fn hand_over(
        &self,
        takeover: v1::Takeover,
    ) -> Pin<Box<dyn Future<Output = Result<v1::HandedOver, String>> + Send>> {
        let handovers = self.handovers.clone();
        let is_ours = takeover.lock == <[u64; 2]>::from(self.lock);
        Box::pin(async move {
            if !is_ours {
                return Err("the supervisor that runs here has another state_dir".to_owned());
            }
            let (answer, answered) = oneshot::channel();
            let before = takeover.before;
            let request = HandOverRequest { before, answer };
            let ended = |_| "the supervisor is ending".to_owned();
            handovers.send(request).await.map_err(|_| ended(()))?;
            answered.await.map_err(|_| ended(()))?
        })
    }
}
