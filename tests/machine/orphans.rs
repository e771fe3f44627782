//! No orphans: the tests kill supervisor and guard, and check the process table.

pub(crate) mod in_cgroups;

use std::{
    fs,
    io::Write as _,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixDatagram,
    },
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout},
    sys::signal::{Signal, kill},
    unistd::{Pid, getpgid},
};
use rustix::process::{PidfdFlags, pidfd_open};

use crate::needs::Need;
use crate::support::{
    broker::broker_url,
    daemon::{Daemon, poll, tidegate},
    queue::Queue,
};

trials! {
    plain(Need::Nothing): [
        nothing_of_a_job_outlives_a_supervisor_that_is_killed,
        nothing_of_a_job_outlives_a_guard_that_is_killed,
        nothing_of_a_job_outlives_a_supervisor_that_is_killed_in_mid_drain,
        nothing_of_a_job_outlives_a_guard_that_is_killed_in_mid_drain,
        a_chain_of_forks_does_not_run_away,
        nothing_is_left_if_the_guard_has_children_that_it_spares,
        exit_codes_are_known_even_if_sigchld_is_ignored,
        a_signal_that_comes_before_the_supervisor_listens_is_kept_for_it,
        a_finished_job_leaves_no_process_and_a_running_job_keeps_its_children,
        orphans_of_a_job_are_reaped_while_it_runs,
        signals_of_the_terminal_do_not_reach_the_supervisor,
        guard_and_supervisor_stop_and_continue_together,
        a_job_starts_with_no_signal_blocked,
        the_service_manager_gets_notifications_of_the_supervisor_through_its_guard,
        a_guard_returns_the_supervisors_exit_code_and_does_not_kill_earlier_children,
    ],
    // The daemon does not let other processes of its user see what it reads.
    plain(Need::Root): [
        without_processes_the_process_table_is_not_read,
    ],
}

/// The promised time.
const AT_ONCE: Duration = Duration::from_secs(1);

/// A job with processes that try everything to escape. They ignore every signal except KILL. In this order: the job;
/// its child; one in a session of its own; one after a double fork; one with both; and one with both and an empty
/// environment.
const FAMILY: &str = r#"
trap '' TERM INT HUP QUIT
say='echo $$ >> pids; exec sleep 1000'
echo $$ >> pids
sh -c "$say" &
setsid sh -c "$say" &
(sh -c "$say" &)
(setsid sh -c "$say" &)
(setsid env -i /bin/sh -c 'echo $$ >> pids; exec /bin/sleep 1000 <&- >&- 2>&-' &)
wait
"#;
const MEMBERS: usize = 6;

/// A pool named `work`. A failed job would return only after an hour.
fn pool(queue: &Queue, script: &str) -> String {
    format!(
        "[pools.work]\nqueue = \"{}\"\npoll_interval = \"100ms\"\n\
         [pools.work.policy]\nkind = \"backlog\"\njobs_per_worker = 1\nmax = 5\n\
         [pools.work.retry]\nbackoff = \"1h\"\nbackoff_max = \"1h\"\n\
         [pools.work.runner]\ncommand = [\"/bin/sh\", \"-c\", '''{script}''']\n",
        queue.name()
    )
}

/// A process, identified by more than its id, which may be reused.
struct Process {
    pid: Pid,
    fd: OwnedFd,
}

impl Process {
    fn watch(pid: Pid) -> Self {
        let id = rustix::process::Pid::from_raw(pid.as_raw()).unwrap();
        let fd = pidfd_open(id, PidfdFlags::empty()).unwrap();
        Self { pid, fd }
    }

    /// Waits until it is dead. Returns whether it is.
    fn dies_within(&self, time_limit: Duration) -> bool {
        let deadline = Instant::now() + time_limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap();
            let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
            match nix::poll::poll(&mut fds, timeout) {
                // The runtime of another test uses a signal for its children, and any thread may get it.
                Err(Errno::EINTR) => {}
                ready => return ready.unwrap() > 0,
            }
        }
    }

    fn is_alive(&self) -> bool {
        !self.dies_within(Duration::ZERO)
    }
}

