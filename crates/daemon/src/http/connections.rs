//! The connections of a listener: their limit, which connection to close above that limit, and how long one may be
//! idle.
//!
//! A new connection is always accepted. If that exceeds the limit, the connection that was idle for the longest time is
//! closed. So clients that send nothing, or read nothing, do not block other clients.

use std::{
    collections::HashMap,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};
use tokio_util::sync::CancellationToken;

/// The connections of one listener. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Connections {
    limit: usize,
    began: Instant,
    open: Arc<Mutex<OpenConnections>>,
}

#[derive(Debug, Default)]
struct OpenConnections {
    next: u64,
    connections: HashMap<u64, OpenConnection>,
}

#[derive(Debug)]
struct OpenConnection {
    progress: Arc<SendProgress>,
    cut: CancellationToken,
}

/// Time of a connection's last transferred byte, in milliseconds since the start of its listener. Written by the
/// connection's task, read by the listener's task.
#[derive(Debug)]
struct SendProgress {
    began: Instant,
    moved: AtomicU64,
}

impl SendProgress {
    fn new(began: Instant) -> Self {
        let progress = Self {
            began,
            moved: AtomicU64::new(0),
        };
        progress.touch();
        progress
    }

    fn touch(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved.store(now, Ordering::Relaxed);
    }
}

impl Connections {
    /// Connections with this limit on their number.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            began: Instant::now(),
            open: Arc::default(),
        }
    }

    /// Adds a connection. If that exceeds the limit, closes the connection that was idle for the longest time.
    pub(super) fn enter<S>(&self, stream: S, stall: Duration) -> (Watched<S>, ConnectionSlot) {
        let progress = Arc::new(SendProgress::new(self.began));
        let cut = CancellationToken::new();
        let mut open = self.lock();
        while open.connections.len() >= self.limit.max(1) {
            open.cut_longest_idle();
        }
        let id = open.next;
        open.next += 1;
        let entry = OpenConnection {
            progress: progress.clone(),
            cut: cut.clone(),
        };
        open.connections.insert(id, entry);
        drop(open);
        let watched = Watched {
            stream,
            progress,
            stall,
            stalled: None,
        };
        let place = ConnectionSlot {
            connections: self.clone(),
            id,
            cut,
        };
        (watched, place)
    }

    /// Closes a connection when the process has no free file descriptors.
    pub(super) fn cut_longest_idle(&self) {
        self.lock().cut_longest_idle();
    }

    fn lock(&self) -> MutexGuard<'_, OpenConnections> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenConnections {
    fn cut_longest_idle(&mut self) {
        let moved = |entry: &OpenConnection| entry.progress.moved.load(Ordering::Relaxed);
        let longest_idle = self.connections.iter();
        let longest_idle = longest_idle.min_by_key(|(id, entry)| (moved(entry), **id));
        let longest_idle = longest_idle.map(|(id, _)| *id);
        if let Some(entry) = longest_idle.and_then(|id| self.connections.remove(&id)) {
            entry.cut.cancel();
        }
    }
}

/// A connection's slot within the limit. It becomes free on drop.
#[derive(Debug)]
pub(super) struct ConnectionSlot {
    connections: Connections,
    id: u64,
    cut: CancellationToken,
}

impl ConnectionSlot {
    /// Waits until the slot is given to another connection. Cancel-safe.
    pub(super) async fn lost(&self) {
        self.cut.cancelled().await;
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.connections.lock().connections.remove(&self.id);
    }
}

/// A stream that records the time of each byte, and that fails if its reader accepts no bytes for too long.
pub(super) struct Watched<S> {
    stream: S,
    progress: Arc<SendProgress>,
    stall: Duration,
    /// Set while the reader accepts no bytes.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Watched<S> {
    /// The result of a write, or an error if the reader was stalled for too long.
    fn written(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = written {
            self.stalled = None;
            self.progress.touch();
            return Poll::Ready(written);
        }
        let stall = self.stall;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(stall)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if read.is_ready() {
            self.progress.touch();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.written(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.written(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const STALL: Duration = Duration::from_secs(15);

    fn is_lost(place: &ConnectionSlot) -> bool {
        place.cut.is_cancelled()
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_connection_replaces_the_one_that_was_idle_the_longest() {
        let connections = Connections::new(3);
        let mut places = Vec::new();
        let mut streams = Vec::new();
        for _ in 0..3 {
            let (near, far) = duplex(64);
            let (watched, place) = connections.enter(near, STALL);
            places.push(place);
            streams.push((watched, far));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        // The first connection sends a request, so the second has been idle for longer.
        streams[0].1.write_all(b"GET").await.unwrap();
        streams[0].0.read_exact(&mut [0; 3]).await.unwrap();
        let (_fourth, fourth) = connections.enter(duplex(64).0, STALL);
        let lost: Vec<bool> = places.iter().map(is_lost).collect();
        assert_eq!(lost, [false, true, false]);
        assert!(!is_lost(&fourth));

        // A dropped slot is free: the next connection closes no other.
        drop(places.remove(2));
        let (_fifth, fifth) = connections.enter(duplex(64).0, STALL);
        assert!(!is_lost(&places[0]) && !is_lost(&fourth) && !is_lost(&fifth));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_nothing_is_cut_off_and_one_that_reads_slowly_is_not() {
        let connections = Connections::new(3);
        let (near, mut far) = duplex(16);
        let (mut watched, _place) = connections.enter(near, STALL);
        let writing = tokio::spawn(async move { watched.write_all(&[b'x'; 64]).await });
        for _ in 0..2 {
            tokio::time::sleep(STALL / 2).await;
            far.read_exact(&mut [0; 16]).await.unwrap();
        }
        let error = writing.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
