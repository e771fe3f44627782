//! The speed of each runner compared with a bare tokio loop that does the same work. Needs no broker.
//!
//! Each figure is the median ratio of several pairs of runs. The runs of a pair alternate, so that a slow phase of
//! the machine slows both.

use std::{
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use tidegate::{
    config::ExecSettings,
    decide::RunnerId,
    host::launcher,
    queue::Message,
    runner::{CreateRunner, Job, JobControl, JobEnd, Runner, RunnerManager},
    runners::{WarmSettings, exec::ExecManager, warm::WarmManager},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
};

const PAIRS: usize = 9;
const BODY: &str = "{\"image\": \"harbour.jpg\", \"width\": 256}";
const SHIMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shims/python/src");
/// Jobs of 100 ms, many at a time.
const SLEEPER: &str = "import asyncio, tidegate\n\
    async def handle(job): await asyncio.sleep(0.1)\n\
    tidegate.serve(handle)";
/// How many.
const AT_A_TIME: u32 = 500;
const WORKER: &str = "import tidegate\ntidegate.serve(lambda job: None)";
/// The same work with a new process for each job.
const ONCE: &str = "import sys, json, base64, os, traceback\nsys.stdin.read()";

fn main() {
    // A job with limits is started through this program.
    launcher::init();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let plain = ExecSettings::new(["/bin/true"]);
        let exec = median(spawn_bare, || exec_jobs(&plain, 300)).await;
        println!("exec /bin/true: {exec:.2} of a bare spawn loop (target 0.85)");
        let mut limited = plain.clone();
        limited.limits.nice = Some(1);
        let limits = median(|| exec_jobs(&plain, 300), || exec_jobs(&limited, 300)).await;
        println!("with limits:    {limits:.2} of exec without");
        let warm = median(pipe_bare, || warm_jobs(5_000)).await;
        println!("warm Python:    {warm:.2} of a bare pipe loop (target 0.7)");
        let once = ExecSettings::new(["python3", "-c", ONCE]);
        let python = median(|| exec_jobs(&once, 10), || warm_jobs(5_000)).await;
        println!("warm Python:    {python:.0} times exec with the same script (target 20)");
        let (ratio, mib) = concurrent(10).await;
        println!(
            "asyncio:        {AT_A_TIME} jobs of 100 ms at a time in one process take {ratio:.2} of the ideal time \
             (target 1.2), {mib} MiB (target 80)"
        );
    });
}

/// The median ratio of our jobs per second to those of the baseline.
async fn median<A, B>(baseline: impl Fn() -> A, ours: impl Fn() -> B) -> f64
where
    A: Future<Output = f64>,
    B: Future<Output = f64>,
{
    let mut ratios = Vec::with_capacity(PAIRS);
    let (mut bare, mut full) = (Vec::new(), Vec::new());
    for pair in 0..=PAIRS {
        // Each side goes first in turn. The first pair only warms up.
        let (b, o) = if pair % 2 == 0 {
            let b = baseline().await;
            (b, ours().await)
        } else {
            let o = ours().await;
            (baseline().await, o)
        };
        if pair > 0 {
            ratios.push(o / b);
            bare.push(b);
            full.push(o);
        }
    }
    println!(
        "  {:>8.0} jobs/s beside {:>8.0}",
        middle(&mut full),
        middle(&mut bare)
    );
    middle(&mut ratios)
}

