//! Groups: how the daemons that share a queue hear each other.

use async_trait::async_trait;
use bytes::Bytes;

use super::QueueError;

/// A place in the group of a queue: every message that a member sends reaches every member, the sender included.
///
/// Messages may be lost, but arrive in the order in which their sender sent them. Old messages are not kept for a member
/// that is away.
///
/// **On drop** the member leaves the group. The others notice by its silence.
#[async_trait]
pub trait GroupChannel: Send {
    /// Sends to all members. Success does not mean that anybody received it: the sender's own copy shows that.
    ///
    /// # Errors
    /// The connection is lost, or the broker takes no messages now.
    async fn send(&mut self, message: Bytes) -> Result<(), QueueError>;

    /// The next message of any member.
    ///
    /// # Errors
    /// The connection is lost. The channel is of no use after that.
    ///
    /// # Cancel-safety
    /// Cancel-safe: no message is lost.
    async fn next(&mut self) -> Result<Bytes, QueueError>;
}
