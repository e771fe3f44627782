//! The use of a job's output.

/// The use of a job's standard output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OutputUse {
    /// Log lines.
    #[default]
    Log,
    /// The reply to the message.
    Reply {
        /// Largest reply, in bytes. One byte more is kept of a longer output, to show that it is too long; it is not
        /// sent.
        limit: u64,
    },
    /// A reply that was not requested. It is read and dropped, because it may contain data that must not be logged.
    Dropped,
}
