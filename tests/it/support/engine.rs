//! A container engine for tests: a private one if possible, or one that answers, or none.
//!
//! No registry is needed: the image is made from the machine's busybox.

use std::{
    collections::HashMap,
    env, fs,
    os::unix::{fs::symlink, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use bollard::{
    Docker,
    models::{ContainerConfig, ContainerCreateBody, ContainerSummary},
    query_parameters::{
        CommitContainerOptions, CreateContainerOptions, CreateImageOptions, ListContainersOptions,
        RemoveContainerOptions,
    },
};
use futures_util::StreamExt as _;
use tidegate::runners::container::{ContainerSettings, EngineAddress};

/// An engine needs about a second to start, and more on a machine that is busy compiling.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// Environment variable that names an engine for the tests, for example Podman's. The test images stay there.
const NAMED: &str = "TIDEGATE_TEST_ENGINE";

/// An engine on which tests may make containers. They never pull images.
#[derive(Debug)]
pub(crate) struct Engine {
    address: EngineAddress,
    /// An image with busybox, and its shell as the command.
    image: String,
    /// Held until the process ends. Then the engine's keeper ends too.
    _keeper: Option<(Child, ChildStdin)>,
}

/// The engine, for tests that need one. They are ignored on a machine without one.
pub(crate) fn engine() -> &'static Engine {
    find().as_ref().expect("an engine")
}

/// Why there is no engine, or `None` if there is one.
pub(crate) fn lack() -> Option<String> {
    find().as_ref().err().cloned()
}

fn find() -> &'static Result<Engine, String> {
    static ENGINE: OnceLock<Result<Engine, String>> = OnceLock::new();
    ENGINE.get_or_init(Engine::find)
}

impl Engine {
    fn find() -> Result<Self, String> {
        let busybox = busybox()?;
        let is_root = nix::unistd::Uid::effective().is_root();
        let (address, keeper) = match env::var(NAMED) {
            Ok(named) => (EngineAddress::parse(&named)?, None),
            Err(_) if is_root && on_path("dockerd").is_some() => {
                let (address, keeper) = start_private()?;
                (address, Some(keeper))
            }
            Err(_) => (find_other()?, None),
        };
        let image = image("tidegate-test");
        let engine = Self {
            address,
            image,
            _keeper: keeper,
        };
        engine.import(&engine.image, &busybox, &[])?;
        Ok(engine)
    }

    /// Settings for a shell script in a container without network.
    pub(crate) fn script(&self, script: &str) -> ContainerSettings {
        let mut settings = self.settings(&self.image);
        settings.command = ["sh", "-c", script].map(str::to_owned).into();
        settings
    }

    /// Settings for an image of this engine.
    pub(crate) fn settings(&self, image: &str) -> ContainerSettings {
        let mut settings = ContainerSettings::new(image);
        settings.network = Some("none".to_owned());
        settings.engine = Some(self.address.clone());
        settings
    }

    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn image(&self) -> &str {
        &self.image
    }

    /// Another image with additional Dockerfile instructions.
    pub(crate) fn variant(&self, name: &str, changes: &[&str]) -> String {
        let image = image(&format!("tidegate-test-{name}"));
        self.import(&image, &busybox().expect("it was there"), changes)
            .expect("an image");
        image
    }

    /// Another image, with this stop signal.
    pub(crate) async fn stopped_by(&self, signal: &str) -> String {
        let docker = self.docker().await;
        let base = ContainerCreateBody {
            image: Some(self.image.clone()),
            cmd: Some(vec!["true".to_owned()]),
            ..ContainerCreateBody::default()
        };
        let base = docker
            .create_container(None::<CreateContainerOptions>, base)
            .await
            .expect("a container");
        let image = image(&format!("tidegate-test-{}", signal.to_lowercase()));
        let (repo, tag) = image.split_once(':').expect("a tag");
        let options = CommitContainerOptions {
            container: Some(base.id.clone()),
            repo: Some(repo.to_owned()),
            tag: Some(tag.to_owned()),
            ..CommitContainerOptions::default()
        };
        let config = ContainerConfig {
            stop_signal: Some(signal.to_owned()),
            ..ContainerConfig::default()
        };
        docker
            .commit_container(options, config)
            .await
            .expect("an image");
        let options = None::<RemoveContainerOptions>;
        docker
            .remove_container(&base.id, options)
            .await
            .expect("removed");
        image
    }

    pub(crate) async fn docker(&self) -> Docker {
        connect(&self.address).await.expect("the engine answers")
    }

    /// All containers with this label, running or not.
    pub(crate) async fn labelled(&self, label: &str) -> Vec<ContainerSummary> {
        let options = ListContainersOptions {
            all: true,
            filters: Some(HashMap::from([(
                "label".to_owned(),
                vec![label.to_owned()],
            )])),
            ..ListContainersOptions::default()
        };
        let docker = self.docker().await;
        docker.list_containers(Some(options)).await.expect("a list")
    }

