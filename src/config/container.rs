//! The keys of a `container` runner, and what they become.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use super::{
    Cores, ExecSettings,
    runner::{Named, only_for},
    schema::{Choice, Flag, Key, Span, Table, Text, Texts},
};

/// A container for each job.
#[derive(Clone, PartialEq, Eq)]
pub struct ContainerSettings {
    /// The image that a container is made of.
    pub image: String,
    /// Arguments for the image's entry point, or program and arguments where it has none. Empty: the image's own.
    pub command: Vec<String>,
    /// How long a job may run. Pulling the image is no part of it.
    pub timeout: Duration,
    /// Time between the stop signal of the image (TERM, most often) and KILL.
    pub stop_timeout: Duration,
    /// Variables for the job, besides the image's and the job's own.
    pub env: BTreeMap<String, String>,
    /// Variables of the supervisor's environment that the job is given too.
    pub env_pass: Vec<String>,
    /// Directory that the job starts in; `None` is the image's own.
    pub working_dir: Option<PathBuf>,
    /// What of the engine's machine the job sees.
    pub mounts: Vec<Mount>,
    /// The network it is on; `None` is the engine's default.
    pub network: Option<String>,
    /// The user it runs as, by name or id; `None` is the image's own.
    pub user: Option<String>,
    /// The group, by name or id; `None` is the user's own. It wants a user beside it, for which engines would take
    /// root and not the image's.
    pub group: Option<String>,
    /// Bytes of memory, swap included.
    pub memory_max: Option<u64>,
    /// Processor time.
    pub cpu_max: Option<Cores>,
    /// Processes and threads.
    pub pids_max: Option<u32>,
    /// Whether the engine's init is its first process.
    pub init: bool,
    /// When to pull the image.
    pub pull: Pull,
    /// Where the engine is; `None` to look for one.
    pub engine: Option<EngineAddress>,
}

impl ContainerSettings {
    /// The image with the defaults of the configuration file.
    pub fn new(image: impl Into<String>) -> Self {
        Self {
            image: image.into(),
            command: Vec::new(),
            timeout: Duration::from_secs(300),
            stop_timeout: Duration::from_secs(10),
            env: BTreeMap::new(),
            env_pass: Vec::new(),
            working_dir: None,
            mounts: Vec::new(),
            network: None,
            user: None,
            group: None,
            memory_max: None,
            cpu_max: None,
            pids_max: None,
            init: false,
            pull: Pull::default(),
            engine: None,
        }
    }
}

impl fmt::Debug for ContainerSettings {
    // Variables are where jobs' passwords are, so only their names are shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContainerSettings")
            .field("image", &self.image)
            .field("command", &self.command)
            .field("timeout", &self.timeout)
            .field("stop_timeout", &self.stop_timeout)
            .field("env", &self.env.keys())
            .field("env_pass", &self.env_pass)
            .field("working_dir", &self.working_dir)
            .field("mounts", &self.mounts)
            .field("network", &self.network)
            .field("user", &self.user)
            .field("group", &self.group)
            .field("memory_max", &self.memory_max)
            .field("cpu_max", &self.cpu_max)
            .field("pids_max", &self.pids_max)
            .field("init", &self.init)
            .field("pull", &self.pull)
            .field("engine", &self.engine)
            .finish()
    }
}

/// When an image is pulled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Pull {
    /// When the engine does not have it.
    #[default]
    Missing,
    /// Also when the engine has it, for it may have changed: now and then, not for each job.
    Always,
    /// Never: someone else sees to it.
    Never,
}

/// Something of the engine's machine that a container sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// A path of the engine's machine, or the name of one of its volumes.
    pub source: MountSource,
    /// Where in the container.
    pub target: String,
    /// Whether the job may only read.
    pub read_only: bool,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountSource {
    /// A file or directory.
    Path(String),
    /// A volume, made where it is missing.
    Volume(String),
}

impl Mount {
    /// Reads `SOURCE:TARGET` and `SOURCE:TARGET:ro`.
    ///
    /// # Errors
    /// What to write instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = text.split(':');
        let (source, target) = (parts.next(), parts.next());
        let (Some(source), Some(target)) = (source, target) else {
            return Err("write \"SOURCE:TARGET\", such as \"/srv/images:/images:ro\"".to_owned());
        };
        let read_only = match (parts.next(), parts.next()) {
            (None, _) | (Some("rw"), None) => false,
            (Some("ro"), None) => true,
            _ => return Err("write nothing after the target but \":ro\"".to_owned()),
        };
        if text.contains('\0') {
            return Err("write it without the NUL".to_owned());
        }
        if !target.starts_with('/') {
            return Err(
                "write an absolute path after the colon: it is one in the container".to_owned(),
            );
        }
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        let source = match source {
            path if path.starts_with('/') => MountSource::Path(path.to_owned()),
            name if name.starts_with(|c: char| c.is_ascii_alphanumeric())
                && name.chars().all(is_name) =>
            {
                MountSource::Volume(name.to_owned())
            }
            _ => {
                return Err(
                    "write an absolute path, or a volume's name, before the colon".to_owned(),
                );
            }
        };
        Ok(Self {
            source,
            target: target.to_owned(),
            read_only,
        })
    }
}

