//! The stream that lapin reads and writes.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use async_rs::{
    Runtime, Tokio,
    traits::Reactor,
    util::{DummyIO, RuntimeParts},
};
use futures_util::{
    Stream,
    io::{AsyncRead, AsyncWrite},
};
use lapin::AsyncTcpStream;

use super::{FrameAction, IncomingFrames, OutgoingFrames};

/// Largest number of bytes taken from lapin at a time if they are not written unchanged.
const CHUNK: usize = 64 << 10;

/// A stream whose frames are checked in both directions. With TLS it is the layer above TLS.
#[derive(Debug)]
pub struct Wire<S> {
    stream: S,
    incoming: IncomingFrames,
    /// Bytes to pass on without a check.
    pass: usize,
    /// The start of a frame, kept until all of it has arrived.
    held: Vec<u8>,
    /// The length that `held` must reach.
    wanted: usize,
    /// Bytes that were read but not checked: they follow a replaced frame.
    behind: Buffer,
    /// Bytes that lapin reads before all others.
    ready: Buffer,
    outgoing: OutgoingFrames,
    /// Bytes to write to the broker before all others.
    unsent: Buffer,
}

/// A buffer that is read from the front.
#[derive(Debug, Default)]
struct Buffer {
    bytes: Vec<u8>,
    at: usize,
}

impl Buffer {
    fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, at: 0 }
    }

    fn left(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// Frees the memory when the last byte is taken: it is rarely needed again.
    fn advance(&mut self, bytes: usize) {
        self.at += bytes;
        if self.is_empty() {
            *self = Self::default();
        }
    }

    fn copy_to(&mut self, buf: &mut [u8], most: usize) -> usize {
        let bytes = self.left().len().min(buf.len()).min(most);
        buf[..bytes].copy_from_slice(&self.left()[..bytes]);
        self.advance(bytes);
        bytes
    }
}

impl<S> Wire<S> {
    /// Wraps `stream`. Our side asks for frames of `frame_max` bytes.
    pub fn new(stream: S, frame_max: Option<u32>) -> Self {
        Self {
            stream,
            incoming: IncomingFrames::new(frame_max),
            pass: 0,
            held: Vec::new(),
            wanted: 0,
            behind: Buffer::default(),
            ready: Buffer::default(),
            outgoing: OutgoingFrames::default(),
            unsent: Buffer::default(),
        }
    }

    /// The wrapped stream. Bytes that are not written yet are lost.
    #[cfg(test)]
    pub(super) fn into_inner(self) -> S {
        self.stream
    }

    fn look(&mut self, bytes: &[u8]) -> io::Result<FrameAction> {
        let look = self.incoming.look(bytes);
        look.map_err(|refused| io::Error::new(io::ErrorKind::InvalidData, refused))
    }

    /// Checks the first `read` bytes of `buf`, and keeps those that cannot be passed on yet. Returns how many pass.
    fn sift(&mut self, buf: &[u8], read: usize) -> io::Result<usize> {
        let mut at = self.pass.min(read);
        self.pass -= at;
        while at < read {
            match self.look(&buf[at..read])? {
                FrameAction::Pass(length) => {
                    let now = length.min(read - at);
                    at += now;
                    self.pass = length - now;
                }
                FrameAction::Wait(wanted) => {
                    self.held.extend_from_slice(&buf[at..read]);
                    self.wanted = wanted;
                    return Ok(at);
                }
                FrameAction::Replace(length, with) => {
                    self.behind = Buffer::new(buf[at + length..read].to_vec());
                    self.ready = Buffer::new(with);
                    return Ok(at);
                }
            }
        }
        Ok(read)
    }

    /// The same for bytes that were read earlier. They stay in place, so that a queue full of malformed messages is not
    /// copied once for each message.
    fn sift_behind(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.pass == 0 {
            let behind = std::mem::take(&mut self.behind);
            let look = self.look(behind.left());
            self.behind = behind;
            match look? {
                FrameAction::Pass(length) => self.pass = length,
                FrameAction::Wait(wanted) => {
                    self.held.extend_from_slice(self.behind.left());
                    self.wanted = wanted;
                    self.behind = Buffer::default();
                    return Ok(0);
                }
                FrameAction::Replace(length, with) => {
                    self.behind.advance(length);
                    self.ready = Buffer::new(with);
                    return Ok(0);
                }
            }
        }
        let now = self.behind.copy_to(buf, self.pass);
        self.pass -= now;
        Ok(now)
    }
}

