//! Tables of a pool that exist only if the file has them, and the keys of each kind of runner.

use std::time::Duration;

use super::{POOL, given};
use crate::{
    config::{Answers, BreakerRules, Cores, ExecSettings, RunnerSettings, reference},
    runners::{
        WarmSettings,
        container::{ContainerSettings, EngineAddress, Mount, Pull},
    },
};

#[test]
fn a_breaker_exists_if_its_table_exists() {
    let breaker = |given: super::Given| {
        let settings = given.loaded().settings;
        settings.pools[0].pool.retry.breaker
    };
    let with = |text: &str| given(&format!("{POOL}{text}"));
    let default = Some(BreakerRules::default());
    assert_eq!(breaker(given(POOL)), None);
    assert_eq!(breaker(with("[pools.thumbnails.retry]\n")), None);
    let header = "[pools.thumbnails.retry.breaker]\n";
    assert_eq!(breaker(with(header)), default);
    let variable = "TIDEGATE_POOLS__THUMBNAILS__RETRY__BREAKER__MIN_JOBS";
    let min_jobs = 3;
    assert_eq!(
        breaker(given(POOL).variable(variable, "3")),
        default.map(|rules| BreakerRules { min_jobs, ..rules })
    );

    for (share, failure_percent) in [
        ("1", 100),
        ("1.0", 100),
        ("0.29", 29),
        ("0.01", 1),
        ("\"80%\"", 80),
    ] {
        assert_eq!(
            breaker(with(&format!("{header}failures = {share}"))),
            default.map(|rules| BreakerRules {
                failure_percent,
                ..rules
            })
        );
    }
    for wrong in [
        "0", "0.0", "1.5", "0.125", "50", "nan", "\"0%\"", "\"1\"", "true",
    ] {
        let problems = with(&format!("{header}failures = {wrong}")).problems();
        assert_eq!(problems.len(), 1, "{wrong}");
    }

    let page = reference();
    let at = page.find(&format!("# {header}")).expect("its section");
    let section = page[at..]
        .lines()
        .take_while(|line| !line.is_empty())
        .map(|line| line.trim_start_matches("# "))
        .filter(|line| line.starts_with('[') || line.contains(" = "))
        .collect::<Vec<_>>();
    assert_eq!(section.len(), 5, "{section:?}");
    assert_eq!(breaker(with(&section.join("\n"))), default);
}

#[test]
fn a_warm_runner_has_limits_of_its_own() {
    let text = r#"
[pools.a.runner]
kind = "warm"
command = ["python3", "worker.py"]
timeout = "1m"
concurrency = 8
start_timeout = "5s"
max_jobs = 100
max_age = "1h"
idle_timeout = "10m"
max_memory = "256 MiB"
prestart = 2
"#;
    let mut process = ExecSettings::new(["python3", "worker.py"]);
    process.timeout = Duration::from_secs(60);
    let expected = WarmSettings {
        process,
        concurrency: 8,
        start_timeout: Duration::from_secs(5),
        max_jobs: Some(100),
        max_age: Some(Duration::from_secs(3600)),
        idle_timeout: Some(Duration::from_secs(600)),
        max_memory: Some(256 * 1024 * 1024),
        prestart: 2,
    };
    let settings = given(text).loaded().settings;
    assert_eq!(settings.pools[0].runner, RunnerSettings::from(expected));

    let text = "pools.a.runner = { kind = \"warm\", command = [\"a\"] }\n";
    let settings = given(text).loaded().settings;
    let expected = RunnerSettings::from(WarmSettings::new(["a"]));
    assert_eq!(settings.pools[0].runner, expected);
}

