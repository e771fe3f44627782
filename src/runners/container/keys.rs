//! The keys of `container`, and the settings that are made of them and the shared keys.

use std::{path::PathBuf, time::Duration};

use super::settings::{ContainerSettings, EngineAddress, Mount, Pull};
use crate::{
    config::schema::{Choice, Flag, Key, Span, Table, Text, Texts},
    runners::{
        keys::{JobKeys, OwnKeys, SharedKeys},
        kind::{Finish, FinishedRunner},
        process::ExecSettings,
    },
};

/// Registers these keys.
pub(super) fn keys(own: &mut OwnKeys<'_, '_, '_>) -> Finish {
    let keys = ContainerKeys::read(own);
    Box::new(|shared, table| {
        keys.check(&shared, table);
        FinishedRunner {
            job: Some(JobKeys {
                timeout: shared.timeout.clone(),
                grace: keys.grace(),
            }),
            runner: keys.settings(shared.process()).into(),
        }
    })
}

/// The keys of `container` alone.
struct ContainerKeys {
    image: Key<Option<String>>,
    stop_timeout: Key<Option<Duration>>,
    mounts: Key<Option<Vec<String>>>,
    network: Key<Option<String>>,
    init: Key<Option<bool>>,
    pull: Key<Option<Pull>>,
    engine: Key<Option<EngineAddress>>,
}

impl ContainerKeys {
    fn read(own: &mut OwnKeys<'_, '_, '_>) -> Self {
        Self {
            image: own.optional(
                "image",
                "Of `container`: the image. Each job gets a container of this image, which is removed after the job.",
                WORD,
                IMAGE,
            ),
            pull: own.optional(
                "pull",
                "Of `container`: when to pull the image. `missing`: if the engine does not have it. `always`: also if \
                the engine has it, at most every ten minutes. `never`: tidegate never pulls it. When absent, \
                `missing`.",
                Choice(&[("missing", Pull::Missing), ("always", Pull::Always), ("never", Pull::Never)]),
                "\"missing\"",
            ),
            mounts: own.optional(
                "mounts",
                "Of `container`: paths of the engine's machine, or names of its volumes, each with the path in the \
                container. With `:ro` the job can only read.",
                MOUNTS,
                "[\"/srv/images:/images:ro\", \"cache:/var/cache\"]",
            ),
            network: own.optional(
                "network",
                "Of `container`: the name of the network, or `none`. When absent, the engine's default.",
                WORD,
                "\"none\"",
            ),
            init: own.optional(
                "init",
                "Of `container`: whether the engine's init is the first process. It forwards signals and reaps. If the \
                program itself is the first process, a TERM that it does not handle does not end it.",
                Flag,
                "true",
            ),
            stop_timeout: own.optional(
                "stop_timeout",
                "Of `container`: time between the image's stop signal (usually TERM) and KILL. When absent, 10s.",
                Span::from(Duration::ZERO),
                "\"10s\"",
            ),
            engine: own.optional(
                "engine",
                "Of `container`: the address of the engine. When absent: $DOCKER_HOST, otherwise /var/run/docker.sock, \
                otherwise Podman's sockets.",
                ENGINE,
                "\"unix:///run/podman/podman.sock\"",
            ),
        }
    }

    /// How long a container may take to end.
    fn grace(&self) -> Key<Duration> {
        let key = self.stop_timeout.clone();
        let default = ContainerSettings::new("").stop_timeout;
        let (value, given) = (key.value.unwrap_or(default), key.given);
        key.with(value, given)
    }

    /// Reports keys that contradict each other.
    fn check(&self, shared: &SharedKeys, table: &mut Table<'_, '_>) {
        if !self.image.is_given() {
            table.missing(self.image.path.clone(), format!("write image = {IMAGE}"));
        }
        let is_inside = |path: &PathBuf| path.is_absolute() && path.to_str().is_some();
        let directory = &shared.working_dir;
        if directory
            .value
            .as_ref()
            .is_some_and(|path| !is_inside(path))
        {
            table.refuse(directory, "write an absolute path in the container");
        }
        let limits = &shared.limits;
        if limits
            .memory_max
            .value
            .is_some_and(|bytes| bytes < MIN_CONTAINER_MEMORY)
        {
            table.refuse(
                &limits.memory_max,
                "write at least \"6MiB\": engines accept no less",
            );
        }
        if limits.group.is_given() && !limits.user.is_given() {
            let fix =
                "write user too: with a group alone, engines use root and not the image's user";
            table.refuse(&limits.group, fix);
        }
    }

    /// The settings of a `container` pool, made of its own keys and the shared keys.
    fn settings(self, shared: ExecSettings) -> ContainerSettings {
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
            // Values that cannot be read are reported already.
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

/// Bytes.
const MIN_CONTAINER_MEMORY: u64 = 6 << 20;

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
