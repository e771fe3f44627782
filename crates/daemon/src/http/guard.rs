//! Who may ask over TCP. Pure: a request's head goes in, a refusal comes out.
//!
//! Two dangers, two rules.
//!
//! **DNS rebinding.** A web page can make a visitor's browser ask *us*, under a name of the page's own that it
//! points at our address; the browser then lets the page read the answer. Such a request carries the page's name
//! in `Host`. An address cannot be pointed elsewhere, so it is always good, and so is `localhost`. On a loopback
//! listener nothing else is. On any other, where names are how neighbours find us, a name without a dot (a
//! container's, a service's) and this machine's own are good too: nobody can register those. A full name is good
//! with the token, which no web page has.
//!
//! **Strangers.** On loopback, reading is open. Elsewhere all but health and metrics wants `Authorization: Bearer`.
//! Steering wants it everywhere. For reading, the token is also good as the password of `Authorization: Basic`: a browser
//! that opens a page can show nothing else. It then sends it by itself with every request, also with those that another
//! site's page makes. So it is no good for a change.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, Method, StatusCode, Uri, header, uri::Authority};
use base64::{Engine, prelude::BASE64_STANDARD};
use subtle::ConstantTimeEq;

/// Paths that answer without a token on every listener: probes and scrapers have none.
const OPEN: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// The token that browsers and remote callers show. Never shown itself.
#[derive(Clone)]
pub struct Token(Vec<u8>);

impl Token {
    /// The text of a token file; `None` where nothing is in it.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Self(text.as_bytes().to_vec()))
    }

    /// Takes the same time for every wrong guess of the right length, so that no byte can be guessed alone.
    fn is(&self, shown: &[u8]) -> bool {
        self.0.ct_eq(shown).into()
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(***)")
    }
}

/// The rules of one TCP listener.
#[derive(Debug, Clone)]
pub struct Guard {
    is_loopback: bool,
    hostname: Option<String>,
    token: Option<Token>,
}

/// Why a request was turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// There is no `Host`, or it is no host.
    NoHost,
    /// The name could be someone else's.
    StrangeHost,
    /// A token is wanted and none, or a wrong one, was shown.
    Unauthorized,
    /// A token is wanted, but none is configured that could be shown.
    NoToken,
}

impl Refusal {
    /// The status to answer with.
    pub fn status(self) -> StatusCode {
        match self {
            Self::NoHost => StatusCode::BAD_REQUEST,
            Self::StrangeHost | Self::NoToken => StatusCode::FORBIDDEN,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
        }
    }

    /// What to tell whoever asked.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NoHost => "the request has no readable Host header",
            Self::StrangeHost => {
                "this Host is not served here: use the address, or localhost on the same machine"
            }
            Self::Unauthorized => "this wants the header Authorization: Bearer TOKEN",
            Self::NoToken => "this wants a token, and none is configured: set http.token_file",
        }
    }
}

impl Guard {
    /// The rules for a listener on `listen`.
    pub fn new(listen: SocketAddr, token: Option<Token>) -> Self {
        Self {
            is_loopback: listen.ip().to_canonical().is_loopback(),
            hostname: nix::unistd::gethostname()
                .ok()
                .and_then(|name| name.into_string().ok()),
            token,
        }
    }

