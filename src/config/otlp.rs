//! The table `[otlp]`: where spans of jobs are sent.

use std::fmt;

use toml::de::DeValue;
use url::Url;

use super::{
    inputs::{ConfigInputs, read_text},
    problem::Problem,
    schema::{FilePath, Item, KeyKind, Table, Text, ValuePosition, quoted, shown_text},
};

/// Port of OTLP over HTTP, and so the endpoint of a collector on this machine.
const EXAMPLE: &str = "http://localhost:4318";

/// Where spans of jobs are sent, and which.
#[derive(Debug, Clone, PartialEq)]
pub struct OtlpSettings {
    /// The collector, `http://` or `https://`, without credentials. Spans go to `/v1/traces` below it.
    pub endpoint: Url,
    /// Headers of each request.
    pub headers: OtlpHeaders,
    /// The name of this service in traces.
    pub service_name: String,
    /// Share of traces that are recorded, among those that begin here: 0 to 1.
    pub sample: f64,
}

/// Names and values of headers. They may hold credentials, so `Debug` shows the names only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct OtlpHeaders(pub Vec<(String, String)>);

impl fmt::Debug for OtlpHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|(name, _)| name))
            .finish()
    }
}

/// Reads the table. `None` without an endpoint.
pub(super) fn otlp(root: &mut Table<'_, '_>, inputs: &ConfigInputs<'_>) -> Option<OtlpSettings> {
    let mut table = root.optional_table(
        "otlp",
        "Spans of jobs, sent to an OpenTelemetry collector. Without this table none are made.",
    );
    let endpoint = table.optional(
        "endpoint",
        "Collector that takes OTLP over HTTP, in protobuf. Spans go to `/v1/traces` below this address.",
        Endpoint,
        &quoted(EXAMPLE),
    );
    let headers_file = table.optional(
        "headers_file",
        "File with headers of each request, one `Name: value` a line: the credentials that the collector asks for.",
        FilePath,
        "\"/run/secrets/otlp-headers\"",
    );
    let service_name = table.key(
        "service_name",
        "The name of this service in traces.",
        SERVICE_NAME,
        "tidegate".to_owned(),
    );
    let sample = table.key(
        "sample",
        "Share of traces that are recorded, among those that begin here. A message with a `traceparent` brings the \
         decision of its publisher.",
        Ratio,
        1.0,
    );
    table.holds_secret(&headers_file);
    let headers = read_text(&mut table, &headers_file, inputs).map(|text| parse_headers(&text));
    let headers = match headers {
        None => OtlpHeaders::default(),
        Some(Ok(headers)) => headers,
        Some(Err(line)) => {
            let place = headers_file.place.clone();
            let found = format!("a file whose line {line} is not a header");
            table.problem(Problem::new(
                place,
                &headers_file.path,
                found,
                "write one header a line into that file, as Name: value",
            ));
            OtlpHeaders::default()
        }
    };
    if table.is_given() && !endpoint.is_given() {
        let place = table.place().clone();
        let fix = format!("write endpoint = {}, or remove the table", quoted(EXAMPLE));
        table.problem(Problem::new(place, "otlp", "no endpoint", fix));
    }
    Some(OtlpSettings {
        endpoint: endpoint.value?,
        headers,
        service_name: service_name.value,
        sample: sample.value,
    })
}

/// The address of a collector. What may hold a credential is not shown.
#[derive(Debug)]
struct Endpoint;

impl KeyKind for Endpoint {
    type Value = Url;
    const IS_TEXT: bool = true;
    const IS_SECRET: bool = true;

    fn wants(&self) -> String {
        "a URL".to_owned()
    }

    fn read(&self, item: &Item<'_>, spot: &mut ValuePosition<'_>) -> Option<Url> {
        let Some(text) = item.get_ref().as_str() else {
            spot.wrong(item, format!("write a URL such as {}", quoted(EXAMPLE)));
            return None;
        };
        match parse_endpoint(text) {
            Ok(url) => Some(url),
            Err(fix) => {
                let shown = match text.contains(['@', '?', '#']) {
                    true => "a URL with more than scheme, host, port and path".to_owned(),
                    false => shown_text(text),
                };
                spot.wrong_shown_as(item, shown, fix);
                None
            }
        }
    }

    fn toml(&self, value: &Url) -> String {
        quoted(value.as_str())
    }
}

fn parse_endpoint(text: &str) -> Result<Url, &'static str> {
    let is_web = |url: &Url| matches!(url.scheme(), "http" | "https") && url.host_str().is_some();
    let Some(url) = Url::parse(text).ok().filter(is_web) else {
        return Err("write a URL with http:// or https://, such as http://localhost:4318");
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(
            "write the URL without user and password, and an Authorization header in otlp.headers_file",
        );
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("write the URL without what begins with ? or #");
    }
    Ok(url)
}

const SERVICE_NAME: Text<String> = Text {
    wants: "a name",
    parse: |text| match text.trim() {
        "" => Err("write a name".to_owned()),
        name => Ok(name.to_owned()),
    },
    show: String::clone,
};

/// A share from 0 to 1.
#[derive(Debug)]
struct Ratio;

impl KeyKind for Ratio {
    type Value = f64;
    const IS_TEXT: bool = false;

    fn wants(&self) -> String {
        "a number from 0 to 1".to_owned()
    }

    fn read(&self, item: &Item<'_>, spot: &mut ValuePosition<'_>) -> Option<f64> {
        let number: Option<f64> = match item.get_ref() {
            DeValue::Float(number) => number.as_str().parse().ok(),
            DeValue::Integer(number) => number.as_str().parse().ok(),
            _ => None,
        };
        let number = number.filter(|number| (0.0..=1.0).contains(number));
        if number.is_none() {
            spot.wrong(item, format!("write {}", self.wants()));
        }
        number
    }

    fn toml(&self, value: &f64) -> String {
        format!("{value:?}")
    }
}

/// The headers in a file; empty lines and lines with `#` count as nothing. An error is the number of the bad line.
fn parse_headers(text: &str) -> Result<OtlpHeaders, usize> {
    let mut headers = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = line.split_once(':').ok_or(at + 1)?;
        let value = value.trim();
        let is_name = !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if !is_name || !value.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return Err(at + 1);
        }
        headers.push((name.to_owned(), value.to_owned()));
    }
    Ok(OtlpHeaders(headers))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_headers_has_one_on_each_line() {
        let headers = parse_headers("# ours\nAuthorization: Bearer a:b\n\nx-tenant:7\n").unwrap();
        let pairs = [("Authorization", "Bearer a:b"), ("x-tenant", "7")];
        assert_eq!(
            headers.0,
            pairs.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
        assert!(!format!("{headers:?}").contains("Bearer"), "a secret");
        assert_eq!(parse_headers("a: b\nBearer secret"), Err(2));
        assert_eq!(parse_headers("a b: c"), Err(1));
        assert_eq!(parse_headers("a: \u{7}"), Err(1));
    }
}
