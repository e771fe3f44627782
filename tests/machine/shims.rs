//! The shims of `examples/warm`, each if its interpreter is present.

use std::{path::Path, sync::Arc};

use tidegate::{
    decide::RunnerId,
    queue::{Headers, Message},
    runner::{CreateRunner, Job, JobControl, JobEnd, Runner, RunnerManager},
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
        each_shim_is_short,
    ],
}

const SHIMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/warm");
const HANDLERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/machine/handlers");

/// The runner of a language's handler.
async fn runner(interpreter: &str, extension: &str) -> Box<dyn Runner> {
    let handler = format!("{HANDLERS}/handler.{extension}");
    let mut settings = WarmSettings::new([interpreter, &handler]);
    settings.process.env = [
        ("SHIMS".to_owned(), SHIMS.to_owned()),
        ("PYTHONPATH".to_owned(), SHIMS.to_owned()),
        ("PYTHONDONTWRITEBYTECODE".to_owned(), "1".to_owned()),
    ]
    .into();
    let request = CreateRunner {
        id: RunnerId(1),
        pool: "pool".into(),
    };
    let created = soon(WarmManager::new(settings).create(request)).await;
    created.expect("a runner")
}

async fn end(runner: &mut dyn Runner, body: &'static [u8]) -> JobEnd {
    let message = Message {
        body: body.into(),
        headers: Headers::from([("n".to_owned(), 7.into())]),
        ..Message::default()
    };
    // An id with characters that are difficult for a shell and for JSON.
    let job = Job::new("p".into(), "q".into(), Arc::new(message), 3, || {
        "a \"b\\\" 'c' $d \u{1f600}".into()
    });
    let report = soon(runner.run(&job, JobControl::default())).await;
    assert!(report.reusable, "{report:?}");
    report.end
}

/// What every language's handler must do. For every job it also prints a stray line. Its own errors have the class
/// `raised`.
async fn holds(interpreter: &str, extension: &str, raised: &str) {
    let mut runner = runner(interpreter, extension).await;
    let runner = &mut *runner;
    let replies: [(&[u8], &str); 3] = [
        (b"reply", "caf\u{e9} a \"b\\\" 'c' $d \u{1f600} 3 7"),
        (b"\xff\n", "bytes"),
        ("lines\n\u{2028}of\u{85}text".as_bytes(), "lines"),
    ];
    for (body, expected) in replies {
        let end = end(runner, body).await;
        let JobEnd::Done { reply: Some(reply) } = end else {
            panic!("{end:?}");
        };
        assert_eq!(reply.body, expected.as_bytes());
    }
    let json = end(runner, b"json").await;
    let JobEnd::Done { reply: Some(json) } = json else {
        panic!("{json:?}");
    };
    assert_eq!(json.content_type.as_deref(), Some("application/json"));
    let json: serde_json::Value = serde_json::from_slice(&json.body).expect("JSON");
    let expected = serde_json::json!({ "n": [1, null, "caf\u{e9}", true] });
    assert_eq!(json, expected);
    let no_json = end(runner, b"no json").await;
    let JobEnd::Failed(failure) = no_json else {
        panic!("{no_json:?}");
    };
    let says_so = ["JSON", "serialize"]
        .iter()
        .any(|word| failure.message.contains(word));
    assert!(says_so, "{failure:?}");
    let later = end(runner, b"later").await;
    let later = format!("{later:?}");
    assert!(later.starts_with("Retry { after: Some(2.5s), "), "{later}");
    let never = end(runner, b"never").await;
    let never = format!("{never:?}");
    let refused = "Rejected { reason: \"refused by the job: no such image\", ";
    assert!(never.starts_with(refused), "{never}");
    let failed = end(runner, b"fail").await;
    let JobEnd::Failed(failure) = failed else {
        panic!("{failed:?}");
    };
    let message = &failure.message;
    assert!(message.contains(&format!("{raised}: why")), "{message}");
    let log = failure.stderr_tail.unwrap_or_default();
    assert!(
        log.contains("stray\n") && log.contains("stray, of a child"),
        "{log}"
    );
    let nothing = end(runner, b"").await;
    assert!(
        matches!(nothing, JobEnd::Done { reply: None }),
        "{nothing:?}"
    );
}

async fn python_answers_and_its_printed_lines_go_to_the_log() {
    holds("python3", "py", "ValueError").await;
}

async fn node_answers_and_its_printed_lines_go_to_the_log() {
    holds("node", "js", "Error").await;
}

async fn php_answers_and_its_printed_lines_go_to_the_log() {
    holds("php", "php", "Exception").await;
}

async fn ruby_answers_and_its_printed_lines_go_to_the_log() {
    holds("ruby", "rb", "RuntimeError").await;
}

async fn a_shell_answers_by_its_exit_codes() {
    let mut runner = runner("sh", "sh").await;
    let runner = &mut *runner;
    let table: [(&[u8], &str); 4] = [
        (b"reply", "Done { reply: None }"),
        (b"\xff\n", "Done { reply: None }"),
        (b"later", "Retry { after: None, "),
        (b"never", "Rejected { reason: \"refused by the job\", "),
    ];
    for (body, expected) in table {
        let end = format!("{:?}", end(runner, body).await);
        assert!(end.starts_with(expected), "{end}");
    }
    let failed = end(runner, b"fail").await;
    let JobEnd::Failed(failure) = failed else {
        panic!("{failed:?}");
    };
    assert_eq!(failure.message, "exit code 3");
    assert_eq!(failure.stderr_tail.as_deref(), Some("stray\nwhy"));
}

fn each_shim_is_short() {
    let shims = ["py", "js", "php", "rb", "sh"].map(|shim| (format!("tidegate.{shim}"), 40));
    let with_slots = ["_asyncio.py", "_concurrent.js"].map(|shim| (format!("tidegate{shim}"), 60));
    for (shim, most) in shims.into_iter().chain(with_slots) {
        let path = Path::new(SHIMS).join(&shim);
        let lines = std::fs::read_to_string(path)
            .expect("a shim")
            .lines()
            .count();
        assert!(lines < most, "{shim}: {lines}");
    }
}
