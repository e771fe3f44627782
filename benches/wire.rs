//! The cost of checking what the broker sends: reads deliveries through the wire stream and without it. Needs no
//! broker.
//!
//!     cargo bench --bench wire
//!
//! One element is one message: method, content header and body, as RabbitMQ sends them.

use std::{
    hint::black_box,
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures_util::io::AsyncRead;
use tidegate::adapters::amqp::wire::Wire;

const MESSAGES: usize = 1_000;
/// The size of one read from a socket.
const READ: usize = 64 << 10;

/// A socket that always has data, until it ends.
struct Socket<'a>(&'a [u8]);

impl AsyncRead for Socket<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let bytes = self.0.len().min(buf.len()).min(READ);
        buf[..bytes].copy_from_slice(&self.0[..bytes]);
        self.0 = &self.0[bytes..];
        Poll::Ready(Ok(bytes))
    }
}

fn frame(out: &mut Vec<u8>, kind: u8, payload: &[u8]) {
    out.extend_from_slice(&[kind, 0, 1]);
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    out.extend_from_slice(payload);
    out.push(0xce);
}

/// A property list with delivery mode, correlation id, message id and this number of text headers.
fn list(correlation_id: &[u8], headers: usize) -> Vec<u8> {
    let mut table = Vec::new();
    for header in 0..headers {
        let name = format!("x-header-{header}");
        table.push(name.len() as u8);
        table.extend_from_slice(name.as_bytes());
        table.extend_from_slice(b"S\0\0\0\x10sixteen bytes...");
    }
    let flags: u16 = 0x1480 | if headers > 0 { 0x2000 } else { 0 };
    let mut list = flags.to_be_bytes().to_vec();
    if headers > 0 {
        list.extend_from_slice(&(table.len() as u32).to_be_bytes());
        list.extend_from_slice(&table);
    }
    list.push(2);
    for text in [correlation_id, b"7d5a3c1e-0000-4000-8000-000000000000"] {
        list.push(text.len() as u8);
        list.extend_from_slice(text);
    }
    list
}

fn deliveries(list: &[u8], body: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for tag in 0..MESSAGES as u64 {
        let mut deliver = vec![0, 60, 0, 60];
        deliver.push(20);
        deliver.extend_from_slice(b"tidegate-pool-worker");
        deliver.extend_from_slice(&tag.to_be_bytes());
        deliver.extend_from_slice(b"\0\0\x0athumbnails");
        frame(&mut out, 1, &deliver);
        let mut header = vec![0, 60, 0, 0];
        header.extend_from_slice(&(body as u64).to_be_bytes());
        header.extend_from_slice(list);
        frame(&mut out, 2, &header);
        frame(&mut out, 3, &vec![b'b'; body]);
    }
    out
}

fn drain(mut stream: impl AsyncRead + Unpin, buf: &mut [u8]) -> usize {
    let mut cx = Context::from_waker(Waker::noop());
    let mut sum = 0;
    loop {
        match Pin::new(&mut stream).poll_read(&mut cx, buf) {
            Poll::Ready(Ok(0)) => return sum,
            Poll::Ready(Ok(bytes)) => sum += bytes,
            other => panic!("{other:?}"),
        }
    }
}

fn read(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("read");
    group.throughput(Throughput::Elements(MESSAGES as u64));
    let mut buf = vec![0; 4 << 20];
    for (name, list, body) in [
        ("no headers, 100 B", list(b"c-1", 0), 100),
        ("5 headers, 1 KiB", list(b"c-1", 5), 1024),
        ("50 headers, 1 KiB", list(b"c-1", 50), 1024),
        ("5 headers, 50 KiB", list(b"c-1", 5), 50 << 10),
        ("odd: 5 headers, 1 KiB", list(b"\xff\xfe", 5), 1024),
    ] {
        let bytes = deliveries(&list, body);
        group.bench_with_input(BenchmarkId::new("bare", name), &bytes, |bencher, bytes| {
            bencher.iter(|| black_box(drain(Socket(bytes), &mut buf)));
        });
        group.bench_with_input(
            BenchmarkId::new("walked", name),
            &bytes,
            |bencher, bytes| {
                bencher.iter(|| black_box(drain(Wire::new(Socket(bytes), None), &mut buf)));
            },
        );
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).without_plots();
    targets = read
}
criterion_main!(benches);
