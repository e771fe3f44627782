//! Builds the engine's request to create a container. Pure.

use std::{
    collections::{BTreeMap, HashMap},
    sync::LazyLock,
};

use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount as EngineMount, MountType,
};

use super::{ContainerSettings, Mount, MountSource};
use crate::{
    host::instance::Instance,
    runner::Job,
    runners::process::{Escaped, WithHeaders, job_variables},
};

/// Label on each of our containers: the id of the supervisor.
pub(super) const SUPERVISOR: &str = "tidegate.supervisor";
/// Label: the supervisor's lock, if it has one.
pub(super) const LOCK: &str = "tidegate.lock";
/// Label: the identity of the lock's directory. The same path may exist on another machine.
pub(super) const STATE: &str = "tidegate.state";
const POOL: &str = "tidegate.pool";
const JOB: &str = "tidegate.job";

/// Characters of a job's id in a label.
const JOB_CHARS: usize = 128;
/// Characters of a pool's name in a container's name.
const POOL_CHARS: usize = 64;

/// The id of a supervisor without a lock.
static THIS_PROCESS: LazyLock<String> =
    LazyLock::new(|| format!("{:032x}", rand::random::<u128>()));

/// The variables that all jobs of a pool receive. Reads the supervisor's environment.
pub(super) fn common_variables(settings: &ContainerSettings) -> BTreeMap<String, String> {
    let passed = settings.env_pass.iter().filter_map(|name| {
        let value = std::env::var_os(name)?;
        Some((name.clone(), value.to_string_lossy().into_owned()))
    });
    let listed = settings.env.clone();
    passed.chain(listed).collect()
}

/// A name that no other container has.
pub(super) fn make_name(pool: &str) -> String {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let pool: String = pool
        .chars()
        .take(POOL_CHARS)
        .map(|c| if is_allowed(c) { c } else { '-' })
        .collect();
    format!("tidegate-{pool}-{:016x}", rand::random::<u64>())
}

/// The labels that name the owner of a container.
pub(super) fn labels(owner: Option<&Instance>, job: &Job) -> HashMap<String, String> {
    let id: String = Escaped(job.id().as_str())
        .to_string()
        .chars()
        .take(JOB_CHARS)
        .collect();
    let supervisor = owner.map_or(&*THIS_PROCESS, |owner| &owner.run);
    let mut labels = HashMap::from([
        (POOL.to_owned(), job.pool().to_string()),
        (JOB.to_owned(), id),
        (SUPERVISOR.to_owned(), supervisor.clone()),
    ]);
    if let Some(Instance { lock, state, .. }) = owner {
        labels.insert(LOCK.to_owned(), lock.to_string_lossy().into_owned());
        labels.insert(STATE.to_owned(), state.clone());
    }
    labels
}

/// The supervisor that the labels name, if they also name its lock.
pub(super) fn owner(labels: &HashMap<String, String>) -> Option<Instance> {
    Some(Instance {
        lock: labels.get(LOCK)?.into(),
        state: labels.get(STATE)?.clone(),
        run: labels.get(SUPERVISOR)?.clone(),
    })
}

/// Whether the labels name this supervisor.
pub(super) fn is_ours(owner: Option<&Instance>, labels: &HashMap<String, String>) -> bool {
    let supervisor = owner.map_or(&*THIS_PROCESS, |owner| &owner.run);
    labels.get(SUPERVISOR) == Some(supervisor)
}

