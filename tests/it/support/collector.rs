//! A small OpenTelemetry collector: it takes spans over HTTP and keeps them.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, mpsc},
    thread,
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest, common::v1::any_value::Value, trace::v1::Span,
};
use prost::Message as _;

use super::daemon::DEADLINE;

/// A span, as a test looks at it.
#[derive(Debug, Clone)]
pub(crate) struct SeenSpan {
    pub(crate) span: Span,
    /// `service.name` of what has sent it.
    pub(crate) service: String,
}

impl SeenSpan {
    pub(crate) fn trace_id(&self) -> String {
        hex(&self.span.trace_id)
    }

    pub(crate) fn id(&self) -> String {
        hex(&self.span.span_id)
    }

    pub(crate) fn parent(&self) -> String {
        hex(&self.span.parent_span_id)
    }

    /// An attribute as text; empty if the span does not have it.
    pub(crate) fn attribute(&self, key: &str) -> String {
        text(
            self.span
                .attributes
                .iter()
                .find(|found| found.key == key)
                .and_then(|found| found.value.as_ref()?.value.as_ref()),
        )
    }

    pub(crate) fn operation(&self) -> String {
        self.attribute("messaging.operation.type")
    }

    /// Whether its status is an error, and its description.
    pub(crate) fn error(&self) -> Option<String> {
        let status = self.span.status.clone().unwrap_or_default();
        (status.code == 2).then_some(status.message)
    }
}

/// A collector that listens on a port of its own, until the test ends.
pub(crate) struct Collector {
    address: SocketAddr,
    spans: Arc<Mutex<Vec<SeenSpan>>>,
    /// The heads of the requests. Written by the threads that read them.
    heads: mpsc::Receiver<String>,
}

impl Collector {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let spans: Arc<Mutex<Vec<SeenSpan>>> = Arc::default();
        let (sender, heads) = mpsc::channel();
        let seen = spans.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (seen, sender) = (seen.clone(), sender.clone());
                thread::spawn(move || serve(stream.unwrap(), &seen, &sender));
            }
        });
        Self {
            address,
            spans,
            heads,
        }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The head of the next request, in lower case.
    pub(crate) fn head(&self) -> String {
        self.heads.recv_timeout(DEADLINE).unwrap()
    }

    pub(crate) fn spans(&self) -> Vec<SeenSpan> {
        self.spans.lock().unwrap().clone()
    }
}

fn serve(stream: TcpStream, spans: &Mutex<Vec<SeenSpan>>, heads: &mpsc::Sender<String>) {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let line = line.to_ascii_lowercase();
        if let Some(number) = line.strip_prefix("content-length:") {
            length = number.trim().parse().unwrap();
        }
        head.push_str(&line);
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let request = ExportTraceServiceRequest::decode(&*body).unwrap();
    for resource in request.resource_spans {
        let attributes = resource.resource.unwrap_or_default().attributes;
        let service = attributes.iter().find(|found| found.key == "service.name");
        let service = text(service.and_then(|found| found.value.as_ref()?.value.as_ref()));
        let found = resource
            .scope_spans
            .into_iter()
            .flat_map(|scope| scope.spans);
        let found = found.map(|span| SeenSpan {
            span,
            service: service.clone(),
        });
        spans.lock().unwrap().extend(found);
    }
    let _ = heads.send(head);
    let _ = reader.into_inner().write_all(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n",
    );
}

fn text(value: Option<&Value>) -> String {
    match value {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => other.map_or_else(String::new, |other| format!("{other:?}")),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