/// Waits until this number of processes has written their ids to `file`, and returns them.
fn wait_for_pids(daemon: &Daemon, file: &str, count: usize) -> Vec<Process> {
    let pids = poll(|| {
        let text = fs::read_to_string(daemon.dir().join(file)).ok()?;
        let pids: Vec<i32> = text.lines().map(|pid| pid.parse().unwrap()).collect();
        (text.ends_with('\n') && pids.len() == count).then_some(pids)
    });
    let pids = pids.unwrap_or_else(|| panic!("never saw {count} in {file}:\n{}", daemon.said()));
    pids.into_iter()
        .map(|pid| Process::watch(Pid::from_raw(pid)))
        .collect()
}

fn children(pid: Pid) -> Vec<Pid> {
    let mut children = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let text = fs::read_to_string(task.unwrap().path().join("children")).unwrap_or_default();
        let pids = text.split_whitespace().map(|pid| pid.parse().unwrap());
        children.extend(pids.map(Pid::from_raw));
    }
    children
}

fn supervisor(daemon: &Daemon) -> Pid {
    match children(daemon.pid())[..] {
        [supervisor] => supervisor,
        ref others => panic!("a guard has one child, not {others:?}"),
    }
}

/// The processes in the process table that work in this folder, as all processes of a daemon do.
fn processes_in(folder: &Path) -> Vec<String> {
    let folder = folder.canonicalize().unwrap();
    let processes = fs::read_dir("/proc")
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let there =
        processes.filter(|path| fs::read_link(path.join("cwd")).is_ok_and(|cwd| cwd == folder));
    there
        .map(|path| {
            let command = fs::read(path.join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            format!("{} {command}", path.display())
        })
        .collect()
}

fn state(pid: Pid) -> char {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, state) = stat.rsplit_once(") ").unwrap();
    state.chars().next().unwrap()
}

#[derive(Clone, Copy, PartialEq)]
enum Victim {
    Guard,
    Supervisor,
}

#[derive(Clone, Copy, PartialEq)]
enum When {
    Running,
    Draining,
}

/// Kills one of the two, and checks that none of these processes and no other process of the daemon is left.
fn nothing_is_left_after(victim: Victim, daemon: &Daemon, supervisor: Pid, all: &[Process]) {
    let start = Instant::now();
    let pid = match victim {
        Victim::Guard => daemon.pid(),
        Victim::Supervisor => supervisor,
    };
    kill(pid, Signal::SIGKILL).unwrap();
    let outlived: Vec<_> = all
        .iter()
        .filter(|process| !process.dies_within(AT_ONCE.saturating_sub(start.elapsed())))
        .map(|process| process.pid)
        .collect();
    let there = processes_in(daemon.dir());
    assert!(
        outlived.is_empty() && there.is_empty(),
        "{outlived:?} of {there:#?}\n{}",
        daemon.said()
    );
}

/// Kills one of the two while a job runs that tries to escape, and checks that nothing of it is left.
fn nothing_outlives(victim: Victim, when: When) {
    let queue = Queue::new();
    let daemon = Daemon::start(&broker_url(), &pool(&queue, FAMILY));
    let supervisor = supervisor(&daemon);
    queue.publish("job");
    let mut all = wait_for_pids(&daemon, "pids", MEMBERS);
    all.extend([daemon.pid(), supervisor].map(Process::watch));
    if when == When::Draining {
        daemon.signal(Signal::SIGTERM);
        daemon.wait_for_message("draining");
    }
    nothing_is_left_after(victim, &daemon, supervisor, &all);
    // The message returned through the lost connection. The job was not settled as failed.
    assert_eq!(queue.take().as_deref(), Some(&b"job"[..]));
    if victim == Victim::Supervisor {
        let (code, said) = daemon.end();
        assert_eq!(code, Some(128 + 9), "{said}");
        assert!(
            said.contains("the supervisor was ended by signal 9"),
            "{said}"
        );
    }
}

fn nothing_of_a_job_outlives_a_supervisor_that_is_killed() {
    nothing_outlives(Victim::Supervisor, When::Running);
}

