//! The identity of this supervisor, and whether another supervisor is still alive.
//!
//! Things that a supervisor leaves outside its process (containers) name the supervisor, so that a later one can tell
//! whether the owner is dead. The owner is dead if the lock in its state directory is free, or belongs to another
//! supervisor.
//!
//! The lock belongs to an *open file description*. So the kernel frees it when the process dies, and it can be tested
//! without taking it: a supervisor that starts at that moment does not find it taken.
//!
//! A supervisor that hands over to a successor gives the lock away while its last jobs run. From then on it holds a
//! lock of its own, `finishing-<run>.lock` in the same directory, and is alive as long as it holds that one.
//!
//! The lock file names the holder and identifies the directory. A path alone is not enough: it may name another file on
//! another machine, in another container, or after the directory was made again.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    libc,
    unistd::Pid,
};
use thiserror::Error;

const LOCK_FILE: &str = "tidegate.lock";

/// The prefix of the names of the locks that supervisors hold after they have handed over.
const FINISHING: &str = "finishing-";
/// How they end, and the extension of the socket beside each.
const LOCK: &str = ".lock";
const SOCKET: &str = "sock";

/// Far more than a lock file contains.
const MAX_BYTES: u64 = 4096;

/// The lock could not be taken.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LockError {
    /// Another instance holds it.
    #[error("failed to start a second supervisor on {}", path.display())]
    Held {
        /// The lock file.
        path: PathBuf,
    },
    /// The directory could not be made.
    #[error("failed to make the directory {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// The lock could not be taken.
    #[error("failed to lock {}", path.display())]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
}

/// A supervisor, as the things that it leaves behind name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// The file of the lock that the supervisor holds while it lives.
    pub(crate) lock: PathBuf,
    /// The id of the state directory: the same for all supervisors that ever ran on it.
    pub(crate) state: String,
    /// The id of this supervisor's run.
    pub(crate) run: String,
}

/// The right to be the only supervisor of a state directory. Released on drop, and by the kernel when the process dies.
#[derive(Debug)]
pub struct InstanceLock {
    file: File,
    id: (u64, u64),
    instance: Instance,
}

impl InstanceLock {
    /// Takes the lock in `state_dir`. Makes the directory if it is missing.
    ///
    /// # Errors
    /// Another instance holds the lock, or the lock file cannot be opened.
    pub fn take(state_dir: &Path) -> Result<Self, LockError> {
        make_directory(state_dir)?;
        let path = state_dir.join(LOCK_FILE);
        let failed = |source| LockError::Lock {
            path: path.clone(),
            source,
        };
        let file = lock_file(&path).map_err(failed)?;
        match fcntl(&file, FcntlArg::F_OFD_SETLK(&whole_file())) {
            Ok(_) => {}
            Err(Errno::EAGAIN | Errno::EACCES) => return Err(LockError::Held { path }),
            Err(errno) => return Err(failed(errno.into())),
        }
        let state = match Holder::read(&file) {
            Some(last) => last.state,
            None => make_id(),
        };
        let instance = Instance {
            // Other processes read this path from their own working directory, so it must be absolute.
            lock: std::path::absolute(&path).map_err(failed)?,
            state,
            run: make_id(),
        };
        instance.sign(&file).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        Ok(Self {
            file,
            id: (metadata.dev(), metadata.ino()),
            instance,
        })
    }

    /// Distinguishes this lock from all others on this machine: two open files never have the same id.
    pub fn id(&self) -> (u64, u64) {
        self.id
    }

    /// The identity of this supervisor.
    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// Takes a second lock, for a supervisor that is about to give this one away to a successor. While it holds either
    /// of the two other processes see that it is alive.
    ///
    /// # Errors
    /// The second lock cannot be taken.
    pub fn finishing(&self) -> Result<FinishingLock, LockError> {
        let path = self.instance.finishing();
        let taken = lock_file(&path).and_then(|file| {
            fcntl(&file, FcntlArg::F_OFD_SETLK(&whole_file()))?;
            self.instance.sign(&file)?;
            Ok(file)
        });
        match taken {
            Ok(file) => Ok(FinishingLock { file, path }),
            Err(source) => {
                let _ = fs::remove_file(&path);
                Err(LockError::Lock { path, source })
            }
        }
    }
}

impl Drop for InstanceLock {
    fn drop(&mut self) {
        release(&self.file);
    }
}

/// Held by a supervisor that has handed over to a successor, until its last job is settled. Released on drop, and by
/// the kernel when the process dies.
#[derive(Debug)]
pub struct FinishingLock {
    file: File,
    path: PathBuf,
}

impl FinishingLock {
    /// The socket on which its holder reports its running jobs.
    pub fn socket(&self) -> PathBuf {
        self.path.with_extension(SOCKET)
    }
}

impl Drop for FinishingLock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
        release(&self.file);
    }
}

