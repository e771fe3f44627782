//! All causes at once, when a start could not take its lock, address or socket.

use std::fmt;

use tokio::net::TcpListener;

use super::daemon::AppError;
use crate::http::socket;
use tidegate::{config::HttpSettings, host::instance::InstanceLock, run::chain};

/// A list of the keys in `[http]` that need another value. The source of each is the next.
#[derive(Debug)]
pub struct StartObstacles {
    key: &'static str,
    text: String,
    next: Option<Box<StartObstacles>>,
}

impl StartObstacles {
    /// The keys in the list.
    pub fn keys(&self) -> Vec<&'static str> {
        let mut keys = vec![self.key];
        keys.extend(self.next.iter().flat_map(|next| next.keys()));
        keys
    }

    /// Makes a list of keys, each with the reason why its value cannot be used. `None` if `found` is empty.
    fn of(found: Vec<(&'static str, String)>) -> Option<Self> {
        let found = found.into_iter().enumerate().rev();
        found.fold(None, |next, (index, (key, why))| {
            Some(Self {
                key,
                // The first is the operation that failed; the others are shown below it.
                text: match index {
                    0 => why,
                    _ => format!("{key}: failed to {why}"),
                },
                next: next.map(Box::new),
            })
        })
    }
}

impl fmt::Display for StartObstacles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for StartObstacles {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        let next = self.next.as_deref()?;
        Some(next)
    }
}

/// The error of a start, with all other causes that would make the start fail, so that the operator can fix them at
/// once. Releases everything that it takes for the check.
pub(super) async fn with_all_causes(first: AppError, http: &HttpSettings) -> AppError {
    if !matches!(first, AppError::Instance(_) | AppError::Listen { .. }) {
        return first;
    }
    let mut found: Vec<(&'static str, String)> = Vec::new();
    if let Err(error) = InstanceLock::take(&http.state_dir) {
        found.push(("state_dir", chain(&error)));
    }
    if let Err(error) = socket::listen(&http.socket) {
        found.push(("socket", chain(&error)));
    }
    if let Some(listen) = http.listen
        && let Err(source) = TcpListener::bind(listen).await
    {
        found.push(("listen", chain(&AppError::Listen { listen, source })));
    }
    // The cause may have passed by now.
    match StartObstacles::of(found) {
        Some(places) if places.next.is_some() => AppError::StartObstacles(places),
        _ => first,
    }
}
