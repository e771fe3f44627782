//! Good configurations, and the reference page that is one.

use std::time::Duration;

use super::{POOL, given};
use crate::{
    config::{
        Answers, Binding, BreakerRules, BrokerUrl, DeadLetter, Declare, DrainAfter, ExecSettings,
        LogFormat, Origin, PoolSettings, ReplySettings, RetrySettings, RunnerSettings, reference,
    },
    decide::{Policy, PolicyKind, Scaling, Schedule},
};

/// Every key of the documentation's own example, each with a value that is not its default.
const WHOLE: &str = r#"
events_file = "/var/log/events.jsonl"

[broker]
url = "amqps://user:secret@broker.example/vhost"
management_url = "http://watch:dog@broker.example:15672"
[broker.tls]
ca = "ca.pem"
cert = "cert.pem"
key = "key.pem"

[http]
listen = "off"
token_file = "token"
socket = "/run/t.sock"
state_dir = "/var/lib/t"

[log]
format = "json"

[pools.zebra]
queue = "stripes"
declare = "quorum"
prefetch = 2
poll_interval = "1s"
drain_after = "never"
weight = 3
share = true
local_max = 7
keep_warm = 1
preempt = true
shutdown_grace = "1m30s"
ack_deadline = "1h"
bindings = [{ exchange = "savanna", routing_key = "zebra.*" }]
arguments.x-dead-letter-exchange = "lions"
reply = true
reply_allow = ["amq.gen-*", "replies"]
reply_max = "64KiB"

[pools.zebra.policy]
kind = "steps"
steps = [[1, 2], [0x64, 10]]
min_active = 2
max = 8

[pools.zebra.scaling]
up_step = 1
down_window = "0s"
down_step = 2
churn = 30

[pools.zebra.runner]
kind = "exec"
command = ["python3", "thumb.py"]
timeout = "25m"
kill_grace = "0s"
env = { SIZE = "256" }
env_pass = ["LC_ALL"]
working_dir = "/srv"

[pools.zebra.retry]
max_attempts = 1
backoff = "500ms"
backoff_max = "500ms"
dead_letter = "broker"
[pools.zebra.retry.breaker]
failures = "80%"
window = "1m"
min_jobs = 20
pause = "10s"

[pools.ant.runner]
command = ["true"]
"#;

#[test]
fn every_key_of_the_file_reaches_its_setting() {
    let loaded = given(WHOLE)
        .file("ca.pem", "")
        .file("cert.pem", "")
        .file("key.pem", "")
        .file("token", "t0ken\n")
        .loaded();
    let settings = loaded.settings;
    assert_eq!(
        settings.events_file.as_deref(),
        Some("/var/log/events.jsonl".as_ref())
    );
    assert_eq!(
        settings.broker.url.expose(),
        "amqps://user:secret@broker.example/vhost"
    );
    let management = settings.management.as_ref().expect("it was given");
    assert_eq!(management.expose(), "http://watch:dog@broker.example:15672");
    assert_eq!(settings.broker.tls.ca.as_deref(), Some("ca.pem".as_ref()));
    assert_eq!(
        settings.broker.tls.cert.as_deref(),
        Some("cert.pem".as_ref())
    );
    assert_eq!(settings.broker.tls.key.as_deref(), Some("key.pem".as_ref()));
    assert_eq!(settings.http.listen, None);
    assert_eq!(settings.http.token_file.as_deref(), Some("token".as_ref()));
    assert_eq!(settings.http.socket.to_str(), Some("/run/t.sock"));
    assert_eq!(settings.http.state_dir.to_str(), Some("/var/lib/t"));
    assert_eq!(settings.log.format, LogFormat::Json);
    assert_eq!(loaded.warnings, []);

    let pool = &settings.pools[0].pool;
    let expected = PoolSettings {
        name: "zebra".into(),
        queue: "stripes".into(),
        declare: Declare::Quorum,
        arguments: [("x-dead-letter-exchange".to_owned(), "lions".into())].into(),
        bindings: vec![Binding {
            exchange: "savanna".to_owned(),
            routing_key: "zebra.*".to_owned(),
            ..Binding::default()
        }],
        prefetch: 2,
        key: None,
        poll_interval: Duration::from_secs(1),
        drain_after: DrainAfter::Never,
        keep_warm: 1,
        preempt: true,
        shutdown_grace: Duration::from_secs(90),
        ack_deadline: Duration::from_secs(3600),
        policy: Policy::steps([(1, 2), (100, 10)]).max(8).min_active(2),
        schedule: Schedule::default(),
        weight: 3,
        share: true,
        local_max: Some(7),
        own_policy: None,
        policy_origins: [
            "policy.kind",
            "policy.steps",
            "policy.min_active",
            "policy.max",
            "scaling.up_step",
            "scaling.down_window",
            "scaling.down_step",
            "scaling.churn",
        ]
        .map(|key| (key.to_owned(), Origin::File))
        .into(),
        scaling: Scaling {
            up_step: 1,
            down_window: Duration::ZERO,
            down_step: 2,
            churn: Some(30),
        },
        retry: RetrySettings {
            max_attempts: 1,
            backoff: Duration::from_millis(500),
            backoff_max: Duration::from_millis(500),
            dead_letter: DeadLetter::Broker,
            breaker: Some(BreakerRules {
                failure_percent: 80,
                window: Duration::from_secs(60),
                min_jobs: 20,
                pause: Duration::from_secs(10),
            }),
        },
        reply: ReplySettings {
            answers: Answers::Always,
            allow: vec!["amq.gen-*".to_owned(), "replies".to_owned()],
            max: 64 << 10,
        },
    };
    assert_eq!(*pool, expected);
    let mut exec = ExecSettings::new(["python3", "thumb.py"]);
    exec.timeout = Duration::from_secs(25 * 60);
    exec.kill_grace = Duration::ZERO;
    exec.env.insert("SIZE".to_owned(), "256".to_owned());
    exec.env_pass = vec!["LC_ALL".to_owned()];
    exec.working_dir = Some("/srv".into());
    assert_eq!(settings.pools[0].runner, RunnerSettings::from(exec));
}

