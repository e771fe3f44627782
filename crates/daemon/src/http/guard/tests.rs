//! Tests of the access rules: the answer to each kind of request, by its host, origin and token.

use super::*;

const LOOPBACK: &str = "127.0.0.1:8672";
const EVERYWHERE: &str = "0.0.0.0:8672";

fn guard(listen: &str, token: Option<&str>) -> AccessRules {
    guard_with(listen, token, None)
}

fn guard_with(listen: &str, steer: Option<&str>, read: Option<&str>) -> AccessRules {
    let tokens = Tokens {
        steer: steer.and_then(Token::new),
        read: read.and_then(Token::new),
    };
    AccessRules {
        hostname: Some("db7.example.net".to_owned()),
        ..AccessRules::new(listen.parse().unwrap(), tokens)
    }
}

fn ask(
    guard: &AccessRules,
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

fn get(guard: &AccessRules, host: &str, path: &str) -> Option<RequestRefusal> {
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