/// Where a container engine listens.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum EngineAddress {
    /// A Unix socket.
    Unix(PathBuf),
    /// Host and port, without TLS.
    Tcp(String),
}

impl EngineAddress {
    /// Reads `unix:///path`, `tcp://host:port` and `http://host:port`.
    ///
    /// # Errors
    /// What to write instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        const FIX: &str = "write \"unix:///path/to/socket\" or \"tcp://host:port\"";
        if let Some(path) = text.strip_prefix("unix://") {
            return match path.starts_with('/') && !path.contains('\0') {
                true => Ok(Self::Unix(path.into())),
                false => Err(format!("{FIX}: the socket's path is absolute")),
            };
        }
        if ["ssh://", "https://", "npipe://", "fd://"]
            .iter()
            .any(|scheme| text.starts_with(scheme))
        {
            return Err(format!("{FIX}: no other way to an engine is built in"));
        }
        let rest = text
            .strip_prefix("tcp://")
            .or_else(|| text.strip_prefix("http://"));
        let address = rest.ok_or(FIX)?.trim_end_matches('/');
        let is_whole = url::Url::parse(&format!("http://{address}")).is_ok_and(|url| {
            let bare = url.username().is_empty() && url.password().is_none() && url.path() == "/";
            // The parser leaves a scheme's own port out.
            bare && url.query().is_none() && (url.port().is_some() || address.ends_with(":80"))
        });
        match is_whole {
            true => Ok(Self::Tcp(address.to_owned())),
            false => Err(FIX.to_owned()),
        }
    }
}

impl fmt::Display for EngineAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

/// The keys of `container` alone. All are optional, so that the reference page, whose runner is another, can show
/// them.
pub(super) struct ContainerKeys {
    image: Key<Option<String>>,
    stop_timeout: Key<Option<Duration>>,
    mounts: Key<Option<Vec<String>>>,
    network: Key<Option<String>>,
    init: Key<Option<bool>>,
    pull: Key<Option<Pull>>,
    engine: Key<Option<EngineAddress>>,
}

impl ContainerKeys {
    pub(super) fn read(table: &mut Table<'_, '_>, kind: &Key<Named>) -> Self {
        let keys = Self::ask(table);
        let of = &[Named::Container];
        only_for(table, kind, of, &keys.image);
        only_for(table, kind, of, &keys.mounts);
        only_for(table, kind, of, &keys.network);
        only_for(table, kind, of, &keys.init);
        only_for(table, kind, of, &keys.pull);
        only_for(table, kind, of, &keys.engine);
        let is_other = kind.is_sound() && kind.value != Named::Container;
        if is_other && keys.stop_timeout.is_given() {
            table.refuse(
                &keys.stop_timeout,
                "write kill_grace, which is what other kinds than \"container\" have",
            );
        }
        if kind.is_sound() && !is_other && !keys.image.is_given() {
            table.missing(keys.image.path.clone(), format!("write image = {IMAGE}"));
        }
        keys
    }

    /// How long a container may take to end.
    pub(super) fn grace(&self) -> Key<Duration> {
        let key = self.stop_timeout.clone();
        let default = ContainerSettings::new("").stop_timeout;
        let (value, given) = (key.value.unwrap_or(default), key.given);
        key.with(value, given)
    }

    fn ask(table: &mut Table<'_, '_>) -> Self {
        Self {
            image: table.optional(
                "image",
                "Of `container`: the image. A container is made of it for each job, and removed after it.",
                WORD,
                IMAGE,
            ),
            pull: table.optional(
                "pull",
                "Of `container`: when to pull the image. `missing`: where the engine does not have it. `always`: \
                 also where it has, at most every ten minutes. `never`: someone else does. When absent, `missing`.",
                Choice(&[("missing", Pull::Missing), ("always", Pull::Always), ("never", Pull::Never)]),
                "\"missing\"",
            ),
            mounts: table.optional(
                "mounts",
                "Of `container`: paths of the engine's machine, or names of its volumes, each with the place in the \
                 container. `:ro` lets the job only read.",
                MOUNTS,
                "[\"/srv/images:/images:ro\", \"cache:/var/cache\"]",
            ),
            network: table.optional(
                "network",
                "Of `container`: the network, by name; `none` for none. The engine's default when absent.",
                WORD,
                "\"none\"",
            ),
            init: table.optional(
                "init",
                "Of `container`: whether the engine's init is the first process, which hands signals on and reaps. A \
                 program that is the first process itself is not ended by a TERM that it does not handle.",
                Flag,
                "true",
            ),
            stop_timeout: table.optional(
                "stop_timeout",
                "Of `container`: time between the image's stop signal (TERM, most often) and KILL. When absent, 10s.",
                Span::from(Duration::ZERO),
                "\"10s\"",
            ),
            engine: table.optional(
                "engine",
                "Of `container`: where the engine listens. When absent, $DOCKER_HOST, else /var/run/docker.sock, \
                 else Podman's sockets.",
                ENGINE,
                "\"unix:///run/podman/podman.sock\"",
            ),
        }
    }