/// The request for a container that runs `job`.
pub(super) fn body(
    settings: &ContainerSettings,
    common: &BTreeMap<String, String>,
    owner: Option<&Instance>,
    job: &Job,
) -> ContainerCreateBody {
    let mut variables = common.clone();
    for (name, value) in job_variables(job, WithHeaders::Yes) {
        variables.insert(name.to_owned(), value.into_owned());
    }
    let path = |path: &std::path::PathBuf| path.to_string_lossy().into_owned();
    let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    ContainerCreateBody {
        image: Some(settings.image.clone()),
        cmd: Some(settings.command.clone()).filter(|command| !command.is_empty()),
        env: Some(
            variables
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect(),
        ),
        user: user(settings),
        working_dir: settings.working_dir.as_ref().map(path),
        labels: Some(labels(owner, job)),
        open_stdin: Some(true),
        // The container's input ends when our body has ended.
        stdin_once: Some(true),
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        host_config: Some(HostConfig {
            network_mode: settings.network.clone(),
            mounts: Some(settings.mounts.iter().map(mount).collect()),
            memory: settings.memory_max.map(bytes),
            // The sum of memory and swap.
            memory_swap: settings.memory_max.map(bytes),
            nano_cpus: settings
                .cpu_max
                .map(|cores| i64::from(cores.thousandths()) * 1_000_000),
            pids_limit: settings.pids_max.map(i64::from),
            init: settings.init.then_some(true),
            // Our log has the output. The engine's own copy would have no limit.
            log_config: Some(HostConfigLogConfig {
                typ: Some("none".to_owned()),
                config: None,
            }),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}

/// The keys of the limits that the engine has left out of the container that it `made`.
pub(super) fn dropped(settings: &ContainerSettings, made: &HostConfig) -> Vec<&'static str> {
    let limits = [
        ("memory_max", settings.memory_max.is_some(), made.memory),
        ("cpu_max", settings.cpu_max.is_some(), made.nano_cpus),
        ("pids_max", settings.pids_max.is_some(), made.pids_limit),
    ];
    let is_none = |made: Option<i64>| made.is_none_or(|made| made <= 0);
    let dropped = limits
        .into_iter()
        .filter(|(_, is_wanted, made)| *is_wanted && is_none(*made));
    dropped.map(|(key, ..)| key).collect()
}

/// User and group in the engine's format.
fn user(settings: &ContainerSettings) -> Option<String> {
    match (settings.user.as_deref(), settings.group.as_deref()) {
        (user, Some(group)) => Some(format!("{}:{group}", user.unwrap_or_default())),
        (user, None) => user.map(str::to_owned),
    }
}

fn mount(mount: &Mount) -> EngineMount {
    let (typ, source) = match &mount.source {
        MountSource::Path(path) => (MountType::BIND, path),
        MountSource::Volume(name) => (MountType::VOLUME, name),
    };
    EngineMount {
        typ: Some(typ),
        source: Some(source.clone()),
        target: Some(mount.target.clone()),
        read_only: Some(mount.read_only),
        ..EngineMount::default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        config::Cores,
        queue::{Message, Properties},
    };

    fn job(id: &str) -> Job {
        let message = Message {
            properties: Properties {
                message_id: Some(id.into()),
                ..Properties::default()
            },
            ..Message::default()
        };
        Job::new("thumbs".into(), "q".into(), Arc::new(message), 1, || {
            "made-up".into()
        })
    }

    fn instance() -> Instance {
        Instance {
            lock: "/state/tidegate.lock".into(),
            state: "5".repeat(32),
            run: "7".repeat(32),
        }
    }

    #[test]
    fn labels_name_pool_job_and_supervisor_and_are_parsed_back() {
        let owner = instance();
        let told = labels(Some(&owner), &job("id\n\u{1b}[31m"));
        assert_eq!(told["tidegate.pool"], "thumbs");
        assert_eq!(told["tidegate.job"], "id\\n\\u{1b}[31m");
        assert_eq!(super::owner(&told), Some(owner.clone()));
        assert!(is_ours(Some(&owner), &told));
        let other = Instance {
            run: "8".repeat(32),
            ..owner
        };
        assert!(!is_ours(Some(&other), &told));
        assert!(!is_ours(None, &told));
        assert!(labels(None, &job(&"x".repeat(1000)))["tidegate.job"].len() == JOB_CHARS);
    }

    #[test]
    fn a_supervisor_without_a_lock_is_found_only_by_itself() {
        let told = labels(None, &job("id"));
        assert_eq!(owner(&told), None);
        assert!(is_ours(None, &told));
        assert!(!is_ours(Some(&instance()), &told));
    }

    #[test]
    fn a_container_has_the_settings_of_its_pool_and_the_variables_of_a_job_win() {
        let mut settings = ContainerSettings::new("thumbs:1");
        settings.env = BTreeMap::from([
            ("SIZE".to_owned(), "256".to_owned()),
            ("TIDEGATE_POOL".to_owned(), "forged".to_owned()),
        ]);
        settings.memory_max = Some(64 << 20);
        settings.cpu_max = Some(Cores::from_thousandths(1500));
        settings.pids_max = Some(9);
        settings.mounts = vec![
            Mount::parse("/srv:/data:ro").expect("a mount"),
            Mount::parse("cache:/cache").expect("a mount"),
        ];
        let made = body(&settings, &common_variables(&settings), None, &job("id"));
        let env = made.env.expect("variables");
        assert!(env.contains(&"SIZE=256".to_owned()));
        assert!(env.contains(&"TIDEGATE_POOL=thumbs".to_owned()));
        assert!(env.contains(&"TIDEGATE_JOB_ID=id".to_owned()));
        assert!(!env.iter().any(|variable| variable.contains("forged")));
        assert_eq!(made.cmd, None);
        let host = made.host_config.expect("a host's part");
        assert_eq!(dropped(&settings, &host), [""; 0]);
        let without = HostConfig {
            memory: Some(0),
            pids_limit: None,
            ..host.clone()
        };
        assert_eq!(dropped(&settings, &without), ["memory_max", "pids_max"]);
        let unlimited = ContainerSettings::new("thumbs:1");
        assert_eq!(dropped(&unlimited, &without), [""; 0]);
        assert_eq!(host.memory, Some(64 << 20));
        assert_eq!(host.memory_swap, host.memory);
        assert_eq!(host.nano_cpus, Some(1_500_000_000));
        assert_eq!(host.pids_limit, Some(9));
        let mounts = host.mounts.expect("mounts");
        assert_eq!(mounts[0].typ, Some(MountType::BIND));
        assert_eq!(mounts[0].read_only, Some(true));
        assert_eq!(mounts[1].typ, Some(MountType::VOLUME));
        assert_eq!(mounts[1].source.as_deref(), Some("cache"));
    }

    #[test]
    fn names_are_ones_that_an_engine_takes() {
        let name = make_name("a pool/\u{e9}");
        assert!(name.starts_with("tidegate-a-pool---"), "{name}");
        assert_ne!(make_name("a"), make_name("a"));
    }
}
