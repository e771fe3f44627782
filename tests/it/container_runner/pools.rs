//! Whole pools of containers: a real daemon, a real broker, a real engine.

use crate::support::{
    broker::broker_url,
    daemon::{Daemon, Signal},
    engine::{Engine, engine},
    queue::Queue,
};

/// A pool named `work`, whose jobs see the daemon's folder. A job that failed would not be back for an hour.
fn pool(queue: &Queue, engine: &Engine, folder: &str, script: &str) -> String {
    format!(
        "[pools.work]\nqueue = \"{}\"\npoll_interval = \"100ms\"\n\
         [pools.work.policy]\nkind = \"backlog\"\njobs_per_worker = 1\nmax = 5\n\
         [pools.work.retry]\nbackoff = \"1h\"\nbackoff_max = \"1h\"\n\
         [pools.work.runner]\nkind = \"container\"\nimage = \"{}\"\nengine = \"{}\"\nnetwork = \"none\"\n\
         mounts = [\"{folder}:/folder\"]\ncommand = [\"/bin/sh\", \"-c\", '''{script}''']\n",
        queue.name(),
        engine.image(),
        engine.address(),
    )
}

#[test]
fn runs_jobs_in_containers_and_leaves_none() {
    let Some(engine) = engine() else { return };
    let queue = Queue::new();
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().to_str().unwrap();
    let script = "cat >/folder/$TIDEGATE_JOB_ID";
    let daemon = Daemon::start(&broker_url(), &pool(&queue, engine, path, script));
    for name in ["one", "two", "three"] {
        queue.publish(name);
    }
    daemon.wait_for_pool("work", |pool| pool["jobs"]["done"] == 3);
    for name in ["one", "two", "three"] {
        let body = std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(body, name);
    }
    daemon.signal(Signal::SIGTERM);
    let (code, said) = daemon.end();
    assert_eq!(code, Some(0), "{said}");
    let left = block_on(engine.labelled("tidegate.pool=work"));
    let ours = |name: &str| {
        left.iter()
            .any(|container| format!("{container:?}").contains(name))
    };
    assert!(
        !["one", "two", "three"].iter().any(|name| ours(name)),
        "{left:?}"
    );
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(work)
}
