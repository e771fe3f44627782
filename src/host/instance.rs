//! The identity of this supervisor, and whether another supervisor is still alive.
//!
//! Things that a supervisor leaves outside its process (containers) name the supervisor, so that a later one can tell
//! whether the owner is dead. The owner is dead if the lock in its state directory is free, or belongs to another
//! supervisor.
//!
//! The lock belongs to an *open file description*. So the kernel frees it when the process dies, and it can be tested
//! without taking it: a supervisor that starts at that moment does not find it taken.
//!
//! The lock file names the holder and identifies the directory. A path alone is not enough: it may name another file on
//! another machine, in another container, or after the directory was made again.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    libc,
};
use thiserror::Error;

const LOCK_FILE: &str = "tidegate.lock";

/// Far more than a lock file contains.
const MAX_BYTES: u64 = 4096;

/// The lock could not be taken.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LockError {
    /// Another instance holds it.
    #[error("start a second supervisor on {}", path.display())]
    Held {
        /// The lock file.
        path: PathBuf,
    },
    /// The directory could not be made.
    #[error("make the directory {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// The lock could not be taken.
    #[error("lock {}", path.display())]
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
        // Not truncated: until we have the lock, the content belongs to another supervisor.
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
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
        let Instance { state, run, .. } = &instance;
        // The process id is only for people.
        let text = format!("{state} {run} {}\n", std::process::id());
        // Written in one call, then truncated: a reader in between finds the old or the new content.
        file.write_all_at(text.as_bytes(), 0)
            .and_then(|()| file.set_len(text.len() as u64))
            .map_err(failed)?;
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
}

impl Drop for InstanceLock {
    fn drop(&mut self) {
        // Closing the file is not enough: a child between fork and exec has the file open too.
        let free = libc::flock {
            l_type: libc::F_UNLCK as libc::c_short,
            ..whole_file()
        };
        // If this fails, the kernel still frees the lock, only later.
        let _ = fcntl(&self.file, FcntlArg::F_OFD_SETLK(&free));
    }
}

/// Whether a supervisor is alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    /// The lock is held, as far as can be seen by this supervisor.
    Alive,
    /// The lock is free, or held by another supervisor.
    Dead,
    /// The lock cannot be found from here.
    Unknown,
}

impl Instance {
    /// Whether the supervisor is still alive. Takes no lock and changes nothing.
    pub(crate) fn life(&self) -> Life {
        // Neither follows a link nor blocks: the path comes from a label.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW).bits())
            .open(&self.lock);
        let Ok(file) = file else {
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
            Some(holder) if holder.state == self.state => match is_held && holder.run == self.run {
                true => Life::Alive,
                false => Life::Dead,
            },
            // The file of another directory at the same path.
            _ => Life::Unknown,
        }
    }
}

/// Whether any process holds the lock. `None` if the file system cannot say.
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
}

impl Holder {
    fn read(file: &File) -> Option<Self> {
        let mut text = String::new();
        file.take(MAX_BYTES).read_to_string(&mut text).ok()?;
        let mut words = text.split_whitespace();
        let holder = Self {
            state: words.next()?.to_owned(),
            run: words.next()?.to_owned(),
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
    use std::fs;

    use super::*;

    #[test]
    fn is_one_of_a_kind_in_its_state_directory() {
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
    fn is_alive_while_it_holds_its_lock_and_dead_once_another_does() {
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
    fn is_given_up_on_drop_whoever_still_has_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let lock = InstanceLock::take(dir.path()).unwrap();
        // A child between fork and exec has the file open like this.
        let _child = lock.file.try_clone().unwrap();
        drop(lock);
        InstanceLock::take(dir.path()).unwrap();
    }

    #[test]
    fn asking_stands_in_nobodys_way() {
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
    fn is_unknown_where_its_lock_is_not_to_be_found() {
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
