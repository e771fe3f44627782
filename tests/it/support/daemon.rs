//! A `tidegate run` for one test: its configuration, its output and its end.

use std::{
    fmt::Write as _,
    io::{self, BufRead, BufReader, Read},
    net::TcpStream,
    os::unix::{net::UnixStream, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use nix::{sys::signal, unistd::Pid};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) use nix::sys::signal::Signal;

/// Longest wait of a test. Far more than any step needs, for busy machines.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// The folder of a daemon.
enum Folder {
    Own(TempDir),
    /// The folder of the daemon that it has taken over from.
    Shared(PathBuf),
}

/// A running daemon. Killed on drop if it has not ended.
pub(crate) struct Daemon {
    child: Child,
    dir: Folder,
    /// Lines of its standard error. Written by the thread that reads them.
    lines: mpsc::Receiver<String>,
    /// Everything that it has written to its outputs.
    said: Arc<Mutex<String>>,
    readers: Vec<thread::JoinHandle<()>>,
    listen: String,
}

impl Daemon {
    /// Starts a daemon with these pools on the broker at `url`, and waits until it has started.
    pub(crate) fn start(url: &str, pools: &str) -> Self {
        Self::start_with(url, "", pools)
    }

    /// Like [`start`](Self::start), with more keys before the first table, and more tables.
    pub(crate) fn start_with(url: &str, head: &str, pools: &str) -> Self {
        Self::start_with_files(&[], url, head, pools)
    }

    /// Like [`start_with`](Self::start_with), with files in its folder, each as name and text.
    pub(crate) fn start_with_files(
        files: &[(&str, &str)],
        url: &str,
        head: &str,
        pools: &str,
    ) -> Self {
        let dir = TempDir::new().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let mut daemon = Self::spawn(dir, &[], url, head, pools);
        daemon.wait_until_started();
        daemon
    }

    /// Waits until this daemon has ended, and starts another in its folder.
    pub(crate) fn again(mut self, url: &str, head: &str, pools: &str) -> Self {
        poll(|| self.child.try_wait().unwrap()).unwrap_or_else(|| panic!("{}", self.said()));
        let dir = std::mem::replace(&mut self.dir, Folder::Shared(PathBuf::new()));
        let Folder::Own(dir) = dir else {
            panic!("the folder belongs to another daemon");
        };
        let mut daemon = Self::spawn(dir, &[], url, head, pools);
        daemon.wait_until_started();
        daemon
    }

    /// Starts a daemon in the folder of this one that takes over from it, and waits until it has started.
    pub(crate) fn take_over(&self) -> Self {
        let mut child = tidegate(self.dir())
            .args(["run", "--takeover", "--log-format", "json"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (said, lines, readers) = listen(&mut child);
        let mut daemon = Self {
            child,
            dir: Folder::Shared(self.dir().to_owned()),
            lines,
            said,
            readers,
            listen: String::new(),
        };
        daemon.wait_until_started();
        daemon
    }

    /// Starts a daemon in `dir` without waiting.
    pub(crate) fn start_soon(dir: TempDir, url: &str, pools: &str) -> Self {
        Self::spawn(dir, &[], url, "", pools)
    }

    pub(crate) fn wait_until_started(&mut self) {
        let started = self.wait_for("started", |line| line["message"] == "started");
        self.listen = started["listen"].as_str().unwrap().to_owned();
    }

    /// Starts a daemon through a command. Our command line is appended to it, and it must `exec` that.
    pub(crate) fn start_by(way: &[&str], url: &str, pools: &str) -> Self {
        let mut daemon = Self::spawn(TempDir::new().unwrap(), way, url, "", pools);
        daemon.wait_until_started();
        daemon
    }

    /// Starts a daemon in `dir` whose log the test cannot read, and waits until its API answers.
    pub(crate) fn start_unheard(
        dir: TempDir,
        log: impl Into<Stdio>,
        url: &str,
        head: &str,
        pools: &str,
    ) -> Self {
        let standard = (Stdio::null(), log.into());
        Self::start_unheard_by(&[], dir, standard, url, head, pools)
    }

    /// The same through a command, with this standard input and standard error.
    pub(crate) fn start_unheard_by(
        way: &[&str],
        dir: TempDir,
        (input, log): (Stdio, Stdio),
        url: &str,
        head: &str,
        pools: &str,
    ) -> Self {
        write_config(dir.path(), url, head, pools);
        let child = tidegate_by(way, dir.path())
            .args(["run", "--log-format", "json"])
            .stdin(input)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let daemon = Self {
            child,
            dir: Folder::Own(dir),
            lines: mpsc::channel().1,
            said: Arc::default(),
            readers: Vec::new(),
            listen: String::new(),
        };
        poll(|| daemon.run(&["status"]).0.filter(|code| *code == 0)).expect("an answer");
        daemon
    }

    fn spawn(dir: TempDir, way: &[&str], url: &str, head: &str, pools: &str) -> Self {
        write_config(dir.path(), url, head, pools);
        let mut child = tidegate_by(way, dir.path())
            .args(["run", "--log-format", "json"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (said, lines, readers) = listen(&mut child);
        Self {
            child,
            dir: Folder::Own(dir),
            lines,
            said,
            readers,
            listen: String::new(),
        }
    }

    /// Its TCP address.
    pub(crate) fn listen(&self) -> &str {
        &self.listen
    }

    pub(crate) fn dir(&self) -> &Path {
        match &self.dir {
            Folder::Own(dir) => dir.path(),
            Folder::Shared(dir) => dir,
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir().join("run/tidegate.sock")
    }

    /// Writes the configuration again, for a reload.
    pub(crate) fn configure(&self, url: &str, head: &str, pools: &str) {
        write_config(self.dir(), url, head, pools);
    }

    /// The started process, which is the guard.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        signal::kill(self.pid(), signal).unwrap();
    }

    /// The next log line that matches. Lines before it are lost.
    pub(crate) fn wait_for(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + DEADLINE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("never heard {what:?} in:\n{}", self.said());
            };
            let line: Value = serde_json::from_str(&line).unwrap_or(Value::Null);
            if wanted(&line) {
                return line;
            }
        }
    }

    /// The first matching line of the whole log.
    pub(crate) fn heard(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let heard = || {
            let said = self.said();
            let mut lines = said
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok());
            lines.find(&wanted)
        };
        poll(heard).unwrap_or_else(|| panic!("never heard {what:?} in:\n{}", self.said()))
    }

    pub(crate) fn wait_for_message(&self, message: &str) -> Value {
        self.wait_for(message, |line| line["message"] == message)
    }

    /// Runs a command as the same user in the daemon's folder.
    pub(crate) fn run(&self, args: &[&str]) -> (Option<i32>, String, String) {
        let output = tidegate(self.dir()).args(args).output().unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    }

    /// The part of `status` about a pool.
    pub(crate) fn pool(&self, name: &str) -> Value {
        // Through its socket, because the configuration may be invalid by now.
        let socket = self.socket();
        let socket = socket.to_str().unwrap();
        let (code, out, err) = self.run(&["status", "--format", "json", "--socket", socket]);
        assert_eq!(code, Some(0), "{err}");
        let pools: Vec<Value> = serde_json::from_str(&out).unwrap();
        let pool = pools.into_iter().find(|pool| pool["name"] == name);
        pool.unwrap_or(Value::Null)
    }

    /// Waits until a pool matches. Polls, because nothing notifies the test.
    pub(crate) fn wait_for_pool(&self, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let found = poll(|| Some(self.pool(name)).filter(&wanted));
        found.unwrap_or_else(|| {
            panic!(
                "pool {name} was never so; now {:#}\n{}",
                self.pool(name),
                self.said()
            )
        })
    }

    /// A GET over TCP. Returns status and body.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        self.get_with(path, &[("Host", &self.listen)])
    }

    pub(crate) fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
        let answer = self.request("GET", path, headers, "");
        (answer.status, answer.body)
    }

    /// Any request over TCP. `headers` have the host.
    pub(crate) fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        self.send(request_of(method, path, headers, body).as_bytes())
    }

    /// A POST over the Unix socket, as the command line sends it.
    pub(crate) fn post_over_socket(&self, path: &str, body: &str) -> Answer {
        let stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let request = request_of("POST", path, &[("Host", "localhost")], body);
        exchange(stream, request.as_bytes())
    }

    /// Sends these bytes on a connection of their own, and reads the answer to its end.
    pub(crate) fn send(&self, bytes: &[u8]) -> Answer {
        let stream = TcpStream::connect(&self.listen).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        exchange(stream, bytes)
    }

    /// Waits for the daemon's end. Returns its exit code and all its output.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        let (code, said) = self.wait_for_end();
        // The socket is removed at every end, except after a kill. The guard reports a kill by its exit code.
        let was_killed = code == Some(128 + signal::SIGKILL as i32);
        assert!(was_killed || !self.socket().exists(), "{said}");
        (code, said)
    }

    /// The same for a daemon whose socket belongs to its successor by now.
    pub(crate) fn wait_for_end(&mut self) -> (Option<i32>, String) {
        let status = poll(|| self.child.try_wait().unwrap());
        let status: ExitStatus = status.unwrap_or_else(|| panic!("did not end:\n{}", self.said()));
        assert_eq!(status.signal(), None, "{}", self.said());
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        (status.code(), self.said())
    }

    /// All its output so far.
    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The daemon's answer over TCP.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The status line and the headers, in lower case.
    pub(crate) head: String,
    pub(crate) body: String,
}

