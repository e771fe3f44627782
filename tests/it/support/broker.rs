//! Brokers for tests: the broker of `AMQP_URL`, and private nodes that tests may stop, kill and restart.

use std::{
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    ops::{Deref, DerefMut},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use lapin::{
    Connection, ConnectionProperties,
    options::{ExchangeDeleteOptions, QueueDeleteOptions},
};
use tidegate::{
    config::{BrokerSettings, BrokerUrl},
    decide::QueueName,
};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::certificates::write_certificates;

/// A node needs about 10 seconds, and more on a machine that is busy compiling.
const START_DEADLINE: Duration = Duration::from_secs(120);

/// The share of the memory above which a node raises its alarm.
const WATERMARK: &str = "0.8";

/// The URL of the broker that `scripts/with-broker` provides.
pub(crate) fn broker_url() -> String {
    env::var("AMQP_URL").unwrap_or_else(|_| {
        panic!("AMQP_URL is not set: run the tests as `scripts/with-broker cargo test`")
    })
}

/// Settings for a broker at `url`, without certificates.
pub(crate) fn settings(url: &str) -> BrokerSettings {
    BrokerUrl::new(url).into()
}

/// A unique queue name. The queue, `<name>.dead` and the exchange `<name>.share` are deleted when the guard is dropped.
pub(crate) fn unique_queue(prefix: &str) -> TestQueue {
    TestQueue::at(&broker_url(), prefix)
}

/// A queue name for one test. Deletes the queue on drop.
#[derive(Debug)]
pub(crate) struct TestQueue {
    name: String,
    url: String,
}

impl TestQueue {
    /// Like [`unique_queue`], at another broker.
    pub(crate) fn at(url: &str, prefix: &str) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let salt: u32 = rand::random();
        let name = format!(
            "tidegate-test-{prefix}-{}-{count}-{salt:08x}",
            std::process::id()
        );
        Self {
            name,
            url: url.to_owned(),
        }
    }

    pub(crate) fn name(&self) -> QueueName {
        QueueName::from(self.name.as_str())
    }
}

impl Drop for TestQueue {
    fn drop(&mut self) {
        let names = [self.name.clone(), format!("{}.dead", self.name)];
        let exchange = format!("{}.share", self.name);
        let url = self.url.clone();
        // A drop cannot await, and the runtime of a failed test is gone. So a thread with its own runtime deletes the
        // queue.
        let deleted = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            let delete = async {
                let properties = ConnectionProperties::default();
                let connection = Connection::connect(&url, properties).await?;
                let channel = connection.create_channel().await?;
                for name in names {
                    let options = QueueDeleteOptions::default();
                    channel.queue_delete(name.as_str().into(), options).await?;
                }
                let options = ExchangeDeleteOptions::default();
                channel
                    .exchange_delete(exchange.as_str().into(), options)
                    .await?;
                connection.close(200, "OK".into()).await
            };
            // A broker that a test has killed has no queues to delete.
            let _ = runtime
                .block_on(async { tokio::time::timeout(Duration::from_secs(5), delete).await });
        });
        let _ = deleted.join();
    }
}

/// A RabbitMQ node of this test process only. It is removed with its folder when the value is dropped or the process
/// ends.
#[derive(Debug)]
pub(crate) struct PrivateBroker {
    keeper: Child,
    /// `None` only during drop.
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    folder: PathBuf,
    node: String,
    port: u16,
    tls_port: u16,
    management_port: u16,
    epmd_port: u16,
}

impl PrivateBroker {
    /// Starts a node and waits until it answers. Blocks.
    pub(crate) fn start() -> Self {
        Self::start_with("[].")
    }

    /// Like [`start`](Self::start), with the management API.
    pub(crate) fn start_managed() -> Self {
        Self::start_with("[rabbitmq_management].")
    }

