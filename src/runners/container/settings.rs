//! The settings of a pool of containers.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use crate::host::limits::Cores;

/// A container for each job.
#[derive(Clone, PartialEq, Eq)]
pub struct ContainerSettings {
    /// The image of the container.
    pub image: String,
    /// Arguments for the image's entry point, or program and arguments if the image has no entry point. If empty, the
    /// image's own.
    pub command: Vec<String>,
    /// How long a job may run. The pull of the image does not count.
    pub timeout: Duration,
    /// Time between the stop signal of the image (usually TERM) and KILL.
    pub stop_timeout: Duration,
    /// Variables for the job, besides the image's and the job's own.
    pub env: BTreeMap<String, String>,
    /// Variables of the supervisor's environment that the job also receives.
    pub env_pass: Vec<String>,
    /// Directory that the job starts in. `None` means the image's own.
    pub working_dir: Option<PathBuf>,
    /// Directories and volumes of the engine's machine that the job can use.
    pub mounts: Vec<Mount>,
    /// The container's network. `None` means the engine's default.
    pub network: Option<String>,
    /// The user of the job, by name or id. `None` means the image's own.
    pub user: Option<String>,
    /// The group, by name or id. `None` means the user's own. It needs `user` too: with a group alone, engines use root
    /// and not the image's user.
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
    /// The address of the engine. With `None` it is searched.
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
    // Variables may hold passwords, so only their names are shown.
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
    /// Also when the engine has it, because it may have changed. Not for each job, but from time to time.
    Always,
    /// Never. The image must be provided in another way.
    Never,
}

/// A part of the engine's machine that a container can use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// A path of the engine's machine, or the name of one of its volumes.
    pub source: MountSource,
    /// The path in the container.
    pub target: String,
    /// Whether the job may only read.
    pub read_only: bool,
}

/// The source of a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountSource {
    /// A file or directory.
    Path(String),
    /// A volume. The engine creates it if it is missing.
    Volume(String),
}

impl Mount {
    /// Reads `SOURCE:TARGET` and `SOURCE:TARGET:ro`.
    ///
    /// # Errors
    /// The text says what to write instead.
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
            return Err("write an absolute path in the container after the colon".to_owned());
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
    /// The text says what to write instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        const FIX: &str = "write \"unix:///path/to/socket\" or \"tcp://host:port\"";
        if let Some(path) = text.strip_prefix("unix://") {
            return match path.starts_with('/') && !path.contains('\0') {
                true => Ok(Self::Unix(path.into())),
                false => Err(format!("{FIX}: the socket's path must be absolute")),
            };
        }
        if ["ssh://", "https://", "npipe://", "fd://"]
            .iter()
            .any(|scheme| text.starts_with(scheme))
        {
            return Err(format!("{FIX}: no other protocol is built in"));
        }
        let rest = text
            .strip_prefix("tcp://")
            .or_else(|| text.strip_prefix("http://"));
        let address = rest.ok_or(FIX)?.trim_end_matches('/');
        let is_whole = url::Url::parse(&format!("http://{address}")).is_ok_and(|url| {
            let bare = url.username().is_empty() && url.password().is_none() && url.path() == "/";
            // The parser removes the scheme's default port.
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
    fn parses_the_address_of_an_engine() {
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
