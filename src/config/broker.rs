//! The `[broker]` table: the addresses of the broker, and the certificates to trust.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use toml::de::DeValue;
use url::{Host, Url};

use super::{
    inputs::{ConfigInputs, chosen, read_text},
    management::management,
    problem::{Place, Problem},
    schema::{
        FilePath, Item, Key, KeyKind, KeyPresence, Shape, Table, ValuePosition, nearest, quoted,
        shown_text,
    },
    settings::{BrokerSettings, FRAME_MAX, TlsSettings},
    url::BrokerUrl,
    url_key::UrlKey,
};

const DEFAULT_URL: &str = "amqp://guest:guest@localhost:5672/%2f";
const SHAPE: &str = "write amqp://USER:PASSWORD@HOST:5672/VHOST, with / @ : ? # % in user, password and vhost as \
                     %2f %40 %3a %3f %23 %25";

/// Reads the table.
pub(super) fn broker(
    root: &mut Table<'_, '_>,
    inputs: &ConfigInputs<'_>,
) -> (BrokerSettings, Option<BrokerUrl>) {
    let mut table = root.table("broker", "The broker's address and certificates.");
    let url = table.optional(
        "url",
        "URL of the broker, with `amqps://` for TLS. When absent, $AMQP_URL, otherwise a broker on this machine.",
        UrlKey { shape: SHAPE, check },
        &quoted(DEFAULT_URL),
    );
    let urls = table.optional(
        "urls",
        "URLs of the nodes of one cluster, instead of `url`. The first is used. If it does not answer, or the connection \
        to it is lost, the next one is used, and after the last one the first.",
        AnyUrls,
        "[\"amqp://node-1/%2f\", \"amqp://node-2/%2f\", \"amqp://node-3/%2f\"]",
    );
    let url_file = table.optional(
        "url_file",
        "A file with the URL, so that the password is not in this file. Used instead of `url`. Each line may be the URL \
        of another node, as in `urls`.",
        FilePath,
        "\"/run/secrets/amqp-url\"",
    );
    let keys = UrlKeys {
        url,
        urls,
        url_file,
    };
    let (urls, is_sound) = match keys.urls(&mut table, inputs) {
        Some(urls) => (urls, true),
        None => (Vec::new(), false),
    };

    let management = management(&mut table, inputs);

    let mut tls = table.table("tls", "Certificates, for `amqps://`.");
    let is_plain = |url: &BrokerUrl| url.expose().starts_with("amqp:");
    let tls = tls_settings(&mut tls, is_sound && urls.iter().all(is_plain), inputs);
    let mut urls = urls.into_iter();
    let settings = BrokerSettings {
        url: urls.next().unwrap_or_else(|| BrokerUrl::new(DEFAULT_URL)),
        others: urls.collect(),
        tls,
    };
    (settings, management)
}

/// The keys that have a URL.
struct UrlKeys {
    url: Key<Option<BrokerUrl>>,
    urls: Key<Option<Vec<BrokerUrl>>>,
    url_file: Key<Option<PathBuf>>,
}

impl UrlKeys {
    /// The URLs that are used. `None` after a problem was reported. A variable overrides the file, even if one of them
    /// has a URL and the other has the path of a file with the URL.
    fn urls(&self, table: &mut Table<'_, '_>, inputs: &ConfigInputs<'_>) -> Option<Vec<BrokerUrl>> {
        let keys = [self.url.bare(), self.urls.bare(), self.url_file.bare()];
        match chosen(table, &keys) {
            Some(0) => {
                let url = self.url.value.clone()?;
                warn_of_url(table, &url, &self.url.place, &self.url.path);
                Some(vec![url])
            }
            Some(1) => {
                let urls = self.urls.value.clone()?;
                for url in &urls {
                    warn_of_url(table, url, &self.urls.place, &self.urls.path);
                }
                Some(urls)
            }
            Some(_) => {
                table.holds_secret(&self.url_file);
                let text = read_text(table, &self.url_file, inputs)?;
                self.lines(table, &text)
            }
            None => match inputs.surroundings.amqp_url.as_deref() {
                None | Some("") => Some(vec![BrokerUrl::new(DEFAULT_URL)]),
                Some(text) => {
                    let place = Place::Variable {
                        variable: "AMQP_URL".into(),
                    };
                    Some(vec![checked(table, text.trim(), place, &self.url.path)?])
                }
            },
        }
    }

