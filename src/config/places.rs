//! Checks the files and addresses that the daemon itself uses, and who may read its secrets.

use std::{
    fs, io,
    net::{SocketAddr, TcpListener},
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use nix::unistd::{AccessFlags, access};

use super::{
    inputs::why,
    problem::{Place, Problem},
    whole::Settings,
};

/// The daemon's own files and addresses that cannot be used. Creates nothing.
pub(super) fn unusable(settings: &Settings, place_of: &dyn Fn(&str) -> Place) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut refuse = |key: &str, found: String, fix: &str| {
        problems.push(Problem::new(place_of(key), key, found, fix));
    };
    if let Some(path) = &settings.events_file
        && let Err(what) = can_append(path)
    {
        let fix = "write a file in a directory that exists and can be written to";
        refuse("events_file", shown(path, &what), fix);
    }
    let http = &settings.http;
    if let Err(what) = can_be_directory(&http.state_dir) {
        let fix = "write a directory that can be created and written to";
        refuse("http.state_dir", shown(&http.state_dir, &what), fix);
    }
    let directory = match http.socket.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if let Err(what) = can_be_directory(directory) {
        let fix = "write a socket in a directory that can be created and written to";
        refuse("http.socket", shown(directory, &what), fix);
    }
    if let Some(listen) = http.listen
        && let Err(error) = can_listen(listen)
    {
        let found = format!("{listen} ({error})");
        refuse(
            "http.listen",
            found,
            "write an address of this machine, or \"off\"",
        );
    }
    problems
}

fn shown(path: &Path, what: &str) -> String {
    format!("{:?} ({what})", path.to_string_lossy())
}

fn can_append(path: &Path) -> Result<(), String> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Err("a directory".to_owned()),
        Ok(found) if found.file_type().is_socket() => Err("a socket".to_owned()),
        Ok(_) => may(path, AccessFlags::W_OK, "a file that cannot be written"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let directory = match path.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent,
                _ => Path::new("."),
            };
            match fs::metadata(directory) {
                Ok(found) if found.is_dir() => may_make_in(directory),
                Ok(_) => Err(format!("{} is not a directory", directory.display())),
                Err(_) => Err(format!("there is no directory {}", directory.display())),
            }
        }
        Err(error) => Err(why(&error)),
    }
}

/// Whether this is a directory that the daemon can write to, or could create.
fn can_be_directory(path: &Path) -> Result<(), String> {
    let there = path.ancestors().find_map(|path| {
        let path = match path.as_os_str().is_empty() {
            true => Path::new("."),
            false => path,
        };
        fs::metadata(path).ok().map(|found| (path, found))
    });
    match there {
        Some((there, found)) if !found.is_dir() => {
            Err(format!("{} is not a directory", there.display()))
        }
        Some((there, _)) => may_make_in(there),
        None => Err("no such directory".to_owned()),
    }
}

fn may_make_in(directory: &Path) -> Result<(), String> {
    let flags = AccessFlags::W_OK | AccessFlags::X_OK;
    may(
        directory,
        flags,
        &format!("{} cannot be written to", directory.display()),
    )
}

fn may(path: &Path, flags: AccessFlags, otherwise: &str) -> Result<(), String> {
    match access(path, flags) {
        Ok(()) => Ok(()),
        Err(nix::errno::Errno::EROFS) => Err("a read-only file system".to_owned()),
        Err(_) => Err(otherwise.to_owned()),
    }
}

/// Whether the address belongs to this machine. The port may be in use by the daemon that is checked, so port 0 is
/// tried in place of an unprivileged one.
fn can_listen(listen: SocketAddr) -> io::Result<()> {
    const PRIVILEGED: u16 = 1024;
    let mut tried = listen;
    if listen.port() >= PRIVILEGED {
        tried.set_port(0);
    }
    match TcpListener::bind(tried) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(()),
        Err(error) => Err(error),
    }
}

/// Files of `secrets`, with the keys that name them, that every user of this machine may read.
pub(super) fn exposed(
    secrets: &[(String, PathBuf)],
    place_of: &dyn Fn(&str) -> Place,
) -> Vec<Problem> {
    let exposed = secrets.iter().filter_map(|(key, path)| {
        let found = fs::metadata(path).ok()?;
        let mode = found.mode() & 0o777;
        let is_open = found.is_file() && mode & 0o004 != 0;
        is_open.then(|| {
            let found = format!("{:?}, of mode {mode:04o}", path.to_string_lossy());
            let fix = "remove the rights of other users with chmod o=; the daemon's user or group must own the file";
            Problem::new(place_of(key), key.clone(), found, fix)
        })
    });
    exposed.collect()
}
