//! What the API asks of the daemon as a whole, beside its pools.

use std::pin::Pin;

use tidegate::api::v1;

/// The daemon as the API knows it.
pub trait Control: Send + Sync + 'static {
    /// Reads the configuration again and takes it over. The error says why it was refused whole.
    ///
    /// # Cancel-safety
    /// Cancel-safe: a reload that has begun goes on.
    fn reload(&self) -> Pin<Box<dyn Future<Output = Result<v1::Reloaded, v1::Refusal>> + Send>>;
}

impl std::fmt::Debug for dyn Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Control")
    }
}
