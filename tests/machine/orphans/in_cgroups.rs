//! Orphans of jobs in cgroups of their own. All processes of such a job are killed at once.

use std::path::PathBuf;

use super::*;
use crate::needs::{Need, has_controller, hierarchy};

trials! {
    plain(Need::Cgroups): [
        nothing_of_a_job_in_a_cgroup_outlives_a_supervisor_that_is_killed,
        nothing_of_a_job_in_a_cgroup_outlives_a_guard_that_is_killed,
        a_chain_of_forks_in_a_cgroup_is_killed_at_once,
        hidden_processes_of_a_job_in_a_cgroup_end_with_it,
        the_next_start_kills_the_processes_of_a_dead_instance_and_no_others,
        a_successor_does_not_kill_the_jobs_of_the_daemon_that_it_replaces,
        a_supervisor_in_a_cgroup_of_its_own_keeps_its_jobs_below_it,
        a_warm_process_has_a_cgroup_without_being_asked,
    ],
    plain(Need::Controller("cpu")): [
        a_job_has_the_processors_of_its_cgroup,
    ],
    plain(Need::Controller("pids")): [
        a_job_has_the_processes_of_its_cgroup,
        a_job_at_its_process_limit_cannot_fork_and_other_jobs_can,
    ],
    plain(Need::Controller("memory")): [
        a_job_has_the_memory_of_its_cgroup,
        a_job_that_uses_too_much_memory_fails_with_out_of_memory_as_the_reason,
    ],
}

fn limited(queue: &Queue, script: &str, keys: &str) -> String {
    format!("{}{keys}\n", pool(queue, script))
}

/// The path within the hierarchy.
fn cgroup_of(pid: Pid) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"));
    path.unwrap().to_owned()
}

/// Kills one of the two while a job in a cgroup of its own tries to escape.
fn assert_nothing_outlives_in_a_cgroup(victim: Victim) {
    let hierarchy = hierarchy().expect("a hierarchy");
    let queue = Queue::new();
    let config = limited(&queue, FAMILY, "cgroup = \"always\"");
    let daemon = Daemon::start(&broker_url(), &config);
    let supervisor = supervisor(&daemon);
    queue.publish("job");
    let mut all = wait_for_pids(&daemon, "pids", MEMBERS);
    let leaf = cgroup_of(all[0].pid);
    for process in &all {
        assert_eq!(cgroup_of(process.pid), leaf);
    }
    let leaf = mount_of(&hierarchy).join(leaf);
    assert!(leaf.join("cgroup.kill").exists());
    all.extend([daemon.pid(), supervisor].map(Process::watch));

    nothing_is_left_after(victim, &daemon, supervisor, &all);
    assert_eq!(queue.take().as_deref(), Some(&b"job"[..]));
    // Its cgroup is gone too.
    assert!(!leaf.parent().unwrap().exists(), "{leaf:?}");
}

/// Paths in `/proc` start at the root of the hierarchy, whichever cgroup this process is in.
fn mount_of(hierarchy: &Path) -> PathBuf {
    let own = cgroup_of(Pid::this());
    let depth = Path::new(&own).components().count();
    hierarchy.ancestors().nth(depth).unwrap().to_owned()
}

fn nothing_of_a_job_in_a_cgroup_outlives_a_supervisor_that_is_killed() {
    assert_nothing_outlives_in_a_cgroup(Victim::Supervisor);
}

fn nothing_of_a_job_in_a_cgroup_outlives_a_guard_that_is_killed() {
    assert_nothing_outlives_in_a_cgroup(Victim::Guard);
}

fn a_chain_of_forks_in_a_cgroup_is_killed_at_once() {
    let queue = Queue::new();
    let config = limited(&queue, RUNAWAY, "cgroup = \"always\"");
    let daemon = Daemon::start(&broker_url(), &config);
    let supervisor = supervisor(&daemon);
    queue.publish("job");
    let started = daemon.dir().join("started");
    poll(|| started.exists().then_some(())).expect("the chain");
    let guard = Process::watch(daemon.pid());
    kill(supervisor, Signal::SIGKILL).unwrap();
    assert!(
        guard.dies_within(AT_ONCE),
        "{:#?}",
        processes_in(daemon.dir())
    );
    assert_eq!(processes_in(daemon.dir()), Vec::<String>::new());
}

/// A process that cannot be found by its group or by a variable. Its job is over while another one runs.
const LEAVES_A_STRANGER: &str = r#"
case $(cat) in
long) echo $$ >> long; exec sleep 1000;;
short) (setsid env -i /bin/sh -c 'echo $$ >> stranger; exec /bin/sleep 1000' >/dev/null 2>&1 &)
    until test -s stranger; do sleep 0.02; done;;
esac
"#;

