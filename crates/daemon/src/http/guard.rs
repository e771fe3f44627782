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
pub struct Guard {
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

impl Guard {
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
mod tests {
    use super::*;

    const LOOPBACK: &str = "127.0.0.1:8672";
    const EVERYWHERE: &str = "0.0.0.0:8672";

    fn guard(listen: &str, token: Option<&str>) -> Guard {
        guard_with(listen, token, None)
    }

    fn guard_with(listen: &str, steer: Option<&str>, read: Option<&str>) -> Guard {
        let tokens = Tokens {
            steer: steer.and_then(Token::new),
            read: read.and_then(Token::new),
        };
        Guard {
            hostname: Some("db7.example.net".to_owned()),
            ..Guard::new(listen.parse().unwrap(), tokens)
        }
    }

    fn ask(
        guard: &Guard,
        method: Method,
        path: &str,
        lines: &[(&str, &str)],
    ) -> Option<RequestRefusal> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name: header::HeaderName = name.parse().unwrap();
            headers.append(name, value.parse().unwrap());
        }
        guard.check(&method, &path.parse().unwrap(), &headers).err()
    }

    fn get(guard: &Guard, host: &str, path: &str) -> Option<RequestRefusal> {
        ask(guard, Method::GET, path, &[("host", host)])
    }

    #[test]
    fn serves_only_this_machine_s_names_on_loopback() {
        let guard = guard(LOOPBACK, None);
        for host in [
            "localhost",
            "LOCALHOST:1",
            "localhost.",
            "127.0.0.1:8672",
            "127.9.9.9",
            "[::1]:8672",
            "[::ffff:127.0.0.1]",
        ] {
            assert_eq!(get(&guard, host, "/api/v1/pools"), None, "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:8672",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "192.0.2.7",
            "tidegate",
            "db7.example.net",
        ] {
            let refusal = get(&guard, host, "/healthz");
            assert_eq!(refusal, Some(RequestRefusal::StrangeHost), "{host}");
        }
    }

    #[test]
    fn requires_one_readable_host() {
        let guard = guard(LOOPBACK, None);
        let twice = [("host", "localhost"), ("host", "evil.example")];
        for lines in [&[][..], &[("host", "a b")][..], &twice[..]] {
            let refusal = ask(&guard, Method::GET, "/healthz", lines);
            assert_eq!(refusal, Some(RequestRefusal::NoHost), "{lines:?}");
        }
    }

    #[test]
    fn looks_at_the_host_in_the_request_line_too() {
        let guard = guard(LOOPBACK, None);
        let refusal = get(&guard, "localhost", "http://evil.example/healthz");
        assert_eq!(refusal, Some(RequestRefusal::StrangeHost));
    }

    #[test]
    fn accepts_host_names_that_nobody_can_register_on_other_addresses() {
        let guard = guard(EVERYWHERE, None);
        for host in [
            "tidegate:8672",
            "192.0.2.7:8672",
            "[2001:db8::1]",
            "db7.example.net",
        ] {
            assert_eq!(get(&guard, host, "/metrics"), None, "{host}");
        }
        let refusal = get(&guard, "evil.example", "/metrics");
        assert_eq!(refusal, Some(RequestRefusal::StrangeHost));
    }

    #[test]
    fn takes_a_full_name_elsewhere_with_the_token() {
        let guard = guard(EVERYWHERE, Some("s3cret"));
        let shown = [
            ("host", "tidegate.example.com"),
            ("authorization", "Bearer s3cret"),
        ];
        assert_eq!(ask(&guard, Method::GET, "/api/v1/pools", &shown), None);
    }

    #[test]
    fn requires_the_token_from_other_machines_except_for_health_and_metrics() {
        let guard = guard(EVERYWHERE, Some("s3cret"));
        for path in OPEN {
            assert_eq!(get(&guard, "192.0.2.7", path), None, "{path}");
        }
        for path in [
            "/api/v1/pools",
            "/",
            "/metrics/",
            "/healthz/../api/v1/pools",
        ] {
            let refusal = get(&guard, "192.0.2.7", path);
            assert_eq!(refusal, Some(RequestRefusal::Unauthorized), "{path}");
        }
        for (value, refusal) in [
            ("Bearer s3cret", None),
            ("bearer  s3cret ", None),
            ("Bearer s3cre", Some(RequestRefusal::Unauthorized)),
            ("Bearer s3cret2", Some(RequestRefusal::Unauthorized)),
            ("Bearer ", Some(RequestRefusal::Unauthorized)),
            ("Basic s3cret", Some(RequestRefusal::Unauthorized)),
            ("s3cret", Some(RequestRefusal::Unauthorized)),
        ] {
            let lines = [("host", "192.0.2.7"), ("authorization", value)];
            let seen = ask(&guard, Method::GET, "/api/v1/pools", &lines);
            assert_eq!(seen, refusal, "{value:?}");
        }
    }

    #[test]
    fn without_a_configured_token_the_refusal_says_to_configure_one() {
        let everywhere = guard(EVERYWHERE, None);
        let lines = [("host", "192.0.2.7"), ("authorization", "Bearer ")];
        let refusal = ask(&everywhere, Method::GET, "/api/v1/pools", &lines);
        assert_eq!(refusal, Some(RequestRefusal::NoReadToken));

        let path = "/api/v1/pools/a/pause";
        for value in ["Bearer ", "Bearer guess"] {
            let loopback = guard(LOOPBACK, None);
            let lines = [("host", "localhost"), ("authorization", value)];
            let refusal = ask(&loopback, Method::POST, path, &lines).unwrap();
            assert_eq!(refusal, RequestRefusal::NoToken, "{value:?}");
            assert_eq!(refusal.status(), StatusCode::FORBIDDEN);
            assert!(refusal.reason().contains("http.token_file"));
        }
    }

    #[test]
    fn a_token_for_reading_reads_and_changes_nothing() {
        let pause = "/api/v1/pools/a/pause";
        for (listen, steer) in [
            (EVERYWHERE, Some("s3cret")),
            (EVERYWHERE, None),
            (LOOPBACK, None),
        ] {
            let guard = guard_with(listen, steer, Some("l00k"));
            let lines = [("host", "127.0.0.1"), ("authorization", "Bearer l00k")];
            assert_eq!(ask(&guard, Method::GET, "/api/v1/pools", &lines), None);
            for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
                let refusal = ask(&guard, method.clone(), pause, &lines);
                assert_eq!(refusal, Some(RequestRefusal::ReadOnly), "{listen} {method}");
            }
        }
        let guard = guard_with(EVERYWHERE, Some("s3cret"), Some("l00k"));
        let lines = [("host", "127.0.0.1"), ("authorization", "Bearer s3cret")];
        assert_eq!(ask(&guard, Method::GET, "/api/v1/pools", &lines), None);
        assert_eq!(ask(&guard, Method::POST, pause, &lines), None);
    }