#[test]
fn a_pool_can_be_configured_to_send_no_replies() {
    let loaded = given(&format!("[pools.thumbnails]\nreply = false\n{POOL}")).loaded();
    assert_eq!(loaded.settings.pools[0].pool.reply.answers, Answers::Never);
}

/// What the documentation shows, with the comments that carry keys taken off.
const DOCUMENTED: &str = r#"
[broker]
url = "amqp://guest:guest@localhost:5672/%2f"   # AMQP_URL when absent; amqps:// for TLS, [broker.tls] ca, cert, key

[http]
listen = "127.0.0.1:8672"       # health, metrics, API, dashboard; "off" for none
token_file = "token"            # for browsers and remote callers that steer
socket = "/run/t.sock"   # the command line's way in: mode 0600, peer's user checked; default in $RUNTIME_DIRECTORY, else XDG's
state_dir = "/var/lib/t" # instance lock, recordings; default $STATE_DIRECTORY, else XDG's; a stale socket or lock is taken over

[pools.thumbnails]
queue = "thumbnails"
declare = "no"                  # no | classic | quorum
prefetch = 1
poll_interval = "500ms"
drain_after = "5s"              # how long empty before all workers drain; "0s" at once, "never"
keep_warm = 0                   # workers (with their runners) kept on an empty queue
preempt = false                 # true: scaling down may stop running jobs (they are given back)
shutdown_grace = "30s"

[pools.thumbnails.policy]
kind = "backlog"                # fixed {workers} | backlog {jobs_per_worker} | steps {steps = [[1, 1], [100, 10]]}
jobs_per_worker = 10            # one worker for each 10 jobs of demand, rounded up
min_active = 1                  # floor from the first work until the queue is empty
max = 50

[pools.thumbnails.scaling]
up_step = 100                   # at most this many workers more per reconcile
down_window = "10s"             # scale down to the highest recommendation within this window
down_step = 100

[pools.thumbnails.runner]
kind = "exec"                   # exec | warm | container
command = ["python3", "thumb.py"]
timeout = "5m"                  # then TERM to the process group, then KILL after `kill_grace`
kill_grace = "10s"

[pools.thumbnails.retry]
max_attempts = 5
backoff = "1s"                  # doubled each time, with jitter, up to
backoff_max = "5m"
dead_letter = "queue"           # queue (<queue>.dead) | broker
"#;

#[test]
fn the_documented_example_says_what_the_defaults_are() {
    let mut settings = given(DOCUMENTED).file("token", "t0ken").loaded().settings;
    settings.pools[0].pool.policy_origins.clear();
    assert_eq!(settings.pools[0].pool, PoolSettings::new("thumbnails"));
    let command = ExecSettings::new(["python3", "thumb.py"]);
    assert_eq!(settings.pools[0].runner, RunnerSettings::from(command));
}