fn hidden_processes_of_a_job_in_a_cgroup_end_with_it() {
    let hierarchy = hierarchy().expect("a hierarchy");
    let queue = Queue::new();
    let config = limited(&queue, LEAVES_A_STRANGER, "cgroup = \"always\"");
    let daemon = Daemon::start(&broker_url(), &config);
    queue.publish("long");
    let long = wait_for_pids(&daemon, "long", 1).remove(0);
    queue.publish("short");
    // The process may be dead before the test can watch it.
    let done = poll(|| (daemon.pool("work")["jobs"]["done"] == 1).then_some(()));
    done.unwrap_or_else(|| panic!("{}", daemon.said()));
    let stranger = fs::read_to_string(daemon.dir().join("stranger")).unwrap();
    let stranger = PathBuf::from(format!("/proc/{}", stranger.trim()));
    poll(|| (!stranger.exists()).then_some(())).expect("the stranger ends");
    assert!(long.is_alive());
    // Only the cgroup of the running job is left.
    let leaf = mount_of(&hierarchy).join(cgroup_of(long.pid));
    let leaves = || {
        let entries = fs::read_dir(leaf.parent().unwrap()).unwrap().flatten();
        entries.filter(|entry| entry.path().is_dir()).count()
    };
    poll(|| (leaves() == 1).then_some(())).expect("one cgroup");
    kill(long.pid, Signal::SIGKILL).unwrap();
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.end().0, Some(0));
    assert!(!leaf.parent().unwrap().exists());
}

fn the_next_start_kills_the_processes_of_a_dead_instance_and_no_others() {
    let hierarchy = hierarchy().expect("a hierarchy");
    let script = "echo $$ >> pids; exec sleep 1000";
    let queues = [Queue::new(), Queue::new()];
    let config = |queue| limited(queue, script, "cgroup = \"always\"");
    let [dead, neighbour] = [0, 1].map(|n| {
        let daemon = Daemon::start(&broker_url(), &config(&queues[n]));
        queues[n].publish("job");
        daemon
    });
    let orphan = wait_for_pids(&dead, "pids", 1).remove(0);
    let other = wait_for_pids(&neighbour, "pids", 1).remove(0);
    let leaf = mount_of(&hierarchy).join(cgroup_of(orphan.pid));

    // Both are killed at once. In this case nothing is promised.
    let supervisor = supervisor(&dead);
    kill(supervisor, Signal::SIGSTOP).unwrap();
    kill(dead.pid(), Signal::SIGKILL).unwrap();
    kill(supervisor, Signal::SIGKILL).unwrap();
    assert!(Process::watch(supervisor).dies_within(AT_ONCE));
    assert!(orphan.is_alive() && leaf.exists());

    let mut next = tidegate(dead.dir())
        .arg("run")
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    assert!(orphan.dies_within(Duration::from_secs(60)));
    poll(|| (!leaf.exists()).then_some(())).expect("its cgroup goes");
    assert!(other.is_alive());
    kill(Pid::from_raw(next.id().cast_signed()), Signal::SIGQUIT).unwrap();
    next.wait().unwrap();
    assert!(other.is_alive());
}

fn a_successor_does_not_kill_the_jobs_of_the_daemon_that_it_replaces() {
    let hierarchy = hierarchy().expect("a hierarchy");
    let queue = Queue::new();
    let script = "echo $$ >> pids; until test -e go; do sleep 0.05; done";
    let mut old = Daemon::start(
        &broker_url(),
        &limited(&queue, script, "cgroup = \"always\""),
    );
    queue.publish("of the old daemon");
    let first = wait_for_pids(&old, "pids", 1).remove(0);
    let new = old.take_over();
    queue.publish("of the new daemon");
    let second = wait_for_pids(&old, "pids", 2).remove(1);
    assert!(first.is_alive());
    let leaf = |pid| mount_of(&hierarchy).join(cgroup_of(pid));
    let leaves = [leaf(first.pid), leaf(second.pid)];
    // Beside each other, in the cgroup of their lock.
    assert_eq!(leaves[0].parent(), leaves[1].parent());

    fs::write(old.dir().join("go"), "").unwrap();
    let (code, said) = old.wait_for_end();
    assert_eq!(code, Some(0), "{said}");
    new.wait_for_pool("work", |pool| pool["jobs"]["done"] == 1);
    assert_eq!(queue.take(), None);
    new.signal(Signal::SIGTERM);
    assert_eq!(new.end().0, Some(0));
    assert!(!leaves[0].parent().unwrap().exists());
}