#[test]
fn a_container_runner_has_keys_of_its_own() {
    let text = r#"
[pools.a.runner]
kind = "container"
image = "thumbs:1"
command = ["--fast"]
timeout = "1m"
stop_timeout = "5s"
working_dir = "/work"
env_pass = ["TOKEN"]
mounts = ["/srv/images:/images:ro", "cache:/cache"]
network = "none"
user = "1000"
group = "users"
memory_max = "64MiB"
cpu_max = 0.5
pids_max = 20
init = true
pull = "never"
engine = "unix:///run/podman/podman.sock"
env = { SIZE = "256" }
"#;
    let settings = given(text).loaded().settings;
    let mut expected = ContainerSettings::new("thumbs:1");
    expected.command = vec!["--fast".to_owned()];
    expected.timeout = Duration::from_secs(60);
    expected.stop_timeout = Duration::from_secs(5);
    expected.working_dir = Some("/work".into());
    expected.env_pass = vec!["TOKEN".to_owned()];
    expected.env = [("SIZE".to_owned(), "256".to_owned())].into();
    expected.mounts = ["/srv/images:/images:ro", "cache:/cache"]
        .map(|mount| Mount::parse(mount).unwrap())
        .into();
    expected.network = Some("none".to_owned());
    expected.user = Some("1000".to_owned());
    expected.group = Some("users".to_owned());
    expected.memory_max = Some(64 << 20);
    expected.cpu_max = Some(Cores::from_thousandths(500));
    expected.pids_max = Some(20);
    expected.init = true;
    expected.pull = Pull::Never;
    expected.engine = Some(EngineAddress::Unix("/run/podman/podman.sock".into()));
    assert_eq!(settings.pools[0].runner, RunnerSettings::from(expected));

    let text = "pools.a.runner = { kind = \"container\", image = \"a\" }\n";
    let settings = given(text).loaded().settings;
    let expected = ContainerSettings::new("a");
    assert_eq!(settings.pools[0].runner, RunnerSettings::from(expected));
}

#[test]
fn the_example_for_replies_sends_replies() {
    let text = include_str!("../../../examples/reply.toml");
    let loaded = given(text).loaded();
    assert_eq!(loaded.warnings, []);
    let reply = &loaded.settings.pools[0].pool.reply;
    assert_eq!(reply.answers, Answers::Always);
    assert!(reply.allows("amq.gen-x"));
}

#[test]
fn spans_go_to_a_collector_if_the_file_names_one() {
    let with = |text: &str| given(&format!("{text}\n{POOL}"));
    assert_eq!(given(POOL).loaded().settings.otlp, None);
    let settings = with("[otlp]\nendpoint = \"https://collector:4318\"").loaded();
    let otlp = settings.settings.otlp.unwrap();
    assert_eq!(otlp.endpoint.as_str(), "https://collector:4318/");
    assert_eq!((otlp.service_name.as_str(), otlp.sample), ("tidegate", 1.0));
    let otlp = with("[otlp]\nendpoint = \"http://c\"\nheaders_file = \"h\"\nsample = 0.25")
        .file("h", "Authorization: Bearer s3cret")
        .loaded();
    let otlp = otlp.settings.otlp.unwrap();
    assert_eq!(otlp.sample, 0.25);
    assert_eq!(otlp.headers.0[0].1, "Bearer s3cret");
    assert!(!format!("{otlp:?}").contains("s3cret"));
    // A table that does nothing is a mistake.
    let lines = with("[otlp]\nsample = 0.5").lines();
    assert!(lines[0].contains("otlp: found no endpoint"), "{lines:?}");
    for (endpoint, part) in [
        ("localhost:4318", "http:// or https://"),
        ("grpc://localhost:4317", "http:// or https://"),
        (
            "http://user:s3cret@localhost:4318",
            "without user and password",
        ),
        ("http://localhost:4318/?key=s3cret", "begins with ?"),
    ] {
        let lines = with(&format!("otlp.endpoint = \"{endpoint}\"")).lines();
        assert!(lines[0].contains(part), "{lines:?}");
        assert!(!lines.concat().contains("s3cret"), "{lines:?}");
    }
}
