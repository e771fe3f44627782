//! The operations of the API on the daemon as a whole, not on a single pool.

use std::pin::Pin;

use tidegate::api::v1;

/// The daemon, as the API sees it.
pub trait Control: Send + Sync + 'static {
    /// Reads the configuration again. Applies all of it, or refuses all of it. The error says why.
    ///
    /// # Cancel-safety
    /// Cancel-safe: a reload that has begun continues.
    fn reload(&self) -> Pin<Box<dyn Future<Output = Result<v1::Reloaded, v1::Refusal>> + Send>>;

    /// Hands over to a successor: no pool takes messages any more, the lock and the addresses are given away, and this
    /// process ends after its last job. The error says why not.
    ///
    /// # Cancel-safety
    /// A dropped future does not hand over, unless the handover has begun.
    fn hand_over(
        &self,
        takeover: v1::Takeover,
    ) -> Pin<Box<dyn Future<Output = Result<v1::HandedOver, String>> + Send>>;
}

impl std::fmt::Debug for dyn Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Control")
    }
}