    fn start_with(plugins: &str) -> Self {
        let mut last_words = String::new();
        // A free port may be taken before the node binds it.
        for _ in 0..3 {
            let mut broker = Self::make(plugins);
            broker.order("start");
            match broker.until_it_answers() {
                Ok(()) => {
                    broker.is_of_the_wanted_version();
                    return broker;
                }
                Err(why) => last_words = why,
            }
        }
        panic!("a private node does not start: {last_words}");
    }

    fn make(plugins: &str) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("tidegate-node-")
            .tempdir()
            .expect("a folder")
            .keep();
        let [port, tls_port, management_port, dist_port, epmd_port] = [(); 5].map(|()| free_port());
        write_certificates(&folder);
        let pem = |name: &str| folder.join(name).display().to_string();
        let config = format!(
            "listeners.tcp.1 = 127.0.0.1:{port}\n\
             listeners.ssl.1 = 127.0.0.1:{tls_port}\n\
             ssl_options.cacertfile = {}\n\
             ssl_options.certfile = {}\n\
             ssl_options.keyfile = {}\n\
             ssl_options.verify = verify_peer\n\
             ssl_options.fail_if_no_peer_cert = true\n\
             disk_free_limit.absolute = 50MB\n\
             vm_memory_high_watermark.relative = {WATERMARK}\n{}",
            pem("ca.pem"),
            pem("server.pem"),
            pem("server.key"),
            match plugins.contains("management") {
                true => format!(
                    "management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {management_port}\n"
                ),
                false => String::new(),
            },
        );
        fs::write(folder.join("rabbitmq.conf"), config).expect("a configuration");
        fs::write(folder.join("enabled_plugins"), plugins).expect("a list of plugins");
        let node = format!("tidegate-{}-{port}@localhost", std::process::id());
        let mut keeper = Command::new("bash")
            .arg("-c")
            .arg(include_str!("private_node.sh"))
            .arg("private_node.sh")
            .args(inside())
            .env("FOLDER", &folder)
            .env("SERVER", tool("rabbitmq-server"))
            .env("EPMD", epmd())
            .env("NODE", &node)
            .env("DIST_PORT", dist_port.to_string())
            .env("EPMD_PORT", epmd_port.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("bash starts");
        Self {
            orders: keeper.stdin.take(),
            answers: BufReader::new(keeper.stdout.take().expect("a pipe")),
            keeper,
            folder,
            node,
            port,
            tls_port,
            management_port,
            epmd_port,
        }
    }