/// A request whose answer ends the connection. `headers` have the host.
fn request_of(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> String {
    let mut request = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    for (name, value) in headers {
        write!(request, "{name}: {value}\r\n").unwrap();
    }
    if !body.is_empty() {
        let length = body.len();
        write!(
            request,
            "Content-Type: application/json\r\nContent-Length: {length}\r\n"
        )
        .unwrap();
    }
    format!("{request}\r\n{body}")
}

fn exchange(mut stream: impl Read + io::Write, request: &[u8]) -> Answer {
    // A daemon that refuses does not read to the end, so the write may fail where the answer is there.
    let written = stream.write_all(request);
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        panic!("no answer: {written:?}, {read:?}, {answer:?}");
    };
    Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head: head.to_ascii_lowercase(),
        body: body.to_owned(),
    }
}

/// Runs a command that should end by itself, and kills it if it does not. Returns its exit code and its errors.
pub(crate) fn end_of(command: &mut Command) -> (Option<i32>, String) {
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let status = poll(|| child.try_wait().unwrap());
    if status.is_none() {
        child.kill().unwrap();
    }
    let said = io::read_to_string(child.stderr.take().unwrap()).unwrap();
    (status.and_then(|status| status.code()), said)
}

/// An address without a listener.
pub(crate) fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

