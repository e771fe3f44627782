//! The processes that this process has started itself, as opposed to inherited orphans.
//!
//! A supervisor under its guard becomes the parent of all orphans of its jobs, and the kernel does not say which child
//! was started and which was inherited. So adapters start processes here, and this module records which of them are not
//! reaped yet. Global, because the children of a process are global.
//!
//! Kills nothing and reaps nothing.

use std::{
    collections::BTreeMap,
    fs, io,
    sync::{
        Mutex, MutexGuard, Once, PoisonError, RwLock, TryLockError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use nix::{sys::signal::Signal, unistd::Pid};
use tokio::{
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
};

/// The variable that names a [`Run`] in the environment of its process. Descendants inherit it.
pub const RUN_ID: &str = "TIDEGATE_RUN_ID";

/// The life of one process that an adapter started, with all its descendants. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Run(u64);

impl Run {
    /// The id is shown to people as one word. It contains the supervisor's process id, so that the runs of a supervisor
    /// that runs as a job are distinct.
    pub(crate) fn id(self) -> String {
        format!("{}-{}", std::process::id(), self.0)
    }

    /// The run with this id, if it is one of ours.
    pub fn parse(id: &str) -> Option<Self> {
        let (supervisor, run) = id.split_once('-')?;
        let ours = supervisor.parse() == Ok(std::process::id());
        ours.then(|| run.parse().ok().map(Self))?
    }

    /// The run with this number, for tests.
    pub fn new(number: u64) -> Self {
        Self(number)
    }
}

static REGISTER: ChildRegister = ChildRegister::new();

/// Which children this process has started.
struct ChildRegister {
    /// Whether the register is used. Without a guard there are no inherited children, and nothing is recorded.
    is_kept: AtomicBool,
    next: AtomicU64,
    /// Held shared by a task that starts a process, until the process is recorded. Held exclusively by a reader of the
    /// children. So a reader never sees a process that runs and is not recorded.
    spawning: RwLock<()>,
    /// Written by spawns, by reaped processes, and by readers of the children.
    entries: Mutex<BTreeMap<i32, ChildEntry>>,
}

#[derive(Debug, Clone, Copy)]
struct ChildEntry {
    run: Run,
    /// No task waits for the process any more. The runtime reaps it when it dies.
    is_let_go: bool,
}

/// One reading of the children of this process.
#[derive(Debug)]
pub struct ChildrenSnapshot {
    /// Children that this process did not start.
    pub inherited: Vec<Pid>,
    /// Runs whose processes are not reaped yet.
    pub running: Vec<(Run, Pid)>,
}

/// Turns the register on. Call this before any process is started.
pub fn keep_account() {
    REGISTER.is_kept.store(true, Ordering::Relaxed);
}

/// Separates the children that `list` returns into started and inherited ones. `None` while a process is being started:
/// that can take long if its file is on a disk that does not answer, and neither side waits for the other here.
///
/// # Errors
/// The errors of `list`.
pub fn family(list: impl FnOnce() -> io::Result<Vec<Pid>>) -> io::Result<Option<ChildrenSnapshot>> {
    REGISTER.family(list)
}

/// The id of a run that is about to begin.
pub(crate) fn new_run() -> Run {
    REGISTER.next_run()
}

/// Makes the kernel keep the exit codes of our children. The kernel discards them if our parent made us ignore SIGCHLD,
/// and our children would inherit that setting.
///
/// # Errors
/// The runtime lacks the features that this needs.
pub fn keep_exit_codes() -> io::Result<()> {
    if !discards_exit_codes() {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let _within = runtime.enter();
    handle_ends()
}

/// Any handler works. The runtime's handler can be installed safely. It stays until the process ends.
fn handle_ends() -> io::Result<()> {
    signal(SignalKind::child()).map(drop)
}

fn discards_exit_codes() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    signal_set(&status, "SigIgn")
        .is_some_and(|ignored| ignored >> (Signal::SIGCHLD as u32 - 1) & 1 == 1)
}

/// One of the signal sets in a process's `status`: one bit for each signal, beginning with signal 1.
pub fn signal_set(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    u64::from_str_radix(line.strip_prefix(':')?.trim(), 16).ok()
}

/// Starts `command`, with the id of its run in its environment.
pub(crate) fn spawn(command: &mut Command, run: Run) -> io::Result<(Child, OwnedChild)> {
    // Under a guard this is done already, but there may be no guard.
    static KEPT: Once = Once::new();
    KEPT.call_once(|| {
        if discards_exit_codes() {
            let _ = handle_ends();
        }
    });
    command.env(RUN_ID, run.id());
    let (child, pid) = REGISTER.enter(run, || {
        let child = command.spawn()?;
        let id = child
            .id()
            .expect("a child that was never waited for has an id");
        Ok((child, Pid::from_raw(id.cast_signed())))
    })?;
    Ok((child, OwnedChild { pid, run }))
}

/// A child that this process has started. When this is dropped, no code waits for the child any more, and its orphans
/// belong to no run.
#[derive(Debug)]
pub(crate) struct OwnedChild {
    pid: Pid,
    run: Run,
}

impl OwnedChild {
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Records that the process was reaped: its id may soon be used again.
    pub(crate) fn reaped(&self) {
        REGISTER.strike(self.pid, self.run);
    }
}

impl Drop for OwnedChild {
    fn drop(&mut self) {
        REGISTER.let_go(self.pid, self.run);
    }
}

impl ChildRegister {
    const fn new() -> Self {
        Self {
            is_kept: AtomicBool::new(false),
            next: AtomicU64::new(1),
            spawning: RwLock::new(()),
            entries: Mutex::new(BTreeMap::new()),
        }
    }

    fn next_run(&self) -> Run {
        Run(self.next.fetch_add(1, Ordering::Relaxed))
    }

    fn enter<T>(
        &self,
        run: Run,
        start: impl FnOnce() -> io::Result<(T, Pid)>,
    ) -> io::Result<(T, Pid)> {
        if !self.is_kept.load(Ordering::Relaxed) {
            return start();
        }
        let _spawning = self.spawning.read().unwrap_or_else(PoisonError::into_inner);
        let (started, pid) = start()?;
        let entry = ChildEntry {
            run,
            is_let_go: false,
        };
        self.entries().insert(pid.as_raw(), entry);
        Ok((started, pid))
    }

    fn strike(&self, pid: Pid, run: Run) {
        let mut entries = self.entries();
        // The id may have been given to another spawn since the child was reaped.
        if entries
            .get(&pid.as_raw())
            .is_some_and(|entry| entry.run == run)
        {
            entries.remove(&pid.as_raw());
        }
    }

    fn let_go(&self, pid: Pid, run: Run) {
        if let Some(entry) = self.entries().get_mut(&pid.as_raw())
            && entry.run == run
        {
            entry.is_let_go = true;
        }
    }

    fn family(
        &self,
        list: impl FnOnce() -> io::Result<Vec<Pid>>,
    ) -> io::Result<Option<ChildrenSnapshot>> {
        let _nobody_spawns = match self.spawning.try_write() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(guard)) => guard.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(None),
        };
        // Read the entries before the list. A child that is in the list and not in the entries was inherited, even if
        // one of ours is reaped in between and an orphan gets its id. That orphan then counts as ours until the next
        // reading.
        let before = self.entries().clone();
        let children = list()?;
        let inherited = children
            .iter()
            .filter(|pid| !before.contains_key(&pid.as_raw()))
            .copied()
            .collect();
        let mut entries = self.entries();
        entries.retain(|pid, entry| !entry.is_let_go || children.contains(&Pid::from_raw(*pid)));
        let running = entries
            .iter()
            .filter(|(_, entry)| !entry.is_let_go)
            .map(|(pid, entry)| (entry.run, Pid::from_raw(*pid)))
            .collect();
        Ok(Some(ChildrenSnapshot { inherited, running }))
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<i32, ChildEntry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pids(pids: &[i32]) -> Vec<Pid> {
        pids.iter().copied().map(Pid::from_raw).collect()
    }

    fn kept() -> ChildRegister {
        let register = ChildRegister::new();
        register.is_kept.store(true, Ordering::Relaxed);
        register
    }

    fn start(register: &ChildRegister, pid: i32) -> Run {
        let run = register.next_run();
        let entered = register.enter(run, || Ok(((), Pid::from_raw(pid))));
        entered.expect("a start that cannot fail");
        run
    }

    fn look(register: &ChildRegister, children: &[i32]) -> (Vec<Pid>, Vec<Run>) {
        let family = register
            .family(|| Ok(pids(children)))
            .expect("a list that cannot fail")
            .expect("nobody starts a process");
        let running = family.running.into_iter().map(|(run, _)| run).collect();
        (family.inherited, running)
    }

    #[test]
    fn reads_the_sets_of_signals_of_a_process() {
        let status = "Name:\tsh\nSigIgn:\t0000000000010000\nSigCgt:\t0000000100000001\n";
        assert_eq!(signal_set(status, "SigIgn"), Some(1 << 16));
        assert_eq!(signal_set(status, "SigCgt"), Some(1 << 32 | 1));
        assert_eq!(signal_set(status, "SigBlk"), None);
        assert_eq!(signal_set("SigIgn:\tx", "SigIgn"), None);
    }

    #[test]
    fn distinguishes_its_own_children_from_inherited_ones() {
        let register = kept();
        let one = start(&register, 10);
        assert_eq!(look(&register, &[10, 11]), (pids(&[11]), vec![one]));
        register.strike(Pid::from_raw(10), one);
        assert_eq!(look(&register, &[10, 11]), (pids(&[10, 11]), vec![]));
    }

    #[test]
    fn a_released_child_is_known_as_ours_until_it_has_ended() {
        let register = kept();
        let one = start(&register, 10);
        register.let_go(Pid::from_raw(10), one);
        // The runtime still has to reap it, and no other code may do so.
        assert_eq!(look(&register, &[10]), (vec![], vec![]));
        assert_eq!(look(&register, &[]), (vec![], vec![]));
        assert_eq!(look(&register, &[10]), (pids(&[10]), vec![]));
    }

    #[test]
    fn an_id_that_was_used_again_belongs_to_its_latest_run() {
        let register = kept();
        let one = start(&register, 10);
        let two = start(&register, 10);
        register.strike(Pid::from_raw(10), one);
        register.let_go(Pid::from_raw(10), one);
        assert_eq!(look(&register, &[10]), (vec![], vec![two]));
    }

    #[test]
    fn a_failed_start_leaves_no_entry_in_the_register() {
        let register = kept();
        let failed =
            register.enter::<()>(register.next_run(), || Err(io::ErrorKind::NotFound.into()));
        assert!(failed.is_err());
        assert!(register.entries().is_empty());
    }

    #[test]
    fn does_not_read_the_process_table_while_a_process_is_being_started() {
        let register = kept();
        let run = register.next_run();
        let entered = register.enter(run, || {
            let family = register.family(|| unreachable!("nobody lists"));
            assert!(matches!(family, Ok(None)));
            Ok(((), Pid::from_raw(10)))
        });
        entered.expect("a start that cannot fail");
        assert_eq!(look(&register, &[10]), (vec![], vec![run]));
    }

    #[test]
    fn keeps_no_entries_if_nothing_reads_them() {
        let register = ChildRegister::new();
        start(&register, 10);
        assert!(register.entries().is_empty());
    }

    #[test]
    fn recognizes_only_the_ids_of_its_own_runs() {
        let run = Run::new(7);
        assert_eq!(Run::parse(&run.id()), Some(run));
        let pid = std::process::id();
        for id in ["", "7", "-", &format!("{pid}-"), &format!("{}-7", pid + 1)] {
            assert_eq!(Run::parse(id), None, "{id:?}");
        }
    }
}
