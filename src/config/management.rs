//! `broker.management_url`: the address of the broker's management API.

use url::Url;

use super::{
    inputs::{ConfigInputs, read_text, takes_file},
    problem::Problem,
    schema::{FilePath, Table, quoted},
    url::BrokerUrl,
    url_key::UrlKey,
};

const SHAPE: &str =
    "write http://HOST:15672, https://HOST:15671, or http://USER:PASSWORD@HOST:15672";

/// Reads the key. `None` if there is no URL.
pub(super) fn management(
    broker: &mut Table<'_, '_>,
    inputs: &ConfigInputs<'_>,
) -> Option<BrokerUrl> {
    let url = broker.optional(
        "management_url",
        "URL of the broker's management API, for facts that AMQP does not show. `tidegate check --broker` reads consumer \
        timeouts, types, arguments and policies of queues, and permissions. Pools of kind `consumer` read what their \
        programs hold (docs/consumers.md). The user and password of `url` \
        are used, unless this URL has its own. With https://, `tls.ca` is trusted too.",
        UrlKey { shape: SHAPE, check },
        &quoted("http://localhost:15672"),
    );
    let url_file = broker.optional(
        "management_url_file",
        "A file with that URL. Used instead of `management_url`.",
        FilePath,
        "\"/run/secrets/management-url\"",
    );
    if !takes_file(broker, &url, &url_file) {
        return url.value;
    }
    let text = read_text(broker, &url_file, inputs)?;
    let url = BrokerUrl::new(text.trim());
    if let Err(fix) = check(text.trim()) {
        let place = url_file.place.clone();
        broker.problem(Problem::new(place, &url_file.path, url.to_string(), fix));
        return None;
    }
    Some(url)
}

fn check(text: &str) -> Result<(), String> {
    let url = Url::parse(text).map_err(|_| SHAPE)?;
    match url.scheme() {
        "http" | "https" if BrokerUrl::new(text).is_readable() => Ok(()),
        _ => Err(SHAPE.to_owned()),
    }
}
