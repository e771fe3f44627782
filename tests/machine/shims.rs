//! The packages of `shims` and the shell shim, as runners of tidegate. Each is tested if its interpreter is present.
//!
//! `scripts/test-shims` runs the vectors of the protocol against the packages. The tests here run the workers of those
//! vectors as processes of a real `warm` runner.

use std::{path::Path, sync::Arc};

use tidegate::{
    decide::RunnerId,
    queue::{Headers, Message},
    runner::{CreateRunner, Job, JobControl, JobEnd, Reply, Runner, RunnerManager},
    runners::{WarmSettings, warm::WarmManager},
};

use crate::needs::Need;
use crate::support::witness::soon;

trials! {
    tasks(Need::Interpreter("python3")): [
        python_answers_and_its_printed_lines_go_to_the_log,
    ],
    tasks(Need::Interpreter("node")): [
        node_answers_and_its_printed_lines_go_to_the_log,
    ],
    tasks(Need::Interpreter("php")): [
        php_answers_and_its_printed_lines_go_to_the_log,
    ],
    tasks(Need::Interpreter("ruby")): [
        ruby_answers_and_its_printed_lines_go_to_the_log,
    ],
    tasks(Need::Nothing): [
        a_shell_answers_by_its_exit_codes,
    ],
    plain(Need::Nothing): [
        each_package_is_small,
    ],
}

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// An id with characters that are difficult for a shell and for JSON.
const ID: &str = "a \"b\\\" 'c' $d \u{1f600}";

/// A runner of this program, below the workspace's root.
async fn runner(interpreter: &str, program: &str) -> Box<dyn Runner> {
    let mut settings = WarmSettings::new([interpreter, &format!("{ROOT}/{program}")]);
    let variables = [
        ("SHIMS", "examples/warm"),
        ("PYTHONPATH", "shims/python/src"),
    ];
    let variables = variables.map(|(name, folder)| (name.to_owned(), format!("{ROOT}/{folder}")));
    settings.process.env = variables.into();
    let bytecode = ("PYTHONDONTWRITEBYTECODE".to_owned(), "1".to_owned());
    settings.process.env.extend([bytecode]);
    let request = CreateRunner {
        id: RunnerId(1),
        pool: "pool".into(),
    };
    let created = soon(WarmManager::new(settings).create(request)).await;
    created.expect("a runner")
}

/// Runs a job. The handlers do what the header `do` says.
async fn end(runner: &mut dyn Runner, act: &str, body: &'static [u8]) -> JobEnd {
    let message = Message {
        body: body.into(),
        headers: Headers::from([("do".to_owned(), act.into())]),
        ..Message::default()
    };
    let job = Job::new("p".into(), "q".into(), Arc::new(message), 3, || ID.into());
    let report = soon(runner.run(&job, JobControl::default())).await;
    assert!(report.reusable, "{report:?}");
    report.end
}

/// The reply to a job.
async fn reply(runner: &mut dyn Runner, act: &str, body: &'static [u8]) -> Reply {
    match end(runner, act, body).await {
        JobEnd::Done { reply: Some(reply) } => reply,
        end => panic!("{end:?}"),
    }
}