#[test]
fn pools_stay_in_the_order_of_the_file() {
    let settings = given(WHOLE)
        .file("ca.pem", "")
        .file("cert.pem", "")
        .file("key.pem", "")
        .file("token", "t0ken")
        .loaded()
        .settings;
    let names: Vec<_> = settings
        .pools
        .iter()
        .map(|p| p.pool.name.as_str())
        .collect();
    assert_eq!(names, ["zebra", "ant"]);
}

#[test]
fn a_pool_with_only_a_command_has_the_defaults_of_the_library() {
    let settings = given(POOL).loaded().settings;
    assert_eq!(settings.pools[0].pool, PoolSettings::new("thumbnails"));
    assert_eq!(
        settings.pools[0].runner,
        RunnerSettings::from(ExecSettings::new(["true"]))
    );
    assert_eq!(
        settings.broker.url,
        BrokerUrl::new("amqp://guest:guest@localhost:5672/%2f")
    );
    let listen = settings.http.listen.map(|address| address.to_string());
    assert_eq!(listen.as_deref(), Some("127.0.0.1:8672"));
}

#[test]
fn a_pool_with_a_target_drains_after_a_third_of_it_unless_the_file_says_when() {
    let drain_after = |keys: &str, target: &str| {
        let policy = format!("policy = {{ kind = \"target_wait\", target = \"{target}\" }}");
        let text = format!("{POOL}[pools.other]\n{policy}\n{keys}\nrunner.command = [\"true\"]\n");
        let pools = given(&text).loaded().settings.pools;
        let other = pools.iter().find(|pool| pool.pool.name.as_str() == "other");
        other.expect("it is there").pool.drain_after
    };
    for (target, seconds) in [("30s", 10), ("1s", 5), ("1h", 60)] {
        let after = DrainAfter::ByArrivals(Duration::from_secs(seconds));
        assert_eq!(drain_after("", target), after, "{target}");
    }
    let two = DrainAfter::After(Duration::from_secs(2));
    assert_eq!(drain_after("drain_after = \"2s\"", "30s"), two);
    assert_eq!(
        drain_after("drain_after = \"never\"", "30s"),
        DrainAfter::Never
    );
}

#[test]
fn the_bounds_of_a_policy_follow_its_kind() {
    let policy = |text: &str| {
        let text = format!("{POOL}[pools.thumbnails.policy]\n{text}");
        given(&text).loaded().settings.pools[0].pool.policy.clone()
    };
    assert_eq!(policy("kind = \"fixed\"\nworkers = 80"), Policy::fixed(80));
    assert_eq!(
        policy("kind = \"fixed\"\nworkers = 80\nmax = 3"),
        Policy::fixed(80).max(3)
    );
    assert_eq!(policy("jobs_per_worker = 3"), Policy::backlog(3));
    assert_eq!(
        policy("kind = \"target_wait\"\ntarget = \"45s\"\nutilisation = 1\nmax = 9"),
        Policy::target_wait(Duration::from_secs(45))
            .utilisation(1.0)
            .max(9)
    );
    assert_eq!(
        policy("kind = \"steps\"\nsteps = [[0, 7], [9, 2]]"),
        Policy::new(PolicyKind::Steps {
            steps: vec![(0, 7).into(), (9, 2).into()]
        })
    );
    assert_eq!(policy("min_active = 0").min_active, 0);
}

#[test]
fn the_url_comes_from_the_file_then_its_file_then_amqp_url() {
    let url = |given: super::Given| given.loaded().settings.broker.url.expose().to_owned();
    let named = format!("[broker]\nurl = \"amqp://file/a\"\n{POOL}");
    let pointed = format!("[broker]\nurl_file = \"/run/url\"\n{POOL}");
    assert_eq!(url(given(POOL).amqp_url("amqp://env/a")), "amqp://env/a");
    assert_eq!(url(given(&named).amqp_url("amqp://env/a")), "amqp://file/a");
    assert_eq!(
        url(given(&pointed)
            .amqp_url("amqp://env/a")
            .file("/run/url", "amqp://secret/a\n")),
        "amqp://secret/a"
    );
    assert_eq!(
        url(given(&named)
            .variable("TIDEGATE_BROKER__URL_FILE", "/run/url")
            .file("/run/url", "amqp://secret/a")),
        "amqp://secret/a"
    );
    assert_eq!(
        url(given(&pointed).variable("TIDEGATE_BROKER__URL", "amqp://variable/a")),
        "amqp://variable/a"
    );
}

