//! The `[broker]` table: the address of the broker, and the certificates to trust.

use percent_encoding::percent_decode_str;
use url::{Host, Url};

use super::{
    inputs::{ConfigInputs, read_text, takes_file},
    management::management,
    problem::{Place, Problem},
    schema::{FilePath, Key, KeyPresence, Table, nearest, quoted, shown_text},
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
    let url_file = table.optional(
        "url_file",
        "A file with the URL, so that the password is not in this file. Used instead of `url`.",
        FilePath,
        "\"/run/secrets/amqp-url\"",
    );
    let (url, is_sound) = chosen_url(&mut table, &url, &url_file, inputs);

    let management = management(&mut table, inputs);

    let mut tls = table.table("tls", "Certificates, for `amqps://`.");
    let is_plain = is_sound && url.expose().trim().starts_with("amqp:");
    let tls = tls_settings(&mut tls, is_plain, inputs);
    (BrokerSettings { url, tls }, management)
}

/// The URL that is used, and whether it is valid. A variable overrides the file, even if one of them has the URL and
/// the other has the path of a file with the URL.
fn chosen_url(
    table: &mut Table<'_, '_>,
    url: &Key<Option<BrokerUrl>>,
    url_file: &Key<Option<std::path::PathBuf>>,
    inputs: &ConfigInputs<'_>,
) -> (BrokerUrl, bool) {
    let fallback = || (BrokerUrl::new(DEFAULT_URL), false);
    if takes_file(table, url, url_file) {
        let Some(text) = read_text(table, url_file, inputs) else {
            return fallback();
        };
        let place = url_file.place.clone();
        return checked(table, text.trim(), place, &url_file.path)
            .map_or_else(fallback, |url| (url, true));
    }
    if let Some(value) = &url.value {
        warn_of_url(table, value, &url.place, &url.path);
        return (value.clone(), true);
    }
    if url.given == KeyPresence::Invalid {
        return fallback();
    }
    match inputs.surroundings.amqp_url.as_deref() {
        None | Some("") => (BrokerUrl::new(DEFAULT_URL), true),
        Some(text) => {
            let place = Place::Variable {
                variable: "AMQP_URL".into(),
            };
            checked(table, text, place, &url.path).map_or_else(fallback, |url| (url, true))
        }
    }
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
