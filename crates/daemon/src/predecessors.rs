//! The supervisors that have handed over to this one and finish their jobs: for `jobs`, `status` and the API.
//!
//! A predecessor serves its jobs on a socket beside its lock, see [`routes::last_jobs`](crate::http::routes). One task
//! here asks for them once a second, and ends with the last predecessor. The routes read its answers. This module
//! starts no job, and ends a job only if an operator stops it.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use http_body_util::Full;
use hyper::{Method, Request, StatusCode, body::Bytes, header};
use hyperlocal::UnixConnector;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use tokio::time;
use tracing::debug;

use crate::exchange::{client, exchange};
use tidegate::{
    api::v1,
    decide::{JobId, PoolName},
    host::instance::{self, Finishing},
    run::StopThen,
    runner::BoxError,
};

/// Time between two requests.
const EVERY: Duration = Duration::from_secs(1);
/// Limit on an answer. A predecessor answers from memory, so this is short.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Largest answer that is read: far more than the jobs of a supervisor.
const ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// The predecessors of this supervisor. Written by [`keep`](Self::keep), read by the routes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Predecessors(Arc<Mutex<Vec<KnownPredecessor>>>);

#[derive(Debug, Clone)]
struct KnownPredecessor {
    pid: u32,
    socket: PathBuf,
    /// `None` if it has not reported them.
    jobs: Option<Vec<v1::Job>>,
}

impl Predecessors {
    /// Asks the predecessors for their jobs until none is left. Only the holder of the lock in `state_dir` may do so.
    pub(crate) async fn keep(self, state_dir: PathBuf) {
        loop {
            let state_dir = state_dir.clone();
            let finishing = move || instance::predecessors(&state_dir);
            let Ok(finishing) = tokio::task::spawn_blocking(finishing).await else {
                return;
            };
            let found = look_at_all(finishing).await;
            let is_over = found.is_empty();
            *self.known() = found;
            if is_over {
                return;
            }
            time::sleep(EVERY).await;
        }
    }

    /// The predecessors that may run jobs of a pool.
    pub(crate) fn of(&self, pool: &PoolName) -> Vec<v1::Predecessor> {
        let known = self.known();
        let all = known.iter().map(|predecessor| v1::Predecessor {
            pid: predecessor.pid,
            jobs: predecessor
                .jobs
                .as_ref()
                .map(|jobs| jobs.iter().filter(|job| job.pool == *pool).count()),
        });
        all.filter(|predecessor| predecessor.jobs != Some(0))
            .collect()
    }

    /// The jobs of all pools that the predecessors run.
    pub(crate) fn jobs(&self) -> Vec<v1::Job> {
        let known = self.known();
        let jobs = known.iter().flat_map(|predecessor| {
            let jobs = predecessor.jobs.iter().flatten().cloned();
            jobs.map(|job| v1::Job {
                predecessor: Some(predecessor.pid),
                ..job
            })
        });
        jobs.collect()
    }

    /// Has the predecessors stop their jobs with this id. Returns the number of jobs that were told.
    pub(crate) async fn stop(&self, pool: &PoolName, id: &JobId, then: StopThen) -> usize {
        let is_meant = |job: &v1::Job| job.pool == *pool && job.job.id == *id;
        let sockets: Vec<PathBuf> = {
            let known = self.known();
            let having = known
                .iter()
                .filter(|predecessor| predecessor.jobs.iter().flatten().any(is_meant));
            having
                .map(|predecessor| predecessor.socket.clone())
                .collect()
        };
        let [name, id] = [pool.as_str(), id.as_str()]
            .map(|part| utf8_percent_encode(part, NON_ALPHANUMERIC).to_string());
        let path = format!("/api/v1/pools/{name}/jobs/{id}/stop");
        let body = serde_json::to_vec(&v1::StopJob { then }).unwrap_or_default();
        let tell = async |socket: PathBuf| {
            let told = ask::<v1::StoppedJobs>(&socket, Method::POST, &path, body.clone().into());
            match told.await {
                Ok(told) => told.stopped,
                // The job may have ended, and the predecessor with it.
                Err(error) => {
                    debug!(error = %error, "a predecessor did not stop a job");
                    0
                }
            }
        };
        join_all(sockets.into_iter().map(tell)).await.iter().sum()
    }

