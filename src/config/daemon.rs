//! The whole configuration, and the tables that belong to the daemon.

use std::net::{Ipv4Addr, SocketAddr};

use super::{
    broker::broker,
    inputs::{ConfigInputs, read_text},
    otlp::otlp,
    pools::pools,
    problem::Problem,
    schema::{ADDRESS, Choice, FilePath, OrWord, Table},
    settings::{HttpSettings, LogFormat, LogSettings},
    supervisor::{refuse_small_limit, supervisor},
    whole::Settings,
};
use crate::runners::RunnerKind;

/// Longest path of a Unix socket (`sun_path` without the final NUL), in bytes.
const SOCKET_PATH_BYTES: usize = 107;

/// Reads the whole configuration. Keys outside tables come first, because the reference page is a TOML file too.
pub(super) fn settings(
    root: &mut Table<'_, '_>,
    inputs: &ConfigInputs<'_>,
    kinds: &[&'static RunnerKind],
) -> Settings {
    let events_file = root.optional(
        "events_file",
        "File to which metric events are appended, one JSON object per line.",
        FilePath,
        "\"/var/log/tidegate/events.jsonl\"",
    );
    let (broker, management) = broker(root, inputs);
    let http = http(root, inputs);
    let log = log(root);
    let otlp = otlp(root, inputs);
    let (supervisor, max_workers) = supervisor(root);
    let pools = pools(root, inputs, kinds);
    refuse_small_limit(root, &max_workers, &pools);
    Settings {
        broker,
        management,
        http,
        supervisor,
        log,
        otlp,
        events_file: events_file.value,
        pools,
    }
}

fn http(root: &mut Table<'_, '_>, inputs: &ConfigInputs<'_>) -> HttpSettings {
    let mut table = root.table(
        "http",
        "Health, metrics, API, and the socket of the command line.",
    );
    let listen = table.key(
        "listen",
        "Address of health, metrics and API.",
        OrWord(ADDRESS, "off"),
        Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 8672))),
    );
    let token_file = table.optional(
        "token_file",
        "File with the token that browsers and remote callers need for changes.",
        FilePath,
        "\"/etc/tidegate/token\"",
    );
    let read_token_file = table.optional(
        "read_token_file",
        "File with a second token that only allows reading. Browsers and remote callers need it if `listen` can be \
        reached from other machines.",
        FilePath,
        "\"/etc/tidegate/read-token\"",
    );
    let [token, read_token] = [&token_file, &read_token_file].map(|key| {
        table.holds_secret(key);
        let token = read_text(&mut table, key, inputs)?;
        if token.trim().is_empty() {
            table.refuse(key, "write a token into that file: it is empty");
        }
        Some(token.trim().to_owned()).filter(|token| !token.is_empty())
    });
    if token.is_some() && token == read_token {
        table.refuse(
            &read_token_file,
            "write another token into that file: this token also allows steering",
        );
    }
    let is_reached = listen
        .value
        .is_some_and(|listen| !listen.ip().to_canonical().is_loopback());
    if is_reached && !token_file.is_given() && !read_token_file.is_given() {
        table.refuse(
            &listen,
            "name a file with a token in http.token_file, or with a read-only token in http.read_token_file, because \
            other machines can reach this address; or write an address that only this machine can reach, such as \
            127.0.0.1:8672",
        );
    }
    let socket = table.optional(
        "socket",
        "Unix socket of the command line. When absent, `tidegate.sock` in $RUNTIME_DIRECTORY, otherwise in \
        $XDG_RUNTIME_DIR/tidegate, otherwise in /run/tidegate for root and in /tmp/tidegate-UID for other users.",
        FilePath,
        "\"/run/tidegate/tidegate.sock\"",
    );
    let state_dir = table.optional(
        "state_dir",
        "Directory of the instance lock, of orders that were set by hand, and of recordings. When absent, $STATE_DIRECTORY, otherwise \
        $XDG_STATE_HOME/tidegate, otherwise $HOME/.local/state/tidegate. Without $HOME, /var/lib/tidegate for root and \
        /tmp/tidegate-UID for other users.",
        FilePath,
        "\"/var/lib/tidegate\"",
    );
    let path = (socket.value.clone()).unwrap_or_else(|| inputs.surroundings.socket());
    if socket.is_sound() && path.as_os_str().len() > SOCKET_PATH_BYTES {
        table.problem(Problem::new(
            socket.place.clone(),
            socket.path.clone(),
            format!("a path of {} bytes", path.as_os_str().len()),
            format!("write a path of at most {SOCKET_PATH_BYTES} bytes"),
        ));
    }
    HttpSettings {
        listen: listen.value,
        socket: path,
        state_dir: (state_dir.value).unwrap_or_else(|| inputs.surroundings.state_dir()),
        token_file: token_file.value,
        read_token_file: read_token_file.value,
    }
}

fn log(root: &mut Table<'_, '_>) -> LogSettings {
    let mut table = root.table("log", "Logs, on standard error.");
    let format = table.key(
        "format",
        "Format of a line: text for people, or one JSON object.",
        Choice(&[("human", LogFormat::Human), ("json", LogFormat::Json)]),
        LogFormat::default(),
    );
    table.elsewhere(
        "level",
        "remove it, and set TIDEGATE_LOG=debug in the environment, or another level",
    );
    LogSettings {
        format: format.value,
    }
}
