//! Container pools with a real daemon, a real broker and a real engine.

use std::{fs, path::Path};

use nix::{sys::signal::kill, unistd::Pid};
use tempfile::TempDir;

use crate::needs::Need;
use crate::support::{
    broker::broker_url,
    daemon::{Daemon, Signal, poll},
    engine::{Engine, engine},
    queue::Queue,
};

trials! {
    plain(Need::Engine): [
        runs_jobs_in_containers_and_leaves_none,
        gives_jobs_back_at_the_drains_deadline_and_leaves_no_container,
        removes_at_its_start_what_a_killed_supervisor_left_and_runs_the_job_again,
        is_faulted_while_there_is_no_image_and_spends_no_attempt_on_it,
    ],
}

/// A pool named `work`, whose jobs see `folder`. A failed job would return only after an hour.
fn pool(queue: &Queue, engine: &Engine, folder: &Path, keys: &str, script: &str) -> String {
    format!(
        "[pools.work]\nqueue = \"{}\"\npoll_interval = \"100ms\"\n{keys}\
         [pools.work.policy]\nkind = \"backlog\"\njobs_per_worker = 1\nmax = 5\n\
         [pools.work.retry]\nbackoff = \"1h\"\nbackoff_max = \"1h\"\n\
         [pools.work.runner]\nkind = \"container\"\nengine = \"{}\"\nnetwork = \"none\"\n\
         image = \"{}\"\nmounts = [\"{}:/folder\"]\ncommand = [\"/bin/sh\", \"-c\", '''{script}''']\n",
        queue.name(),
        engine.address(),
        engine.image(),
        folder.display(),
    )
}

/// The number of containers of these jobs. Their names are unique to the test.
fn containers(engine: &Engine, jobs: &[&str]) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(async {
        let mut count = 0;
        for job in jobs {
            count += engine.labelled(&format!("tidegate.job={job}")).await.len();
        }
        count
    })
}

/// The process that holds the lock of a state directory.
fn holder(state: &Path) -> Pid {
    let text = fs::read_to_string(state.join("tidegate.lock")).unwrap();
    let pid = text.split_whitespace().next_back().unwrap();
    Pid::from_raw(pid.parse().unwrap())
}

fn runs_jobs_in_containers_and_leaves_none() {
    let engine = engine();
    let (queue, folder) = (Queue::new(), TempDir::new().unwrap());
    let script = "cat >/folder/$TIDEGATE_JOB_ID";
    let pool = pool(&queue, engine, folder.path(), "", script);
    let daemon = Daemon::start(&broker_url(), &pool);
    let names = ["pool-1", "pool-2", "pool-3"];
    for name in names {
        queue.publish(name);
    }
    daemon.wait_for_pool("work", |pool| pool["jobs"]["done"] == 3);
    for name in names {
        let body = fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(body, name);
    }
    daemon.signal(Signal::SIGTERM);
    let (code, said) = daemon.end();
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(containers(engine, &names), 0, "{said}");
}

fn gives_jobs_back_at_the_drains_deadline_and_leaves_no_container() {
    let engine = engine();
    let (queue, folder) = (Queue::new(), TempDir::new().unwrap());
    let script = "touch /folder/started; while :; do sleep 1000; done";
    let keys = "shutdown_grace = \"0s\"\n";
    let pool = pool(&queue, engine, folder.path(), keys, script) + "stop_timeout = \"0s\"\n";
    let daemon = Daemon::start(&broker_url(), &pool);
    queue.publish("drained-1");
    poll(|| folder.path().join("started").exists().then_some(())).expect("a job");
    daemon.signal(Signal::SIGTERM);
    let (code, said) = daemon.end();
    assert_eq!(code, Some(75), "{said}");
    assert_eq!(containers(engine, &["drained-1"]), 0, "{said}");
    assert_eq!(queue.take().unwrap(), b"drained-1");
}

fn removes_at_its_start_what_a_killed_supervisor_left_and_runs_the_job_again() {
    let engine = engine();
    let (queue, neighbours) = (Queue::new(), Queue::new());
    let (folder, state) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let script = "test -e /folder/second || { touch /folder/$TIDEGATE_JOB_ID; sleep 1000; }; \
                  printf %s $TIDEGATE_ATTEMPT >/folder/attempt";
    let started =
        |job: &str| poll(|| folder.path().join(job).exists().then_some(())).expect("a job");

    let other = Daemon::start(
        &broker_url(),
        &pool(&neighbours, engine, folder.path(), "", script),
    );
    neighbours.publish("neighbour-1");
    started("neighbour-1");

    let head = format!("http.state_dir = \"{}\"", state.path().display());
    let pool = pool(&queue, engine, folder.path(), "", script);
    let first = Daemon::start_with(&broker_url(), &head, &pool);
    queue.publish("orphan-1");
    started("orphan-1");
    kill(holder(state.path()), Signal::SIGKILL).unwrap();
    first.end();
    assert_eq!(containers(engine, &["orphan-1"]), 1);

    fs::write(folder.path().join("second"), "").unwrap();
    let second = Daemon::start_with(&broker_url(), &head, &pool);
    second.heard("the removal", |line| {
        line["message"] == "removed a container of a dead supervisor"
    });
    second.wait_for_pool("work", |pool| pool["jobs"]["done"] == 1);
    let attempt = fs::read_to_string(folder.path().join("attempt")).unwrap();
    assert_eq!(attempt, "1");
    second.signal(Signal::SIGTERM);
    let (code, said) = second.end();
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(containers(engine, &["orphan-1"]), 0, "{said}");
    assert_eq!(containers(engine, &["neighbour-1"]), 1, "{said}");
    other.signal(Signal::SIGQUIT);
    let (_, said) = other.end();
    assert_eq!(containers(engine, &["neighbour-1"]), 0, "{said}");
}

fn is_faulted_while_there_is_no_image_and_spends_no_attempt_on_it() {
    let engine = engine();
    let (queue, folder) = (Queue::new(), TempDir::new().unwrap());
    let script = "printf %s $TIDEGATE_ATTEMPT >/folder/attempt";
    let late = format!("localhost/tidegate-test-late:{}", std::process::id());
    let pool = pool(&queue, engine, folder.path(), "", script);
    let pool = pool.replace(engine.image(), &late) + "pull = \"never\"\n";
    let daemon = Daemon::start(&broker_url(), &pool);
    queue.publish("late-1");
    let faulted = daemon.wait_for_pool("work", |pool| pool["state"] == "faulted");
    let said = faulted.to_string();
    let cause = format!("create a container of {late}: No such image");
    assert!(said.contains(&cause), "{said}");
    engine.variant("late", &[]);
    daemon.wait_for_pool("work", |pool| pool["jobs"]["done"] == 1);
    let attempt = fs::read_to_string(folder.path().join("attempt")).unwrap();
    assert_eq!(attempt, "1");
    daemon.signal(Signal::SIGTERM);
    daemon.end();
    assert_eq!(containers(engine, &["late-1"]), 0);
}
