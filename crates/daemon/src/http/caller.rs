//! Who asks, as a listener knows it. In the extensions of each request.

use nix::unistd::{Uid, User};

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// A process of this user, through the Unix socket: ours, or root.
    User(u32),
    /// Someone over TCP. For a change it has shown the token.
    Tcp,
}

impl Caller {
    /// What it is called where it is shown: a user's name, or `token`. Asks the system for the name, which may take a
    /// while.
    pub(super) async fn name(self) -> String {
        let Self::User(uid) = self else {
            return "token".to_owned();
        };
        let known = tokio::task::spawn_blocking(move || User::from_uid(Uid::from_raw(uid)));
        match known.await {
            Ok(Ok(Some(user))) => user.name,
            _ => format!("uid {uid}"),
        }
    }
}
