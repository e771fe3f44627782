//! Celery and dramatiq as their users run them, with the management API.

use std::{path::Path, process::Command};

use super::{HANDLERS, is_idle, lines, pool};
use crate::needs::{Need, frameworks};
use crate::support::{
    broker::PrivateBroker,
    daemon::{Daemon, poll},
};

trials! {
    plain(Need::Frameworks): [
        celery_on_a_quorum_queue_rises_and_drains_and_loses_no_task,
        dramatiq_rises_and_drains_and_loses_no_message,
    ],
}

/// A framework's application on a node of its own.
struct Application {
    broker: PrivateBroker,
    python: std::path::PathBuf,
    module: &'static str,
    queue: &'static str,
}

impl Application {
    fn new(module: &'static str, queue: &'static str) -> Self {
        Self {
            broker: PrivateBroker::start_managed(),
            python: frameworks().unwrap().join("bin"),
            module,
            queue,
        }
    }

    /// Starts a daemon whose pool `work` runs this command.
    fn daemon(&self, program: &str, arguments: &str, declare: &str) -> Daemon {
        let program = self.python.join(program);
        let command = format!("[{program:?}, {arguments}]");
        let url = self.broker.url();
        let keys = format!(
            "declare = \"{declare}\"\n\
             policy = {{ kind = \"backlog\", jobs_per_worker = 4, max = 3 }}\n\
             drain_after = \"9s\""
        );
        let runner = format!(
            "env = {{ BROKER = \"{url}\", QUEUE = \"{}\", PYTHONPATH = \"{HANDLERS}\", \
             PYTHONDONTWRITEBYTECODE = \"1\" }}",
            self.queue
        );
        let head = format!("broker.management_url = {:?}", self.broker.management_url());
        let pools = pool(self.queue, &keys, &command, &runner);
        Daemon::start_with(&url, &head, &pools)
    }

    /// Sends messages, each of which takes this many seconds.
    fn send(&self, folder: &Path, count: usize, seconds: &str, how: &str) {
        let module = self.module;
        let code = format!(
            "import {module}\nfor _ in range({count}):\n    {module}.work.{how}({seconds})\n"
        );
        let sent = Command::new(self.python.join("python"))
            .args(["-c", &code])
            .current_dir(folder)
            .env("BROKER", self.broker.url())
            .env("QUEUE", self.queue)
            .env("PYTHONPATH", HANDLERS)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .output()
            .unwrap();
        assert!(sent.status.success(), "{sent:?}");
    }
}

/// Runs a tide, and then a long message that outlives the others.
fn holds(application: &Application, daemon: &Daemon, how: &str) {
    let folder = daemon.dir();
    application.send(folder, 30, "0.3", how);
    daemon.wait_for_pool("work", |pool| pool["workers"]["live"] == 3);
    let all_done = poll(|| (lines(folder, "done").len() == 30).then_some(()));
    assert!(all_done.is_some(), "{}", daemon.said());
    daemon.wait_for_pool("work", is_idle);

    // One message on an otherwise empty queue: the program that holds it stays, and is known as busy.
    application.send(folder, 1, "20", how);
    let started = poll(|| (lines(folder, "taken").len() == 31).then_some(()));
    assert!(started.is_some(), "{}", daemon.said());
    daemon.wait_for_pool("work", |pool| {
        pool["runners"]["busy"] == 1 && pool["workers"]["live"] == 1 && pool["demand"] == 1
    });
    let (_, explained, _) = daemon.run(&["explain", "work"]);
    assert!(
        explained.contains("by the management API; 1 of our programs hold some"),
        "{explained}"
    );
    daemon.wait_for_pool("work", is_idle);
    assert_eq!(lines(folder, "done").len(), 31, "{}", daemon.said());
    assert_eq!(lines(folder, "taken").len(), 31, "no message ran twice");
    assert!(!daemon.said().contains("program killed"));
}

fn celery_on_a_quorum_queue_rises_and_drains_and_loses_no_task() {
    let celery = Application::new("celery_app", "celery-tasks");
    let arguments =
        "\"-A\", \"celery_app\", \"worker\", \"-c\", \"2\", \"-n\", \"tide{process}@%h\"";
    let daemon = celery.daemon("celery", arguments, "quorum");
    holds(&celery, &daemon, "delay");
}

fn dramatiq_rises_and_drains_and_loses_no_message() {
    let dramatiq = Application::new("dramatiq_app", "dramatiq-messages");
    let arguments = "\"dramatiq_app\", \"--processes\", \"1\", \"--threads\", \"2\"";
    let daemon = dramatiq.daemon("dramatiq", arguments, "no");
    holds(&dramatiq, &daemon, "send");
}
