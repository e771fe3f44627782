//! The launcher's side: carries out the plan, and becomes the job. Has one thread, and writes nothing to any stream of
//! the job.

use std::{
    env, fs,
    io::{self, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{net::UnixStream, process::CommandExt},
    },
    process::{Command, exit},
};

use nix::unistd::{Gid, Uid, fchown, getgrouplist, setgroups, setresgid, setresuid};
use rustix::{
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg},
    process::{getrlimit, setpriority_process, setrlimit},
    thread::{CapabilitySet, CapabilitySets, clear_ambient_capability_set, set_capabilities},
};

use super::{
    plan::{LaunchPlan, LaunchStepError, READY, Rlimit, VERSION},
    program::MARK,
};
use crate::host::users::{self, Identity};

/// Exit code if another program has set the variable.
const USAGE: i32 = 2;

/// Becomes the job, or reports why it cannot and ends.
pub(super) fn launch() -> ! {
    let Ok((plan, mut report)) = receive() else {
        let _ = writeln!(
            io::stderr(),
            "error: failed to start: {MARK} is set, which tidegate sets for its own use\nhint: unset it"
        );
        exit(USAGE);
    };
    let Err(failure) = follow(plan, &mut report);
    // If the supervisor has ended, nothing receives the report.
    let _ = serde_json::to_writer(&mut report, &failure);
    exit(1)
}

/// Takes the plan and the job's standard input from the socket that this process has as standard input.
fn receive() -> io::Result<(LaunchPlan, UnixStream)> {
    let mut chunk = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let stdin = io::stdin();
    let received = recvmsg(
        &stdin,
        &mut [IoSliceMut::new(&mut chunk)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let mut pipes: Vec<OwnedFd> = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten()
        .collect();
    let pipe = pipes.pop().ok_or(io::ErrorKind::InvalidData)?;
    // The kernel closes the report's socket when the job's program starts.
    let mut report = UnixStream::from(rustix::io::fcntl_dupfd_cloexec(&stdin, 3)?);
    rustix::stdio::dup2_stdin(pipe)?;
    let mut text = chunk[..received.bytes].to_vec();
    report.read_to_end(&mut text)?;
    Ok((serde_json::from_slice(&text)?, report))
}

enum Never {}

fn follow(plan: LaunchPlan, report: &mut UnixStream) -> Result<Never, LaunchStepError> {
    if plan.version != VERSION {
        return Err(LaunchStepError {
            what: format!(
                "its launcher is of version {VERSION}, and not {}",
                plan.version
            ),
            errno: None,
        });
    }
    // Before the limits are set, because under them it may be impossible to open a file.
    let becoming = TargetUser::look_up(&plan)?;
    if let Some(procs) = &plan.cgroup {
        let joined = fs::OpenOptions::new()
            .write(true)
            .open(procs)
            .and_then(|mut procs| procs.write_all(b"0"));
        joined.map_err(|error| {
            let cgroup = procs.parent().unwrap_or(procs).display();
            failed(format!("cannot join its cgroup {cgroup}"), &error)
        })?;
    }
    if let Some(nice) = plan.nice {
        setpriority_process(None, nice).map_err(|errno| {
            failed(
                format!("cannot be given the niceness {nice}"),
                &errno.into(),
            )
        })?;
    }
    for limit in &plan.rlimits {
        set_limit(*limit)?;
    }
    if let Some(becoming) = &becoming {
        becoming.become_it()?;
    }
    if let Some(folder) = &plan.working_dir {
        env::set_current_dir(folder).map_err(|error| {
            let folder = folder.display();
            failed(
                format!("cannot enter its working directory {folder}"),
                &error,
            )
        })?;
    }
    let mut command = Command::new(&plan.file);
    let mut arguments = env::args_os();
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    command.args(arguments).env_remove(MARK);
    for (name, value) in becoming.iter().flat_map(TargetUser::variables) {
        if env::var_os(name).is_none() {
            command.env(name, value);
        }
    }
    // If the supervisor has ended, the job is not started.
    report
        .write_all(&[READY])
        .map_err(|error| failed("has lost its supervisor".to_owned(), &error))?;
    Err(failed(String::new(), &command.exec()))
}

/// The user of the job, with all values that must be looked up.
struct TargetUser {
    identity: Identity,
    groups: Vec<Gid>,
}

impl TargetUser {
    fn look_up(plan: &LaunchPlan) -> Result<Option<Self>, LaunchStepError> {
        let (user, group) = (plan.user.as_deref(), plan.group.as_deref());
        if user.is_none() && group.is_none() {
            return Ok(None);
        }
        let identity = users::identity(user, group).map_err(|error| LaunchStepError {
            what: error.to_string(),
            errno: None,
        })?;
        let groups = match &identity.account {
            None => vec![identity.gid],
            Some(account) => getgrouplist(&account.c_name(), identity.gid).map_err(|errno| {
                failed("its groups cannot be looked up".to_owned(), &errno.into())
            })?,
        };
        Ok(Some(Self { identity, groups }))
    }

    fn become_it(&self) -> Result<(), LaunchStepError> {
        let Identity { uid, gid, .. } = self.identity;
        // The pipes belong to the job alone. Opening one again (as /dev/stdout) needs the same rights as opening a
        // file.
        for stream in [&io::stdin() as &dyn AsFd, &io::stdout(), &io::stderr()] {
            let _ = fchown(stream, Some(uid), Some(gid));
        }
        let done = setgroups(&self.groups)
            .and_then(|()| setresgid(gid, gid, gid))
            .and_then(|()| setresuid(uid, uid, uid));
        done.map_err(|errno| {
            failed(
                format!("cannot become user {uid} and group {gid}"),
                &errno.into(),
            )
        })?;
        if uid != Uid::from_raw(0) {
            // Capabilities that a supervisor has without being root do not disappear with a change of user.
            let nothing = CapabilitySets {
                effective: CapabilitySet::empty(),
                permitted: CapabilitySet::empty(),
                inheritable: CapabilitySet::empty(),
            };
            clear_ambient_capability_set()
                .and_then(|()| set_capabilities(None, nothing))
                .map_err(|errno| failed("cannot give up its rights".to_owned(), &errno.into()))?;
        }
        Ok(())
    }

    /// The variables that a login sets.
    fn variables(&self) -> Vec<(&'static str, std::ffi::OsString)> {
        let Some(account) = &self.identity.account else {
            return Vec::new();
        };
        vec![
            ("HOME", account.home.clone().into()),
            ("USER", account.name.clone().into()),
            ("LOGNAME", account.name.clone().into()),
        ]
    }
}

fn set_limit(limit: Rlimit) -> Result<(), LaunchStepError> {
    let resource = limit.what.resource();
    let own = getrlimit(resource).maximum;
    let mut wanted = rustix::process::Rlimit {
        current: Some(limit.soft),
        maximum: Some(limit.hard),
    };
    // The second between the two signals is our own addition. It is left out if our own hard limit does not allow it.
    if let Some(own) = own.filter(|own| (limit.soft..limit.hard).contains(own)) {
        wanted.maximum = Some(own);
    }
    setrlimit(resource, wanted).map_err(|errno| {
        let (key, soft) = (limit.what.key(), limit.soft);
        failed(
            format!("cannot be given the limit {key} = {soft}"),
            &errno.into(),
        )
    })
}

fn failed(what: String, error: &io::Error) -> LaunchStepError {
    LaunchStepError {
        what,
        errno: error.raw_os_error(),
    }
}