/// What every package must do. An error that its handler raises has the class `raised`.
async fn holds(interpreter: &str, program: &str, raised: &str) {
    let mut runner = runner(interpreter, program).await;
    let runner = &mut *runner;
    let lines = "caf\u{e9} lines\n\u{2028}of\u{85}text".as_bytes();
    assert_eq!(reply(runner, "text", lines).await.body, lines);
    let bytes = reply(runner, "bytes", b"\xff\n").await;
    assert_eq!(bytes.body, b"\xff\n".as_slice());
    assert_eq!(
        bytes.content_type.as_deref(),
        Some("application/octet-stream")
    );
    assert_eq!(reply(runner, "attempt", b"").await.body, b"3".as_slice());
    let seen = reply(runner, "describe", b"").await;
    let seen: serde_json::Value = serde_json::from_slice(&seen.body).expect("JSON");
    assert_eq!(seen["id"], ID);
    let json = reply(runner, "json", b"").await;
    assert_eq!(json.content_type.as_deref(), Some("application/json"));
    let json: serde_json::Value = serde_json::from_slice(&json.body).expect("JSON");
    let expected = serde_json::json!({ "n": [1, null, "caf\u{e9}", true, 0.5], "empty": {} });
    assert_eq!(json, expected);
    for done in ["progress", "print", "anything else"] {
        let end = end(runner, done, b"").await;
        assert!(matches!(end, JobEnd::Done { reply: None }), "{end:?}");
    }
    let no_json = end(runner, "not json", b"").await;
    let JobEnd::Failed(failure) = no_json else {
        panic!("{no_json:?}");
    };
    let says_so = ["JSON", "serialize"]
        .iter()
        .any(|word| failure.message.contains(word));
    assert!(says_so, "{failure:?}");
    let table = [
        ("retry in 2.5", "Retry { after: Some(2.5s), "),
        ("retry", "Retry { after: None, "),
        (
            "reject",
            "Rejected { reason: \"refused by the job: no such image\", ",
        ),
    ];
    for (act, expected) in table {
        let end = format!("{:?}", end(runner, act, b"").await);
        assert!(end.starts_with(expected), "{end}");
    }
    let failed = end(runner, "fail", b"").await;
    let JobEnd::Failed(failure) = failed else {
        panic!("{failed:?}");
    };
    let message = &failure.message;
    assert!(message.contains(&format!("{raised}: why")), "{message}");
    let log = failure.stderr_tail.unwrap_or_default();
    assert!(log.contains("stray\n"), "{log}");
    let failed = end(runner, "fail with bytes", b"").await;
    assert!(format!("{failed:?}").contains("why"), "{failed:?}");
}

async fn python_answers_and_its_printed_lines_go_to_the_log() {
    for worker in ["worker.py", "async_worker.py"] {
        holds(
            "python3",
            &format!("shims/python/tests/{worker}"),
            "ValueError",
        )
        .await;
    }
}

async fn node_answers_and_its_printed_lines_go_to_the_log() {
    holds("node", "shims/node/test/worker.js", "Error").await;
}

async fn php_answers_and_its_printed_lines_go_to_the_log() {
    holds("php", "shims/php/tests/worker.php", "RuntimeException").await;
}

async fn ruby_answers_and_its_printed_lines_go_to_the_log() {
    holds("ruby", "shims/ruby/test/worker.rb", "RuntimeError").await;
}

async fn a_shell_answers_by_its_exit_codes() {
    let mut runner = runner("sh", "tests/machine/handlers/handler.sh").await;
    let runner = &mut *runner;
    let table: [(&[u8], &str); 4] = [
        (b"reply", "Done { reply: None }"),
        (b"\xff\n", "Done { reply: None }"),
        (b"later", "Retry { after: None, "),
        (b"never", "Rejected { reason: \"refused by the job\", "),
    ];
    for (body, expected) in table {
        let end = format!("{:?}", end(runner, "", body).await);
        assert!(end.starts_with(expected), "{end}");
    }
    let failed = end(runner, "", b"fail").await;
    let JobEnd::Failed(failure) = failed else {
        panic!("{failed:?}");
    };
    assert_eq!(failure.message, "exit code 3");
    assert_eq!(failure.stderr_tail.as_deref(), Some("stray\nwhy"));
}

/// A package that is read in a few minutes can be trusted.
fn each_package_is_small() {
    for (file, most) in [
        ("examples/warm/tidegate.sh", 40),
        ("shims/python/src/tidegate/__init__.py", 250),
        ("shims/node/index.js", 150),
        ("shims/go/tidegate.go", 350),
        ("shims/php/src/Job.php", 150),
        ("shims/ruby/lib/tidegate.rb", 200),
    ] {
        let path = Path::new(ROOT).join(file);
        let text = std::fs::read_to_string(path).expect("a package");
        let lines = text.lines().count();
        assert!(lines < most, "{file}: {lines}");
    }
}
