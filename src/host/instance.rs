//! Which supervisor this is, and whether another one is still there.
//!
//! What a supervisor leaves outside of its process (containers) names it, so that a later one can tell whether its
//! owner is gone. It is gone when the lock that it held in its state directory is free, or has passed to another.
//!
//! The lock is one of an *open file description*: the kernel's, so one that is left behind is free, and one that can
//! be asked after without taking it, so that nobody who starts at that moment finds it taken.
//!
//! Its file says who holds it, and whose directory it is: a path alone may name another file on another machine, in
//! another container, or after a directory was made anew.

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

/// Far more than such a file has.
const MOST_BYTES: u64 = 4096;

/// The lock could not be had.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LockError {
    /// Another instance holds it.
    #[error("start a second supervisor on {}", path.display())]
    Held {
        /// The lock's file.
        path: PathBuf,
    },
    /// Its directory could not be made.
    #[error("make the directory {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It could not be taken.
    #[error("lock {}", path.display())]
    Lock {
        /// The lock's file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A supervisor, as what it leaves behind names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// The file of the lock that it holds while it lives.
    pub(crate) lock: PathBuf,
    /// Of the state directory: the same for all supervisors that ever ran on it.
    pub(crate) state: String,
    /// Its own.
    pub(crate) run: String,
}

/// The right to be the one supervisor of a state directory. Given up on drop, and by the kernel on death.
#[derive(Debug)]
pub struct InstanceLock {
    file: File,
    id: (u64, u64),
    instance: Instance,
}

impl InstanceLock {
    /// Takes the lock in `state_dir`, and makes the directory where it is missing.
    ///
    /// # Errors
    /// Another instance holds it, or its file cannot be had.
    pub fn take(state_dir: &Path) -> Result<Self, LockError> {
        make_directory(state_dir)?;
        let path = state_dir.join(LOCK_FILE);
        let failed = |source| LockError::Lock {
            path: path.clone(),
            source,
        };
        // Not truncated: until the lock is ours, what is in the file is another's.
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
            // Others read it where they stand.
            lock: std::path::absolute(&path).map_err(failed)?,
            state,
            run: make_id(),
        };
        let Instance { state, run, .. } = &instance;
        // The process id is for people.
        let text = format!("{state} {run} {}\n", std::process::id());
        // At once, and then cut: who reads meanwhile finds what was there or what is.
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

    /// Tells this lock from any other on this machine: no two files that are held open have the same.
    pub fn id(&self) -> (u64, u64) {
        self.id
    }

    /// Who we are.
    pub fn instance(&self) -> &Instance {
        &self.instance
    }
}

impl Drop for InstanceLock {
    fn drop(&mut self) {
        // Closing the file is not enough: a child that has not come to its exec yet has it too.
        let free = libc::flock {
            l_type: libc::F_UNLCK as libc::c_short,
            ..whole_file()
        };
        // It is the kernel's to free in any case, only later.
        let _ = fcntl(&self.file, FcntlArg::F_OFD_SETLK(&free));
    }
}

/// Whether a supervisor is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    /// Its lock is held, by it as far as can be told.
    Alive,
    /// Its lock is free, or another's.
    Dead,
    /// Its lock is not to be found from here.
    Unknown,
}

impl Instance {
    /// Whether it is still there. Takes nothing and changes nothing.
    pub(crate) fn life(&self) -> Life {
        // Neither a link nor something that would make us wait: the path is what a label says.
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
        // Asked first: one who takes it after this is not the one that is asked for.
        let Some(is_held) = is_held(&file) else {
            return Life::Unknown;
        };
        match Holder::read(&file) {
            Some(holder) if holder.state == self.state => match is_held && holder.run == self.run {
                true => Life::Alive,
                false => Life::Dead,
            },
            // Another's file at the same path.
            _ => Life::Unknown,
        }
    }
}

/// Whether anyone has the lock. `None` where the file system cannot say.
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

/// What a lock's file says.
struct Holder {
    state: String,
    run: String,
}

impl Holder {
    fn read(file: &File) -> Option<Self> {
        let mut text = String::new();
        file.take(MOST_BYTES).read_to_string(&mut text).ok()?;
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

/// Makes a directory of our user alone, where it is missing.
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
        // The file is still there; a lock that is free is taken over.
        assert!(state.join(LOCK_FILE).exists());
        InstanceLock::take(&state).unwrap();
    }

    #[test]
    fn is_alive_while_it_holds_its_lock_and_dead_once_another_does() {
        let dir = tempfile::tempdir().unwrap();
        let lock = InstanceLock::take(dir.path()).unwrap();
        let first = lock.instance().clone();
        assert_eq!(first.life(), Life::Alive);
        // Asking did not take it, nor does it stand in anybody's way.
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
        // As a child has it between fork and exec.
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
        // The same path, on another machine or after it was made anew.
        fs::remove_dir_all(&path).unwrap();
        assert_eq!(instance.life(), Life::Unknown);
        drop(InstanceLock::take(&path).unwrap());
        assert_eq!(instance.life(), Life::Unknown);
        // Something that would make who opens it wait.
        fs::remove_file(&lock).unwrap();
        nix::unistd::mkfifo(&lock, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(instance.life(), Life::Unknown);
    }
}