#[test]
fn the_urls_of_a_cluster_come_from_the_file_a_variable_or_a_file_of_lines() {
    let urls = |given: super::Given| {
        let broker = given.loaded().settings.broker;
        let urls = std::iter::once(&broker.url).chain(&broker.others);
        urls.map(|url| url.expose().to_owned()).collect::<Vec<_>>()
    };
    let both = ["amqp://a/%2f", "amqp://b/%2f"];
    let named = format!("[broker]\nurls = {both:?}\n{POOL}");
    assert_eq!(urls(given(&named).amqp_url("amqp://env/a")), both);
    let variable = r#"["amqp://a/%2f", "amqp://b/%2f"]"#;
    let single = format!("[broker]\nurl = \"amqp://file/a\"\n{POOL}");
    assert_eq!(
        urls(given(&single).variable("TIDEGATE_BROKER__URLS", variable)),
        both
    );
    assert_eq!(
        urls(given(&named).variable("TIDEGATE_BROKER__URL", "amqp://variable/a")),
        ["amqp://variable/a"]
    );
    let pointed = format!("[broker]\nurl_file = \"/run/url\"\n{POOL}");
    let lines = "\namqp://a/%2f\r\n\n  amqp://b/%2f\n";
    assert_eq!(urls(given(&pointed).file("/run/url", lines)), both);
}

#[test]
fn socket_and_state_are_in_the_usual_directories_of_the_system() {
    let mut given = given(POOL);
    let mut places = |change: fn(&mut crate::config::Surroundings)| {
        change(&mut given.surroundings);
        let http = given.loaded().settings.http;
        format!("{} {}", http.socket.display(), http.state_dir.display())
    };
    let root = places(|_| {});
    assert_eq!(root, "/run/tidegate/tidegate.sock /var/lib/tidegate");
    let nobody = places(|s| s.uid = 7);
    assert_eq!(nobody, "/tmp/tidegate-7/tidegate.sock /tmp/tidegate-7");
    let user = places(|s| {
        s.home = Some("/home/a".into());
        s.xdg_runtime_dir = Some("/run/user/7".into());
    });
    assert_eq!(
        user,
        "/run/user/7/tidegate/tidegate.sock /home/a/.local/state/tidegate"
    );
    let xdg = places(|s| s.xdg_state_home = Some("/xdg".into()));
    assert_eq!(xdg, "/run/user/7/tidegate/tidegate.sock /xdg/tidegate");
    let service = places(|s| {
        s.runtime_directory = Some("/run/t".into());
        s.state_directory = Some("/var/lib/t".into());
    });
    assert_eq!(service, "/run/t/tidegate.sock /var/lib/t");
}

#[test]
fn the_reference_page_names_every_key() {
    insta::assert_snapshot!(reference());
}

#[test]
fn the_reference_page_is_a_valid_configuration_with_only_defaults() {
    let mut settings = given(&reference()).loaded().settings;
    settings.pools[0].pool.policy_origins.clear();
    let mut minimal = given(POOL).loaded().settings;
    minimal.pools[0].runner = RunnerSettings::from(ExecSettings::new(["python3", "thumb.py"]));
    assert_eq!(settings, minimal);
}

#[test]
fn the_reference_pages_examples_are_of_the_kinds_that_their_keys_take() {
    for example in reference()
        .lines()
        .filter_map(|line| line.strip_prefix("# "))
    {
        let is_key = example
            .split_once(" = ")
            .is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'));
        if !is_key {
            continue;
        }
        // Tables that are only there as comments, so that their keys stand where they belong.
        let page = reference().replace("\n# [", "\n[");
        let page = page.replace(&format!("# {example}\n"), &format!("{example}\n"));
        let lines = match given(&page).parse() {
            Ok(_) => continue,
            Err(problems) => problems,
        };
        // Keys whose example is not valid on its own here: it names a file, or needs another kind or key.
        for problem in &lines {
            let is_expected = ["no such file", "remove it"]
                .iter()
                .any(|word| problem.to_string().contains(word))
                || problem.fix.starts_with("write cert")
                || problem.fix.starts_with("write endpoint")
                || problem.fix.starts_with("write key")
                || problem.fix.starts_with("write kill_grace");
            assert!(is_expected, "{example}: {problem}");
        }
    }
}