    /// The URLs in the file of `url_file`, one on each line.
    fn lines(&self, table: &mut Table<'_, '_>, text: &str) -> Option<Vec<BrokerUrl>> {
        let lines: Vec<&str> = match text.trim() {
            "" => vec![""],
            text => text
                .lines()
                .map(str::trim)
                .filter(|line| !line.is_empty())
                .collect(),
        };
        let (place, key) = (&self.url_file.place, &self.url_file.path);
        let mut urls = Vec::new();
        for line in &lines {
            urls.extend(checked(table, line, place.clone(), key));
        }
        if let Some((url, fix)) = misplaced(&urls) {
            table.problem(Problem::new(place.clone(), key, url.to_string(), fix));
            return None;
        }
        (urls.len() == lines.len()).then_some(urls)
    }
}

/// The first URL that does not name a node of the cluster of the others, and what to write.
fn misplaced(urls: &[BrokerUrl]) -> Option<(&BrokerUrl, &'static str)> {
    let vhost = |url: &BrokerUrl| {
        let url = Url::parse(url.expose()).ok()?;
        let path = url.path().strip_prefix('/').unwrap_or("%2f");
        Some(percent_decode_str(path).collect::<Vec<u8>>())
    };
    let (first, others) = urls.split_first()?;
    for (at, url) in others.iter().enumerate() {
        if urls[..=at].contains(url) {
            return Some((url, "remove it: it is there twice"));
        }
        if vhost(url) != vhost(first) {
            return Some((
                url,
                "write the vhost of the first URL: all are nodes of one cluster",
            ));
        }
    }
    None
}

fn checked(table: &mut Table<'_, '_>, text: &str, place: Place, key: &str) -> Option<BrokerUrl> {
    let url = BrokerUrl::new(text);
    match check(text) {
        Ok(()) => {
            warn_of_url(table, &url, &place, key);
            Some(url)
        }
        Err(fix) => {
            table.problem(Problem::new(place, key, url.to_string(), fix));
            None
        }
    }
}

/// The query parameters that the client understands. It ignores all others.
const PARAMETERS: [&str; 5] = [
    "auth_mechanism",
    "channel_max",
    "connection_timeout",
    "frame_max",
    "heartbeat",
];

/// The authentication mechanisms that the client knows.
const MECHANISMS: [&str; 5] = [
    "amqplain",
    "anonymous",
    "external",
    "plain",
    "rabbit-cr-demo",
];

/// Smallest and largest frame size, in bytes, if the broker does not choose it. Each connection has a buffer of that
/// size.
const FRAME_BYTES: std::ops::RangeInclusive<u64> = 4096..=FRAME_MAX as u64;

fn warn_of_url(table: &mut Table<'_, '_>, url: &BrokerUrl, place: &Place, key: &str) {
    let Ok(parsed) = Url::parse(url.expose()) else {
        return;
    };
    // A URL that ends with a slash means the vhost with the empty name, which almost no broker has.
    if parsed.path() == "/" {
        let fix = "write %2f after the last / for the default vhost";
        table.warn(Problem::new(place.clone(), key, url.to_string(), fix));
    }
    for (name, _) in parsed.query_pairs() {
        if PARAMETERS.contains(&name.as_ref()) {
            continue;
        }
        let known = PARAMETERS.iter().map(|known| (*known, *known));
        let fix = match nearest(&name, known) {
            Some(meant) => format!("did you mean {meant}? This parameter is ignored"),
            None => format!(
                "remove it: this parameter is ignored; there are {}",
                PARAMETERS.join(", ")
            ),
        };
        // The value of a parameter may be anything, even a password, so it is not shown.
        let found = format!("the parameter {}", shown_text(&name));
        table.warn(Problem::new(place.clone(), key, found, fix));
    }
}

