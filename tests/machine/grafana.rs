//! The queries of the Grafana dashboard, asked of a Prometheus that scrapes a daemon. Grafana itself is not run here.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    needs::Need,
    support::{
        broker::broker_url,
        daemon::{Daemon, free_address, poll},
        queue::Queue,
    },
};

trials! {
    plain(Need::Program("prometheus")): [every_panel_shows_a_busy_pool],
}

/// A server that scrapes one daemon. Killed on drop.
struct Prometheus {
    child: Child,
    listen: String,
    _dir: TempDir,
}

impl Prometheus {
    fn start(target: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let config = dir.path().join("prometheus.yml");
        let text = format!(
            "global: {{scrape_interval: 250ms}}\n\
             scrape_configs: [{{job_name: tidegate, static_configs: [{{targets: ['{target}']}}]}}]\n"
        );
        fs::write(&config, text).unwrap();
        let listen = free_address();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={listen}"))
            .stdout(Stdio::null())
            .stderr(fs::File::create(dir.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        Self {
            child,
            listen,
            _dir: dir,
        }
    }

    /// The result of a query. `None` until the server answers.
    fn ask(&self, query: &str) -> Option<Value> {
        let mut stream = TcpStream::connect(&self.listen).ok()?;
        let query = utf8_percent_encode(query, NON_ALPHANUMERIC);
        let request = format!("GET /api/v1/query?query={query} HTTP/1.0\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Every query of the dashboard, with values for Grafana's variables.
fn queries() -> Vec<String> {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../deploy/grafana/dashboards/tidegate.json"
    );
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().unwrap());
    let queries = targets.map(|target| {
        let query = target["expr"].as_str().unwrap();
        query
            .replace("$pool", "work|.*none")
            .replace("$__rate_interval", "10s")
    });
    queries.collect()
}

/// Whether a query has a line with a number.
fn has_number(answer: &Value) -> bool {
    let lines = answer["data"]["result"].as_array().unwrap();
    lines.iter().any(|line| line["value"][1] != "NaN")
}

fn every_panel_shows_a_busy_pool() {
    let queue = Queue::new();
    // Workers come and go with each job.
    let daemon = Daemon::start(
        &broker_url(),
        &format!(
            "[pools.work]\nqueue = \"{}\"\npoll_interval = \"50ms\"\ndrain_after = \"0s\"\n\
             runner.command = [\"true\"]\n",
            queue.name()
        ),
    );
    let prometheus = Prometheus::start(daemon.listen());
    let mut missing = queries();
    assert!(missing.len() > 10, "{missing:?}");
    poll(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        queue.publish_at("job", i64::try_from(now.as_millis()).unwrap() - 100);
        missing.retain(|query| match prometheus.ask(query) {
            None => true,
            Some(answer) => {
                assert_eq!(answer["status"], "success", "{query}: {answer}");
                !has_number(&answer)
            }
        });
        missing.is_empty().then_some(())
    });
    assert_eq!(missing, Vec::<String>::new(), "these panels stay empty");
}
