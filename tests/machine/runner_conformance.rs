//! One suite for every kind of runner: what a pool expects of each of them.
//!
//! To add a kind, implement [`Kit`], which makes a manager whose jobs do a [`Task`], and add a line at the end.

use std::{
    fs::OpenOptions,
    future,
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use tidegate::{
    adapters::handler::{BlockingManager, HandlerManager},
    config::ExecSettings,
    decide::RunnerId,
    host::launcher,
    queue::Message,
    runner::{
        BoxError, CreateRunner, FailureKind, Job, JobControl, JobEnd, Outcome, RunReport, Runner,
        RunnerManager,
    },
    runners::{
        WarmSettings,
        container::{ContainerManager, Mount},
        exec::ExecManager,
        warm::WarmManager,
    },
};

use crate::support::{
    engine::engine,
    witness::{TIMEOUT, Witness, soon},
};
use crate::{harness::Trials, needs::Need};

/// What a job does. "Says" means that it writes a line to the witness, which it keeps open until its end.
#[derive(Debug, Clone, Copy)]
enum Task {
    /// Succeeds.
    Done,
    /// Fails with the reason "why".
    Fail,
    /// Asks for a retry.
    Retry,
    /// Rejects its message with the reason "never".
    Reject,
    /// Says "started" and waits. When told to end, it fails.
    Obey,
    /// Says "started" and waits. When told to end, it succeeds.
    EndWell,
    /// Says "started" and waits. Ignores all requests to end.
    Ignore,
    /// Copies its body to the file "body" and its attempt to the file "attempt".
    Copy,
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    timeout: Duration,
    kill_grace: Duration,
}

/// Limits that no test reaches.
const AMPLE: Limits = Limits {
    timeout: Duration::from_secs(3600),
    kill_grace: Duration::from_secs(3600),
};

const BRIEF: Duration = Duration::from_millis(50);

trait Kit {
    fn manager(&self, task: Task, limits: Limits, witness: &Witness) -> Box<dyn RunnerManager>;
    /// Whether a runner takes another job after a job that ended by itself.
    fn reusable(&self) -> bool;
}

/// A kind whose runners may be unable to start.
trait MayNotStart: Kit {
    /// A manager whose runners cannot start.
    fn cannot_start(&self) -> Box<dyn RunnerManager>;
}

struct Exec {
    /// Through a launcher, like a job with limits.
    is_launched: bool,
}

const EXEC: Exec = Exec { is_launched: false };
const LAUNCHED: Exec = Exec { is_launched: true };

impl Exec {
    fn limit(&self, settings: &mut ExecSettings) {
        if self.is_launched {
            launcher::use_program(env!("CARGO_BIN_EXE_tidegate"));
            settings.limits.nice = Some(1);
        }
    }
}

impl Kit for Exec {
    fn manager(&self, task: Task, limits: Limits, witness: &Witness) -> Box<dyn RunnerManager> {
        let wait =
            "exec 9>\"$FOLDER/witness\"; echo started >&9; while :; do sleep 1000 & wait; done";
        let script = match task {
            Task::Done => "exit 0",
            Task::Fail => "echo why >&2; exit 3",
            Task::Retry => "exit 75",
            Task::Reject => "echo never >&2; exit 65",
            Task::Obey => wait,
            Task::EndWell => &format!("trap 'exit 0' TERM; {wait}"),
            Task::Ignore => &format!("trap '' TERM; {wait}"),
            Task::Copy => {
                "cat >\"$FOLDER/body\"; printf %s \"$TIDEGATE_ATTEMPT\" >\"$FOLDER/attempt\""
            }
        };
        let mut settings = ExecSettings::new(["sh", "-c", script]);
        settings.timeout = limits.timeout;
        settings.kill_grace = limits.kill_grace;
        let folder = witness.folder().to_str().expect("a UTF-8 path");
        settings.env = [("FOLDER".to_owned(), folder.to_owned())].into();
        self.limit(&mut settings);
        Box::new(ExecManager::new(settings))
    }

    fn reusable(&self) -> bool {
        false
    }
}

impl MayNotStart for Exec {
    fn cannot_start(&self) -> Box<dyn RunnerManager> {
        let mut settings = ExecSettings::new(["/no/such/program"]);
        self.limit(&mut settings);
        Box::new(ExecManager::new(settings))
    }
}

struct Warm;

impl Kit for Warm {
    fn manager(&self, task: Task, limits: Limits, witness: &Witness) -> Box<dyn RunnerManager> {
        let wait = "open(folder + '/witness', 'w')\n  print('started', file=held, flush=True)\n  while True: time.sleep(1000)";
        let wait = wait.replacen("open", "held = open", 1);
        let work = match task {
            Task::Done => "pass",
            Task::Fail => "raise Exception('why')",
            Task::Retry => "raise tidegate.Retry",
            Task::Reject => "raise tidegate.Reject('never')",
            Task::Obey => &wait,
            Task::EndWell => &format!(
                "signal.signal(signal.SIGTERM, end_well)\n  try:\n   {}\n  except InterruptedError: pass",
                wait.replace("\n  ", "\n   ")
            ),
            Task::Ignore => &format!("signal.signal(signal.SIGTERM, signal.SIG_IGN)\n  {wait}"),
            Task::Copy => {
                "open(folder + '/body', 'wb').write(job.body)\n  \
                 open(folder + '/attempt', 'w').write(str(job.attempt))"
            }
        };
        let script = format!(
            "import os, signal, time, tidegate\n\
             folder = os.environ['FOLDER']\n\
             def end_well(*_): raise InterruptedError\n\
             def handle(job):\n  {work}\n\
             tidegate.serve(handle)\n"
        );
        Box::new(WarmManager::new(python(&script, limits, witness, 1)))
    }

    fn reusable(&self) -> bool {
        true
    }
}

impl MayNotStart for Warm {
    fn cannot_start(&self) -> Box<dyn RunnerManager> {
        let settings = WarmSettings::new(["/no/such/program"]);
        Box::new(WarmManager::new(settings))
    }
}

/// A slot of a process of asyncio.
struct WarmSlots;

impl Kit for WarmSlots {
    fn manager(&self, task: Task, limits: Limits, witness: &Witness) -> Box<dyn RunnerManager> {
        let wait = "held = open(folder + '/witness', 'w')\n  \
                    print('started', file=held, flush=True)\n  ";
        let obey = format!("{wait}await asyncio.sleep(1000)");
        let work = match task {
            Task::Done => "pass",
            Task::Fail => "raise Exception('why')",
            Task::Retry => "raise tidegate.Retry",
            Task::Reject => "raise tidegate.Reject('never')",
            Task::Obey => &obey,
            Task::EndWell => &format!(
                "{wait}try: await asyncio.sleep(1000)\n  except asyncio.CancelledError: pass"
            ),
            Task::Ignore => &format!(
                "{wait}while True:\n   try: await asyncio.sleep(1000)\n   except asyncio.CancelledError: pass"
            ),
            Task::Copy => {
                "open(folder + '/body', 'wb').write(job.body)\n  \
                 open(folder + '/attempt', 'w').write(str(job.attempt))"
            }
        };
        let script = format!(
            "import asyncio, os, tidegate\n\
             folder = os.environ['FOLDER']\n\
             async def handle(job):\n  {work}\n\
             tidegate.serve(handle)\n"
        );
        Box::new(WarmManager::new(python(&script, limits, witness, 4)))
    }

    fn reusable(&self) -> bool {
        true
    }
}

impl MayNotStart for WarmSlots {
    fn cannot_start(&self) -> Box<dyn RunnerManager> {
        let mut settings = WarmSettings::new(["/no/such/program"]);
        settings.concurrency = 4;
        Box::new(WarmManager::new(settings))
    }
}

/// Processes of Python that run `script` with the package for Python.
fn python(script: &str, limits: Limits, witness: &Witness, concurrency: u32) -> WarmSettings {
    let mut settings = WarmSettings::new(["python3", "-c", script]);
    settings.concurrency = concurrency;
    settings.process.timeout = limits.timeout;
    settings.process.kill_grace = limits.kill_grace;
    let folder = witness.folder().to_str().expect("a path of text");
    let shims = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shims/python/src");
    settings.process.env = [
        ("FOLDER".to_owned(), folder.to_owned()),
        ("PYTHONPATH".to_owned(), shims.to_owned()),
        ("PYTHONDONTWRITEBYTECODE".to_owned(), "1".to_owned()),
    ]
    .into();
    settings
}

struct Container;

impl Kit for Container {
    fn manager(&self, task: Task, limits: Limits, witness: &Witness) -> Box<dyn RunnerManager> {
        // The first process of a container ignores TERM by default.
        let wait = |on_term: &str| {
            format!(
                "trap '{on_term}' TERM; exec 9>/folder/witness; echo started >&9; \
                 while :; do sleep 1000 & wait; done"
            )
        };
        let script = match task {
            Task::Done => "exit 0",
            Task::Fail => "echo why >&2; exit 3",
            Task::Retry => "exit 75",
            Task::Reject => "echo never >&2; exit 65",
            Task::Obey => &wait("exit 1"),
            Task::EndWell => &wait("exit 0"),
            Task::Ignore => &wait(""),
            Task::Copy => "cat >/folder/body; printf %s \"$TIDEGATE_ATTEMPT\" >/folder/attempt",
        };
        let mut settings = engine().script(script);
        settings.timeout = limits.timeout;
        settings.stop_timeout = limits.kill_grace;
        let folder = witness.folder().to_str().expect("a UTF-8 path");
        settings.mounts = vec![Mount::parse(&format!("{folder}:/folder")).expect("a mount")];
        Box::new(ContainerManager::new(settings))
    }

    fn reusable(&self) -> bool {
        false
    }
}

impl MayNotStart for Container {
    fn cannot_start(&self) -> Box<dyn RunnerManager> {
        let settings = engine().settings("tidegate-test-no-such-image:1");
        Box::new(ContainerManager::new(settings))
    }
}

struct Handler;

impl Kit for Handler {
    fn manager(&self, task: Task, limits: Limits, witness: &Witness) -> Box<dyn RunnerManager> {
        let folder = witness.folder().to_owned();
        let manager = HandlerManager::new(move |job| handle(task, folder.clone(), job))
            .timeout(limits.timeout)
            .kill_grace(limits.kill_grace);
        Box::new(manager)
    }

    fn reusable(&self) -> bool {
        true
    }
}

/// The same handler on threads, each of which waits for it.
struct Blocking;

impl Kit for Blocking {
    fn manager(&self, task: Task, limits: Limits, witness: &Witness) -> Box<dyn RunnerManager> {
        let folder = witness.folder().to_owned();
        let runtime = tokio::runtime::Handle::current();
        let manager =
            BlockingManager::new(move |job| runtime.block_on(handle(task, folder.clone(), job)))
                .timeout(limits.timeout)
                .kill_grace(limits.kill_grace);
        Box::new(manager)
    }

    fn reusable(&self) -> bool {
        true
    }
}

async fn handle(task: Task, folder: PathBuf, job: Job) -> Result<Outcome, BoxError> {
    let start = |folder: &Path| {
        let mut fifo = OpenOptions::new()
            .write(true)
            .open(folder.join("witness"))?;
        writeln!(fifo, "started").map(|()| fifo)
    };
    match task {
        Task::Done => Ok(Outcome::Done),
        Task::Fail => Err("why".into()),
        Task::Retry => Ok(Outcome::retry()),
        Task::Reject => Ok(Outcome::reject("never")),
        Task::Obey => {
            let _held = start(&folder)?;
            job.stopped().await;
            Err("asked to end".into())
        }
        Task::EndWell => {
            let _held = start(&folder)?;
            job.stopped().await;
            Ok(Outcome::Done)
        }
        Task::Ignore => {
            let _held = start(&folder)?;
            future::pending().await
        }
        Task::Copy => {
            std::fs::write(folder.join("body"), job.body())?;
            std::fs::write(folder.join("attempt"), job.attempt().to_string())?;
            Ok(Outcome::Done)
        }
    }
}

fn job(body: impl Into<Bytes>, attempt: u32) -> Job {
    let message = Message {
        body: body.into(),
        ..Message::default()
    };
    Job::new(
        "pool".into(),
        "queue".into(),
        Arc::new(message),
        attempt,
        || "job".into(),
    )
}

async fn create(manager: &dyn RunnerManager) -> Box<dyn Runner> {
    let request = CreateRunner {
        id: RunnerId(1),
        pool: "pool".into(),
    };
    manager.create(request).await.expect("a runner")
}

/// Runs one job without interference.
async fn run(kit: &impl Kit, task: Task, limits: Limits) -> RunReport {
    let witness = Witness::new();
    let manager = kit.manager(task, limits, &witness);
    let mut runner = create(&*manager).await;
    soon(runner.run(&job("", 1), JobControl::default())).await
}

/// Starts one job, calls `interfere` while it runs, and returns its report when no process of it is left.
async fn run_and(
    kit: &impl Kit,
    task: Task,
    limits: Limits,
    interfere: impl FnOnce(&JobControl),
) -> JobEnd {
    let mut witness = Witness::new();
    let manager = kit.manager(task, limits, &witness);
    let mut runner = create(&*manager).await;
    let control = JobControl::default();
    let running = tokio::spawn({
        let control = control.clone();
        async move { runner.run(&job("", 1), control).await }
    });
    assert_eq!(witness.line().await, "started");
    interfere(&control);
    let report = soon(running).await.expect("a runner does not panic");
    witness.gone().await;
    report.end
}

async fn reports_a_job_that_is_done(kit: impl Kit) {
    let report = run(&kit, Task::Done, AMPLE).await;
    assert!(matches!(report.end, JobEnd::Done { .. }), "{report:?}");
}

async fn reports_a_job_that_failed_and_why(kit: impl Kit) {
    let report = run(&kit, Task::Fail, AMPLE).await;
    let JobEnd::Failed(failure) = &report.end else {
        panic!("{report:?}");
    };
    let said = format!("{} {:?}", failure.message, failure.stderr_tail);
    assert!(said.contains("why"), "{failure:?}");
}

async fn reports_a_job_that_asks_for_later(kit: impl Kit) {
    let report = run(&kit, Task::Retry, AMPLE).await;
    assert!(
        matches!(report.end, JobEnd::Retry { after: None, .. }),
        "{report:?}"
    );
}

async fn reports_a_job_that_refuses_itself_and_why(kit: impl Kit) {
    let report = run(&kit, Task::Reject, AMPLE).await;
    let JobEnd::Rejected { reason, .. } = &report.end else {
        panic!("{report:?}");
    };
    assert!(reason.contains("never"), "{reason}");
}

async fn ends_a_job_at_its_timeout(kit: impl Kit) {
    for task in [Task::Obey, Task::Ignore] {
        let limits = Limits {
            timeout: BRIEF,
            // `Obey` ends long before this grace is over. The other task runs into it.
            kill_grace: if matches!(task, Task::Obey) {
                TIMEOUT
            } else {
                BRIEF
            },
        };
        let report = run(&kit, task, limits).await;
        let JobEnd::Failed(failure) = &report.end else {
            panic!("{report:?}");
        };
        assert_eq!(failure.kind, FailureKind::Timeout);
        assert!(failure.message.contains("50ms"), "{}", failure.message);
    }
}

async fn stops_a_job_with_grace(kit: impl Kit) {
    let end = run_and(&kit, Task::Obey, AMPLE, |control| control.stop.cancel()).await;
    assert!(matches!(end, JobEnd::Stopped), "{end:?}");
}

async fn stops_a_job_by_force_after_its_grace(kit: impl Kit) {
    let limits = Limits {
        kill_grace: BRIEF,
        ..AMPLE
    };
    let end = run_and(&kit, Task::Ignore, limits, |control| control.stop.cancel()).await;
    assert!(matches!(end, JobEnd::Stopped), "{end:?}");
}

async fn a_job_that_succeeds_while_it_is_stopped_is_done(kit: impl Kit) {
    let end = run_and(&kit, Task::EndWell, AMPLE, |control| control.stop.cancel()).await;
    assert!(matches!(end, JobEnd::Done { .. }), "{end:?}");
}

async fn kills_a_job_at_once(kit: impl Kit) {
    let end = run_and(&kit, Task::Ignore, AMPLE, |control| control.kill.cancel()).await;
    assert!(matches!(end, JobEnd::Stopped), "{end:?}");
}

async fn kills_a_job_in_its_grace(kit: impl Kit) {
    let end = run_and(&kit, Task::Ignore, AMPLE, |control| {
        control.stop.cancel();
        control.kill.cancel();
    });
    let end = end.await;
    assert!(matches!(end, JobEnd::Stopped), "{end:?}");
}

async fn does_not_start_a_job_that_is_already_stopped(kit: impl Kit) {
    let witness = Witness::new();
    let manager = kit.manager(Task::Copy, AMPLE, &witness);
    let mut runner = create(&*manager).await;
    let control = JobControl::default();
    control.stop.cancel();
    let report = soon(runner.run(&job("", 1), control)).await;
    assert!(matches!(report.end, JobEnd::Stopped), "{report:?}");
    assert!(!witness.folder().join("body").exists());
}

async fn leaves_nothing_running_when_its_future_is_dropped(kit: impl Kit) {
    let mut witness = Witness::new();
    let manager = kit.manager(Task::Ignore, AMPLE, &witness);
    let mut runner = create(&*manager).await;
    let running = tokio::spawn(async move {
        runner.run(&job("", 1), JobControl::default()).await;
    });
    assert_eq!(witness.line().await, "started");
    running.abort();
    witness.gone().await;
}

async fn delivers_the_body_byte_for_byte_and_the_attempt(kit: impl Kit) {
    let all_bytes: Vec<u8> = (0..=u8::MAX).collect();
    let bodies = [
        Vec::new(),
        b"text\n\r\n\0no newline at the end".to_vec(),
        all_bytes.clone(),
        all_bytes.repeat(16 * 1024 * 1024 / 256),
    ];
    for (attempt, body) in (1..).zip(bodies) {
        let witness = Witness::new();
        let manager = kit.manager(Task::Copy, AMPLE, &witness);
        let mut runner = create(&*manager).await;
        let report = soon(runner.run(&job(body.clone(), attempt), JobControl::default())).await;
        assert!(matches!(report.end, JobEnd::Done { .. }), "{report:?}");
        let read = |name: &str| std::fs::read(witness.folder().join(name)).expect("a file");
        assert!(read("body") == body, "a body of {} bytes", body.len());
        assert_eq!(read("attempt"), attempt.to_string().as_bytes());
    }
}

async fn reports_correctly_whether_it_can_be_reused(kit: impl Kit) {
    let witness = Witness::new();
    for task in [Task::Done, Task::Fail, Task::Retry, Task::Reject] {
        let manager = kit.manager(task, AMPLE, &witness);
        let mut runner = create(&*manager).await;
        assert!(runner.is_alive());
        let report = soon(runner.run(&job("", 1), JobControl::default())).await;
        assert_eq!(report.reusable, kit.reusable(), "{task:?}");
        if report.reusable {
            assert!(runner.is_alive());
            let again = soon(runner.run(&job("", 2), JobControl::default())).await;
            assert_eq!(format!("{:?}", again.end), format!("{:?}", report.end));
        }
        manager.flush(vec![runner]).await;
    }
}

async fn tells_a_runner_that_cannot_start_from_a_job_that_fails(kit: impl MayNotStart) {
    let manager = kit.cannot_start();
    let request = CreateRunner {
        id: RunnerId(1),
        pool: "pool".into(),
    };
    // A kind may report it in either of the two calls.
    if let Ok(mut runner) = manager.create(request).await {
        let report = soon(runner.run(&job("", 1), JobControl::default())).await;
        assert!(matches!(report.end, JobEnd::NotStarted(_)), "{report:?}");
    }
}

macro_rules! conformance {
    ($kind:ident, $kit:expr, $need:expr, [$($test:ident),* $(,)?]) => {
        mod $kind {
            use super::*;
            $(
                async fn $test() {
                    super::$test($kit).await;
                }
            )*
            trials! { tasks($need): [$($test),*] }
        }
    };
    // All tests for every kind, and those for some kinds.
    ($kind:ident, $kit:expr, $need:expr, all and [$($more:ident),*]) => {
        conformance!($kind, $kit, $need, [
            reports_a_job_that_is_done,
            reports_a_job_that_failed_and_why,
            reports_a_job_that_asks_for_later,
            reports_a_job_that_refuses_itself_and_why,
            ends_a_job_at_its_timeout,
            stops_a_job_with_grace,
            stops_a_job_by_force_after_its_grace,
            a_job_that_succeeds_while_it_is_stopped_is_done,
            kills_a_job_at_once,
            kills_a_job_in_its_grace,
            does_not_start_a_job_that_is_already_stopped,
            leaves_nothing_running_when_its_future_is_dropped,
            delivers_the_body_byte_for_byte_and_the_attempt,
            reports_correctly_whether_it_can_be_reused,
            $($more,)*
        ]);
    };
    ($kind:ident, $kit:expr, $need:expr) => {
        conformance!($kind, $kit, $need, all and [
            tells_a_runner_that_cannot_start_from_a_job_that_fails
        ]);
    };
}

conformance!(container, Container, Need::Engine);
conformance!(exec, EXEC, Need::Nothing);
conformance!(exec_with_limits, LAUNCHED, Need::Nothing);
// A function can always start.
conformance!(handler, Handler, Need::Nothing, all and []);
// Also without those whose job ignores what it is asked: a thread cannot be ended.
conformance!(
    blocking_handler,
    Blocking,
    Need::Nothing,
    [
        reports_a_job_that_is_done,
        reports_a_job_that_failed_and_why,
        reports_a_job_that_asks_for_later,
        reports_a_job_that_refuses_itself_and_why,
        stops_a_job_with_grace,
        a_job_that_succeeds_while_it_is_stopped_is_done,
        does_not_start_a_job_that_is_already_stopped,
        delivers_the_body_byte_for_byte_and_the_attempt,
        reports_correctly_whether_it_can_be_reused,
    ]
);
conformance!(warm, Warm, Need::Interpreter("python3"));
conformance!(warm_slots, WarmSlots, Need::Interpreter("python3"));

pub(crate) fn trials(all: &mut Trials) {
    container::trials(all);
    exec::trials(all);
    exec_with_limits::trials(all);
    handler::trials(all);
    blocking_handler::trials(all);
    warm::trials(all);
    warm_slots::trials(all);
}