fn middle(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn rate(jobs: u32, took: Duration) -> f64 {
    f64::from(jobs) / took.as_secs_f64()
}

async fn spawn_bare() -> f64 {
    const JOBS: u32 = 300;
    let begun = Instant::now();
    for _ in 0..JOBS {
        let mut child = Command::new("/bin/true")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("a child");
        let (mut stdin, mut stdout, mut stderr) = (
            child.stdin.take().expect("a pipe"),
            child.stdout.take().expect("a pipe"),
            child.stderr.take().expect("a pipe"),
        );
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let feed = async {
            let _ = stdin.write_all(BODY.as_bytes()).await;
            drop(stdin);
        };
        let (_, out, err, status) = tokio::join!(
            feed,
            stdout.read_to_end(&mut out),
            stderr.read_to_end(&mut err),
            child.wait()
        );
        let all_well = out.is_ok() && err.is_ok() && status.is_ok_and(|status| status.success());
        assert!(all_well);
    }
    rate(JOBS, begun.elapsed())
}

async fn pipe_bare() -> f64 {
    const JOBS: u32 = 5_000;
    let (mut child, mut stdin, mut stdout) = python();
    let mut line = String::new();
    stdout.read_line(&mut line).await.expect("ready");
    let question = format!(
        "{}\n",
        serde_json::json!({"id": "job", "attempt": 1, "body": BODY})
    );
    let begun = Instant::now();
    for _ in 0..JOBS {
        stdin.write_all(question.as_bytes()).await.expect("a pipe");
        line.clear();
        stdout.read_line(&mut line).await.expect("an answer");
        assert!(line.contains("done"));
    }
    let took = begun.elapsed();
    drop(stdin);
    child.wait().await.expect("its end");
    rate(JOBS, took)
}

fn python() -> (Child, ChildStdin, BufReader<ChildStdout>) {
    let mut child = Command::new("python3")
        .args(["-c", WORKER])
        .env("PYTHONPATH", SHIMS)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("python3");
    let stdin = child.stdin.take().expect("a pipe");
    let stdout = child.stdout.take().expect("a pipe");
    (child, stdin, BufReader::new(stdout))
}

async fn exec_jobs(settings: &ExecSettings, jobs: u32) -> f64 {
    let manager = ExecManager::new(settings.clone());
    let begun = Instant::now();
    for _ in 0..jobs {
        let mut runner = create(&manager).await;
        run(&mut *runner).await;
    }
    rate(jobs, begun.elapsed())
}

async fn warm_jobs(jobs: u32) -> f64 {
    let mut settings = WarmSettings::new(["python3", "-c", WORKER]);
    settings.process.env = [
        ("PYTHONPATH".to_owned(), SHIMS.to_owned()),
        ("PYTHONDONTWRITEBYTECODE".to_owned(), "1".to_owned()),
    ]
    .into();
    let manager = WarmManager::new(settings);
    let mut runner = create(&manager).await;
    let begun = Instant::now();
    for _ in 0..jobs {
        // The pool does this before and after each job.
        assert!(runner.is_alive());
        run(&mut *runner).await;
        assert!(runner.retires().is_none());
    }
    let took = begun.elapsed();
    manager.delete(runner).await;
    rate(jobs, took)
}

async fn create(manager: &dyn RunnerManager) -> Box<dyn Runner> {
    let request = CreateRunner {
        id: RunnerId(1),
        pool: "bench".into(),
    };
    manager.create(request).await.expect("a runner")
}

async fn run(runner: &mut dyn Runner) {
    let message = Message {
        body: BODY.into(),
        ..Message::default()
    };
    let job = Job::new("bench".into(), "bench".into(), Arc::new(message), 1, || {
        "job".into()
    });
    let report = runner.run(&job, JobControl::default()).await;
    assert!(matches!(report.end, JobEnd::Done { .. }), "{report:?}");
}

/// Runs [`AT_A_TIME`] jobs of 100 ms at a time in one process, `rounds` for each slot. Returns the time as a ratio to the
/// ideal time, and the process's resident memory in MiB.
async fn concurrent(rounds: u32) -> (f64, u64) {
    let mut settings = WarmSettings::new(["python3", "-c", SLEEPER]);
    settings.concurrency = AT_A_TIME;
    settings.process.env = [
        ("PYTHONPATH".to_owned(), SHIMS.to_owned()),
        ("PYTHONDONTWRITEBYTECODE".to_owned(), "1".to_owned()),
    ]
    .into();
    let manager = WarmManager::new(settings);
    let mut slots = Vec::new();
    for _ in 0..AT_A_TIME {
        slots.push(create(&manager).await);
    }
    let begun = Instant::now();
    let work = slots.into_iter().map(|mut slot| async move {
        for _ in 0..rounds {
            run(&mut *slot).await;
        }
        slot
    });
    let slots = futures_util::future::join_all(work).await;
    let took = begun.elapsed().as_secs_f64();
    let mib = resident_of_children() / 1024;
    drop(slots);
    (took / (f64::from(rounds) * 0.1), mib)
}

/// Resident memory of the largest child of this process, in KiB.
fn resident_of_children() -> u64 {
    let processes = std::fs::read_dir("/proc").expect("processes");
    let resident = processes.filter_map(|entry| {
        let status = std::fs::read_to_string(entry.ok()?.path().join("status")).ok()?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        (field("PPid:")? == u64::from(std::process::id())).then(|| field("VmRSS:"))?
    });
    resident.max().unwrap_or(0)
}