    /// The settings of a pool that is a `container`; what it shares with other kinds comes as a process's.
    pub(super) fn settings(self, shared: ExecSettings) -> ContainerSettings {
        let image = self.image.value.unwrap_or_default();
        let default = ContainerSettings::new(image);
        let mounts = self.mounts.value.unwrap_or_default();
        ContainerSettings {
            command: shared.command,
            timeout: shared.timeout,
            stop_timeout: self.stop_timeout.value.unwrap_or(default.stop_timeout),
            env: shared.env,
            env_pass: shared.env_pass,
            working_dir: shared.working_dir,
            // Those that cannot be read are problems already.
            mounts: mounts
                .iter()
                .filter_map(|text| Mount::parse(text).ok())
                .collect(),
            network: self.network.value,
            user: shared.limits.user,
            group: shared.limits.group,
            memory_max: shared.limits.memory_max,
            cpu_max: shared.limits.cpu_max,
            pids_max: shared.limits.pids_max,
            init: self.init.value.unwrap_or(default.init),
            pull: self.pull.value.unwrap_or(default.pull),
            engine: self.engine.value,
            ..default
        }
    }
}

const IMAGE: &str = "\"registry.example.com/thumbnails:1\"";

const WORD: Text<String> = Text {
    wants: "a word",
    parse: |text| match text.is_empty()
        || text.contains(|c: char| c.is_whitespace() || c.is_control())
    {
        true => Err("write one word".to_owned()),
        false => Ok(text.to_owned()),
    },
    show: String::clone,
};

const MOUNTS: Texts = Texts {
    wants: "an array of \"SOURCE:TARGET\" or \"SOURCE:TARGET:ro\"",
    check: |text| Mount::parse(text).map(drop),
};

const ENGINE: Text<EngineAddress> = Text {
    wants: "a URL of unix:// or tcp://",
    parse: EngineAddress::parse,
    show: EngineAddress::to_string,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_is_mounted_where() {
        let path = |path: &str| Ok(MountSource::Path(path.to_owned()));
        let volume = |name: &str| Ok(MountSource::Volume(name.to_owned()));
        for (text, source, target, read_only) in [
            ("/srv/images:/images", path("/srv/images"), "/images", false),
            (
                "/srv/images:/images:ro",
                path("/srv/images"),
                "/images",
                true,
            ),
            (
                "/srv/images:/images:rw",
                path("/srv/images"),
                "/images",
                false,
            ),
            (
                "cache-1.x_y:/var/cache",
                volume("cache-1.x_y"),
                "/var/cache",
                false,
            ),
        ] {
            let expected = source.map(|source: MountSource| Mount {
                source,
                target: target.to_owned(),
                read_only,
            });
            assert_eq!(Mount::parse(text), expected);
        }
        for text in [
            "",
            "/srv",
            "/srv:images",
            "srv/x:/images",
            ".:/x",
            "/a:/b:z",
            "/a:/b:ro:ro",
            ":/x",
            "/a\0:/b",
        ] {
            Mount::parse(text).expect_err(text);
        }
    }

    #[test]
    fn reads_where_an_engine_listens() {
        let unix = |path: &str| Ok(EngineAddress::Unix(path.into()));
        let tcp = |address: &str| Ok(EngineAddress::Tcp(address.to_owned()));
        for (text, expected) in [
            ("unix:///run/docker.sock", unix("/run/docker.sock")),
            ("tcp://engine:2375", tcp("engine:2375")),
            ("http://[::1]:2375/", tcp("[::1]:2375")),
            ("tcp://engine:80", tcp("engine:80")),
        ] {
            assert_eq!(EngineAddress::parse(text), expected);
        }
        for text in [
            "",
            "unix://run/docker.sock",
            "/run/docker.sock",
            "tcp://engine",
            "tcp://engine:2375/v1",
            "ssh://engine",
            "https://engine:1",
        ] {
            EngineAddress::parse(text).expect_err(text);
        }
    }
}
