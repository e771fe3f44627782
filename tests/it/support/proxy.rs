//! A network between a daemon and a broker that a test can break: a TCP proxy.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    runtime::Runtime,
    sync::watch,
    task::JoinSet,
};

/// What becomes of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    /// Bytes go both ways.
    Up,
    /// Nothing goes either way, and nobody is told. What was sent meanwhile arrives later, as TCP sends it again.
    Partitioned,
    /// The same, only for what the client sends.
    DeafBroker,
    /// Connections are reset, and new ones are closed at once.
    Cut,
}

/// Ends with all its connections when it is dropped.
pub(crate) struct Proxy {
    address: SocketAddr,
    /// Written by the test, read by each direction of each connection.
    network: watch::Sender<Network>,
    /// `None` only during drop.
    runtime: Option<Runtime>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // An async test may not wait for the end of a runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[derive(Clone, Copy)]
enum Direction {
    ToBroker,
    ToClient,
}

impl Proxy {
    /// A proxy to the broker at `url`.
    pub(crate) fn new(url: &str) -> Self {
        let url = url::Url::parse(url).unwrap();
        let broker = (
            url.host_str().unwrap().to_owned(),
            url.port().unwrap_or(5672),
        );
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let network = watch::Sender::new(Network::Up);
        runtime.spawn(accept(listener, broker, network.clone()));
        Self {
            address,
            network,
            runtime: Some(runtime),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same URL through this proxy.
    pub(crate) fn url(&self, url: &str) -> String {
        let mut url = url::Url::parse(url).unwrap();
        url.set_host(Some(&self.address.ip().to_string())).unwrap();
        url.set_port(Some(self.address.port())).unwrap();
        url.to_string()
    }

    pub(crate) fn set(&self, network: Network) {
        self.network.send_replace(network);
    }
}

async fn accept(
    listener: std::net::TcpListener,
    broker: (String, u16),
    network: watch::Sender<Network>,
) {
    let listener = TcpListener::from_std(listener).unwrap();
    let mut directions = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let seen = *network.borrow();
        if seen == Network::Cut {
            continue;
        }
        let Ok(server) = TcpStream::connect(&broker).await else {
            continue;
        };
        let (from_client, to_client) = client.into_split();
        let (from_broker, to_broker) = server.into_split();
        let network = || network.subscribe();
        directions.spawn(forward(
            from_client,
            to_broker,
            Direction::ToBroker,
            network(),
        ));
        directions.spawn(forward(
            from_broker,
            to_client,
            Direction::ToClient,
            network(),
        ));
    }
}

/// Forwards one direction until an end, or until the network is cut.
async fn forward(
    mut from: OwnedReadHalf,
    mut into: OwnedWriteHalf,
    direction: Direction,
    mut network: watch::Receiver<Network>,
) {
    let passes = |network: &Network| match network {
        Network::Up => true,
        Network::Partitioned => false,
        Network::DeafBroker => matches!(direction, Direction::ToClient),
        // Wakes the direction, so that it ends.
        Network::Cut => true,
    };
    let mut cut = network.clone();
    let copy = async {
        let mut buffer = [0; 16 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            if network.wait_for(passes).await.is_err() {
                return;
            }
            if into.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = copy => {}
        _ = cut.wait_for(|network| *network == Network::Cut) => {}
    }
}