    /// Whether a request may pass.
    ///
    /// # Errors
    /// Why it may not.
    pub fn check(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        let reads = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
        let shown = self.token_is_shown(headers) || (reads && self.password_is_shown(headers));
        let mut hosts = headers.get_all(header::HOST).iter();
        let host = hosts
            .next()
            .and_then(|host| Authority::try_from(host.as_bytes()).ok());
        let host = host.ok_or(Refusal::NoHost)?;
        if hosts.next().is_some() {
            return Err(Refusal::NoHost);
        }
        // A request line with a whole URL in it names a host as well; both must be good.
        for authority in [Some(&host), uri.authority()].into_iter().flatten() {
            if !self.is_ours(authority.host()) && (self.is_loopback || !shown) {
                // A browser asks for the password only where it is told to.
                let can_show = !self.is_loopback && self.token.is_some();
                return Err(match can_show && !OPEN.contains(&uri.path()) {
                    true => Refusal::Unauthorized,
                    false => Refusal::StrangeHost,
                });
            }
        }

        let is_open = OPEN.contains(&uri.path()) || self.is_loopback;
        match () {
            () if reads && is_open => Ok(()),
            () if shown => Ok(()),
            () if self.token.is_none() => Err(Refusal::NoToken),
            () => Err(Refusal::Unauthorized),
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

    fn token_is_shown(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else {
            return false;
        };
        credentials(headers, b"bearer ").is_some_and(|shown| token.is(shown))
    }

    /// Whether the token is the password, for whatever user.
    fn password_is_shown(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else {
            return false;
        };
        let shown = credentials(headers, b"basic ");
        let shown = shown.and_then(|shown| BASE64_STANDARD.decode(shown).ok());
        let Some(shown) = shown else { return false };
        let colon = shown.iter().position(|byte| *byte == b':');
        colon.is_some_and(|colon| token.is(&shown[colon + 1..]))
    }
}

/// What `Authorization` shows by this scheme: lower case, with the space behind it.
fn credentials<'a>(headers: &'a HeaderMap, scheme: &[u8]) -> Option<&'a [u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (seen, shown) = value.split_at_checked(scheme.len())?;
    seen.eq_ignore_ascii_case(scheme)
        .then(|| shown.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: &str = "127.0.0.1:8672";
    const EVERYWHERE: &str = "0.0.0.0:8672";

    fn guard(listen: &str, token: Option<&str>) -> Guard {
        Guard {
            hostname: Some("db7.example.net".to_owned()),
            ..Guard::new(listen.parse().unwrap(), token.and_then(Token::new))
        }
    }

    fn ask(guard: &Guard, method: Method, path: &str, lines: &[(&str, &str)]) -> Option<Refusal> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name: header::HeaderName = name.parse().unwrap();
            headers.append(name, value.parse().unwrap());
        }
        guard.check(&method, &path.parse().unwrap(), &headers).err()
    }

    fn get(guard: &Guard, host: &str, path: &str) -> Option<Refusal> {
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
            assert_eq!(refusal, Some(Refusal::StrangeHost), "{host}");
        }
    }

    #[test]
    fn wants_one_readable_host() {
        let guard = guard(LOOPBACK, None);
        let twice = [("host", "localhost"), ("host", "evil.example")];
        for lines in [&[][..], &[("host", "a b")][..], &twice[..]] {
            let refusal = ask(&guard, Method::GET, "/healthz", lines);
            assert_eq!(refusal, Some(Refusal::NoHost), "{lines:?}");
        }
    }

    #[test]
    fn looks_at_the_host_in_the_request_line_too() {
        let guard = guard(LOOPBACK, None);
        let refusal = get(&guard, "localhost", "http://evil.example/healthz");
        assert_eq!(refusal, Some(Refusal::StrangeHost));
    }

    #[test]
    fn knows_elsewhere_the_names_that_nobody_can_register() {
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
        assert_eq!(refusal, Some(Refusal::StrangeHost));
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
    fn wants_the_token_elsewhere_for_all_but_health_and_metrics() {
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
            assert_eq!(refusal, Some(Refusal::Unauthorized), "{path}");
        }
        for (value, refusal) in [
            ("Bearer s3cret", None),
            ("bearer  s3cret ", None),
            ("Bearer s3cre", Some(Refusal::Unauthorized)),
            ("Bearer s3cret2", Some(Refusal::Unauthorized)),
            ("Bearer ", Some(Refusal::Unauthorized)),
            ("Basic s3cret", Some(Refusal::Unauthorized)),
            ("s3cret", Some(Refusal::Unauthorized)),
        ] {
            let lines = [("host", "192.0.2.7"), ("authorization", value)];
            let seen = ask(&guard, Method::GET, "/api/v1/pools", &lines);
            assert_eq!(seen, refusal, "{value:?}");
        }
    }

    fn basic(login: &str) -> String {
        format!("Basic {}", BASE64_STANDARD.encode(login))
    }

    #[test]
    fn takes_the_token_as_a_password_for_reading_alone() {
        let path = "/api/v1/pools";
        let unauthorized = Some(Refusal::Unauthorized);
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
    fn a_browser_that_comes_by_a_full_name_is_asked_for_the_password() {
        let password = basic("anyone:s3cret");
        let with = [
            ("host", "tidegate.example.com"),
            ("authorization", &password),
        ];
        let elsewhere = guard(EVERYWHERE, Some("s3cret"));
        let refusal = get(&elsewhere, "tidegate.example.com", "/");
        assert_eq!(refusal, Some(Refusal::Unauthorized));
        assert_eq!(ask(&elsewhere, Method::GET, "/", &with), None);
        let refusal = get(&elsewhere, "evil.example", "/metrics");
        assert_eq!(refusal, Some(Refusal::StrangeHost));
        let refusal = ask(&elsewhere, Method::POST, "/", &with);
        assert_eq!(refusal, Some(Refusal::Unauthorized));
        // On loopback no name is good that someone could point there.
        let loopback = guard(LOOPBACK, Some("s3cret"));
        let refusal = ask(&loopback, Method::GET, "/", &with);
        assert_eq!(refusal, Some(Refusal::StrangeHost));
    }

    #[test]
    fn says_so_where_no_token_could_ever_be_shown() {
        let guard = guard(EVERYWHERE, None);
        let lines = [("host", "192.0.2.7"), ("authorization", "Bearer ")];
        let refusal = ask(&guard, Method::GET, "/api/v1/pools", &lines);
        assert_eq!(refusal, Some(Refusal::NoToken));
    }

    #[test]
    fn wants_the_token_to_steer_on_loopback_too() {
        let guard = guard(LOOPBACK, Some("s3cret"));
        let path = "/api/v1/pools/a/pause";
        let without = [("host", "localhost")];
        let with = [("host", "localhost"), ("authorization", "Bearer s3cret")];
        let refusal = ask(&guard, Method::POST, path, &without);
        assert_eq!(refusal, Some(Refusal::Unauthorized));
        assert_eq!(ask(&guard, Method::POST, path, &with), None);
    }

    #[test]
    fn never_shows_the_token() {
        let guard = guard(LOOPBACK, Some("s3cret"));
        assert!(!format!("{guard:?}").contains("s3cret"));
    }
}
