//! Groups of daemons in the process.

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{broadcast, watch};

use crate::queue::{Connectivity, GroupChannel, QueueError, QueueErrorKind};

/// A member of a group.
pub(super) struct MemoryGroup {
    pub(super) sender: broadcast::Sender<Bytes>,
    pub(super) messages: broadcast::Receiver<Bytes>,
    pub(super) connectivity: watch::Receiver<Connectivity>,
    pub(super) blocked: watch::Receiver<bool>,
}

#[async_trait]
impl GroupChannel for MemoryGroup {
    async fn send(&mut self, message: Bytes) -> Result<(), QueueError> {
        let fails = |kind| Err(QueueError::new(kind, "send to the group"));
        if *self.connectivity.borrow() != Connectivity::Connected {
            return fails(QueueErrorKind::Disconnected);
        }
        if *self.blocked.borrow() {
            return fails(QueueErrorKind::Blocked);
        }
        // Fails only without members, and this is one.
        let _ = self.sender.send(message);
        Ok(())
    }

    async fn next(&mut self) -> Result<Bytes, QueueError> {
        loop {
            let lost = self
                .connectivity
                .wait_for(|seen| *seen != Connectivity::Connected);
            let received = tokio::select! {
                biased;
                _ = lost => None,
                received = self.messages.recv() => Some(received),
            };
            match received {
                Some(Ok(message)) => return Ok(message),
                // A member that reads too slowly misses messages.
                Some(Err(broadcast::error::RecvError::Lagged(_))) => {}
                Some(Err(broadcast::error::RecvError::Closed)) | None => {
                    return Err(QueueError::new(
                        QueueErrorKind::Disconnected,
                        "hear the group",
                    ));
                }
            }
        }
    }
}