fn nothing_of_a_job_outlives_a_guard_that_is_killed() {
    nothing_outlives(Victim::Guard, When::Running);
}

fn nothing_of_a_job_outlives_a_supervisor_that_is_killed_in_mid_drain() {
    nothing_outlives(Victim::Supervisor, When::Draining);
}

fn nothing_of_a_job_outlives_a_guard_that_is_killed_in_mid_drain() {
    nothing_outlives(Victim::Guard, When::Draining);
}

/// Each of its processes lives only until it has started the next one.
const RUNAWAY: &str = "go_on() { go_on & }; (setsid true; go_on &); echo >> started; sleep 1000";

fn a_chain_of_forks_does_not_run_away() {
    let queue = Queue::new();
    // The chance to escape does not come every time.
    for _ in 0..10 {
        let daemon = Daemon::start(&broker_url(), &pool(&queue, RUNAWAY));
        let supervisor = supervisor(&daemon);
        queue.publish("job");
        let started = daemon.dir().join("started");
        poll(|| started.exists().then_some(())).expect("the chain");
        let guard = Process::watch(daemon.pid());
        kill(supervisor, Signal::SIGKILL).unwrap();
        // The guard ends when it has no child left.
        assert!(
            guard.dies_within(AT_ONCE),
            "{:#?}",
            processes_in(daemon.dir())
        );
        assert_eq!(processes_in(daemon.dir()), Vec::<String>::new());
        // The message returned through the lost connection. The next daemon would get it.
        assert_eq!(queue.take().as_deref(), Some(&b"job"[..]));
    }
}

fn nothing_is_left_if_the_guard_has_children_that_it_spares() {
    let queue = Queue::new();
    // The entry point of a container does this.
    let script = "sleep 1000 </dev/null >/dev/null 2>&1 & echo $! >stranger; exec \"$@\"";
    for _ in 0..5 {
        let daemon = Daemon::start_by(
            &["/bin/sh", "-c", script, "sh"],
            &broker_url(),
            &pool(&queue, RUNAWAY),
        );
        let stranger = wait_for_pids(&daemon, "stranger", 1).remove(0);
        let mut supervisor = children(daemon.pid());
        supervisor.retain(|pid| *pid != stranger.pid);
        queue.publish("job");
        let started = daemon.dir().join("started");
        poll(|| started.exists().then_some(())).expect("the chain");
        let guard = Process::watch(daemon.pid());
        kill(supervisor[0], Signal::SIGKILL).unwrap();
        assert!(guard.dies_within(AT_ONCE));
        assert!(stranger.is_alive());
        kill(stranger.pid, Signal::SIGKILL).unwrap();
        assert!(stranger.dies_within(Duration::from_secs(60)));
        assert_eq!(processes_in(daemon.dir()), Vec::<String>::new());
        assert_eq!(queue.take().as_deref(), Some(&b"job"[..]));
    }
}

fn exit_codes_are_known_even_if_sigchld_is_ignored() {
    let queue = Queue::new();
    for script in [
        "exec env --ignore-signal=CHLD \"$@\"",
        "exec env --ignore-signal=CHLD \"$@\" --no-guard",
    ] {
        let daemon = Daemon::start_by(
            &["/bin/sh", "-c", script, "sh"],
            &broker_url(),
            &pool(&queue, "true"),
        );
        queue.publish("job");
        daemon.wait_for_pool("work", |pool| pool["jobs"]["done"] == 1);
        daemon.signal(Signal::SIGTERM);
        assert_eq!(daemon.end().0, Some(0), "{script}");
    }
    let folder = tempfile::TempDir::new().unwrap();
    fs::write(folder.path().join("tidegate.toml"), "colour = 1").unwrap();
    let output = Command::new("env")
        .arg("--ignore-signal=CHLD")
        .arg(tidegate(folder.path()).get_program())
        .arg("run")
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(78), "{output:?}");
}

