//! Connections: accepted, limited in number and time, and ended.
//!
//! Our own loop around hyper replaces `axum::serve`, which limits neither the number of connections nor the time that a
//! client may take to send a request. Without these limits a client could use up the daemon's file descriptors, which
//! jobs need. No connection waits for the end of another one: see `connections`.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::Router;
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    time,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use super::{caller::Caller, connections::Connections};

/// Limit on connections of one listener. A further connection closes the one that was idle for the longest time.
const MAX_CONNECTIONS: usize = 256;

/// How long a client may take to send a request's head, and to be silent between two requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);

/// Largest head of a request.
const HEAD_BYTES: usize = 64 * 1024;

/// How long a client may read nothing of an answer that is being sent.
const STALL_TIMEOUT: Duration = Duration::from_secs(15);

/// Longest life of a connection, unless it reads the event stream. Stops a client that reads one byte per second.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// How long to wait after `accept` failed, which it does when descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long an ending server waits for answers that are being sent.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// A running server. Ends its listeners and connections when it is told to.
#[derive(Debug)]
pub struct Server {
    ending: CancellationToken,
    tasks: TaskTracker,
}

impl Server {
    /// A server without a listener.
    pub fn new() -> Self {
        Self {
            ending: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }
    }

    /// Serves a listener, until the server ends.
    pub fn serve<L: Listen>(&self, listener: L, router: Router) {
        let (ending, tasks) = (self.ending.clone(), self.tasks.clone());
        let connections = Connections::new(MAX_CONNECTIONS);
        self.tasks.spawn(async move {
            loop {
                let (stream, caller) = match ending.run_until_cancelled(listener.accept()).await {
                    None => return,
                    Some(Ok(Some(accepted))) => accepted,
                    Some(Ok(None)) => continue,
                    Some(Err(error)) => {
                        debug!(error = %error, "could not accept a connection");
                        connections.cut_longest_idle();
                        time::sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                };
                let (stream, place) = connections.enter(stream, STALL_TIMEOUT);
                let (router, ending) = (router.clone(), ending.clone());
                tasks.spawn(async move {
                    tokio::select! {
                        () = serve_connection(stream, caller, router, ending) => {}
                        () = place.lost() => debug!("a connection was closed for a new one"),
                    }
                });
            }
        });
    }

    /// Stops listening, lets answers that are being sent arrive, and ends every connection.
    pub async fn end(self) {
        self.ending.cancel();
        self.tasks.close();
        if time::timeout(END_TIMEOUT, self.tasks.wait()).await.is_err() {
            debug!("connections were cut off");
        }
    }
}

impl Default for Server {
    fn default() -> Self {
        Self::new()
    }
}

/// A listener that this server can serve.
pub trait Listen: Send + Sync + 'static {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// The next connection and its caller. `None` for a connection that was refused.
    fn accept(&self) -> impl Future<Output = io::Result<Option<(Self::Stream, Caller)>>> + Send;
}

impl Listen for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<Option<(TcpStream, Caller)>> {
        let (stream, _) = self.accept().await?;
        // Answers are small and complete. Waiting to fill a packet only delays them.
        stream.set_nodelay(true)?;
        Ok(Some((stream, Caller::Tcp)))
    }
}

/// Accepts our own user and root. The file's mode already excludes other users, but it is set a moment after the socket
/// is created.
impl Listen for UnixListener {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<Option<(UnixStream, Caller)>> {
        let (stream, _) = self.accept().await?;
        let peer = stream.peer_cred()?.uid();
        Ok(is_ours(peer).then_some((stream, Caller::User(peer))))
    }
}

/// Whether a connection reads an endless stream. Set by a route, read by the connection's task.
#[derive(Debug, Clone, Default)]
pub(super) struct LongLived(Arc<AtomicBool>);