    /// The URL of the management API.
    pub(crate) fn management_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.management_port)
    }

    pub(crate) fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The URL of the TLS listener, which requires a client certificate.
    pub(crate) fn tls_url(&self) -> String {
        format!("amqps://guest:guest@127.0.0.1:{}/%2f", self.tls_port)
    }

    /// The folder with the [certificates](write_certificates).
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Raises or ends the memory alarm, which blocks publishers.
    pub(crate) fn set_alarm(&self, raised: bool) {
        let watermark = if raised { "0" } else { WATERMARK };
        self.ctl(&["set_vm_memory_high_watermark", watermark]);
    }

    /// Sets how long a delivery may stay unsettled before the broker closes its channel. The broker checks every
    /// tenth of a second. `None` is the node's default: 30 minutes, checked every minute.
    pub(crate) fn set_consumer_timeout(&self, timeout: Option<Duration>) {
        let (timeout, tick) = match timeout {
            Some(timeout) => (timeout.as_millis(), 100),
            None => (1_800_000, 60_000),
        };
        self.ctl(&[
            "eval",
            &format!(
                "application:set_env(rabbit, consumer_timeout, {timeout}), \
                 application:set_env(rabbit, channel_tick_interval, {tick})."
            ),
        ]);
    }

    /// Kills the node with SIGKILL, and returns when it is dead.
    ///
    /// Waits first until declared queues are on disk: a node confirms a declare before it writes to disk, and a kill
    /// within those seconds would lose the queue.
    pub(crate) fn kill(&mut self) {
        self.ctl(&["eval", "mnesia:sync_log()."]);
        self.order("kill");
    }

    /// Starts a killed node again, on the same ports and folders, and waits until it answers.
    pub(crate) fn restart(&mut self) {
        self.order("start");
        self.until_it_answers()
            .expect("a node that was there starts again");
    }

    /// Freezes the node: its connections stay open, but it neither reads nor writes.
    pub(crate) fn suspend(&mut self) {
        self.order("suspend");
    }

    /// Resumes a frozen node.
    pub(crate) fn resume(&mut self) {
        self.order("resume");
    }

    /// Stops the broker on its node in an orderly way: connections are closed with a reason.
    pub(crate) fn stop_app(&self) {
        self.ctl(&["stop_app"]);
    }

    /// Starts the broker on its node again, and waits until it answers.
    pub(crate) fn start_app(&self) {
        self.ctl(&["start_app"]);
        self.until_it_answers().expect("the broker starts again");
    }

    /// Runs `rabbitmqctl` against the node, and returns its output.
    pub(crate) fn ctl(&self, arguments: &[&str]) -> String {
        let output = command(tool("rabbitmqctl"))
            .args(["-s", "-n", &self.node])
            .args(arguments)
            .env("HOME", &self.folder)
            .env("ERL_EPMD_PORT", self.epmd_port.to_string())
            .env(
                "RABBITMQ_CONF_ENV_FILE",
                self.folder.join("rabbitmq-env.conf"),
            )
            .stdin(Stdio::null())
            .output()
            .expect("rabbitmqctl starts");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "rabbitmqctl {arguments:?}: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        text
    }

    /// A run for one version must not pass on a node of another.
    fn is_of_the_wanted_version(&self) {
        let Ok(wanted) = env::var("TIDEGATE_TEST_RABBITMQ_VERSION") else {
            return;
        };
        let version = greeting(self.port).and_then(|greeting| version(&greeting));
        let version = version.expect("a greeting tells the version");
        assert!(
            version.starts_with(&format!("{wanted}.")),
            "the private node is of RabbitMQ {version}, not {wanted}"
        );
    }

    fn order(&mut self, order: &str) {
        let mut answer = String::new();
        let orders = self.orders.as_mut().expect("only a drop closes it");
        writeln!(orders, "{order}").expect("the node's keeper listens");
        self.answers
            .read_line(&mut answer)
            .expect("the node's keeper answers");
        assert_eq!(answer.trim(), "done");
    }

    /// An open port is not enough: a node opens it before it is ready.
    fn until_it_answers(&self) -> Result<(), String> {
        let since = Instant::now();
        while since.elapsed() < START_DEADLINE {
            if greets(self.port) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let log = fs::read_to_string(self.folder.join("console.log")).unwrap_or_default();
        Err(log.lines().rev().take(20).collect::<Vec<_>>().join("\n"))
    }
}

impl Drop for PrivateBroker {
    fn drop(&mut self) {
        // The keeper ends when its standard input is closed. After the wait the folder is gone.
        self.orders = None;
        let _ = self.keeper.wait();
    }
}

/// Nodes that tests may break. Two, because most of these tests wait: for a node's start, a heartbeat, a pause.
const FAULTY_NODES: usize = 2;

/// The faulty nodes of this process that no test holds. They are never dropped, because they are static. They end with
/// the process.
static FAULTY: Mutex<Vec<PrivateBroker>> = Mutex::new(Vec::new());

/// A node that one test may break. The next test gets it on drop.
pub(crate) struct FaultyBroker {
    /// `None` only during drop.
    broker: Option<PrivateBroker>,
    _turn: SemaphorePermit<'static>,
}

impl Deref for FaultyBroker {
    type Target = PrivateBroker;

    fn deref(&self) -> &PrivateBroker {
        self.broker.as_ref().expect("only a drop takes it")
    }
}

impl DerefMut for FaultyBroker {
    fn deref_mut(&mut self) -> &mut PrivateBroker {
        self.broker.as_mut().expect("only a drop takes it")
    }
}

impl Drop for FaultyBroker {
    fn drop(&mut self) {
        // Before the turn ends.
        FAULTY.lock().unwrap().extend(self.broker.take());
    }
}

