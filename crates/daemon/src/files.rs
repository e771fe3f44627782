//! Reads and creates files of which something else may have taken the place: a FIFO, a device, a directory, a file
//! without end. No read is longer than its limit, and only a pipe that a user named is waited for.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    path::Path,
};

use nix::libc::{O_NOFOLLOW, O_NONBLOCK};
use tidegate::text::counted;

/// The name that means standard input.
const STANDARD_INPUT: &str = "-";

/// Largest file of arrivals or of run times that a user may name, in bytes.
pub(crate) const LARGEST_TRACE: u64 = 256 << 20;

/// Whether the last part of a path may be a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Links {
    /// The user named the path. It may also be a pipe: a shell gives the output of a command as one, `<(command)`.
    Follow,
    /// The path is ours. A link at its place may lead to a file of somebody else.
    Refuse,
}

/// Opens a file to read it.
///
/// # Errors
/// It cannot be opened, or it is something else, such as a device. Where links are refused, a pipe is refused too.
pub(crate) fn open(path: &Path, links: Links) -> io::Result<File> {
    let flags = match links {
        Links::Follow => 0,
        // Without O_NONBLOCK, the open call waits until a FIFO has a writer.
        Links::Refuse => O_NONBLOCK | O_NOFOLLOW,
    };
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)?;
    let kind = file.metadata()?.file_type();
    match kind.is_file() || (links == Links::Follow && kind.is_fifo()) {
        true => Ok(file),
        false => Err(not_regular()),
    }
}

/// The bytes of a file of at most `limit` bytes. If the user named it, `-` is standard input.
///
/// # Errors
/// It cannot be read, is something else, or is longer.
pub(crate) fn read(path: &Path, links: Links, limit: u64) -> io::Result<Vec<u8>> {
    match links == Links::Follow && path == Path::new(STANDARD_INPUT) {
        true => read_up_to(io::stdin().lock(), limit),
        false => read_up_to(open(path, links)?, limit),
    }
}

fn read_up_to(input: impl io::Read, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // The length that a file claims to have may change while it is read.
    input.take(limit + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > limit {
        true => Err(io::Error::other(format!(
            "it is longer than {}",
            size(limit)
        ))),
        false => Ok(bytes),
    }
}

/// The same as text.
///
/// # Errors
/// As for [`read`], or it is not UTF-8.
pub(crate) fn read_text(path: &Path, links: Links, limit: u64) -> io::Result<String> {
    let bytes = read(path, links, limit)?;
    String::from_utf8(bytes).map_err(|_| io::Error::other("it is not UTF-8"))
}

/// Creates a file that a user named, or empties it.
///
/// # Errors
/// It cannot be created, or something else is there, such as a FIFO, to which a write may wait without end.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    match fs::metadata(path) {
        Ok(there) if !there.is_file() => Err(not_regular()),
        _ => File::create(path),
    }
}

fn size(bytes: u64) -> String {
    const MIB: u64 = 1 << 20;
    match bytes % MIB {
        0 => format!("{} MiB", bytes / MIB),
        _ => counted(bytes, "byte"),
    }
}

fn not_regular() -> io::Error {
    io::Error::other("it is not a regular file")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use nix::{sys::stat::Mode, unistd::mkfifo};

    use super::*;

    #[test]
    fn only_regular_files_are_read_and_nothing_waits_for_a_writer() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        mkfifo(&at("fifo"), Mode::S_IRWXU).unwrap();
        fs::create_dir(at("folder")).unwrap();
        symlink("/dev/zero", at("zero")).unwrap();
        for other in ["fifo", "folder", "zero"] {
            assert!(read(&at(other), Links::Refuse, 100).is_err(), "{other}");
            if other != "fifo" {
                assert!(read(&at(other), Links::Follow, 100).is_err(), "{other}");
            }
            let error = create(&at(other)).unwrap_err();
            assert!(
                error.to_string().contains("regular file"),
                "{other}: {error}"
            );
        }
        let error = read(&at("fifo"), Links::Refuse, 100).unwrap_err();
        assert!(error.to_string().contains("regular file"), "{error}");
    }

    #[test]
    fn the_output_of_a_command_is_read_through_a_pipe() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        mkfifo(&pipe, Mode::S_IRWXU).unwrap();
        let writer = pipe.clone();
        let writer = std::thread::spawn(move || fs::write(writer, "max = 3\n"));
        assert_eq!(read_text(&pipe, Links::Follow, 100).unwrap(), "max = 3\n");
        writer.join().unwrap().unwrap();
    }

    #[test]
    fn input_without_an_end_is_read_only_to_the_limit() {
        let error = read_up_to(io::repeat(b'x'), 2 << 20).unwrap_err();
        assert_eq!(error.to_string(), "it is longer than 2 MiB");
    }

    #[test]
    fn a_file_is_read_up_to_its_limit_and_a_link_only_where_a_user_named_it() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, "12345").unwrap();
        symlink(&file, &link).unwrap();
        assert_eq!(read_text(&file, Links::Refuse, 5).unwrap(), "12345");
        assert_eq!(read_text(&link, Links::Follow, 5).unwrap(), "12345");
        assert!(read(&link, Links::Refuse, 5).is_err());
        let error = read(&file, Links::Refuse, 4).unwrap_err();
        assert!(error.to_string().contains("longer than"), "{error}");
        fs::write(&file, [0xff]).unwrap();
        let error = read_text(&file, Links::Refuse, 4).unwrap_err();
        assert!(error.to_string().contains("UTF-8"), "{error}");
        drop(create(&file).unwrap());
        assert_eq!(fs::read(&file).unwrap(), b"");
    }
}
