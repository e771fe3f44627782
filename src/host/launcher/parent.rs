//! The supervisor's side: sends the plan, and receives the result.

use std::{
    io::{self, IoSlice, PipeWriter},
    mem::MaybeUninit,
    net::Shutdown,
    os::{fd::AsFd, unix::net::UnixStream},
    path::Path,
    process::Stdio,
    time::Duration,
};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::io::AsyncReadExt;

use super::{
    plan::{LaunchPlan, LaunchStepError, READY},
    program::{MARK, program},
};

/// Longest time for a launch. The launcher may have to wait for a database of users.
pub(crate) const LAUNCH_TIMEOUT: Duration = Duration::from_secs(10);

/// Far larger than any report of a launcher.
const REPORT_BYTES: u64 = 64 * 1024;

/// A launcher that is about to be started.
#[derive(Debug)]
pub(crate) struct PreparedLaunch {
    pub(crate) program: &'static Path,
    /// Becomes the launcher's standard input.
    pub(crate) stdin: Stdio,
    /// The job's standard input.
    pub(crate) pipe: PipeWriter,
    pub(crate) report: UnixStream,
}

/// Why a job was not started.
#[derive(Debug)]
pub(crate) enum LaunchFailure {
    /// The launcher failed; it says at which step.
    Launcher {
        what: String,
        source: Option<io::Error>,
    },
    /// The launcher did all its steps, but the job's program could not be started.
    Program(io::Error),
}

impl LaunchFailure {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self::Launcher {
            what: what.into(),
            source: None,
        }
    }
}

/// The variable that makes a process a launcher.
pub(crate) fn mark() -> (&'static str, &'static str) {
    (MARK, "1")
}

impl PreparedLaunch {
    /// Prepares the sockets and pipes, so that the plan is already there when the launcher starts.
    pub(crate) fn new(plan: &LaunchPlan) -> Result<Self, LaunchFailure> {
        let Some(program) = program() else {
            return Err(LaunchFailure::new(
                "limits need a launcher: call tidegate::host::launcher::init() first thing in main",
            ));
        };
        Self::prepare(program, plan).map_err(|source| LaunchFailure::Launcher {
            what: "its launcher cannot be prepared".to_owned(),
            source: Some(source),
        })
    }

    fn prepare(program: &'static Path, plan: &LaunchPlan) -> io::Result<Self> {
        let (theirs, report) = UnixStream::pair()?;
        let (reader, pipe) = io::pipe()?;
        let text = serde_json::to_vec(plan)?;
        let fds = [reader.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
            unreachable!("there is space for one descriptor");
        }
        // Nobody reads the socket yet, so a write that does not fit would block for ever.
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let sent = sendmsg(&report, &[IoSlice::new(&text)], &mut control, flags)?;
        if sent != text.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        report.shutdown(Shutdown::Write)?;
        report.set_nonblocking(true)?;
        Ok(Self {
            program,
            stdin: std::os::fd::OwnedFd::from(theirs).into(),
            pipe,
            report,
        })
    }
}

/// Waits until the job's program has started or has failed to start.
///
/// # Cancel-safety
/// Not cancel-safe. It can be called once.
pub(crate) async fn heard(report: UnixStream) -> Result<(), LaunchFailure> {
    let lost = |source| LaunchFailure::Launcher {
        what: "its launcher's report could not be read".to_owned(),
        source: Some(source),
    };
    let mut said = Vec::new();
    let report = tokio::net::UnixStream::from_std(report).map_err(lost)?;
    let mut report = report.take(REPORT_BYTES);
    report.read_to_end(&mut said).await.map_err(lost)?;
    parse_report(&said)
}

/// The socket closes by itself when the program starts. `READY` says that every earlier step succeeded.
fn parse_report(said: &[u8]) -> Result<(), LaunchFailure> {
    let (is_ready, rest) = match said.strip_prefix(&[READY]) {
        Some(rest) => (true, rest),
        None => (false, said),
    };
    if rest.is_empty() {
        return match is_ready {
            true => Ok(()),
            false => Err(LaunchFailure::new("its launcher ended without a report")),
        };
    }
    let Ok(LaunchStepError { what, errno }) = serde_json::from_slice(rest) else {
        return Err(LaunchFailure::new("its launcher's report is invalid"));
    };
    let source = errno.map(io::Error::from_raw_os_error);
    Err(match (is_ready, source) {
        (true, Some(error)) => LaunchFailure::Program(error),
        (_, source) => LaunchFailure::Launcher { what, source },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_a_start_from_a_launcher_that_failed_or_died() {
        let said = |text: &[u8]| match parse_report(text) {
            Ok(()) => "started".to_owned(),
            Err(LaunchFailure::Program(error)) => format!("program: {:?}", error.raw_os_error()),
            Err(LaunchFailure::Launcher { what, source }) => {
                format!("{what}: {:?}", source.and_then(|e| e.raw_os_error()))
            }
        };
        let table: [(&[u8], &str); 5] = [
            (b"!", "started"),
            (b"", "its launcher ended without a report: None"),
            (b"!{\"what\":\"\",\"errno\":2}", "program: Some(2)"),
            (b"{\"what\":\"no\",\"errno\":1}", "no: Some(1)"),
            (b"garbage", "its launcher's report is invalid: None"),
        ];
        for (text, expected) in table {
            assert_eq!(said(text), expected);
        }
    }
}
