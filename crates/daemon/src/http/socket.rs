//! An instance's Unix socket. Its file may be left by a dead instance. Only a connection shows whether an instance listens.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use nix::unistd::Uid;
use thiserror::Error;

use tidegate::host::instance::{LockError, make_directory};

/// The files of an instance could not be set up.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum InstanceError {
    /// The lock could not be taken.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Another instance answers at the socket.
    #[error("start a second supervisor on {}", path.display())]
    Running {
        /// The socket.
        path: PathBuf,
    },
    /// The socket's directory could not be read.
    #[error("read the attributes of the directory {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Others could replace our socket with their own.
    #[error("trust the directory {}: {why}", path.display())]
    Untrusted {
        /// The directory.
        path: PathBuf,
        /// The problem of the directory.
        why: &'static str,
    },
    /// The socket could not be listened on.
    #[error("listen on the socket {}", path.display())]
    Listen {
        /// The socket's file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// A socket's file. Removed on drop, unless another process has replaced it.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

/// Listens on a Unix socket that only our user may connect to. Replaces a file that a dead supervisor left.
///
/// # Errors
/// A supervisor answers there, the directory is open to others, or the kernel refuses.
pub fn listen(path: &Path) -> Result<(UnixListener, SocketFile), InstanceError> {
    let failed = |source| InstanceError::Listen {
        path: path.to_owned(),
        source,
    };
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    make_directory(directory)?;
    check_directory(directory)?;
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(failed(io::Error::other(
                "the path is a file that is not a socket",
            )));
        }
        Ok(_) => match UnixStream::connect(path) {
            Ok(_) => {
                let path = path.to_owned();
                return Err(InstanceError::Running { path });
            }
            // No process listens on it any more.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path).map_err(failed)?;
            }
            Err(error) => return Err(failed(error)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let metadata = fs::symlink_metadata(path).map_err(failed)?;
    let file = SocketFile {
        path: path.to_owned(),
        identity: (metadata.dev(), metadata.ino()),
    };
    Ok((listener, file))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.identity);
        if is_ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Refuses a directory in which others could replace our socket and read the requests of a command line.
fn check_directory(path: &Path) -> Result<(), InstanceError> {
    let untrusted = |why| InstanceError::Untrusted {
        path: path.to_owned(),
        why,
    };
    let metadata = fs::metadata(path).map_err(|source| InstanceError::Directory {
        path: path.to_owned(),
        source,
    })?;
    if metadata.uid() != Uid::effective().as_raw() && metadata.uid() != 0 {
        return Err(untrusted("it belongs to another user"));
    }
    // In a sticky directory (/tmp) others can add files, but not replace ours.
    let (is_open, is_sticky) = (metadata.mode() & 0o022 != 0, metadata.mode() & 0o1000 != 0);
    if is_open && !is_sticky {
        return Err(untrusted("others can write to it"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listens_for_its_own_user_alone_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/tidegate.sock");
        let (_listener, file) = listen(&path).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn takes_over_the_socket_of_a_supervisor_that_died() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tidegate.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        listen(&path).unwrap();
    }

    #[test]
    fn does_not_take_the_socket_of_a_supervisor_that_answers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tidegate.sock");
        let _first = listen(&path).unwrap();
        let error = listen(&path).unwrap_err();
        assert!(matches!(error, InstanceError::Running { .. }), "{error}");
        assert!(path.exists());
    }

    #[test]
    fn does_not_remove_a_file_that_is_not_a_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notes.txt");
        fs::write(&path, "mine").unwrap();
        listen(&path).unwrap_err();
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }

    #[test]
    fn does_not_remove_a_socket_that_another_process_has_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tidegate.sock");
        let (_listener, file) = listen(&path).unwrap();
        // Moved, not removed, so that the kernel cannot give the new file the same inode number.
        fs::rename(&path, dir.path().join("old.sock")).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        drop(file);
        assert!(path.exists());
    }

    #[test]
    fn refuses_a_directory_that_others_can_write_to() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
        let error = listen(&dir.path().join("tidegate.sock")).unwrap_err();
        assert!(matches!(error, InstanceError::Untrusted { .. }), "{error}");
        fs::set_permissions(dir.path(), Permissions::from_mode(0o1777)).unwrap();
        listen(&dir.path().join("tidegate.sock")).unwrap();
    }
}