impl LongLived {
    /// Allows the connection to last.
    pub(super) fn mark(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_marked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Waits until an unmarked connection has reached its time limit.
    async fn over(&self) {
        loop {
            time::sleep(CONNECTION_TIMEOUT).await;
            if !self.is_marked() {
                return;
            }
        }
    }
}

async fn serve_connection<S>(stream: S, caller: Caller, router: Router, ending: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let long_lived = LongLived::default();
    let marked = long_lived.clone();
    let routes = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(caller);
        request.extensions_mut().insert(marked.clone());
        hyper::service::Service::call(&routes, request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let served = async {
        tokio::select! {
            served = connection.as_mut() => served,
            () = ending.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    };
    tokio::select! {
        served = served => {
            if let Err(error) = served {
                debug!(error = %error, "a connection failed");
            }
        }
        () = long_lived.over() => debug!("a connection reached its time limit"),
    }
}

fn is_ours(peer: u32) -> bool {
    let own = nix::unistd::Uid::effective().as_raw();
    let is_ours = peer == own || peer == 0;
    if !is_ours {
        warn!(
            uid = peer,
            "refused a connection of another user to the socket"
        );
    }
    is_ours
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, sync::atomic::AtomicUsize};

    use axum::{body::Body, routing::get};
    use bytes::Bytes;
    use futures_util::stream;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
        sync::{Mutex, mpsc, oneshot},
        time::Instant,
    };

    use super::*;

    /// A listener with the test's connections.
    struct Arriving(Mutex<mpsc::Receiver<DuplexStream>>);

    impl Listen for Arriving {
        type Stream = DuplexStream;

        async fn accept(&self) -> io::Result<Option<(DuplexStream, Caller)>> {
            match self.0.lock().await.recv().await {
                Some(stream) => Ok(Some((stream, Caller::Tcp))),
                None => std::future::pending().await,
            }
        }
    }

    async fn connect(arriving: &mpsc::Sender<DuplexStream>) -> DuplexStream {
        let (near, far) = duplex(1024);
        arriving.send(far).await.unwrap();
        near
    }

    #[tokio::test(start_paused = true)]
    async fn answers_at_once_even_with_more_clients_than_the_limit() {
        let long = "x".repeat(64 * 1024);
        let router = Router::new()
            .route("/long", get(async move || long))
            .route("/healthz", get(async || "ok"));
        let (arriving, arrived) = mpsc::channel(1);
        let server = Server::new();
        server.serve(Arriving(Mutex::new(arrived)), router);
        let start = Instant::now();
        let mut idlers = Vec::new();
        for n in 0..2 * MAX_CONNECTIONS {
            let mut idler = connect(&arriving).await;
            let sent: &[u8] = match n % 3 {
                0 => b"",
                1 => b"GET /healthz HTT",
                // And never reads the answer.
                _ => b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n",
            };
            idler.write_all(sent).await.unwrap();
            idlers.push(idler);
        }
        let mut client = connect(&arriving).await;
        client
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("ok"), "{answer}");
        // By the paused clock, which advances only when all tasks wait.
        assert_eq!(start.elapsed(), Duration::ZERO);
        server.end().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_sends_its_request_too_slowly_is_cut_off() {
        let router = Router::new().route("/healthz", get(async || "ok"));
        let (arriving, arrived) = mpsc::channel(1);
        let server = Server::new();
        server.serve(Arriving(Mutex::new(arrived)), router);
        let start = Instant::now();
        let mut client = connect(&arriving).await;
        client.write_all(b"GET /healthz HTT").await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(!answer.contains("ok"), "{answer}");
        assert_eq!(start.elapsed().as_secs(), HEAD_TIMEOUT.as_secs());
        server.end().await;
    }

    /// Counts the pieces of an endless answer, and says when the answer is dropped.
    struct Pieces {
        taken: Arc<AtomicUsize>,
        _dropped: oneshot::Sender<()>,
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_of_an_endless_answer_that_stops_reading_costs_little_and_is_cut_off() {
        const PIECE: &[u8] = &[b'x'; 8 * 1024];
        let (dropped, is_dropped) = oneshot::channel();
        let taken = Arc::new(AtomicUsize::new(0));
        let pieces = Pieces {
            taken: taken.clone(),
            _dropped: dropped,
        };
        let answer = stream::unfold(pieces, async |pieces| {
            time::sleep(Duration::from_millis(10)).await;
            pieces.taken.fetch_add(1, Ordering::Relaxed);
            Some((Ok::<_, Infallible>(Bytes::from_static(PIECE)), pieces))
        });
        let answer = Arc::new(std::sync::Mutex::new(Some(answer)));
        let endless = move || {
            let answer = answer.lock().unwrap().take();
            std::future::ready(Body::from_stream(answer.expect("one request")))
        };
        let router = Router::new().route("/endless", get(endless));
        let (arriving, arrived) = mpsc::channel(1);
        let server = Server::new();
        server.serve(Arriving(Mutex::new(arrived)), router);
        let start = Instant::now();
        let mut client = connect(&arriving).await;
        client
            .write_all(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        client.read_exact(&mut [0; 10 * 1024]).await.unwrap();
        let read = start.elapsed();
        // It reads no further, and keeps its connection open.
        is_dropped.await.unwrap_err();
        let stalled = start.elapsed().saturating_sub(read);
        assert!(
            stalled <= STALL_TIMEOUT + Duration::from_secs(1),
            "{stalled:?}"
        );
        // At a hundred pieces a second, these are the ones that fit in the buffer.
        let taken = taken.load(Ordering::Relaxed) * PIECE.len();
        assert!(taken <= 4 * HEAD_BYTES, "{taken}");
        server.end().await;
    }
}
