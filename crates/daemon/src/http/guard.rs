//! Access rules for TCP. Pure: takes the head of a request and returns a refusal.
//!
//! There is one rule for each of three dangers.
//!
//! **DNS rebinding.** A web page can point a name of its own at our address. A visitor's browser then sends requests to
//! *us* under that name, and lets the page read the answers. Such a request has the page's name in `Host`. An address
//! cannot be redirected, so it is always accepted, and so is `localhost`. A loopback listener accepts nothing else. On
//! other listeners, neighbours find us by name. These also accept names without a dot (of a container or a service) and
//! this machine's own name, because nobody can register those. A full name is accepted with a token, because a web page
//! has no token.
//!
//! **Other web pages.** A page can make a visitor's browser send us requests without reading the answers. The browser
//! reports this in `Sec-Fetch-Site` and `Origin`. A request from another origin is refused, unless it only opens one of
//! our pages: a link to the dashboard.
//!
//! **Unknown clients.** On loopback, reading needs no token. On other listeners everything except health and metrics
//! needs a token. A list of dead letters shows the content of messages, so it needs a token everywhere. A change always
//! needs the token of `http.token_file`. The token of `http.read_token_file` allows only reading.
//!
//! A browser that opens a page can send a token only as the password of `Authorization: Basic`. It then sends the
//! password with every request, also when another page causes the request. So a token that is sent as a password allows
//! only reading.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, Method, StatusCode, Uri, header, uri::Authority};
use base64::{Engine, prelude::BASE64_STANDARD};
use subtle::{Choice, ConstantTimeEq};

use super::dead::is_private;

/// Paths that need no token on any listener: probes and scrapers have none.
const OPEN: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// A token that browsers and remote callers send. Its text is never printed.
#[derive(Clone)]
pub struct Token(Vec<u8>);

impl Token {
    /// The token in the text of a token file. `None` if the text is empty.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Self(text.as_bytes().to_vec()))
    }

    /// Takes the same time for every wrong guess of the right length, so that an attacker cannot guess byte by byte.
    fn is(&self, shown: &[u8]) -> Choice {
        self.0.ct_eq(shown)
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(***)")
    }
}

/// The tokens of a listener, by their rights.
#[derive(Debug, Clone, Default)]
pub struct Tokens {
    /// For changes and for reading.
    pub steer: Option<Token>,
    /// For reading only.
    pub read: Option<Token>,
}

impl Tokens {
    /// The rights that the sent token gives.
    fn rights(&self, shown: Option<&[u8]>) -> Rights {
        let shown = shown.unwrap_or_default();
        // Both are always compared, so that the time does not depend on the result.
        let [steers, reads] = [&self.steer, &self.read].map(|token| {
            let is = token.as_ref().map(|token| token.is(shown));
            is.is_some_and(bool::from)
        });
        match (steers, reads) {
            (true, _) => Rights::Steer,
            (false, true) => Rights::Read,
            (false, false) => Rights::None,
        }
    }
}

/// The rights that a token gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rights {
    None,
    Read,
    Steer,
}

/// The rules of one TCP listener.
#[derive(Debug, Clone)]
pub struct AccessRules {
    is_loopback: bool,
    hostname: Option<String>,
    tokens: Tokens,
}

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestRefusal {
    /// `Host` is missing or invalid.
    NoHost,
    /// The name could belong to another party.
    StrangeHost,
    /// A browser sent it for a page of another origin.
    OtherOrigin,
    /// A token is needed, and the request has none or a wrong one.
    Unauthorized,
    /// The token of the request allows only reading.
    ReadOnly,
    /// A change needs a token, and no token for changes is configured.
    NoToken,
    /// Reading needs a token here, and no token is configured.
    NoReadToken,
}

impl RequestRefusal {
    /// The status to answer with.
    pub fn status(self) -> StatusCode {
        match self {
            Self::NoHost => StatusCode::BAD_REQUEST,
            Self::StrangeHost
            | Self::OtherOrigin
            | Self::ReadOnly
            | Self::NoToken
            | Self::NoReadToken => StatusCode::FORBIDDEN,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
        }
    }

    /// The text for the caller.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NoHost => "the request has no readable Host header",
            Self::StrangeHost => {
                "this Host is not served here: use the address, or localhost on the same machine"
            }
            Self::OtherOrigin => "a web page of another origin may not send this request",
            Self::Unauthorized => "this request needs the header Authorization: Bearer TOKEN",
            Self::ReadOnly => {
                "this token allows only reading: use the token of http.token_file to change something"
            }
            Self::NoToken => {
                "changes over HTTP are off, because no token is configured: write one into a file, name the file in \
                 http.token_file, and start tidegate again; the command line on the same machine needs none"
            }
            Self::NoReadToken => {
                "this request needs a token, and none is configured: write one into a file, name the file in \
                 http.read_token_file, and start tidegate again"
            }
        }
    }
}