    #[test]
    fn refuses_what_a_browser_sends_for_a_page_of_another_origin() {
        let guard = guard(LOOPBACK, Some("s3cret"));
        let other = Some(RequestRefusal::OtherOrigin);
        type Case = (
            &'static [(&'static str, &'static str)],
            Option<RequestRefusal>,
        );
        let cases: [Case; 10] = [
            (&[("sec-fetch-site", "same-origin")], None),
            (&[("sec-fetch-site", "none")], None),
            (&[("origin", "http://localhost:8672")], None),
            // Behind a proxy that speaks TLS.
            (&[("origin", "https://LOCALHOST:8672")], None),
            (&[("sec-fetch-site", "cross-site")], other),
            (&[("sec-fetch-site", "same-site")], other),
            (&[("origin", "http://localhost:3000")], other),
            (&[("origin", "http://evil.example")], other),
            (&[("origin", "null")], other),
            (
                &[
                    ("sec-fetch-site", "same-origin"),
                    ("origin", "http://evil.example"),
                ],
                other,
            ),
        ];
        let always = [
            ("host", "localhost:8672"),
            ("authorization", "Bearer s3cret"),
        ];
        for (lines, refusal) in cases {
            let lines = [&always[..], lines].concat();
            for (method, path) in [
                (Method::POST, "/api/v1/pools/a/pause"),
                (Method::GET, "/api/v1/pools"),
                (Method::GET, "/metrics"),
            ] {
                assert_eq!(ask(&guard, method, path, &lines), refusal, "{lines:?}");
            }
        }
    }

    #[test]
    fn a_link_from_another_site_opens_our_page_and_changes_nothing() {
        let guard = guard(LOOPBACK, Some("s3cret"));
        let link = [
            ("host", "localhost:8672"),
            ("authorization", "Bearer s3cret"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "document"),
        ];
        assert_eq!(ask(&guard, Method::GET, "/", &link), None);
        let other = Some(RequestRefusal::OtherOrigin);
        assert_eq!(ask(&guard, Method::POST, "/", &link), other);
        let mut frame = link;
        frame[4].1 = "iframe";
        assert_eq!(ask(&guard, Method::GET, "/", &frame), other);
    }

