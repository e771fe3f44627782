//! All causes at once, when a start could not take its lock, address or socket.

use std::fmt;

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

    /// Whether several keys need another value.
    pub(super) fn are_several(&self) -> bool {
        self.next.is_some()
    }

    /// Makes a list of keys, each with the reason why its value cannot be used. `None` if `found` is empty.
    pub(super) fn of(found: Vec<(&'static str, String)>) -> Option<Self> {
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