fn tls_settings(
    table: &mut Table<'_, '_>,
    is_plain: bool,
    inputs: &ConfigInputs<'_>,
) -> TlsSettings {
    let ca = table.optional(
        "ca",
        "PEM file of authorities to trust besides the system's.",
        FilePath,
        "\"/etc/tidegate/ca.pem\"",
    );
    let cert = table.optional(
        "cert",
        "PEM file of our certificate, for a broker that requires one.",
        FilePath,
        "\"/etc/tidegate/client.pem\"",
    );
    let key = table.optional(
        "key",
        "PEM file of its private key.",
        FilePath,
        "\"/etc/tidegate/client-key.pem\"",
    );
    table.holds_secret(&key);
    for file in [&ca, &cert, &key] {
        read_text(table, file, inputs);
        if is_plain && file.given == KeyPresence::Valid {
            table.refuse(file, "remove it, or write amqps:// in broker.url");
        }
    }
    match (cert.given, key.given) {
        (KeyPresence::Valid, KeyPresence::Absent) => {
            table.refuse(&cert, "write key too: the certificate's private key")
        }
        (KeyPresence::Absent, KeyPresence::Valid) => {
            table.refuse(&key, "write cert too: the key's certificate")
        }
        _ => {}
    }
    TlsSettings {
        ca: ca.value,
        cert: cert.value,
        key: key.value,
    }
}

/// URLs of the nodes of one cluster.
#[derive(Debug)]
struct AnyUrls;

impl KeyKind for AnyUrls {
    type Value = Vec<BrokerUrl>;
    const IS_TEXT: bool = false;
    const IS_SECRET: bool = true;

    fn wants(&self) -> String {
        "an array of URLs".to_owned()
    }

    fn shape(&self) -> Shape {
        Shape::Texts
    }

    fn read(&self, item: &Item<'_>, spot: &mut ValuePosition<'_>) -> Option<Vec<BrokerUrl>> {
        let DeValue::Array(items) = item.get_ref() else {
            spot.wrong(
                item,
                "write an array of URLs: [\"amqp://...\", \"amqp://...\"]",
            );
            return None;
        };
        if items.is_empty() {
            spot.wrong(item, "write a URL in it, or remove it");
            return None;
        }
        let one = UrlKey {
            shape: SHAPE,
            check,
        };
        let urls: Vec<BrokerUrl> = items
            .iter()
            .filter_map(|item| one.read(item, spot))
            .collect();
        if let Some((url, fix)) = misplaced(&urls) {
            spot.wrong_shown_as(item, url.to_string(), fix);
        }
        Some(urls)
    }

    fn toml(&self, value: &Vec<BrokerUrl>) -> String {
        let urls: Vec<_> = value.iter().map(|url| quoted(&url.to_string())).collect();
        format!("[{}]", urls.join(", "))
    }
}

/// Checks that an AMQP client understands this text as its writer meant it.
///
/// # Errors
/// The text says what to write instead. It never contains any part of `text`.
fn check(text: &str) -> Result<(), String> {
    let url = Url::parse(text).map_err(|_| SHAPE)?;
    if !matches!(url.scheme(), "amqp" | "amqps") {
        return Err("write amqp://..., or amqps://... for TLS".to_owned());
    }
    if !BrokerUrl::new(text).is_readable() {
        return Err(SHAPE.to_owned());
    }
    // The client ignores an IPv6 host, and silently connects to this machine.
    if let Some(Host::Ipv6(_)) = url.host() {
        return Err("write the host's name or its IPv4 address".to_owned());
    }
    let parts = [url.username(), url.password().unwrap_or(""), url.path()];
    let is_utf8 = |part: &str| percent_decode_str(part).decode_utf8().is_ok();
    if !parts.into_iter().all(is_utf8) {
        return Err("percent-encode user, password and vhost as UTF-8".to_owned());
    }
    for (name, value) in url.query_pairs() {
        let limit = match name.as_ref() {
            "heartbeat" | "channel_max" => u64::from(u16::MAX),
            "frame_max" if value == "0" => continue,
            "frame_max" => {
                let (least, most) = (FRAME_BYTES.start(), FRAME_BYTES.end());
                match value
                    .parse()
                    .is_ok_and(|number| FRAME_BYTES.contains(&number))
                {
                    true => continue,
                    false => return Err(format!("write frame_max=NUMBER, from {least} to {most}")),
                }
            }
            "connection_timeout" => u64::MAX,
            "auth_mechanism" => match MECHANISMS.contains(&value.to_lowercase().as_str()) {
                true => continue,
                false => {
                    return Err(format!(
                        "write auth_mechanism=WORD, one of {}",
                        MECHANISMS.join(", ")
                    ));
                }
            },
            _ => continue,
        };
        if !value.parse().is_ok_and(|number: u64| number <= limit) {
            return Err(format!("write {name}=NUMBER, a whole number up to {limit}"));
        }
    }
    Ok(())
}