    #[test]
    fn requires_the_token_for_orders_on_loopback_too() {
        let guard = guard(LOOPBACK, Some("s3cret"));
        let path = "/api/v1/pools/a/pause";
        let without = [("host", "localhost")];
        let with = [("host", "localhost"), ("authorization", "Bearer s3cret")];
        let refusal = ask(&guard, Method::POST, path, &without);
        assert_eq!(refusal, Some(RequestRefusal::Unauthorized));
        assert_eq!(ask(&guard, Method::POST, path, &with), None);
    }

    #[test]
    fn requires_a_token_everywhere_to_show_dead_letters() {
        let path = "/api/v1/pools/a/dead";
        for listen in [LOOPBACK, EVERYWHERE] {
            let guard = guard_with(listen, Some("s3cret"), Some("l00k"));
            let refusal = get(&guard, "localhost", path);
            assert_eq!(refusal, Some(RequestRefusal::Unauthorized), "{listen}");
            for token in ["Bearer s3cret", "Bearer l00k"] {
                let with = [("host", "localhost"), ("authorization", token)];
                assert_eq!(ask(&guard, Method::GET, path, &with), None, "{token}");
            }
            let retry = format!("{path}/retry");
            let reads = [("host", "localhost"), ("authorization", "Bearer l00k")];
            let refusal = ask(&guard, Method::POST, &retry, &reads);
            assert_eq!(refusal, Some(RequestRefusal::ReadOnly), "{listen}");
        }
        let refusal = get(&guard(LOOPBACK, None), "localhost", path);
        assert_eq!(refusal, Some(RequestRefusal::NoReadToken));
    }

    fn basic(login: &str) -> String {
        format!("Basic {}", BASE64_STANDARD.encode(login))
    }

    #[test]
    fn takes_a_token_as_a_password_for_reading_alone() {
        let path = "/api/v1/pools";
        let unauthorized = Some(RequestRefusal::Unauthorized);
        for listen in [LOOPBACK, EVERYWHERE] {
            let guard = guard(listen, Some("s3c:ret"));
            let reads = match listen {
                LOOPBACK => None,
                _ => unauthorized,
            };
            for (value, get, post) in [
                (basic("anyone:s3c:ret"), None, unauthorized),
                (basic(":s3c:ret"), None, unauthorized),
                (basic("s3c:ret"), reads, unauthorized),
                (basic("anyone:s3c:re"), reads, unauthorized),
                (basic("anyone:s3c:ret2"), reads, unauthorized),
                (basic("anyone:"), reads, unauthorized),
                (basic("anyone"), reads, unauthorized),
                (basic(""), reads, unauthorized),
                ("Basic anyone:s3c:ret".to_owned(), reads, unauthorized),
                ("Basic ".to_owned(), reads, unauthorized),
                ("Bearer s3c:ret".to_owned(), None, None),
            ] {
                let lines = [("host", "127.0.0.1"), ("authorization", &value)];
                for method in [Method::GET, Method::HEAD] {
                    let seen = ask(&guard, method.clone(), path, &lines);
                    assert_eq!(seen, get, "{listen} {method} {value}");
                }
                for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
                    let seen = ask(&guard, method.clone(), path, &lines);
                    assert_eq!(seen, post, "{listen} {method} {value}");
                }
            }
        }
    }

    #[test]
    fn a_browser_that_uses_the_full_host_name_is_asked_for_the_password() {
        let password = basic("anyone:s3cret");
        let with = [
            ("host", "tidegate.example.com"),
            ("authorization", &password),
        ];
        let elsewhere = guard(EVERYWHERE, Some("s3cret"));
        let refusal = get(&elsewhere, "tidegate.example.com", "/");
        assert_eq!(refusal, Some(RequestRefusal::Unauthorized));
        assert_eq!(ask(&elsewhere, Method::GET, "/", &with), None);
        let refusal = get(&elsewhere, "evil.example", "/metrics");
        assert_eq!(refusal, Some(RequestRefusal::StrangeHost));
        // A password allows no changes, for any host name.
        let refusal = ask(&elsewhere, Method::POST, "/", &with);
        assert_eq!(refusal, Some(RequestRefusal::StrangeHost));
        // On loopback, a name that an attacker could point here is never accepted.
        let loopback = guard(LOOPBACK, Some("s3cret"));
        let refusal = ask(&loopback, Method::GET, "/", &with);
        assert_eq!(refusal, Some(RequestRefusal::StrangeHost));
    }

    #[test]
    fn never_shows_the_token() {
        let guard = guard(LOOPBACK, Some("s3cret"));
        assert!(!format!("{guard:?}").contains("s3cret"));
    }
}
