//! Problems, errors and logs show no credential. Also tests of the URLs that contain credentials.

use super::{POOL, given};
use crate::config::{BrokerUrl, TlsSettings};

/// URLs whose password contains `hunter2` or `12345`. Some of them are invalid.
const URLS: [&str; 14] = [
    "amqp://guest:hunter2@localhost:5672/%2f",
    "amqp://guest:hunter2@",
    "amqp://guest:hunter2@host:99999/",
    "amqp://guest:hun@ter2hunter2@host/",
    "amqp://guest:hunter2%@host/",
    "amqp://guest:hunter2%ff@host/",
    "amqp://guest:12345/hunter2@host/",
    "amqp://guest:12345?hunter2@host/",
    "amqp://guest:12345#hunter2@host/",
    "amqp:guest:hunter2@host",
    "amqp:///guest:hunter2@host",
    "http://guest:hunter2@host",
    "guest:hunter2@host",
    "amqp://guest:hunter2@[::1]/?heartbeat=hunter2",
];

fn has_credential(text: &str) -> bool {
    text.contains("hunter2") || text.contains("12345")
}

#[test]
fn no_url_shows_its_password_however_it_is_written() {
    for text in URLS {
        let url = BrokerUrl::new(text);
        let shown = format!("{url} {url:?}");
        assert!(!has_credential(&shown), "{shown}");
    }
}

#[test]
fn no_problem_of_a_url_shows_its_password_wherever_it_came_from() {
    for text in URLS {
        let quoted = toml::Value::from(text);
        let in_array = format!("broker.url = [{quoted}]\n{POOL}");
        let in_file = format!("broker.url = {quoted}\n{POOL}");
        let bare = format!("broker.url = {text}\n{POOL}");
        let unclosed = format!("broker.url = \"{text}\n{POOL}");
        for given in [
            given(&in_array),
            given(&in_file),
            given(&bare),
            given(&unclosed),
            given(POOL).amqp_url(text),
            given(POOL).variable("TIDEGATE_BROKER__URL", text),
        ] {
            let shown = match given.parse() {
                Ok(loaded) => format!("{loaded:?}"),
                Err(problems) => format!("{problems} {problems:?}"),
            };
            assert!(!has_credential(&shown), "{shown}");
        }
    }
}

#[test]
fn a_url_at_the_wrong_key_does_not_show_its_password_either() {
    for line in [
        "broker = URL",
        "broker.url_file = URL",
        "broker.tls.ca = URL",
        "broker.uri = URL",
        "http = { listen = URL, token_file = URL }",
        "pools.a = { queue = URL, declare = URL, prefetch = URL, drain_after = URL, preempt = URL }",
        "pools.a.policy.steps = URL",
        "pools.a.runner = { command = URL, env_pass = [URL, 3], env = URL }",
        "pools.a.runner = { command = [URL], kind = URL, timeout = URL, env.A = [URL] }",
    ] {
        for url in ["amqp://guest:hunter2@localhost", "guest:hunter2@localhost"] {
            let text = line.replace("URL", &format!("\"{url}\""));
            let shown = given(&text).problems().to_string();
            assert!(!has_credential(&shown), "{shown}");
        }
    }
}

#[test]
fn settings_show_no_passwords_and_no_values_of_job_variables() {
    let text = format!(
        "broker.url = \"amqps://guest:hunter2@host/\"\n{POOL}env = {{ PASSWORD = \"hunter2\" }}\n"
    );
    let given = given(&text);
    let loaded = given.loaded();
    assert_eq!(loaded.settings.broker.tls, TlsSettings::default());
    let shown = format!("{loaded:#?} {:?}", given.surroundings);
    assert!(!has_credential(&shown), "{shown}");
    assert!(
        shown.contains("PASSWORD") && shown.contains("guest:***@host"),
        "{shown}"
    );
}

#[test]
fn the_error_of_an_invalid_url_says_what_is_wrong() {
    let lines: Vec<_> = [
        "",
        "localhost:5672",
        "http://localhost",
        "amqp://",
        "amqp://us er:p/w@host",
        "amqp://[::1]:5672/%2f",
        "amqp://guest:%ff@localhost",
        "amqp://localhost/%ff",
        "amqp://localhost?heartbeat=often",
    ]
    .iter()
    .flat_map(|url| given(POOL).variable("TIDEGATE_BROKER__URL", url).lines())
    .collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn a_bad_amqp_url_names_the_variable() {
    let lines = given(POOL).amqp_url("http://a:b@c").lines();
    assert_eq!(
        lines,
        ["AMQP_URL: broker.url: found http://a:***@c/, write amqp://..., or amqps://... for TLS"]
    );
}

#[test]
fn files_that_keys_name_must_be_there() {
    let text = format!("broker.url_file = \"/url\"\nhttp.token_file = \"/token\"\n{POOL}");
    assert_eq!(
        given(&text).file("/token", "\n").lines(),
        [
            "tidegate.toml:1:19: broker.url_file: found \"/url\" (no such file), write the path of a file that can be read",
            "tidegate.toml:2:19: http.token_file: found \"/token\", write a token into that file: it is empty",
        ]
    );
    assert_eq!(
        given(&text)
            .file("/token", "t")
            .file("/url", "hunter2")
            .lines(),
        [
            "tidegate.toml:1:19: broker.url_file: found <unreadable url>, write amqp://USER:PASSWORD@HOST:5672/VHOST, \
          with / @ : ? # % in user, password and vhost as %2f %40 %3a %3f %23 %25"
        ]
    );
}

#[test]
fn a_url_that_names_the_empty_vhost_is_a_warning() {
    let warnings = given(POOL)
        .amqp_url("amqp://localhost:5672/")
        .loaded()
        .warnings;
    assert_eq!(warnings.len(), 1);
    assert_eq!(
        warnings[0].to_string(),
        "AMQP_URL: broker.url: found amqp://localhost:5672/, write %2f after the last / for the default vhost"
    );
}

#[test]
fn an_address_that_other_machines_reach_needs_a_token() {
    let reached = "tidegate.toml:1:15: http.listen: found \"0.0.0.0:8672\", name a file with a token in \
                   http.token_file, or with a read-only token in http.read_token_file, because other machines can reach \
                   this address; or write an address that only this machine can reach, such as 127.0.0.1:8672";
    let text = |key: &str| format!("http.listen = \"0.0.0.0:8672\"\n{key}\n{POOL}");
    assert_eq!(given(&text("")).lines(), [reached]);
    for key in ["token_file", "read_token_file"] {
        let text = text(&format!("http.{key} = \"/token\""));
        given(&text).file("/token", "s3cret").loaded();
    }
    for listen in ["[::1]:8672", "127.1.2.3:1", "[::ffff:127.0.0.1]:1", "off"] {
        let text = format!("http.listen = \"{listen}\"\n{POOL}");
        given(&text).loaded();
    }
}

#[test]
fn the_token_for_reading_must_differ_from_the_token_for_orders() {
    let text = format!("http.token_file = \"/a\"\nhttp.read_token_file = \"/b\"\n{POOL}");
    let lines = given(&text)
        .file("/a", "same")
        .file("/b", " same\n")
        .lines();
    assert_eq!(
        lines,
        [
            "tidegate.toml:2:24: http.read_token_file: found \"/b\", write another token into that file: this token \
            also allows steering"
        ]
    );
}