/// A node for this test alone. It is running and has no alarm.
pub(crate) async fn faulty_broker() -> FaultyBroker {
    static TURNS: Semaphore = Semaphore::const_new(FAULTY_NODES);
    let turn = TURNS.acquire().await.expect("it is never closed");
    let free = FAULTY.lock().unwrap().pop();
    let ready = move || match free {
        // A failed test may have left it dead, or stopped.
        Some(mut broker) => {
            if !greets(broker.port) {
                broker.restart();
            }
            broker
        }
        None => PrivateBroker::start(),
    };
    let broker = tokio::task::spawn_blocking(ready).await;
    FaultyBroker {
        broker: Some(broker.expect("a private node")),
        _turn: turn,
    }
}

/// The version of the server that private nodes are of; `None` if no server is installed.
pub(crate) fn server_version() -> Option<String> {
    let output = command(tool("rabbitmqctl")).arg("version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let version = text.lines().last()?.trim();
    (!version.is_empty()).then(|| version.to_owned())
}

/// Whether an AMQP 0-9-1 broker answers on a port.
fn greets(port: u16) -> bool {
    greeting(port).is_some()
}

/// The first frame of a broker on a port. It is a method frame.
fn greeting(port: u16) -> Option<Vec<u8>> {
    let greeting = || {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"AMQP\x00\x00\x09\x01")?;
        let mut head = [0; 7];
        stream.read_exact(&mut head)?;
        let [kind, _, _, size @ ..] = head;
        let size = u32::from_be_bytes(size);
        let mut frame = Vec::new();
        stream.take(u64::from(size)).read_to_end(&mut frame)?;
        std::io::Result::Ok((kind, frame))
    };
    let (kind, frame) = greeting().ok()?;
    (kind == 1).then_some(frame)
}

/// The broker's version in a greeting.
fn version(greeting: &[u8]) -> Option<String> {
    const KEY: &[u8] = b"\x07versionS";
    let at = greeting.windows(KEY.len()).position(|part| part == KEY)?;
    let (size, rest) = greeting[at + KEY.len()..].split_first_chunk()?;
    let text = rest.get(..usize::try_from(u32::from_be_bytes(*size)).ok()?)?;
    String::from_utf8(text.to_vec()).ok()
}

/// A free port below the range for outgoing connections. A client that repeatedly tries a dead port of that range can
/// connect to itself.
fn free_port() -> u16 {
    loop {
        let port = rand::random_range(20_000..32_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// The folder of the system whose server is used, as `scripts/with-broker --version` names it.
fn root() -> Option<PathBuf> {
    env::var_os("TIDEGATE_TEST_RABBITMQ_ROOT").map(PathBuf::from)
}

/// The words before a command that runs in that system. Empty if the machine's own server is used.
fn inside() -> Vec<PathBuf> {
    let in_root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/in-root");
    root().map_or_else(Vec::new, |root| vec![in_root, root])
}

/// A command, which runs in that system if there is one.
fn command(program: PathBuf) -> Command {
    let mut words = inside();
    words.push(program);
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    command
}

/// The server's own scripts. The wrappers in /usr/sbin change the user, who cannot read our folder and settings.
fn tool(name: &str) -> PathBuf {
    let own = Path::new("/usr/lib/rabbitmq/bin").join(name);
    if root().is_some() || own.exists() {
        own
    } else {
        PathBuf::from(name)
    }
}

/// Erlang's port mapper: in PATH, or next to the emulator.
fn epmd() -> PathBuf {
    if root().is_some() {
        return PathBuf::from("/usr/bin/epmd");
    }
    const FIND: &str = r#"command -v epmd || ls "$(dirname "$(readlink -f "$(command -v erl)")")"/../erts-*/bin/epmd"#;
    let output = Command::new("bash")
        .args(["-c", FIND])
        .output()
        .expect("bash starts");
    let found = String::from_utf8_lossy(&output.stdout);
    let first = found
        .lines()
        .next()
        .expect("Erlang is installed: apt install rabbitmq-server");
    PathBuf::from(first)
}