/// The id of the lock in this directory, see [`InstanceLock::id`].
///
/// # Errors
/// The lock file is missing, or cannot be read.
pub fn id_of_lock(state_dir: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::metadata(state_dir.join(LOCK_FILE))?;
    Ok((metadata.dev(), metadata.ino()))
}

/// A supervisor that has handed over, and still finishes its jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finishing {
    /// Its process.
    pub pid: Pid,
    /// The socket on which it reports its running jobs.
    pub socket: PathBuf,
}

/// The processes of [`predecessors`].
pub fn finishing(state_dir: &Path) -> Vec<Pid> {
    let predecessors = predecessors(state_dir).into_iter();
    predecessors.map(|predecessor| predecessor.pid).collect()
}

/// The supervisors that have handed over in this directory, and still finish their jobs. Removes the files of dead ones.
/// Only the holder of the directory's lock may call this.
pub fn predecessors(state_dir: &Path) -> Vec<Finishing> {
    let entries = fs::read_dir(state_dir).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths.filter_map(|path| finishing_at(&path)).collect()
}

fn finishing_at(path: &Path) -> Option<Finishing> {
    let name = path.file_name()?.to_str()?;
    if !name.starts_with(FINISHING) || !name.ends_with(LOCK) {
        return None;
    }
    let file = open_to_test(path).ok()?;
    let socket = path.with_extension(SOCKET);
    if is_held(&file)? {
        let pid = Holder::read(&file)?.pid?;
        return Some(Finishing { pid, socket });
    }
    let _ = fs::remove_file(path);
    let _ = fs::remove_file(socket);
    None
}

/// Opens a lock file, and makes it if it is missing. Not truncated: until we have the lock, the content belongs to
/// another supervisor.
fn lock_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(path)
}

/// Opens a lock file to see whether it is held. Neither follows a link nor blocks: the path may come from a label.
fn open_to_test(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW).bits())
        .open(path)
}

fn release(file: &File) {
    // Closing the file is not enough: a child between fork and exec has the file open too.
    let free = libc::flock {
        l_type: libc::F_UNLCK as libc::c_short,
        ..whole_file()
    };
    // If this fails, the kernel still frees the lock, only later.
    let _ = fcntl(file, FcntlArg::F_OFD_SETLK(&free));
}

/// Whether a supervisor is alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    /// The lock is held, as far as this supervisor can see.
    Alive,
    /// The lock is free, or held by another supervisor.
    Dead,
    /// The lock cannot be found from here.
    Unknown,
}

impl Instance {
    /// Whether the supervisor is still alive. Takes no lock and changes nothing.
    pub(crate) fn life(&self) -> Life {
        let Ok(file) = open_to_test(&self.lock) else {
            return Life::Unknown;
        };
        if !file.metadata().is_ok_and(|found| found.is_file()) {
            return Life::Unknown;
        }
        // Tested first: a supervisor that takes the lock after this is not the one in question.
        let Some(is_held) = is_held(&file) else {
            return Life::Unknown;
        };
        match Holder::read(&file) {
            Some(holder) if holder.state == self.state => {
                // Tested second: it is taken before the first is handed over.
                let is_alive = (is_held && holder.run == self.run) || self.is_finishing();
                match is_alive {
                    true => Life::Alive,
                    false => Life::Dead,
                }
            }
            // The file of another directory at the same path.
            _ => Life::Unknown,
        }
    }

    /// Whether the supervisor has handed over and finishes its last jobs.
    fn is_finishing(&self) -> bool {
        open_to_test(&self.finishing()).is_ok_and(|file| is_held(&file) == Some(true))
    }

    /// The file of the lock that the supervisor holds after it has handed over.
    fn finishing(&self) -> PathBuf {
        let name = format!("{FINISHING}{}{LOCK}", self.run);
        self.lock.with_file_name(name)
    }

    /// Names this supervisor in the file of a lock that it holds.
    fn sign(&self, file: &File) -> io::Result<()> {
        let Self { state, run, .. } = self;
        let text = format!("{state} {run} {}\n", std::process::id());
        // Written in one call, then truncated: a reader in between finds the old or the new content.
        file.write_all_at(text.as_bytes(), 0)?;
        file.set_len(text.len() as u64)
    }
}

/// Whether any process holds the lock. `None` if the file system cannot tell.
fn is_held(file: &File) -> Option<bool> {
    let mut lock = whole_file();
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock)).ok()?;
    Some(i32::from(lock.l_type) != libc::F_UNLCK)
}

fn whole_file() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

/// The content of a lock file.
struct Holder {
    state: String,
    run: String,
    pid: Option<Pid>,
}

impl Holder {
    fn read(file: &File) -> Option<Self> {
        let mut text = String::new();
        file.take(MAX_BYTES).read_to_string(&mut text).ok()?;
        let mut words = text.split_whitespace();
        let holder = Self {
            state: words.next()?.to_owned(),
            run: words.next()?.to_owned(),
            pid: words
                .next()
                .and_then(|pid| pid.parse().ok())
                .map(Pid::from_raw),
        };
        let is_id = |id: &str| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        (is_id(&holder.state) && is_id(&holder.run)).then_some(holder)
    }
}

