//! The measured program, and the clocks of its processes.

use std::{
    fmt::Write as _,
    fs,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time,
};

use super::broker::Queues;

const TOKEN: &str = "bench";
const SHIMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shims/python/src");

/// A running `tidegate run` with a pool for each queue. The pools are named `p0`, `p1` and so on. Killed on drop.
pub(crate) struct Daemon {
    child: Child,
    /// Its configuration and its state.
    _dir: TempDir,
    listen: String,
}

impl Daemon {
    /// Starts the program, and waits until every pool has read its queue.
    pub(crate) async fn start(url: &str, queues: &Queues) -> Self {
        let dir = TempDir::new().expect("a folder");
        let listen = free_address();
        let folder = dir.path().display();
        let mut text = format!(
            "[broker]\nurl = \"{url}\"\n[http]\nlisten = \"{listen}\"\ntoken_file = \"{folder}/token\"\n\
             socket = \"{folder}/socket\"\nstate_dir = \"{folder}/state\"\n"
        );
        for (n, queue) in queues.names().iter().enumerate() {
            write!(
                text,
                "[pools.p{n}]\nqueue = \"{queue}\"\n\
                 [pools.p{n}.policy]\nkind = \"fixed\"\nworkers = 10\n\
                 [pools.p{n}.runner]\nkind = \"warm\"\n\
                 command = [\"python3\", \"-c\", \"import tidegate; tidegate.serve(lambda job: None)\"]\n\
                 env = {{ PYTHONPATH = \"{SHIMS}\", PYTHONDONTWRITEBYTECODE = \"1\" }}\n"
            )
            .expect("a string takes all");
        }
        let config = dir.path().join("tidegate.toml");
        fs::write(&config, text).expect("a file");
        fs::write(dir.path().join("token"), TOKEN).expect("a file");
        let child = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .arg("--config")
            .arg(config)
            .args(["run", "--log-format", "json"])
            .stdin(Stdio::null())
            .stderr(fs::File::create(dir.path().join("log")).expect("a file"))
            .spawn()
            .expect("the program");
        let daemon = Self {
            child,
            _dir: dir,
            listen,
        };
        let start = Instant::now();
        while !daemon.has_read_every_queue().await {
            assert!(start.elapsed() < Duration::from_secs(60), "it never starts");
            time::sleep(Duration::from_millis(100)).await;
        }
        daemon
    }

    async fn has_read_every_queue(&self) -> bool {
        let Ok(mut client) = Client::connect(&self.listen).await else {
            return false;
        };
        let pools: Value =
            serde_json::from_str(&client.get("/api/v1/pools").await).expect("the pools are JSON");
        let pools = pools.as_array().expect("a list");
        pools.iter().all(|pool| pool["depth"]["age_ms"].is_u64())
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(&self.listen)
            .await
            .expect("the daemon listens")
    }

    /// Processor time of the guard and its supervisor, without their children.
    pub(crate) fn processor(&self) -> Duration {
        self.processes().iter().map(|pid| processor(pid)).sum()
    }

    /// Resident memory of the guard and its supervisor, in MiB.
    pub(crate) fn memory(&self) -> f64 {
        self.processes().iter().map(|pid| memory(pid)).sum()
    }

    fn processes(&self) -> Vec<String> {
        let guard = self.child.id();
        let children = format!("/proc/{guard}/task/{guard}/children");
        let children = fs::read_to_string(children).expect("the guard runs");
        let children = children.split_whitespace().map(str::to_owned);
        children.chain([guard.to_string()]).collect()
    }

    /// Processor time over this time, in percent of one core.
    pub(crate) async fn load(&self, window: Duration) -> f64 {
        let (begun, before) = (Instant::now(), self.processor());
        time::sleep(window).await;
        let spent = self.processor().saturating_sub(before);
        100.0 * spent.as_secs_f64() / begun.elapsed().as_secs_f64()
    }

    pub(crate) async fn end(mut self) {
        let pid = i32::try_from(self.child.id()).expect("a process id");
        signal::kill(Pid::from_raw(pid), Signal::SIGTERM).expect("it runs");
        let waited = tokio::task::spawn_blocking(move || self.child.wait());
        let status = waited.await.expect("no panic").expect("its end");
        assert!(status.success(), "{status}");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// User and system time of a process, in steps of a clock tick (10 ms).
fn processor(pid: &str) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    // The name in parentheses may have spaces.
    let (_, fields) = stat.rsplit_once(')').expect("a name");
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks: u32 = ticks
        .map(|ticks| ticks.parse::<u32>().expect("a number"))
        .sum();
    Duration::from_millis(10) * ticks
}

fn memory(pid: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = resident.and_then(|line| line.split_whitespace().next());
    let kib = kib.expect("it is resident").parse::<f64>();
    kib.expect("a number") / 1024.0
}

fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").to_string()
}

/// A connection that is kept open between requests.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
    host: String,
}

impl Client {
    async fn connect(listen: &str) -> std::io::Result<Self> {
        let stream = TcpStream::connect(listen).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream: BufReader::new(stream),
            host: listen.to_owned(),
        })
    }

    pub(crate) async fn get(&mut self, path: &str) -> String {
        self.send("GET", path).await;
        self.body().await
    }

    pub(crate) async fn post(&mut self, path: &str) -> String {
        self.send("POST", path).await;
        self.body().await
    }

    /// Opens the event stream. Returns its connection, from which nothing is read yet.
    pub(crate) async fn follow(mut self) -> BufReader<TcpStream> {
        self.send("GET", "/api/v1/events").await;
        self.stream
    }

    async fn send(&mut self, method: &str, path: &str) {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 0\r\n\r\n",
            self.host
        );
        self.stream
            .write_all(request.as_bytes())
            .await
            .expect("it is sent");
    }

    async fn body(&mut self) -> String {
        let mut length = 0;
        let mut line = String::new();
        loop {
            line.clear();
            self.stream.read_line(&mut line).await.expect("a head");
            if line.trim().is_empty() {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().expect("a number");
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.expect("a body");
        String::from_utf8(body).expect("text")
    }
}
