//! The dashboard: one page and its files, built into the program. The page uses the API like any other client.

use axum::{
    Router,
    http::{HeaderName, header},
    response::{IntoResponse, Response},
    routing::get,
};

use super::api::Api;

/// The content security policy of the page: it may load its own files and call this server, nothing else. No inline
/// script or style, and no frame in another page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = include_str!("dashboard/index.html");

/// The files that the page loads, by name.
const FILES: [(&str, &str, &str); 10] = [
    ("app.js", SCRIPT, include_str!("dashboard/app.js")),
    ("api.js", SCRIPT, include_str!("dashboard/api.js")),
    ("dead.js", SCRIPT, include_str!("dashboard/dead.js")),
    ("detail.js", SCRIPT, include_str!("dashboard/detail.js")),
    ("dom.js", SCRIPT, include_str!("dashboard/dom.js")),
    ("history.js", SCRIPT, include_str!("dashboard/history.js")),
    ("lab.js", SCRIPT, include_str!("dashboard/lab.js")),
    ("plot.js", SCRIPT, include_str!("dashboard/plot.js")),
    (
        "style.css",
        "text/css; charset=utf-8",
        include_str!("dashboard/style.css"),
    ),
    (
        "icon.svg",
        "image/svg+xml",
        include_str!("dashboard/icon.svg"),
    ),
];

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The page and its files. They are not part of the API, so the API's description does not list them.
pub(super) fn routes() -> Router<Api> {
    let page = async || file("text/html; charset=utf-8", HTML);
    let page = Router::new().route("/", get(page));
    FILES.into_iter().fold(page, |router, (name, kind, text)| {
        let path = format!("/dashboard/{name}");
        router.route(&path, get(async move || file(kind, text)))
    })
}

fn file(kind: &'static str, text: &'static str) -> Response {
    const CROSS_ORIGIN: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (CROSS_ORIGIN, "same-origin"),
    ];
    (headers, text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Limit on the bytes that a browser loads for the page.
    const BUDGET: usize = 100 * 1024;

    #[test]
    fn the_page_is_small() {
        let files = FILES.iter().map(|(.., text)| text.len());
        let size = HTML.len() + files.sum::<usize>();
        assert!(size < BUDGET, "{size}");
    }

    #[test]
    fn every_file_that_the_page_names_is_served() {
        let mut named = 0;
        for (_, _, text) in FILES.into_iter().chain([("", "", HTML)]) {
            for part in text.split('"') {
                let name = part.strip_prefix("/dashboard/");
                if let Some(name) = name.or_else(|| part.strip_prefix("./")) {
                    assert!(FILES.iter().any(|(known, ..)| *known == name), "{name}");
                    named += 1;
                }
            }
        }
        assert!(named >= FILES.len(), "{named}");
    }

    #[test]
    fn the_page_has_no_inline_code_and_loads_nothing_from_other_hosts() {
        let files = FILES.map(|(name, _, text)| (name, text));
        for (name, text) in files.into_iter().chain([("index.html", HTML)]) {
            for forbidden in [
                "http://",
                "https://",
                "@import",
                "innerHTML",
                "outerHTML",
                "eval(",
                " style=",
                " onclick=",
            ] {
                let allowed = "http://www.w3.org/2000/svg";
                assert!(
                    !text.replace(allowed, "").contains(forbidden),
                    "{name} has {forbidden}"
                );
            }
        }
        assert!(!POLICY.contains("unsafe"), "{POLICY}");
    }
}