fn a_signal_that_comes_before_the_supervisor_listens_is_kept_for_it() {
    let folder = tempfile::TempDir::new().unwrap();
    let config = folder.path().join("slow.toml");
    nix::unistd::mkfifo(&config, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut guard = tidegate(folder.path())
        .args(["run", "--config", "slow.toml"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let pid = Pid::from_raw(guard.id().cast_signed());
    // Opening succeeds when the supervisor opens the file: it then runs and reads its configuration.
    let mut slow = fs::File::options().write(true).open(&config).unwrap();
    for signal in [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGTERM] {
        kill(pid, signal).unwrap();
    }
    let text = "[broker]\nurl = \"amqp://127.0.0.1:1\"\n[http]\nlisten = \"off\"\n\
                socket = \"run/tidegate.sock\"\nstate_dir = \"state\"\n\
                [pools.work.runner]\ncommand = [\"/bin/true\"]\n";
    slow.write_all(text.as_bytes()).unwrap();
    drop(slow);
    assert_eq!(guard.wait().unwrap().code(), Some(0));
}

/// The second job must start while the first one runs.
const LEAVING: &str = r#"
leave() { (setsid "$@" /bin/sh -c 'echo $$ >> '$file'; exec /bin/sleep 1000' >/dev/null 2>&1 &) }
until_there() { until test -s $1; do sleep 0.02; done; }
case $(cat) in
long)
    file=long leave env
    until_there go;;
short)
    file=short leave env; until_there short
    file=silent leave env -i; until_there silent;;
esac
"#;

fn a_finished_job_leaves_no_process_and_a_running_job_keeps_its_children() {
    let queue = Queue::new();
    let daemon = Daemon::start(&broker_url(), &pool(&queue, LEAVING));
    let left_by = |job: &str| wait_for_pids(&daemon, job, 1).remove(0);
    queue.publish("long");
    let long = left_by("long");
    queue.publish("short");
    let short = left_by("short");
    assert!(
        short.dies_within(Duration::from_secs(60)),
        "{}",
        daemon.said()
    );
    daemon.wait_for_message("ended processes that jobs had left behind");
    assert!(long.is_alive(), "its job still runs");
    let silent = left_by("silent");
    assert!(silent.is_alive(), "it may be of the job that still runs");

    fs::write(daemon.dir().join("go"), "now").unwrap();
    for process in [long, silent] {
        assert!(
            process.dies_within(Duration::from_secs(60)),
            "{}",
            daemon.said()
        );
    }
    daemon.wait_for_pool("work", |pool| pool["jobs"]["done"] == 2);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.end().0, Some(0));
}

fn orphans_of_a_job_are_reaped_while_it_runs() {
    let queue = Queue::new();
    let script = "for n in 1 2 3 4 5 6 7 8 9; do (true &); done; echo $$ >> pids; exec sleep 1000";
    let daemon = Daemon::start(&broker_url(), &pool(&queue, script));
    let supervisor = supervisor(&daemon);
    queue.publish("job");
    let job = wait_for_pids(&daemon, "pids", 1).remove(0);
    poll(|| (children(supervisor) == [job.pid]).then_some(()))
        .unwrap_or_else(|| panic!("{:?} beside {}", children(supervisor), job.pid));
    assert!(job.is_alive());
}

fn signals_of_the_terminal_do_not_reach_the_supervisor() {
    let queue = Queue::new();
    let daemon = Daemon::start(&broker_url(), &pool(&queue, "true"));
    let supervisor = supervisor(&daemon);
    // A signal from the terminal goes to the guard's group and reaches the supervisor once, through the guard.
    assert_eq!(getpgid(Some(supervisor)), Ok(supervisor));
    assert_ne!(getpgid(Some(daemon.pid())), Ok(supervisor));
}

fn guard_and_supervisor_stop_and_continue_together() {
    let queue = Queue::new();
    let daemon = Daemon::start(&broker_url(), &pool(&queue, "true"));
    let both = [daemon.pid(), supervisor(&daemon)];
    daemon.signal(Signal::SIGTSTP);
    poll(|| (both.map(state) == ['T', 'T']).then_some(())).expect("both stop");
    daemon.signal(Signal::SIGCONT);
    daemon.signal(Signal::SIGUSR1);
    daemon.wait_for_message("state of a pool");
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.end().0, Some(0));
}