    fn import(&self, image: &str, busybox: &Path, changes: &[&str]) -> Result<(), String> {
        let folder = tempfile::TempDir::new().expect("a folder");
        let bin = folder.path().join("bin");
        for name in ["bin", "tmp", "etc"] {
            fs::create_dir(folder.path().join(name)).expect("a folder");
        }
        fs::copy(busybox, bin.join("busybox")).expect("a copy");
        let applets = Command::new(busybox)
            .arg("--list")
            .output()
            .expect("busybox");
        for applet in String::from_utf8_lossy(&applets.stdout).lines() {
            if applet != "busybox" {
                symlink("busybox", bin.join(applet)).expect("a link");
            }
        }
        let tar = Command::new("tar")
            .arg("-C")
            .arg(folder.path())
            .args(["--owner=0", "--group=0", "-c", "."])
            .output()
            .expect("tar starts");
        assert!(tar.status.success(), "tar");
        let options = CreateImageOptions {
            from_src: Some("-".to_owned()),
            // With its tag: Podman accepts no other form.
            repo: Some(image.to_owned()),
            changes: changes.iter().map(|line| (*line).to_owned()).collect(),
            ..CreateImageOptions::default()
        };
        let address = self.address.clone();
        apart(async move {
            let docker = connect(&address).await?;
            let body = bollard::body_full(tar.stdout.into());
            let mut steps = docker.create_image(Some(options), Some(body), None);
            while let Some(step) = steps.next().await {
                step.map_err(|error| format!("no image can be made: {error}"))?;
            }
            Ok(())
        })
    }
}

/// Runs async work on a thread and a runtime of its own, so that any test can call it.
fn apart<T: Send>(work: impl Future<Output = Result<T, String>> + Send) -> Result<T, String> {
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.expect("a runtime").block_on(work)
        });
        worker.join().expect("no panic")
    })
}

async fn connect(address: &EngineAddress) -> Result<Docker, String> {
    let docker = match address {
        EngineAddress::Unix(path) => {
            let path = path.to_str().expect("a UTF-8 path");
            Docker::connect_with_unix(path, 60, bollard::API_DEFAULT_VERSION)
        }
        EngineAddress::Tcp(address) => {
            Docker::connect_with_http(address, 60, bollard::API_DEFAULT_VERSION)
        }
        _ => return Err("an unknown kind of address".to_owned()),
    };
    let docker = docker.map_err(|error| error.to_string())?;
    docker
        .negotiate_version()
        .await
        .map_err(|error| error.to_string())
}

/// The full name of an image. An engine with several registries asks for no other name, and finds the image by it.
fn image(name: &str) -> String {
    format!("localhost/{name}:{}", std::process::id())
}

fn start_private() -> Result<(EngineAddress, (Child, ChildStdin)), String> {
    let folder = tempfile::Builder::new()
        .prefix("tidegate-engine-")
        .tempdir()
        .expect("a folder")
        .keep();
    let mut keeper = Command::new("bash")
        .arg("-c")
        .arg(include_str!("private_engine.sh"))
        .env("FOLDER", &folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("bash starts");
    let orders = keeper.stdin.take().expect("a pipe");
    let address = EngineAddress::Unix(folder.join("docker.sock"));
    let since = Instant::now();
    loop {
        match apart(connect(&address)) {
            Ok(_) => return Ok((address, (keeper, orders))),
            Err(_) if since.elapsed() < START_DEADLINE && folder.join("docker.pid").exists() => {}
            Err(_) if since.elapsed() < Duration::from_secs(5) => {}
            Err(why) => {
                let log = fs::read_to_string(folder.join("engine.log")).unwrap_or_default();
                let last = log.lines().last().unwrap_or_default().to_owned();
                drop(orders);
                let _ = keeper.wait();
                return Err(format!("a private dockerd does not start ({why}): {last}"));
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn find_other() -> Result<EngineAddress, String> {
    let named = env::var("DOCKER_HOST").ok();
    let places = named
        .into_iter()
        .chain(["unix:///var/run/docker.sock".to_owned()]);
    let mut answering = places
        .filter_map(|place| EngineAddress::parse(&place).ok())
        .filter(|address| apart(connect(address)).is_ok());
    answering.next().ok_or_else(|| {
        "no container engine: install docker.io and run the tests as root, or start one".to_owned()
    })
}

/// A statically linked busybox.
fn busybox() -> Result<PathBuf, String> {
    let found = on_path("busybox");
    found.ok_or_else(|| "no busybox to make an image of: install busybox-static".to_owned())
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    let folders = env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}
