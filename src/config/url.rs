//! URLs that may hold a password, but never show it.

use std::fmt;

/// A URL that may hold a password. Debug and Display leave the password out.
#[derive(Clone, PartialEq, Eq)]
pub struct BrokerUrl(String);

impl BrokerUrl {
    /// Accepts any text without a check. The configuration checks it, and a connection refuses an invalid one.
    pub fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// The text with its credentials. For connecting, never for showing.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether the password can be left out when the text is shown, because the parser found the parts that the writer
    /// meant.
    pub(super) fn is_readable(&self) -> bool {
        url::Url::parse(&self.0).is_ok_and(|url| is_split_as_meant(&url))
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // If the text does not parse, its password could be anywhere, so nothing of it is shown.
        match url::Url::parse(&self.0) {
            Ok(mut url) if is_split_as_meant(&url) => {
                if url.password().is_some() {
                    let _ = url.set_password(Some("***"));
                }
                url.set_query(None);
                url.set_fragment(None);
                f.write_str(url.as_str())
            }
            _ => f.write_str("<unreadable url>"),
        }
    }
}

/// Whether the parser found host and credentials at the right positions. An `@` after the host means that a `/`, `?` or
/// `#` in a password ended the host too early, and that the apparent port is the start of the password.
fn is_split_as_meant(url: &url::Url) -> bool {
    let has_host = url.host_str().is_some_and(|host| !host.is_empty());
    has_host && !url[url::Position::AfterPort..].contains('@')
}

impl fmt::Debug for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BrokerUrl({self})")
    }
}