impl<S: AsyncRead + Unpin> Wire<S> {
    /// Reads until a frame is complete. `false` at the end of the stream.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        while self.held.len() < self.wanted {
            // In steps, because the peer may claim a size that it never sends.
            let begin = self.held.len();
            let most = self.wanted.min(begin + CHUNK);
            self.held.resize(most, 0);
            let read = Pin::new(&mut self.stream).poll_read(cx, &mut self.held[begin..]);
            let got = match &read {
                Poll::Ready(Ok(read)) => *read,
                _ => 0,
            };
            self.held.truncate(begin + got);
            if ready!(read)? == 0 {
                return Poll::Ready(Ok(false));
            }
        }
        let held = std::mem::take(&mut self.held);
        match self.look(&held)? {
            FrameAction::Wait(wanted) => {
                self.wanted = wanted;
                self.held = held;
            }
            FrameAction::Pass(length) => {
                self.pass = length - held.len();
                self.ready = Buffer::new(held);
            }
            FrameAction::Replace(_, with) => self.ready = Buffer::new(with),
        }
        Poll::Ready(Ok(true))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        loop {
            if !this.ready.is_empty() {
                return Poll::Ready(Ok(this.ready.copy_to(buf, usize::MAX)));
            }
            let now = if !this.held.is_empty() {
                if !ready!(this.poll_held(cx))? {
                    return Poll::Ready(Ok(0));
                }
                0
            } else if !this.behind.is_empty() {
                this.sift_behind(buf)?
            } else {
                let read = ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
                if read == 0 {
                    return Poll::Ready(Ok(0));
                }
                this.sift(buf, read)?
            };
            if now > 0 {
                return Poll::Ready(Ok(now));
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> Wire<S> {
    fn poll_unsent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, self.unsent.left()))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unsent.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_unsent(cx))?;
        let plain = this.outgoing.plain(buf);
        if plain > 0 {
            let written = ready!(Pin::new(&mut this.stream).poll_write(cx, &buf[..plain]))?;
            this.outgoing.passed(buf, written);
            return Poll::Ready(Ok(written));
        }
        let taken = &buf[..buf.len().min(CHUNK)];
        let mut out = Vec::new();
        this.outgoing.walk(taken, &mut out);
        this.unsent = Buffer::new(out);
        // The rest is written by the next write or flush. One of them always follows.
        let _ = this.poll_unsent(cx)?;
        Poll::Ready(Ok(taken.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_unsent(cx))?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_unsent(cx))?;
        Pin::new(&mut this.stream).poll_close(cx)
    }
}

/// Lapin's tokio runtime with another stream type. Lapin offers no other way to use a stream of our own.
pub(in crate::adapters::amqp) type WireRuntime = RuntimeParts<Tokio, WireReactor>;

/// A stream as tokio makes it, with or without TLS.
type Tcp = AsyncTcpStream<<Tokio as Reactor>::TcpStream>;

/// The current tokio runtime.
///
/// # Panics
/// Panics outside a tokio runtime.
pub(in crate::adapters::amqp) fn runtime() -> Runtime<WireRuntime> {
    let tokio = Tokio::current();
    Runtime::new(RuntimeParts::new(tokio.clone(), WireReactor(tokio)))
}

/// Tokio's reactor. Lapin uses only its timers, because we give lapin a connected stream.
#[derive(Debug, Clone)]
pub(in crate::adapters::amqp) struct WireReactor(Tokio);

impl Reactor for WireReactor {
    type TcpStream = Wire<Tcp>;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: io::Read + io::Write + Send + 'static>(
        &self,
        _socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        Err::<DummyIO, _>(io::ErrorKind::Unsupported.into())
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.0.sleep(duration)
    }

    fn interval(&self, duration: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(duration)
    }

    fn tcp_connect_addr(
        &self,
        _address: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        std::future::ready(Err(io::ErrorKind::Unsupported.into()))
    }
}