/// Polls until there is a result or the deadline passes.
pub(crate) fn poll<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let until = Instant::now() + DEADLINE;
    while Instant::now() < until {
        if let Some(found) = look() {
            return Some(found);
        }
        thread::sleep(Duration::from_millis(20));
    }
    None
}

/// The built program, with an empty environment.
pub(crate) fn tidegate(dir: &Path) -> Command {
    tidegate_by(&[], dir)
}

fn tidegate_by(way: &[&str], dir: &Path) -> Command {
    let mut words = way.iter().chain(&[env!("CARGO_BIN_EXE_tidegate")]);
    let mut command = Command::new(words.next().unwrap());
    command
        .args(words)
        .current_dir(dir)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", dir)
        .env("XDG_RUNTIME_DIR", dir)
        .stdin(Stdio::null());
    command
}

fn write_config(dir: &Path, url: &str, head: &str, pools: &str) {
    let listen = match head.contains("http.listen") {
        true => "",
        false => "http.listen = \"127.0.0.1:0\"\n",
    };
    let state_dir = match head.contains("http.state_dir") {
        true => String::new(),
        false => format!("http.state_dir = \"{}/state\"\n", dir.display()),
    };
    let text = format!(
        "{head}\n{listen}{state_dir}\
         http.socket = \"{dir}/run/tidegate.sock\"\n\
         broker.url = \"{url}\"\n\
         {pools}",
        dir = dir.display(),
    );
    std::fs::write(dir.join("tidegate.toml"), text).unwrap();
}

type Heard = (
    Arc<Mutex<String>>,
    mpsc::Receiver<String>,
    Vec<thread::JoinHandle<()>>,
);

/// Collects what a daemon says.
fn listen(child: &mut Child) -> Heard {
    let said = Arc::new(Mutex::new(String::new()));
    let (sender, lines) = mpsc::channel();
    let err = BufReader::new(child.stderr.take().unwrap());
    let out = BufReader::new(child.stdout.take().unwrap());
    let readers = vec![
        collect(err, said.clone(), Some(sender)),
        collect(out, said.clone(), None),
    ];
    (said, lines, readers)
}

fn collect(
    reader: impl BufRead + Send + 'static,
    said: Arc<Mutex<String>>,
    lines: Option<mpsc::Sender<String>>,
) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        for line in reader.lines().map_while(Result::ok) {
            said.lock().unwrap().push_str(&format!("{line}\n"));
            if let Some(lines) = &lines {
                // The test may no longer receive.
                let _ = lines.send(line);
            }
        }
    })
}
