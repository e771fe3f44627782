//! The dashboard: one page and its files, in the program. The page reads the API like any other client.

use axum::{
    Router,
    http::{HeaderName, header},
    response::{IntoResponse, Response},
    routing::get,
};

use super::api::Api;

/// What the page may load and do: its own files and this server, nothing else. No inline script or style, and no frame
/// of another page around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = include_str!("dashboard/index.html");
const SCRIPT: &str = include_str!("dashboard/app.js");
const STYLE: &str = include_str!("dashboard/style.css");
const ICON: &str = include_str!("dashboard/icon.svg");

/// The page and its files. They are no part of the API, so its description does not have them.
pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/", get(page))
        .route("/dashboard/app.js", get(script))
        .route("/dashboard/style.css", get(style))
        .route("/dashboard/icon.svg", get(icon))
}

async fn page() -> Response {
    file("text/html; charset=utf-8", HTML)
}

async fn script() -> Response {
    file("text/javascript; charset=utf-8", SCRIPT)
}

async fn style() -> Response {
    file("text/css; charset=utf-8", STYLE)
}

async fn icon() -> Response {
    file("image/svg+xml", ICON)
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

    /// What a browser loads for the page.
    const BUDGET: usize = 100 * 1024;

    #[test]
    fn the_page_is_small() {
        let size = [HTML, SCRIPT, STYLE, ICON]
            .map(str::len)
            .iter()
            .sum::<usize>();
        assert!(size < BUDGET, "{size}");
    }

    #[test]
    fn the_page_has_nothing_inline_and_loads_nothing_from_elsewhere() {
        for (name, text) in [
            ("index.html", HTML),
            ("app.js", SCRIPT),
            ("style.css", STYLE),
        ] {
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