fn a_supervisor_in_a_cgroup_of_its_own_keeps_its_jobs_below_it() {
    let hierarchy = hierarchy().expect("a hierarchy");
    let home = hierarchy.join(format!("tidegate-test-home-{}", std::process::id()));
    fs::create_dir(&home).unwrap();
    let queue = Queue::new();
    let mut keys = "cgroup = \"always\"\n".to_owned();
    if has_controller(&hierarchy, "pids") {
        fs::write(hierarchy.join("cgroup.subtree_control"), "+pids").unwrap();
        // The limit requires that no process is left in `home` itself.
        keys.push_str("pids_max = 9\n");
    }
    let script = "echo $$ >> pids; exec sleep 1000";
    let enter = format!("echo 0 > {}/cgroup.procs; exec \"$@\"", home.display());
    let config = limited(&queue, script, &keys);
    let daemon = Daemon::start_by(&["sh", "-c", &enter, "sh"], &broker_url(), &config);
    queue.publish("job");
    let job = wait_for_pids(&daemon, "pids", 1).remove(0);
    let inside = |pid| {
        let path = mount_of(&hierarchy).join(cgroup_of(pid));
        path.strip_prefix(&home).unwrap().to_owned()
    };
    for pid in [daemon.pid(), supervisor(&daemon)] {
        assert_eq!(inside(pid), Path::new("tidegate-supervisor"));
    }
    let leaf = inside(job.pid);
    assert_eq!(leaf.components().count(), 2, "{leaf:?}");
    daemon.signal(Signal::SIGQUIT);
    daemon.end();
    assert!(!home.join(leaf).parent().unwrap().exists());
    poll(|| fs::remove_dir(home.join("tidegate-supervisor")).ok()).expect("it has no process left");
    fs::remove_dir(home).unwrap();
}

/// Checks that a job with this limit sees the expected value in the file of its cgroup.
fn a_job_has_its_limit(key: &str, file: &str, expected: &str) {
    let hierarchy = hierarchy().expect("a hierarchy");
    let queue = Queue::new();
    let script = "echo $$ >> pids; exec sleep 1000";
    let daemon = Daemon::start(&broker_url(), &limited(&queue, script, key));
    queue.publish("job");
    let job = wait_for_pids(&daemon, "pids", 1).remove(0);
    let leaf = mount_of(&hierarchy).join(cgroup_of(job.pid));
    assert_eq!(fs::read_to_string(leaf.join(file)).unwrap(), expected);
}

fn a_job_has_the_processors_of_its_cgroup() {
    a_job_has_its_limit("cpu_max = 1.5", "cpu.max", "150000 100000\n");
}

fn a_job_has_the_processes_of_its_cgroup() {
    a_job_has_its_limit("pids_max = 9", "pids.max", "9\n");
}

fn a_job_has_the_memory_of_its_cgroup() {
    a_job_has_its_limit("memory_max = \"64MiB\"", "memory.max", "67108864\n");
}

fn a_job_at_its_process_limit_cannot_fork_and_other_jobs_can() {
    let queue = Queue::new();
    // Forks until a fork fails.
    let script =
        "for n in 1 2 3 4 5 6 7 8 9; do sleep 1000 & echo >> forks; done; echo never >> forks";
    let config = limited(
        &queue,
        script,
        "pids_max = 5\n[pools.work.retry]\nmax_attempts = 1",
    );
    let config = config.replace(
        "[pools.work.retry]\nbackoff = \"1h\"\nbackoff_max = \"1h\"\n",
        "",
    );
    let daemon = Daemon::start(&broker_url(), &config);
    queue.publish("job");
    daemon.wait_for_pool("work", |pool| pool["jobs"]["dead"] == 1);
    assert_eq!(
        fs::read_to_string(daemon.dir().join("forks")).unwrap(),
        "\n\n\n\n"
    );
}

fn a_job_that_uses_too_much_memory_fails_with_out_of_memory_as_the_reason() {
    let queue = Queue::new();
    // A child uses the memory. The shell that started it would continue.
    let script = "tail /dev/zero; echo survived >> survived";
    let keys = "memory_max = \"32MiB\"\n[pools.work.retry]\nmax_attempts = 1";
    let config = limited(&queue, script, keys);
    let config = config.replace(
        "[pools.work.retry]\nbackoff = \"1h\"\nbackoff_max = \"1h\"\n",
        "",
    );
    let daemon = Daemon::start(&broker_url(), &config);
    queue.publish("job");
    let line = daemon.heard("the failure", |line| {
        line["error"]
            .as_str()
            .is_some_and(|error| error.contains("out of memory"))
    });
    assert_eq!(line["pool"], "work");
    daemon.wait_for_pool("work", |pool| pool["jobs"]["dead"] == 1);
    assert!(!daemon.dir().join("survived").exists());
}

fn a_warm_process_has_a_cgroup_without_being_asked() {
    let hierarchy = hierarchy().expect("a hierarchy");
    let queue = Queue::new();
    let script = "echo $$ >> pids; echo '{\"ready\": true, \"protocol\": 1}'; exec sleep 1000";
    let config = limited(&queue, script, "kind = \"warm\"");
    let daemon = Daemon::start(&broker_url(), &config);
    queue.publish("job");
    let warm = wait_for_pids(&daemon, "pids", 1).remove(0);
    let leaf = cgroup_of(warm.pid);
    let supervisor = supervisor(&daemon);
    assert!(leaf.contains(&format!("/{supervisor}-")), "{leaf}");
    assert!(mount_of(&hierarchy).join(leaf).exists());
}
