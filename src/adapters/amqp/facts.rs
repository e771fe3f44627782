//! Identifies the broker by the properties of its greeting, which lapin does not expose.

use futures_util::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use lapin::{
    AsyncTcpStream,
    tcp::AMQPUriTcpExt,
    types::{AMQPValue, FieldTable, parsing::parse_field_table},
    uri::{AMQPScheme, AMQPUri},
};
use tokio::time;

use super::{
    address::{Address, CONNECT_TIMEOUT, no_answer},
    error::classify,
    tls, wire,
};
use crate::queue::{QueueError, QueueErrorKind};

const OPERATION: &str = "identify the broker";
const HEADER: &[u8] = b"AMQP\x00\x00\x09\x01";
/// A greeting is below 1 KiB. A peer that announces more is not a broker.
const GREETING_MAX: u32 = 64 * 1024;
/// Type 1 (method) on channel 0; then class 10 (connection), method 10 (start), and the protocol's version.
const METHOD_FRAME: u8 = 1;
const START: [u8; 4] = [0, 10, 0, 10];
const VERSION_BYTES: usize = 2;

/// The broker's description of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerFacts {
    /// `RabbitMQ` for a RabbitMQ broker.
    pub product: Option<String>,
    /// Its version, such as `3.10.8`.
    pub version: Option<String>,
    /// The cluster's name.
    pub cluster: Option<String>,
}

impl ServerFacts {
    /// Major and minor version, if the version is a number.
    pub fn release(&self) -> Option<(u16, u16)> {
        let mut parts = self.version.as_deref()?.split(['.', '-', '+']);
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    }
}

pub(super) async fn ask(address: &Address) -> Result<ServerFacts, QueueError> {
    let greeting = time::timeout(CONNECT_TIMEOUT, greeting(address)).await;
    let table = greeting.unwrap_or_else(|_| {
        let error = QueueError::new(QueueErrorKind::Timeout, OPERATION);
        Err(error.with_source(no_answer(CONNECT_TIMEOUT)))
    })?;
    let text = |key: &str| match table.inner().get(key) {
        Some(AMQPValue::LongString(text)) => Some(text.to_string()),
        _ => None,
    };
    Ok(ServerFacts {
        product: text("product"),
        version: text("version"),
        cluster: text("cluster_name"),
    })
}

async fn greeting(address: &Address) -> Result<FieldTable, QueueError> {
    let io = |error: std::io::Error| {
        QueueError::new(QueueErrorKind::Disconnected, OPERATION).with_source(error)
    };
    let runtime = lapin::runtime::default_runtime().map_err(|error| classify(OPERATION, error))?;
    let plain = AMQPUri {
        scheme: AMQPScheme::AMQP,
        ..address.uri().clone()
    };
    let mut stream: AsyncTcpStream<_> = plain.connect_async(&runtime).await.map_err(io)?;
    if address.uri().scheme == AMQPScheme::AMQPS {
        let connector = tls::connector(address.tls()).await?;
        let host = &address.uri().authority.host;
        stream = stream.into_rustls(&connector, host).await.map_err(io)?;
    }
    let payload = start_frame(&mut stream).await.map_err(io)?;
    let table = payload
        .strip_prefix(&START)
        .and_then(|start| start.get(VERSION_BYTES..))
        // The parser recurses, and the answer may come from an untrusted peer.
        .filter(|properties| wire::begins_with_table(properties))
        .and_then(|properties| parse_field_table(properties).ok());
    let no_broker = || QueueError::new(QueueErrorKind::Other, OPERATION);
    table.map(|(_, table)| table).ok_or_else(no_broker)
}

/// The payload of the peer's first frame.
async fn start_frame(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
) -> std::io::Result<Vec<u8>> {
    stream.write_all(HEADER).await?;
    stream.flush().await?;
    let mut head = [0; 7];
    stream.read_exact(&mut head).await?;
    let [kind, _, _, size @ ..] = head;
    let size = u32::from_be_bytes(size);
    if kind != METHOD_FRAME || size > GREETING_MAX {
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    let mut payload = vec![0; size as usize];
    stream.read_exact(&mut payload).await?;
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{BrokerSettings, BrokerUrl};
    use tidegate_core::text::escaped_chain;

    #[tokio::test(start_paused = true)]
    async fn says_how_long_it_waited_for_a_silent_broker() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("amqp://{}", silent.local_addr().expect("an address"));
        let settings = BrokerSettings::from(BrokerUrl::new(url));
        let address = Address::new(&settings).expect("a good url");
        let error = ask(&address).await.expect_err("nobody answers");
        let shown = escaped_chain(&error);
        assert!(shown.ends_with("no answer within 10 s"), "{shown}");
    }

    #[test]
    fn a_release_is_parsed_from_a_version() {
        let facts = |version: &str| ServerFacts {
            version: Some(version.to_owned()),
            ..ServerFacts::default()
        };
        assert_eq!(facts("3.10.8").release(), Some((3, 10)));
        assert_eq!(facts("4.1.0-rc.1").release(), Some((4, 1)));
        assert_eq!(facts("4.3+2.gabc").release(), Some((4, 3)));
        assert_eq!(facts("unknown").release(), None);
        assert_eq!(ServerFacts::default().release(), None);
    }
}