fn a_job_starts_with_no_signal_blocked() {
    let queue = Queue::new();
    let script = "while read -r name value; do test $name != SigBlk: || echo $value > held; done < /proc/self/status";
    let daemon = Daemon::start(&broker_url(), &pool(&queue, script));
    queue.publish("job");
    let held = poll(|| {
        let text = fs::read_to_string(daemon.dir().join("held")).ok()?;
        text.ends_with('\n').then_some(text)
    });
    assert_eq!(held.as_deref(), Some("0000000000000000\n"));
}

fn the_service_manager_gets_notifications_of_the_supervisor_through_its_guard() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let config = "[broker]\nurl = \"amqp://127.0.0.1:1\"\n[http]\nlisten = \"off\"\n\
                  socket = \"run/tidegate.sock\"\nstate_dir = \"state\"\n\
                  [pools.work.runner]\ncommand = [\"/bin/true\"]\n";
    fs::write(folder.path().join("tidegate.toml"), config).unwrap();
    let mut guard = tidegate(folder.path())
        .arg("run")
        .env("NOTIFY_SOCKET", &path)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let heard = || {
        let mut message = [0; 256];
        let length = manager.recv(&mut message).unwrap();
        String::from_utf8(message[..length].to_vec()).unwrap()
    };
    assert_eq!(heard().trim_end(), "READY=1");
    let pid = Pid::from_raw(guard.id().cast_signed());
    kill(pid, Signal::SIGTERM).unwrap();
    assert_eq!(heard().trim_end(), "STOPPING=1");
    assert_eq!(guard.wait().unwrap().code(), Some(0));
}

fn a_guard_returns_the_supervisors_exit_code_and_does_not_kill_earlier_children() {
    let folder = tempfile::TempDir::new().unwrap();
    let config = folder.path().join("tidegate.toml");
    fs::write(config, "colour = 1").unwrap();
    let script = "sleep 1000 </dev/null >/dev/null 2>&1 & echo $!; exec \"$0\" run";
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", script]).current_dir(folder.path());
    let output = shell
        .arg(tidegate(folder.path()).get_program())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    let stranger: i32 = String::from_utf8(output.stdout)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let stranger = Process::watch(Pid::from_raw(stranger));
    assert!(stranger.is_alive());
    kill(stranger.pid, Signal::SIGKILL).unwrap();
}

/// The thread that looks for processes that jobs have left behind: how often it has run, and how often it has read a file.
fn looks_for_left_over(daemon: &Daemon) -> (u64, u64) {
    let guard = daemon.pid();
    let children = fs::read_to_string(format!("/proc/{guard}/task/{guard}/children")).unwrap();
    let supervisor = children.trim();
    let tasks = fs::read_dir(format!("/proc/{supervisor}/task")).unwrap();
    let thread = tasks
        .map(|task| task.unwrap().path())
        // Another thread may have ended by now.
        .find(|task| {
            fs::read_to_string(task.join("comm")).is_ok_and(|name| name == "tide-left-over\n")
        });
    let thread = thread.expect("there is such a thread");
    let number = |file: &str, name: &str| -> u64 {
        let text = fs::read_to_string(thread.join(file)).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim().parse().unwrap()
    };
    (
        number("status", "voluntary_ctxt_switches:"),
        number("io", "syscr:"),
    )
}

fn without_processes_the_process_table_is_not_read() {
    let queue = Queue::new();
    let pools = format!(
        "[pools.p]\nqueue = \"{}\"\n[pools.p.runner]\ncommand = [\"true\"]\n",
        queue.name()
    );
    let daemon = Daemon::start(&broker_url(), &pools);
    queue.publish("one");
    daemon.wait_for_pool("p", |pool| {
        pool["jobs"]["done"] == 1 && pool["state"] == "idle"
    });
    // Ten looks in a row without a read. The first ones may still see the job's process.
    let mut before = looks_for_left_over(&daemon);
    let quiet = poll(|| {
        let now = looks_for_left_over(&daemon);
        if now.1 != before.1 {
            before = now;
        }
        (now.0 >= before.0 + 10).then_some(())
    });
    quiet.unwrap_or_else(|| panic!("it reads with every look: {before:?}"));
}