    fn known(&self) -> MutexGuard<'_, Vec<KnownPredecessor>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks all of them for their jobs, at once: those that do not answer cost one time limit together.
async fn look_at_all(finishing: Vec<Finishing>) -> Vec<KnownPredecessor> {
    join_all(finishing.into_iter().map(look)).await
}

async fn look(Finishing { pid, socket }: Finishing) -> KnownPredecessor {
    let jobs = jobs_at(&socket).await;
    if let Err(error) = &jobs {
        debug!(pid = pid.as_raw(), error = %error, "could not ask a predecessor for its jobs");
    }
    KnownPredecessor {
        pid: pid.as_raw().unsigned_abs(),
        socket,
        jobs: jobs.ok(),
    }
}

async fn jobs_at(socket: &Path) -> Result<Vec<v1::Job>, BoxError> {
    ask(socket, Method::GET, "/api/v1/jobs", Bytes::new()).await
}

async fn ask<T: DeserializeOwned>(
    socket: &Path,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<T, BoxError> {
    let uri: hyper::Uri = hyperlocal::Uri::new(socket, path).into();
    let request = Request::builder()
        .method(method)
        .uri(uri)
        .header(header::HOST, "localhost")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(body))?;
    let client = client(UnixConnector);
    let asked = time::timeout(TIMEOUT, exchange(&client, request, ANSWER_BYTES)).await;
    match asked?? {
        (StatusCode::OK, body) => Ok(serde_json::from_slice(&body)?),
        (status, _) => Err(format!("the answer is {status}").into()),
    }
}

#[cfg(test)]
mod tests {
    use nix::unistd::Pid;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{UnixListener, UnixStream},
    };

    use super::*;

    /// Predecessors that answer only when each of them was asked.
    struct Together {
        folder: tempfile::TempDir,
        listeners: [UnixListener; 3],
    }

    impl Together {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let listen = |name| UnixListener::bind(folder.path().join(name)).unwrap();
            let listeners = ["0", "1", "2"].map(listen);
            Self { folder, listeners }
        }

        fn sockets(&self) -> impl Iterator<Item = PathBuf> {
            (0..self.listeners.len()).map(|name| self.folder.path().join(name.to_string()))
        }

        /// Returns the connections, so that they stay open.
        async fn answer(&self, body: &str) -> Vec<UnixStream> {
            let mut asked = Vec::new();
            for listener in &self.listeners {
                let (mut stream, _) = listener.accept().await.unwrap();
                // A part of the request is there.
                stream.read_u8().await.unwrap();
                asked.push(stream);
            }
            let length = body.len();
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
            for stream in &mut asked {
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            asked
        }
    }

    #[tokio::test]
    async fn asks_all_for_their_jobs_at_once() {
        let together = Together::new();
        let finishing = together.sockets().map(|socket| Finishing {
            pid: Pid::from_raw(7),
            socket,
        });
        let look = look_at_all(finishing.collect());
        let (found, _open) = tokio::join!(look, together.answer("[]"));
        let jobs: Vec<_> = found.iter().map(|found| found.jobs.is_some()).collect();
        assert_eq!(jobs, [true; 3]);
    }

    #[tokio::test]
    async fn tells_all_to_stop_a_job_at_once() {
        let together = Together::new();
        let job = serde_json::json!({
            "pool": "a", "id": "1", "worker": 1, "runner": 2, "attempt": 1, "since": "2026-01-02T03:00:00Z"
        });
        let known = together.sockets().map(|socket| KnownPredecessor {
            pid: 7,
            socket,
            jobs: Some(vec![serde_json::from_value(job.clone()).unwrap()]),
        });
        let predecessors = Predecessors(Arc::new(Mutex::new(known.collect())));
        let (pool, id) = (PoolName::from("a"), JobId::from("1"));
        let stop = predecessors.stop(&pool, &id, StopThen::Retry);
        let (stopped, _open) =
            tokio::join!(stop, together.answer(r#"{"stopped": 1, "then": "retry"}"#));
        assert_eq!(stopped, 3);
    }

    #[tokio::test]
    async fn without_predecessors_the_task_ends_at_once() {
        let state = tempfile::tempdir().unwrap();
        let predecessors = Predecessors::default();
        predecessors.clone().keep(state.path().to_owned()).await;
        assert!(predecessors.jobs().is_empty());
    }

    #[test]
    fn a_predecessor_is_shown_at_the_pools_whose_jobs_it_may_run() {
        let job = serde_json::json!({
            "pool": "a", "id": "1", "worker": 1, "runner": 2, "attempt": 1, "since": "2026-01-02T03:00:00Z"
        });
        let predecessor = |pid, jobs| KnownPredecessor {
            pid,
            socket: PathBuf::new(),
            jobs,
        };
        let known = vec![
            predecessor(7, Some(vec![serde_json::from_value(job).unwrap()])),
            // It has not answered.
            predecessor(8, None),
        ];
        let predecessors = Predecessors(Arc::new(Mutex::new(known)));
        let of = |pool: &str| {
            let all = predecessors.of(&pool.into()).into_iter();
            all.map(|known| (known.pid, known.jobs)).collect::<Vec<_>>()
        };
        assert_eq!(of("a"), [(7, Some(1)), (8, None)]);
        assert_eq!(of("b"), [(8, None)]);
        assert_eq!(predecessors.jobs()[0].predecessor, Some(7));
    }
}
