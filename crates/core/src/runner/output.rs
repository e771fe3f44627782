//! What becomes of what a job prints.

/// What a job's standard output is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OutputUse {
    /// A part of its log.
    #[default]
    Log,
    /// The answer that somebody waits for.
    Reply {
        /// Bytes that an answer may have. One byte more is kept of a longer one, so that it is known for one: it
        /// is not sent.
        limit: u64,
    },
    /// An answer that nobody waits for: read and dropped, since it may hold what no log should.
    Dropped,
}
