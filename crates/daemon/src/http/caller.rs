//! The caller of a request, as the listener knows it. Stored in the extensions of each request.

use nix::unistd::{Uid, User};

/// The caller of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// A process of this user over the Unix socket: our own user, or root.
    User(u32),
    /// A client over TCP. For a change it has sent the token.
    Tcp,
}

impl Caller {
    /// The caller's name for display: a user's name, or `token`. The system may take a while to find the name.
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
