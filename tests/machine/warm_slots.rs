//! Warm processes that have several jobs at a time.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use tidegate::{
    decide::RunnerId,
    queue::Message,
    runner::{
        CreateRunner, FailureKind, Job, JobControl, JobEnd, RunReport, Runner, RunnerManager,
    },
    runners::{WarmSettings, warm::WarmManager},
};

use crate::needs::Need;
use crate::support::witness::soon;

trials! {
    tasks(Need::Interpreter("python3")): [
        one_process_has_one_job_for_each_slot,
        if_a_process_is_full_another_one_is_started,
        slots_of_a_starting_process_can_be_reserved,
        a_crash_fails_the_jobs_of_its_process_and_no_others,
        a_stopped_job_does_not_affect_the_jobs_in_other_slots,
        a_job_that_ignores_its_stop_is_given_up_and_its_process_ends_after_the_others,
        each_job_has_its_own_deadline_and_progress,
        a_process_is_retired_when_its_slots_are_free,
        an_answer_to_another_job_breaks_the_protocol,
        a_program_of_version_one_has_one_job_at_a_time,
        a_process_may_report_fewer_slots_than_allowed,
        an_async_handler_also_serves_a_pool_of_one_at_a_time,
        an_answer_counts_if_its_process_ends_right_after_it,
    ],
    tasks(Need::Interpreter("node")): [
        node_has_several_jobs_at_a_time_and_stops_one,
    ],
}

const SHIMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shims/python/src");

/// A Python worker. The body of a job selects what it does: `three` waits for three such jobs, `pid`, `wait`, `crash`,
/// `deaf`, or `progress` for a while.
const WORKER: &str = "
import asyncio, os, tidegate
three = []
async def handle(job):
    match job['body'].split():
        case ['three']:
            three.append(mine := asyncio.Event())
            if len(three) == 3:
                for event in three: event.set()
            await mine.wait()
            return os.getpid()
        case ['pid']: return os.getpid()
        case ['wait']: await asyncio.sleep(3600)
        case ['crash']: os._exit(3)
        case ['deaf']:
            while True:
                try: await asyncio.sleep(3600)
                except asyncio.CancelledError: pass
        case ['progress']:
            for n in range(10):
                job.progress(n)
                await asyncio.sleep(0.15)
            return os.getpid()
tidegate.serve(handle)
";

fn settings(script: &str, concurrency: u32) -> WarmSettings {
    let mut settings = WarmSettings::new(["python3", "-c", script]);
    settings.concurrency = concurrency;
    settings.process.env = [
        ("PYTHONPATH".to_owned(), SHIMS.to_owned()),
        ("PYTHONDONTWRITEBYTECODE".to_owned(), "1".to_owned()),
    ]
    .into();
    settings.process.kill_grace = Duration::from_secs(3600);
    settings
}

struct Slots {
    manager: WarmManager,
    next: u64,
}

impl Slots {
    fn new(settings: WarmSettings) -> Self {
        let manager = WarmManager::new(settings);
        Self { manager, next: 0 }
    }

    async fn one(&mut self) -> Box<dyn Runner> {
        self.next += 1;
        let request = CreateRunner {
            id: RunnerId(self.next),
            pool: "pool".into(),
        };
        soon(self.manager.create(request)).await.expect("a runner")
    }

    async fn several(&mut self, count: usize) -> Vec<Box<dyn Runner>> {
        let mut runners = Vec::new();
        for _ in 0..count {
            runners.push(self.one().await);
        }
        runners
    }
}

fn job(body: &'static str) -> Job {
    let message = Message {
        body: body.into(),
        ..Message::default()
    };
    Job::new("p".into(), "q".into(), Arc::new(message), 1, || {
        "job".into()
    })
}

async fn run(runner: &mut dyn Runner, body: &'static str) -> RunReport {
    soon(runner.run(&job(body), JobControl::default())).await
}

fn reply(report: RunReport) -> String {
    match report.end {
        JobEnd::Done { reply: Some(reply) } => {
            String::from_utf8(reply.body.to_vec()).expect("text")
        }
        end => panic!("{end:?}"),
    }
}

async fn pid(runner: &mut dyn Runner) -> String {
    reply(run(runner, "pid").await)
}

async fn one_process_has_one_job_for_each_slot() {
    let mut slots = Slots::new(settings(WORKER, 3));
    let mut runners = slots.several(3).await;
    let ends = join_all(runners.iter_mut().map(|runner| run(&mut **runner, "three"))).await;
    let pids: Vec<_> = ends.into_iter().map(reply).collect();
    assert!(pids.iter().all(|pid| *pid == pids[0]), "{pids:?}");
}

