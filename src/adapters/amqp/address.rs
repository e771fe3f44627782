//! The broker's addresses and credentials: makes one connection attempt.

use std::{
    fmt, io,
    net::{Shutdown, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use lapin::{
    AsyncTcpStream, Connection, ConnectionProperties,
    tcp::AMQPUriTcpExt,
    uri::{AMQPScheme, AMQPUri},
};
use tokio::time;

use super::{
    error::classify,
    tls,
    wire::{self, FRAME_MAX, Wire, WireRuntime},
};
use crate::{
    config::{BrokerSettings, TlsSettings},
    queue::{QueueError, QueueErrorKind},
};
use tidegate_core::text::escaped_chain;

/// Time for one attempt, from name resolution to the end of the handshake. RabbitMQ delays the answer to a refused
/// login by a second or more.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The same if there is another node to try.
const NODE_TIMEOUT: Duration = Duration::from_secs(3);

const OPERATION: &str = "connect to the broker";

/// In seconds. A silent connection is detected after two intervals.
const HEARTBEAT: u16 = 10;

/// The addresses of the broker's nodes with their credentials, which are never printed.
pub(super) struct Address {
    /// Never empty.
    nodes: Vec<AMQPUri>,
    /// Index of the node that is tried first. One for all connections, so that they are on one node where that is
    /// possible. Written when a node does not answer or a connection is lost, read by each attempt.
    first: AtomicUsize,
    tls: TlsSettings,
}

/// A node to which a connection was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    index: usize,
    /// Host and port.
    pub(super) name: String,
}

impl Address {
    /// # Errors
    /// A URL is not valid for AMQP. The error contains none of its text, because a password could be anywhere in it.
    pub(super) fn new(settings: &BrokerSettings) -> Result<Self, QueueError> {
        let urls = std::iter::once(&settings.url).chain(&settings.others);
        Ok(Self {
            nodes: urls
                .map(|url| parsed(url.expose().trim()))
                .collect::<Result<_, _>>()?,
            first: AtomicUsize::new(0),
            tls: settings.tls.clone(),
        })
    }

    /// Makes one connection attempt on each node until one answers, with a name that operators see at the broker.
    ///
    /// # Errors
    /// No node answers. The error has the cause of each.
    ///
    /// # Cancel-safety
    /// Cancel-safe: the socket is shut down, so lapin's thread for it ends.
    pub(super) async fn connect(
        &self,
        role: &str,
    ) -> Result<(Connection, SocketShutdown, Node), QueueError> {
        let count = self.nodes.len();
        let within = match count {
            1 => CONNECT_TIMEOUT,
            _ => NODE_TIMEOUT,
        };
        let first = self.first.load(Ordering::Relaxed);
        let mut failures = Vec::new();
        for index in (0..count).map(|step| (first + step) % count) {
            let uri = &self.nodes[index];
            let name = name(uri);
            let error = match self.connect_to(uri, role, within).await {
                Ok((connection, shutdown)) => {
                    return Ok((connection, shutdown, Node { index, name }));
                }
                Err(error) => error,
            };
            self.leave(index);
            failures.push((name, error));
        }
        let all = |failures: &[(String, QueueError)]| {
            let each = failures.iter().map(|(name, error)| {
                let cause = error.source.as_deref().map(|cause| escaped_chain(cause));
                format!("{name}: {}", cause.unwrap_or_else(|| error.to_string()))
            });
            each.collect::<Vec<_>>().join("; ")
        };
        let why = all(&failures);
        let (_, last) = failures.pop().expect("there is a node");
        Err(match count {
            1 => last,
            _ => QueueError::new(last.kind, OPERATION).with_source(why),
        })
    }

    /// The connection to this node was lost: the next node is tried first.
    pub(super) fn lost(&self, node: &Node) {
        self.leave(node.index);
    }

    /// The node after this one is tried first, unless another connection has left it already.
    fn leave(&self, index: usize) {
        let next = (index + 1) % self.nodes.len();
        // Fails if another connection was faster.
        let _ = self
            .first
            .compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    async fn connect_to(
        &self,
        uri: &AMQPUri,
        role: &str,
        within: Duration,
    ) -> Result<(Connection, SocketShutdown), QueueError> {
        let properties = ConnectionProperties::default()
            .with_connection_name(format!("tidegate {role}").into())
            .with_client_property("product".into(), "tidegate".into())
            .with_client_property("version".into(), env!("CARGO_PKG_VERSION").into());
        let runtime = wire::runtime();
        let below =
            lapin::runtime::default_runtime().map_err(|error| classify(OPERATION, error))?;
        let secure = match uri.scheme {
            AMQPScheme::AMQP => None,
            AMQPScheme::AMQPS => Some(tls::connector(&self.tls).await?),
        };
        let shutdown = SocketShutdown::default();
        let armed = shutdown.clone().shut_on_drop();
        let socket = shutdown.clone();
        let attempt = Connection::connector(
            uri.clone(),
            runtime,
            async move |uri: AMQPUri, _: async_rs::Runtime<WireRuntime>| {
                // lapin runs this on its own thread, which must end even if this future is dropped.
                let open = async {
                    let plain = AMQPUri {
                        scheme: AMQPScheme::AMQP,
                        ..uri.clone()
                    };
                    let stream = plain.connect_async(&below).await?;
                    if let AsyncTcpStream::Plain(stream) = &stream {
                        socket.insert(stream.get_ref())?;
                    }
                    let stream = match &secure {
                        None => stream,
                        Some(connector) => {
                            stream.into_rustls(connector, &uri.authority.host).await?
                        }
                    };
                    Ok(AsyncTcpStream::Plain(Wire::new(
                        stream,
                        uri.query.frame_max,
                    )))
                };
                let opened = time::timeout(within, open).await;
                let opened: io::Result<_> = opened.unwrap_or_else(|_| Err(no_answer(within)));
                opened.map_err(lapin::Error::from)
            },
            properties,
        );
        let connection = match time::timeout(within, attempt).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return Err(classify(OPERATION, error)),
            Err(_) => {
                let error = QueueError::new(QueueErrorKind::Timeout, OPERATION);
                return Err(error.with_source(no_answer(within)));
            }
        };
        armed.disarm();
        Ok((connection, shutdown))
    }

    /// The node that is tried first. While there is a connection, it is the connection's node.
    pub(super) fn uri(&self) -> &AMQPUri {
        &self.nodes[self.first.load(Ordering::Relaxed)]
    }

    pub(super) fn tls(&self) -> &TlsSettings {
        &self.tls
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes: Vec<String> = self.nodes.iter().map(name).collect();
        f.debug_struct("Address")
            .field("nodes", &nodes)
            .field("vhost", &self.nodes[0].vhost)
            .finish_non_exhaustive()
    }
}

/// Host and port, without credentials.
fn name(uri: &AMQPUri) -> String {
    let (host, port) = (&uri.authority.host, uri.authority.port);
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

fn parsed(text: &str) -> Result<AMQPUri, QueueError> {
    let unreadable = || QueueError::new(QueueErrorKind::Other, "read the broker's url");
    let mut uri: AMQPUri = text.parse().map_err(|_| unreadable())?;
    // The AMQP parser does not recognise an IPv6 address as a host, and would connect to localhost instead.
    let url = url::Url::parse(text).map_err(|_| unreadable())?;
    if let Some(url::Host::Ipv6(address)) = url.host() {
        uri.authority.host = address.to_string();
    }
    uri.query.heartbeat.get_or_insert(HEARTBEAT);
    // lapin allocates memory for 64 frames at once, before any answer. 0 lets the broker choose, and that value is
    // limited when it arrives.
    if let Some(frame_max) = &mut uri.query.frame_max
        && *frame_max > FRAME_MAX
    {
        tracing::warn!(
            frame_max = *frame_max,
            bound = FRAME_MAX,
            "the broker's url asks for frames above the limit: the limit is used instead"
        );
        *frame_max = FRAME_MAX;
    }
    Ok(uri)
}

/// The broker was silent for this long.
pub(super) fn no_answer(within: Duration) -> io::Error {
    let why = format!("no answer within {} s", within.as_secs());
    io::Error::new(io::ErrorKind::TimedOut, why)
}

/// A second handle to a connection's socket. It shuts the socket down when a close through lapin cannot work: the peer
/// never answers the handshake, or the connection is blocked, so that lapin does not even write `connection.close`.
#[derive(Clone, Default)]
pub(super) struct SocketShutdown(Arc<Mutex<SocketHandle>>);

#[derive(Default)]
struct SocketHandle {
    stream: Option<TcpStream>,
    /// `shut_down` was called. A socket that opens later is not used.
    is_shut: bool,
}

impl SocketShutdown {
    fn insert(&self, stream: &tokio::net::TcpStream) -> io::Result<()> {
        use std::os::fd::AsFd;
        let stream = TcpStream::from(stream.as_fd().try_clone_to_owned()?);
        let mut socket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if socket.is_shut {
            return Err(io::ErrorKind::TimedOut.into());
        }
        socket.stream = Some(stream);
        Ok(())
    }

    /// Shuts the socket down. Data that lapin has not yet written is lost.
    pub(super) fn shut_down(&self) {
        let mut socket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        socket.is_shut = true;
        if let Some(stream) = socket.stream.take() {
            // Fails only if the socket is already shut down.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Shuts the socket down when the guard is dropped.
    pub(super) fn shut_on_drop(self) -> ShutOnDrop {
        ShutOnDrop(Some(self))
    }
}

impl fmt::Debug for SocketShutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SocketShutdown")
    }
}

pub(super) struct ShutOnDrop(Option<SocketShutdown>);

impl ShutOnDrop {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for ShutOnDrop {
    fn drop(&mut self) {
        if let Some(shutdown) = self.0.take() {
            shutdown.shut_down();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::BrokerUrl;

    fn address(url: &str) -> Result<Address, QueueError> {
        Address::new(&BrokerUrl::new(url).into())
    }

    #[test]
    fn an_ipv6_host_is_not_taken_for_localhost() {
        let address = address("amqp://[2001:db8::7]:5673/%2f").expect("a good url");
        assert_eq!(address.uri().authority.host, "2001:db8::7");
        assert_eq!(address.uri().authority.port, 5673);
        assert_eq!(name(address.uri()), "[2001:db8::7]:5673");
    }

    #[test]
    fn heartbeats_are_asked_for_unless_the_url_says_how_often() {
        let ours = address("amqp://h").expect("a good url");
        assert_eq!(ours.uri().query.heartbeat, Some(10));
        let theirs = address("amqp://h?heartbeat=30").expect("a good url");
        assert_eq!(theirs.uri().query.heartbeat, Some(30));
    }

    #[test]
    fn frames_of_any_size_in_the_url_take_no_more_memory_than_the_bound() {
        for (asked, used) in [
            ("", None),
            ("?frame_max=0", Some(0)),
            ("?frame_max=8192", Some(8192)),
            ("?frame_max=1048577", Some(FRAME_MAX)),
            ("?frame_max=4294967295", Some(FRAME_MAX)),
        ] {
            let address = address(&format!("amqp://h{asked}")).expect("a good url");
            assert_eq!(address.uri().query.frame_max, used, "{asked}");
        }
        assert!(address("amqp://h?frame_max=4294967296").is_err());
    }

    /// In paused time, so it waits no longer than it takes to notice that nothing else happens.
    #[tokio::test(start_paused = true)]
    async fn says_how_long_it_waited_for_a_node_that_accepts_and_is_silent() {
        let silent = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").expect("a port"));
        let [one, other] = silent.each_ref().map(|listener| {
            let address = listener.local_addr().expect("an address");
            (
                address.to_string(),
                BrokerUrl::new(format!("amqp://{address}")),
            )
        });
        let mut settings = BrokerSettings::from(one.1);
        let shown = async |settings: &BrokerSettings| {
            let address = Address::new(settings).expect("good urls");
            let error = address.connect("test").await.expect_err("nobody answers");
            escaped_chain(&error)
        };
        let alone = shown(&settings).await;
        assert!(alone.ends_with("no answer within 10 s"), "{alone}");
        settings.others = vec![other.1];
        let both = shown(&settings).await;
        for node in [&one.0, &other.0] {
            let said = both.split("; ").any(|part| {
                part.contains(&format!("{node}: ")) && part.ends_with("no answer within 3 s")
            });
            assert!(said, "{node} in {both}");
        }
    }

    #[test]
    fn nothing_shows_a_password() {
        for url in ["amqp://u:hunter2@h:99999/", "hunter2", "amqp:hunter2@h"] {
            let error = address(url).expect_err("a bad url");
            let shown = format!(
                "{error} {error:?} {:?}",
                std::error::Error::source(&error).map(ToString::to_string)
            );
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        let good = address("amqp://u:hunter2@h").expect("a good url");
        assert!(!format!("{good:?}").contains("hunter2"));
    }

    #[test]
    fn a_node_that_was_left_is_tried_last_and_once_for_all_connections() {
        let mut settings = BrokerSettings::from(BrokerUrl::new("amqp://a"));
        settings.others = ["amqp://b", "amqp://c"].map(BrokerUrl::new).into();
        let address = Address::new(&settings).expect("good urls");
        let first = || address.uri().authority.host.as_str();
        assert_eq!(first(), "a");
        let node = |index, name: &str| Node {
            index,
            name: name.to_owned(),
        };
        // Three connections are lost at once.
        for _ in 0..3 {
            address.lost(&node(0, "a:5672"));
        }
        assert_eq!(first(), "b");
        address.lost(&node(1, "b:5672"));
        address.lost(&node(2, "c:5672"));
        assert_eq!(first(), "a");
    }

    #[tokio::test]
    async fn an_attempt_tries_each_node_once_and_tells_the_cause_of_each() {
        // Reserved ports: nobody listens.
        let mut settings = BrokerSettings::from(BrokerUrl::new("amqp://u:hunter2@127.0.0.1:1"));
        settings.others = vec![BrokerUrl::new("amqp://u:hunter2@127.0.0.1:2")];
        let address = Address::new(&settings).expect("good urls");
        let error = address
            .connect("test")
            .await
            .map(drop)
            .expect_err("no broker");
        let shown = escaped_chain(&error);
        let at = |node: &str| shown.matches(node).count();
        assert_eq!(
            (at("127.0.0.1:1: "), at("127.0.0.1:2: ")),
            (1, 1),
            "{shown}"
        );
        assert!(!shown.contains("hunter2"), "{shown}");
        assert_eq!(address.uri().authority.port, 1);
    }
}
