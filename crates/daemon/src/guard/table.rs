//! The process table, as far as the guard needs it: parents and children, and the run that a process names.
//!
//! Every result may be outdated when it is returned. Only the id of an unreaped child of ours is certainly still
//! valid.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
};

use nix::{
    sys::signal::Signal,
    unistd::{Pid, getpid},
};

use tidegate::host::children::{RUN_ID, Run, signal_set};

/// The kernel's data about a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) parent: Pid,
    /// When it was started, in clock ticks since the machine's start.
    pub(super) started: u64,
}

/// Reads the kernel's data about `pid`. `None` if it has ended.
pub(super) fn stat(pid: Pid) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(text: &str) -> Option<Stat> {
    // A process chooses its own name, so the name may contain anything, also parentheses.
    let (_, after_name) = text.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(1);
    Some(Stat {
        parent: Pid::from_raw(fields.next()?.parse().ok()?),
        started: fields.nth(17)?.parse().ok()?,
    })
}

/// Whether a process has handlers of its own for all these signals. `None` if that cannot be known.
pub(super) fn handles(pid: Pid, signals: &[Signal]) -> Option<bool> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let handled = signal_set(&status, "SigCgt")?;
    let is_handled = |signal: &Signal| handled >> (*signal as u32 - 1) & 1 == 1;
    Some(signals.iter().all(is_handled))
}

/// The run that a process names in its environment. `None` if it names none or may not be read.
pub(super) fn run_of(pid: Pid) -> Option<Run> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let value = environment
        .split(|byte| *byte == 0)
        .find_map(|variable| variable.strip_prefix(RUN_ID.as_bytes())?.strip_prefix(b"="))?;
    Run::parse(str::from_utf8(value).ok()?)
}

/// The children of this process. One that is just being inherited may be missing.
pub(super) fn own_children() -> io::Result<Vec<Pid>> {
    if has_children_files() {
        children_by_files(getpid())
    } else {
        Ok(scan()?.remove(&getpid()).unwrap_or_default())
    }
}

/// A snapshot of parents and children.
#[derive(Debug)]
pub(super) enum Tree {
    /// Each process's children are read when they are needed.
    Files,
    /// For kernels without `children` files: the parents of all processes were read.
    Scanned(HashMap<Pid, Vec<Pid>>),
}

impl Tree {
    pub(super) fn look() -> io::Result<Self> {
        if has_children_files() {
            Ok(Self::Files)
        } else {
            scan().map(Self::Scanned)
        }
    }

    pub(super) fn children(&self, pid: Pid) -> Vec<Pid> {
        match self {
            // On an error the process has ended, and its children are being inherited by this process.
            Self::Files => children_by_files(pid).unwrap_or_default(),
            Self::Scanned(families) => families.get(&pid).cloned().unwrap_or_default(),
        }
    }
}

fn has_children_files() -> bool {
    Path::new("/proc/thread-self/children").exists()
}

/// A child belongs to one thread of its parent: the thread that started it, or any thread if it was inherited.
fn children_by_files(pid: Pid) -> io::Result<Vec<Pid>> {
    let mut children = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let file: PathBuf = task?.path().join("children");
        match fs::read_to_string(file) {
            Ok(pids) => children.extend(pids.split_ascii_whitespace().filter_map(parse_pid)),
            // The thread has ended, and its children moved to another thread.
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(children)
}

fn is_gone(error: &io::Error) -> bool {
    use nix::errno::Errno;
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(Errno::ESRCH as i32)
}

fn scan() -> io::Result<HashMap<Pid, Vec<Pid>>> {
    let mut families: HashMap<Pid, Vec<Pid>> = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(parse_pid) else {
            continue;
        };
        if let Some(stat) = stat(pid) {
            families.entry(stat.parent).or_default().push(pid);
        }
    }
    Ok(families)
}

fn parse_pid(text: &str) -> Option<Pid> {
    text.parse().ok().map(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn reads_a_process_whatever_it_is_called() {
        let text = "42 (a) S 9) (b)) S 7 1 1 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 31337 0 0 18446744073709551615";
        let expected = Stat {
            parent: Pid::from_raw(7),
            started: 31337,
        };
        assert_eq!(parse_stat(text), Some(expected));
        assert_eq!(parse_stat("42 (a) S 7"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn knows_what_a_process_has_handlers_for() {
        let mut child = Command::new("sh")
            .args(["-c", "trap : TERM USR1; echo; read -r _"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        let pid = Pid::from_raw(child.id().cast_signed());
        let mut line = [0];
        let mut stdout = child.stdout.take().expect("a pipe");
        std::io::Read::read_exact(&mut stdout, &mut line).expect("a line");
        use Signal::{SIGHUP, SIGTERM, SIGUSR1};
        assert_eq!(handles(pid, &[SIGTERM, SIGUSR1]), Some(true));
        assert_eq!(handles(pid, &[SIGTERM, SIGHUP]), Some(false));
        drop(child.stdin.take());
        child.wait().expect("an end");
        assert_eq!(handles(pid, &[SIGTERM]), None);
    }

    #[test]
    fn finds_a_child_in_both_ways_and_the_run_that_it_names() {
        let id = format!("{}-5", std::process::id());
        let mut child = Command::new("sh")
            .args(["-c", "read -r _"])
            .env(RUN_ID, id)
            .stdin(Stdio::piped())
            .spawn()
            .expect("a shell");
        let pid = Pid::from_raw(child.id().cast_signed());
        let scanned = Tree::Scanned(scan().expect("a process table"));
        assert!(scanned.children(getpid()).contains(&pid));
        if has_children_files() {
            assert!(own_children().expect("children").contains(&pid));
        }
        assert_eq!(stat(pid).map(|stat| stat.parent), Some(getpid()));
        assert_eq!(run_of(pid), Some(Run::new(5)));
        drop(child.stdin.take());
        child.wait().expect("an end");
        assert_eq!(stat(pid), None);
        assert_eq!(run_of(pid), None);
    }
}