async fn if_a_process_is_full_another_one_is_started() {
    let mut slots = Slots::new(settings(WORKER, 2));
    let mut runners = slots.several(3).await;
    let (first, second) = (pid(&mut *runners[0]).await, pid(&mut *runners[1]).await);
    let third = pid(&mut *runners[2]).await;
    assert_eq!(first, second);
    assert_ne!(first, third);
    // A free slot of the fuller process is taken before one of the other.
    drop(runners.remove(0));
    let mut again = slots.one().await;
    let again = pid(&mut *again).await;
    assert!(again == first || again == third);
}

async fn slots_of_a_starting_process_can_be_reserved() {
    let slots = Slots::new(settings(WORKER, 4));
    let created = join_all((1..=4).map(|id| {
        slots.manager.create(CreateRunner {
            id: RunnerId(id),
            pool: "pool".into(),
        })
    }));
    let mut runners: Vec<_> = soon(created)
        .await
        .into_iter()
        .map(|created| created.expect("a runner"))
        .collect();
    let first = pid(&mut *runners[0]).await;
    for runner in &mut runners {
        assert_eq!(pid(&mut **runner).await, first);
    }
}

async fn a_crash_fails_the_jobs_of_its_process_and_no_others() {
    let mut slots = Slots::new(settings(WORKER, 2));
    let mut runners = slots.several(3).await;
    let [crashing, neighbour, other] = &mut runners[..] else {
        panic!("three runners");
    };
    // The process reads the neighbour's job first, so it has begun that job when it ends.
    let (neighbour, crashing, other) = tokio::join!(
        run(&mut **neighbour, "wait"),
        run(&mut **crashing, "crash"),
        run(&mut **other, "pid")
    );
    for report in [crashing, neighbour] {
        assert!(!report.reusable);
        let JobEnd::Failed(failure) = report.end else {
            panic!("{report:?}");
        };
        assert_eq!(failure.kind, FailureKind::RunnerLost);
        assert!(
            failure.message.contains("ended with exit code 3"),
            "{failure:?}"
        );
    }
    assert!(other.reusable);
    reply(other);
    assert!(!runners[0].is_alive() && !runners[1].is_alive() && runners[2].is_alive());
}

/// Runs `body` in the first slot, and stops it after the second slot has answered a later job: the process has begun the
/// first job by then. Returns the report, and the process of the second slot.
async fn stopped(runners: &mut [Box<dyn Runner>], body: &'static str) -> (RunReport, String) {
    let [first, second] = runners else {
        panic!("two runners");
    };
    let control = JobControl::default();
    let token = control.stop.clone();
    let job = job(body);
    tokio::join!(soon(first.run(&job, control)), async {
        let process = pid(&mut **second).await;
        token.cancel();
        process
    })
}

async fn a_stopped_job_does_not_affect_the_jobs_in_other_slots() {
    let mut slots = Slots::new(settings(WORKER, 2));
    let mut runners = slots.several(2).await;
    let (report, process) = stopped(&mut runners, "wait").await;
    assert!(matches!(report.end, JobEnd::Stopped), "{report:?}");
    // The job stopped, so its slot can take the next job.
    assert!(report.reusable);
    for runner in &mut runners {
        assert_eq!(pid(&mut **runner).await, process);
    }
}

async fn a_job_that_ignores_its_stop_is_given_up_and_its_process_ends_after_the_others() {
    let mut settings = settings(WORKER, 2);
    settings.process.kill_grace = Duration::from_millis(50);
    let mut slots = Slots::new(settings);
    let mut runners = slots.several(2).await;
    let (report, process) = stopped(&mut runners, "deaf").await;
    assert!(matches!(report.end, JobEnd::Stopped), "{report:?}");
    assert!(!report.reusable);
    // The job in the other slot continues, and a new runner gets another process.
    assert_eq!(pid(&mut *runners[1]).await, process);
    let mut new = slots.one().await;
    assert_ne!(pid(&mut *new).await, process);
    let neighbour = runners.remove(1);
    soon(neighbour.stop()).await;
    has_ended(&process);
}

fn has_ended(process: &str) {
    let folder = std::path::Path::new("/proc").join(process);
    assert!(!folder.exists(), "process {process} still runs");
}

async fn each_job_has_its_own_deadline_and_progress() {
    let mut settings = settings(WORKER, 2);
    settings.process.timeout = Duration::from_secs(1);
    let mut slots = Slots::new(settings);
    let mut runners = slots.several(2).await;
    let [late, reporting] = &mut runners[..] else {
        panic!("two runners");
    };
    // `progress` runs longer than the timeout, and reports more often.
    let (late, reporting) =
        tokio::join!(run(&mut **late, "wait"), run(&mut **reporting, "progress"));
    let JobEnd::Failed(failure) = late.end else {
        panic!("{late:?}");
    };
    assert_eq!(failure.kind, FailureKind::Timeout);
    reply(reporting);
}