impl AccessRules {
    /// The rules for a listener on `listen`.
    pub fn new(listen: SocketAddr, tokens: Tokens) -> Self {
        Self {
            is_loopback: listen.ip().to_canonical().is_loopback(),
            hostname: nix::unistd::gethostname()
                .ok()
                .and_then(|name| name.into_string().ok()),
            tokens,
        }
    }

    /// Checks whether a request is allowed.
    ///
    /// # Errors
    /// The reason for the refusal.
    pub fn check(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<(), RequestRefusal> {
        let reads = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
        let rights = match password(headers) {
            Some(password) if reads => self.tokens.rights(Some(&password)).min(Rights::Read),
            _ => self.tokens.rights(credentials(headers, b"bearer ")),
        };
        let has_token = self.tokens.steer.is_some() || self.tokens.read.is_some();
        let mut hosts = headers.get_all(header::HOST).iter();
        let host = hosts
            .next()
            .and_then(|host| Authority::try_from(host.as_bytes()).ok());
        let host = host.ok_or(RequestRefusal::NoHost)?;
        if hosts.next().is_some() {
            return Err(RequestRefusal::NoHost);
        }
        // A request line with a complete URL also names a host. Both must be accepted.
        for authority in [Some(&host), uri.authority()].into_iter().flatten() {
            let is_known = !self.is_loopback && rights > Rights::None;
            if !self.is_ours(authority.host()) && !is_known {
                // A browser asks its user for the password only if the answer tells it to.
                let can_show = !self.is_loopback && has_token && !OPEN.contains(&uri.path());
                return Err(match can_show && reads {
                    true => RequestRefusal::Unauthorized,
                    false => RequestRefusal::StrangeHost,
                });
            }
        }

        if is_of_another_origin(&host, headers) && !(reads && opens_a_page(headers)) {
            return Err(RequestRefusal::OtherOrigin);
        }
        if !reads {
            return match rights {
                Rights::Steer => Ok(()),
                Rights::Read => Err(RequestRefusal::ReadOnly),
                Rights::None if self.tokens.steer.is_none() => Err(RequestRefusal::NoToken),
                Rights::None => Err(RequestRefusal::Unauthorized),
            };
        }
        let is_open = !is_private(uri.path()) && (self.is_loopback || OPEN.contains(&uri.path()));
        match () {
            () if is_open || rights > Rights::None => Ok(()),
            () if has_token => Err(RequestRefusal::Unauthorized),
            () => Err(RequestRefusal::NoReadToken),
        }
    }

    fn is_ours(&self, host: &str) -> bool {
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        if let Ok(address) = bare.unwrap_or(host).parse::<IpAddr>() {
            return !self.is_loopback || address.to_canonical().is_loopback();
        }
        let host = host.strip_suffix('.').unwrap_or(host);
        if host.eq_ignore_ascii_case("localhost") {
            return true;
        }
        let is_own = self
            .hostname
            .as_deref()
            .is_some_and(|own| own.eq_ignore_ascii_case(host));
        !self.is_loopback && !host.is_empty() && (is_own || !host.contains('.'))
    }
}

/// The credentials in `Authorization` for this scheme. `scheme` is in lower case and ends with a space.
fn credentials<'a>(headers: &'a HeaderMap, scheme: &[u8]) -> Option<&'a [u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (seen, shown) = value.split_at_checked(scheme.len())?;
    seen.eq_ignore_ascii_case(scheme)
        .then(|| shown.trim_ascii())
}

/// The password in a request, for any user name.
fn password(headers: &HeaderMap) -> Option<Vec<u8>> {
    let login = credentials(headers, b"basic ")?;
    let login = BASE64_STANDARD.decode(login).ok()?;
    let colon = login.iter().position(|byte| *byte == b':')?;
    Some(login[colon + 1..].to_vec())
}

/// Whether a browser reports that a page of another origin sent this. Other programs send no such headers.
fn is_of_another_origin(host: &Authority, headers: &HeaderMap) -> bool {
    // Another port of the same machine is another origin, but the same site.
    let site = headers.get("sec-fetch-site").map(|site| site.as_bytes());
    let is_of_another_site = !matches!(site, None | Some(b"same-origin" | b"none"));
    let mut origins = headers.get_all(header::ORIGIN).iter();
    is_of_another_site
        || origins.any(|origin| {
            // Compared without the scheme, because a proxy before us may have changed it.
            let origin = origin.to_str().ok().and_then(|text| text.split_once("://"));
            origin.is_none_or(|(_, origin)| !origin.eq_ignore_ascii_case(host.as_str()))
        })
}

/// Whether a browser reports that it opens the answer as a page: the user followed a link.
fn opens_a_page(headers: &HeaderMap) -> bool {
    let is = |name: &str, word: &[u8]| headers.get(name).is_some_and(|v| v.as_bytes() == word);
    is("sec-fetch-mode", b"navigate")
        && is("sec-fetch-dest", b"document")
        && !headers.contains_key(header::ORIGIN)
}

#[cfg(test)]
mod tests;