fn make_id() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// Makes a directory with mode 0700, if it is missing.
///
/// # Errors
/// The system refuses.
pub fn make_directory(path: &Path) -> Result<(), LockError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| LockError::Directory {
            path: path.to_owned(),
            source,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_daemon_runs_with_a_state_directory() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let first = InstanceLock::take(&state).unwrap();
        let error = InstanceLock::take(&state).unwrap_err();
        assert!(matches!(error, LockError::Held { .. }), "{error}");
        drop(first);
        // The file still exists; a free lock is taken over.
        assert!(state.join(LOCK_FILE).exists());
        InstanceLock::take(&state).unwrap();
    }

    #[test]
    fn is_alive_while_it_holds_its_lock_and_dead_once_another_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let lock = InstanceLock::take(dir.path()).unwrap();
        let first = lock.instance().clone();
        assert_eq!(first.life(), Life::Alive);
        // Testing did not take the lock and does not block another supervisor.
        assert_eq!(first.life(), Life::Alive);
        drop(lock);
        assert_eq!(first.life(), Life::Dead);
        let lock = InstanceLock::take(dir.path()).unwrap();
        assert_eq!(first.life(), Life::Dead);
        assert_eq!(lock.instance().life(), Life::Alive);
        assert_eq!(lock.instance().state, first.state);
    }

    #[test]
    fn stays_alive_after_a_handover_until_its_last_job_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let lock = InstanceLock::take(dir.path()).unwrap();
        let first = lock.instance().clone();
        let finishing_lock = lock.finishing().unwrap();
        drop(lock);
        assert_eq!(first.life(), Life::Alive);
        let second = InstanceLock::take(dir.path()).unwrap();
        assert_eq!(first.life(), Life::Alive);
        assert_eq!(second.instance().life(), Life::Alive);
        assert_eq!(finishing(dir.path()), [Pid::this()]);
        // A successor may hand over in turn while the first is still at work.
        let second_finishing = second.finishing().unwrap();
        drop(second);
        let _third = InstanceLock::take(dir.path()).unwrap();
        assert_eq!(finishing(dir.path()).len(), 2);
        drop((finishing_lock, second_finishing));
        assert_eq!(first.life(), Life::Dead);
        assert_eq!(finishing(dir.path()), []);
    }

    #[test]
    fn a_supervisor_that_died_after_a_handover_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let lock = InstanceLock::take(dir.path()).unwrap();
        let first = lock.instance().clone();
        let file = first.finishing();
        // As the kernel leaves it: the file exists, and no process holds the lock.
        fs::write(&file, format!("{} {} 1\n", first.state, first.run)).unwrap();
        drop(lock);
        assert_eq!(first.life(), Life::Dead);
        let _next = InstanceLock::take(dir.path()).unwrap();
        assert_eq!(finishing(dir.path()), []);
        assert!(!file.exists());
    }

    #[test]
    fn is_released_on_drop_even_if_another_process_has_its_file_open() {
        let dir = tempfile::tempdir().unwrap();
        let lock = InstanceLock::take(dir.path()).unwrap();
        // A child between fork and exec has the file open like this.
        let _child = lock.file.try_clone().unwrap();
        drop(lock);
        InstanceLock::take(dir.path()).unwrap();
    }

    #[test]
    fn checking_whether_an_instance_is_alive_does_not_block_its_lock() {
        let dir = tempfile::tempdir().unwrap();
        let instance = InstanceLock::take(dir.path()).unwrap().instance().clone();
        let path = dir.path().to_owned();
        let asker = std::thread::spawn(move || {
            for _ in 0..2000 {
                assert_ne!(instance.life(), Life::Unknown);
            }
        });
        while !asker.is_finished() {
            InstanceLock::take(&path).unwrap();
        }
        asker.join().unwrap();
    }

    #[test]
    fn is_unknown_if_its_lock_cannot_be_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let instance = InstanceLock::take(&path).unwrap().instance().clone();
        let lock = path.join(LOCK_FILE);
        for text in ["", "1 2 3", "17\n"] {
            fs::write(&lock, text).unwrap();
            assert_eq!(instance.life(), Life::Unknown, "{text:?}");
        }
        // The same path on another machine, or after the directory was made again.
        fs::remove_dir_all(&path).unwrap();
        assert_eq!(instance.life(), Life::Unknown);
        drop(InstanceLock::take(&path).unwrap());
        assert_eq!(instance.life(), Life::Unknown);
        // A file on which open() blocks.
        fs::remove_file(&lock).unwrap();
        nix::unistd::mkfifo(&lock, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(instance.life(), Life::Unknown);
    }
}