async fn a_process_is_retired_when_its_slots_are_free() {
    let mut settings = settings(WORKER, 2);
    settings.max_jobs = Some(1);
    let mut slots = Slots::new(settings);
    let mut runners = slots.several(2).await;
    assert_eq!(runners[0].retires(), None);
    let process = pid(&mut *runners[0]).await;
    assert!(runners[0].retires().is_some() && runners[1].retires().is_some());
    // It gets no other job, and the job in the other slot continues.
    assert_eq!(pid(&mut *runners[1]).await, process);
    let mut new = slots.one().await;
    assert_ne!(pid(&mut *new).await, process);
    for runner in runners {
        soon(runner.stop()).await;
    }
    has_ended(&process);
}

async fn an_answer_to_another_job_breaks_the_protocol() {
    let script = "
import json, sys
say = lambda **line: print(json.dumps(line), flush=True)
say(ready=True, protocol=2, concurrency=2)
for line in sys.stdin:
    say(id='another', slot=json.loads(line)['slot'], outcome='done')
";
    let mut slots = Slots::new(settings(script, 2));
    let mut runner = slots.one().await;
    let report = run(&mut *runner, "").await;
    let JobEnd::Failed(failure) = report.end else {
        panic!("{report:?}");
    };
    assert_eq!(failure.kind, FailureKind::RunnerLost);
    assert!(
        failure.message.contains("\"another\" in slot 0"),
        "{failure:?}"
    );
}

async fn a_program_of_version_one_has_one_job_at_a_time() {
    let script = "import os, tidegate; tidegate.serve(lambda job: os.getpid())";
    let mut slots = Slots::new(settings(script, 8));
    let mut runners = slots.several(2).await;
    let (first, second) = (pid(&mut *runners[0]).await, pid(&mut *runners[1]).await);
    assert_ne!(first, second);
}

async fn a_process_may_report_fewer_slots_than_allowed() {
    let script = format!("import os; os.environ['TIDEGATE_CONCURRENCY'] = '1'\n{WORKER}");
    let mut slots = Slots::new(settings(&script, 8));
    let mut runners = slots.several(2).await;
    let (first, second) = (pid(&mut *runners[0]).await, pid(&mut *runners[1]).await);
    assert_ne!(first, second);
}

async fn an_answer_counts_if_its_process_ends_right_after_it() {
    let script = "
import json, os, sys
os.write(1, b'{\"ready\": true, \"protocol\": 2, \"concurrency\": 2}\\n')
slot = json.loads(sys.stdin.readline())['slot']
os.write(1, b'{\"id\": \"job\", \"slot\": %d, \"outcome\": \"done\"}\\n' % slot)
os._exit(0)
";
    // Whether the end or the answer is seen first is a matter of chance.
    for _ in 0..40 {
        let mut slots = Slots::new(settings(script, 2));
        let mut runner = slots.one().await;
        let report = run(&mut *runner, "").await;
        assert!(matches!(report.end, JobEnd::Done { .. }), "{report:?}");
    }
}

async fn an_async_handler_also_serves_a_pool_of_one_at_a_time() {
    let mut slots = Slots::new(settings(WORKER, 1));
    let mut runner = slots.one().await;
    let first = pid(&mut *runner).await;
    assert_eq!(pid(&mut *runner).await, first);
}

async fn node_has_several_jobs_at_a_time_and_stops_one() {
    let package = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shims/node/index.js");
    let script = format!(
        "import {{ serve }} from '{package}';
         const waiting = [];
         serve((job) => new Promise((resolve, reject) => {{
           job.stopped.addEventListener('abort', () => reject(new Error('stopped')));
           if (job.text === 'pid') resolve(String(process.pid));
           if (job.text !== 'both') return;
           // Answers only when it has both jobs.
           waiting.push(resolve);
           if (waiting.length === 2) waiting.forEach((resolve) => resolve(String(process.pid)));
         }}));"
    );
    let mut settings = settings("", 2);
    let command = ["node", "--input-type=module", "-e", &script];
    settings.process.command = command.map(str::to_owned).to_vec();
    let mut slots = Slots::new(settings);
    let mut runners = slots.several(2).await;
    let ends = join_all(runners.iter_mut().map(|runner| run(&mut **runner, "both"))).await;
    let pids: Vec<_> = ends.into_iter().map(reply).collect();
    assert_eq!(pids[0], pids[1]);
    let (report, process) = stopped(&mut runners, "wait").await;
    assert!(matches!(report.end, JobEnd::Stopped), "{report:?}");
    assert_eq!(process, pids[0]);
}
