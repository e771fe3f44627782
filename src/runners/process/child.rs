//! One child process in a process group of its own: spawned, signalled and reaped by id, never `waitpid(-1)`.
//!
//! The id of a group is the id of its leader. The system may give it to another process as soon as the leader is reaped
//! and the group is empty. So the leader's exit is *seen* through a pidfd, which leaves it a zombie, and it is reaped
//! only after the last signal to its group.

use std::{
    io,
    os::{fd::OwnedFd, unix::process::ExitStatusExt},
    process::ExitStatus,
};

use futures_util::FutureExt as _;
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
};

use super::exit::ProcessExit;
use crate::host::{
    cgroup::Leaf,
    children::{self, OwnedChild, Run},
};

/// A child, its group and, if it has one, its cgroup. **On drop** all of these are killed, and the child is reaped in
/// the background.
pub(in crate::runners) struct Process {
    child: Child,
    pid: Pid,
    own: OwnedChild,
    /// Readable once the child has exited. `None` if no pidfd is available (Linux before 5.3, or no file descriptor
    /// left): then the child is reaped when it exits.
    exit: Option<AsyncFd<OwnedFd>>,
    state: ChildState,
    leaf: Option<Leaf>,
}

/// How a child ended.
#[derive(Debug, Clone, Copy)]
pub(in crate::runners) struct ChildExit {
    /// `None` if it does not die: it is then reaped in the background when it does.
    pub(in crate::runners) status: Option<ExitStatus>,
    /// The kernel has killed it because memory ran out, with all processes that it had started.
    pub(in crate::runners) out_of_memory: bool,
}

impl ChildExit {
    pub(in crate::runners) fn exit(self) -> Option<ProcessExit> {
        match self.out_of_memory {
            true => Some(ProcessExit::OutOfMemory),
            false => self.status.and_then(ProcessExit::of),
        }
    }
}

/// Whether the child's id is still ours to signal.
#[derive(Debug, Clone, Copy)]
enum ChildState {
    /// It runs, or is a zombie.
    Ours,
    /// It was reaped, and its id may belong to another process. `None` if its status was lost.
    Reaped(Option<ExitStatus>),
}

/// Our ends of the three pipes.
pub(in crate::runners) struct Pipes {
    pub(in crate::runners) stdin: ChildStdin,
    pub(in crate::runners) stdout: ChildStdout,
    pub(in crate::runners) stderr: ChildStderr,
}

impl Process {
    /// Spawns `command` as the leader of a new group. Its standard output and error must be pipes. Its standard input
    /// must be a pipe too, unless `stdin` is given: then the child itself reads from there.
    pub(in crate::runners) fn spawn(
        command: &mut Command,
        run: Run,
        stdin: Option<ChildStdin>,
        leaf: Option<Leaf>,
    ) -> io::Result<(Self, Pipes)> {
        let (mut child, own) = children::spawn(command.process_group(0).kill_on_drop(true), run)?;
        let pid = own.pid();
        let (Some(stdin), Some(stdout), Some(stderr)) = (
            stdin.or_else(|| child.stdin.take()),
            child.stdout.take(),
            child.stderr.take(),
        ) else {
            unreachable!("the three streams are pipes");
        };
        let process = Self {
            child,
            pid,
            own,
            exit: pidfd(pid),
            state: ChildState::Ours,
            leaf,
        };
        Ok((
            process,
            Pipes {
                stdin,
                stdout,
                stderr,
            },
        ))
    }

    /// Waits until the child has exited.
    ///
    /// # Cancel-safety
    /// Cancel-safe.
    pub(in crate::runners) async fn exited(&mut self) {
        // An error says that the runtime is going down; then the other way in takes the zombie with it.
        if let Some(exit) = &self.exit
            && exit.readable().await.is_ok()
        {
            return;
        }
        self.state = ChildState::Reaped(self.child.wait().await.ok());
        self.own.reaped();
        // The group's id was safe until now. Left-over processes get no extra second here, unlike in the other cases.
        let _ = killpg(self.pid, Signal::SIGKILL);
        if let Some(leaf) = &self.leaf {
            leaf.kill();
        }
    }

    /// Whether the child is known to have exited.
    pub(in crate::runners) fn has_exited(&mut self) -> bool {
        self.exited().now_or_never().is_some()
    }

    /// Its process id. The id may belong to another process once this one is reaped.
    pub(in crate::runners) fn id(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Sends a signal to the whole group, as long as its id is certainly ours. A KILL goes to its cgroup too.
    pub(in crate::runners) fn signal(&self, signal: Signal) {
        if signal == Signal::SIGKILL
            && let Some(leaf) = &self.leaf
        {
            leaf.kill();
        }
        if let ChildState::Reaped(_) = self.state {
            return;
        }
        // A leader may move itself to another group; then only its own id is left.
        if killpg(self.pid, signal) == Err(Errno::ESRCH) {
            let _ = kill(self.pid, signal);
        }
        if signal == Signal::SIGTERM {
            // A stopped process (SIGSTOP) would not see the TERM before the KILL.
            let _ = killpg(self.pid, Signal::SIGCONT);
        }
    }

    /// Sends a signal to the process alone, as long as its id is certainly ours. A stopped process continues, so that it
    /// sees the signal.
    pub(in crate::runners) fn signal_leader(&self, signal: Signal) {
        if let ChildState::Reaped(_) = self.state {
            return;
        }
        let _ = kill(self.pid, signal);
        let _ = kill(self.pid, Signal::SIGCONT);
    }

    /// Kills what is left of the group and of the cgroup, and reaps the child.
    pub(in crate::runners) fn finish(mut self) -> ChildExit {
        self.signal(Signal::SIGKILL);
        let status = self.reap();
        let was_killed = status.and_then(|status| status.signal()) == Some(Signal::SIGKILL as i32);
        let leaf = self.leaf.as_ref().filter(|_| was_killed);
        ChildExit {
            status,
            out_of_memory: leaf.is_some_and(Leaf::ran_out_of_memory),
        }
    }

    fn reap(&mut self) -> Option<ExitStatus> {
        match self.state {
            ChildState::Reaped(status) => status,
            ChildState::Ours => {
                let status = self.child.try_wait().ok().flatten()?;
                self.state = ChildState::Reaped(Some(status));
                self.own.reaped();
                Some(status)
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Before the child's own drop, which may reap it.
        self.signal(Signal::SIGKILL);
    }
}

#[expect(
    deprecated,
    reason = "its replacement is unsafe for the sake of types that may change their descriptor; an `OwnedFd` cannot"
)]
fn pidfd(pid: Pid) -> Option<AsyncFd<OwnedFd>> {
    let pid = rustix::process::Pid::from_raw(pid.as_raw())?;
    let fd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::NONBLOCK).ok()?;
    AsyncFd::with_interest(fd, Interest::READABLE).ok()
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn ends_the_whole_group_also_without_pidfd() {
        let mut command = Command::new("sh");
        command
            .args(["-c", "sleep 1000 & exit 3"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let (mut process, mut pipes) =
            Process::spawn(&mut command, children::new_run(), None, None).expect("a shell");
        process.exit = None;
        process.exited().await;
        // Held open by the grandchild for as long as it lives.
        pipes
            .stdout
            .read_to_end(&mut Vec::new())
            .await
            .expect("an end");
        // The id may belong to another process by now.
        assert!(matches!(process.state, ChildState::Reaped(_)));
        process.signal(Signal::SIGKILL);
        assert_eq!(
            process.finish().status.and_then(|status| status.code()),
            Some(3)
        );
    }
}
