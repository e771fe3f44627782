//! A client of the broker's management API, for the facts that AMQP does not show: those of `tidegate check --broker`, and
//! what the consumers of a queue hold.
//!
//! Only reads. Callers own the meaning of the answers.

mod holdings;

use std::{io, path::Path, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use http_body_util::Full;
use hyper::{Request, StatusCode, body::Bytes, header};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::time;
use url::Url;

use crate::exchange::{client, exchange};
use tidegate::{config::BrokerUrl, decide::QueueName, runner::BoxError};

/// Even a busy broker answers within a second or two.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer that is read: the page of one queue has a few KiB, and a line of the list of channels 200 bytes.
const ANSWER_BYTES: usize = 16 * 1024 * 1024;
const DEFAULT_PORT: u16 = 15672;
const DEFAULT_TLS_PORT: u16 = 15671;

/// The API did not answer. The error contains no credentials.
#[derive(Debug, Error)]
pub(crate) enum ManagementError {
    #[error("use {0} as a URL")]
    Url(BrokerUrl),
    #[error("read the authorities in {}", .0.display())]
    Authorities(std::path::PathBuf, #[source] BoxError),
    #[error("set up TLS")]
    Tls(#[source] rustls::Error),
    #[error("communicate with it")]
    Talk(#[source] BoxError),
    #[error("get an answer within {} s", TIMEOUT.as_secs())]
    Timeout,
    #[error("log in: the user needs the tag management, monitoring or administrator")]
    Refused(StatusCode),
    #[error("get a valid answer: it answered {0}")]
    Status(StatusCode),
    #[error("read its answer")]
    Answer(#[source] serde_json::Error),
}

/// The API's address, the user, and the vhost.
pub(crate) struct Management {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    /// Scheme, host, port and the path before `/api`.
    base: String,
    authorization: String,
    vhost: String,
    user: String,
}

impl Management {
    /// The API at `url`, for the vhost of `broker`. Uses the user of `broker`, unless `url` has its own user. `ca` is a
    /// file with authorities to trust in addition to the system's.
    pub(crate) fn new(
        url: &BrokerUrl,
        broker: &BrokerUrl,
        ca: Option<&Path>,
    ) -> Result<Self, ManagementError> {
        let parse = |url: &BrokerUrl| {
            Url::parse(url.expose().trim()).map_err(|_| ManagementError::Url(url.clone()))
        };
        let (api, amqp) = (parse(url)?, parse(broker)?);
        let host = api.host_str().ok_or(ManagementError::Url(url.clone()))?;
        let who = if api.username().is_empty() {
            &amqp
        } else {
            &api
        };
        let credentials = match credentials(who) {
            (user, _) if user.is_empty() => "guest:guest".to_owned(),
            (user, password) => format!("{user}:{password}"),
        };
        // The same rule as in AMQP clients: no path or an empty path means the default vhost.
        let vhost = match amqp.path().strip_prefix('/') {
            None | Some("") => "/".to_owned(),
            Some(vhost) => decoded(vhost),
        };
        let (scheme, default_port) = match api.scheme() {
            "https" => ("https", DEFAULT_TLS_PORT),
            _ => ("http", DEFAULT_PORT),
        };
        let port = port(url).unwrap_or(default_port);
        let path = api.path().trim_end_matches('/');
        let tls = match scheme {
            "https" => tls(ca)?,
            // TLS is not used, so the system's store is not read.
            _ => tls_with(RootCertStore::empty())?,
        };
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .build();
        Ok(Self {
            client: client(connector),
            base: format!("{scheme}://{host}:{port}{path}"),
            authorization: format!("Basic {}", STANDARD.encode(credentials)),
            vhost,
            user: match credentials_user(&amqp) {
                user if user.is_empty() => "guest".to_owned(),
                user => user,
            },
        })
    }

    /// The facts about a queue. `None` if it does not exist.
    pub(crate) async fn queue<T: DeserializeOwned>(
        &self,
        queue: &QueueName,
    ) -> Result<Option<T>, ManagementError> {
        let (vhost, queue) = (encoded(&self.vhost), encoded(queue.as_str()));
        self.get(&format!("/api/queues/{vhost}/{queue}")).await
    }

    /// The permissions of the user in the broker's URL. `None` if only an administrator may read them.
    pub(crate) async fn permissions<T: DeserializeOwned>(
        &self,
    ) -> Result<Option<T>, ManagementError> {
        let (vhost, user) = (encoded(&self.vhost), encoded(&self.user));
        match self.get(&format!("/api/permissions/{vhost}/{user}")).await {
            Err(ManagementError::Refused(_)) => Ok(None),
            answer => answer,
        }
    }

    /// All channels of the vhost, with what a caller needs to know of each.
    async fn channels<T: DeserializeOwned>(&self) -> Result<Vec<T>, ManagementError> {
        let vhost = encoded(&self.vhost);
        let columns = "name,messages_unacknowledged,connection_details";
        let path = format!("/api/vhosts/{vhost}/channels?columns={columns}");
        Ok(self.get(&path).await?.unwrap_or_default())
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, ManagementError> {
        let talk = |error: BoxError| ManagementError::Talk(error);
        let request = Request::get(format!("{}{path}", self.base))
            .header(header::AUTHORIZATION, &self.authorization)
            .body(Full::default())
            .map_err(|error| talk(error.into()))?;
        let asked = exchange(&self.client, request, ANSWER_BYTES);
        let (status, body) = time::timeout(TIMEOUT, asked)
            .await
            .map_err(|_| ManagementError::Timeout)?
            .map_err(talk)?;
        match status {
            StatusCode::NOT_FOUND => Ok(None),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Err(ManagementError::Refused(status))
            }
            status if status.is_success() => {
                let answer = serde_json::from_slice(&body).map_err(ManagementError::Answer)?;
                Ok(Some(answer))
            }
            status => Err(ManagementError::Status(status)),
        }
    }
}

/// The trusted authorities: the system's, and those of a file.
fn tls(ca: Option<&Path>) -> Result<ClientConfig, ManagementError> {
    let mut roots = RootCertStore::empty();
    // A missing system certificate is reported when a connection needs it.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = ca {
        let failed = |error: BoxError| ManagementError::Authorities(path.to_owned(), error);
        let mut count = 0;
        for certificate in CertificateDer::pem_file_iter(path).map_err(|e| failed(e.into()))? {
            let certificate = certificate.map_err(|error| failed(error.into()))?;
            roots
                .add(certificate)
                .map_err(|error| failed(error.into()))?;
            count += 1;
        }
        if count == 0 {
            return Err(failed(io::Error::other("it holds no certificate").into()));
        }
    }
    tls_with(roots)
}

fn tls_with(roots: RootCertStore) -> Result<ClientConfig, ManagementError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(ManagementError::Tls)?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// The port in the URL. An http URL drops the port if it is 80, so the URL is parsed with another scheme.
fn port(url: &BrokerUrl) -> Option<u16> {
    let (_, rest) = url.expose().trim().split_once(':')?;
    Url::parse(&format!("management:{rest}")).ok()?.port()
}

fn credentials(url: &Url) -> (String, String) {
    let password = url.password().unwrap_or_default();
    (credentials_user(url), decoded(password))
}

fn credentials_user(url: &Url) -> String {
    decoded(url.username())
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn asks_as_the_user_of_the_broker_url_unless_another_is_given() {
        let broker = BrokerUrl::new("amqp://job%40s:pass%2fword@broker/a%2fb");
        for (url, who, base) in [
            (
                "http://broker:8080/rabbit/",
                "job@s:pass/word",
                "http://broker:8080/rabbit",
            ),
            (
                "http://watch:dog@broker",
                "watch:dog",
                "http://broker:15672",
            ),
            (
                "http://watch:dog@broker:80/rabbit",
                "watch:dog",
                "http://broker:80/rabbit",
            ),
            (
                "https://watch:dog@broker",
                "watch:dog",
                "https://broker:15671",
            ),
            (
                "https://watch:dog@[::1]:443",
                "watch:dog",
                "https://[::1]:443",
            ),
        ] {
            let api = Management::new(&BrokerUrl::new(url), &broker, None).unwrap();
            let expected = format!("Basic {}", STANDARD.encode(who));
            assert_eq!(
                (api.authorization.as_str(), api.base.as_str()),
                (expected.as_str(), base),
                "{url}"
            );
            assert_eq!((api.vhost.as_str(), api.user.as_str()), ("a/b", "job@s"));
        }
        let plain = BrokerUrl::new("amqp://localhost");
        let api = Management::new(&BrokerUrl::new("http://localhost"), &plain, None).unwrap();
        let guest = format!("Basic {}", STANDARD.encode("guest:guest"));
        assert_eq!((api.authorization, api.vhost), (guest, "/".to_owned()));
    }

    /// A management API with two answers behind TLS, and the file of the authority that signed its certificate.
    fn secured(dir: &Path) -> (u16, std::path::PathBuf) {
        use std::io::{Read as _, Write as _};

        use rustls::pki_types::PrivateKeyDer;

        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca = params.self_signed(&key).unwrap();
        let issuer = rcgen::Issuer::new(params, key);
        let ca_file = dir.join("ca.pem");
        std::fs::write(&ca_file, ca.pem()).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let leaf = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        let leaf = leaf.signed_by(&key, &issuer).unwrap();
        let chain = vec![leaf.der().clone()];
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let config = Arc::new(config);
        let listener = std::net::TcpListener::bind("localhost:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in listener.incoming().take(2) {
                let connection = rustls::ServerConnection::new(config.clone()).unwrap();
                let mut stream = rustls::StreamOwned::new(connection, stream.unwrap());
                let mut asked = [0; 4096];
                // A client that does not trust our certificate sends an alert instead.
                if stream.read(&mut asked).is_ok() {
                    let body = r#"{"configure": ".*", "write": ".*", "read": ".*"}"#;
                    let length = body.len();
                    let answer =
                        format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
                    stream.write_all(answer.as_bytes()).unwrap();
                    stream.flush().unwrap();
                }
            }
        });
        (port, ca_file)
    }

    #[tokio::test]
    async fn over_tls_it_asks_only_a_server_with_a_trusted_certificate() {
        let dir = tempfile::tempdir().unwrap();
        let (port, ca) = secured(dir.path());
        let url = BrokerUrl::new(format!("https://localhost:{port}"));
        let broker = BrokerUrl::new("amqps://localhost");
        let stranger = Management::new(&url, &broker, None).unwrap();
        let error = stranger.permissions::<Value>().await.unwrap_err();
        assert!(matches!(error, ManagementError::Talk(_)), "{error:?}");
        let api = Management::new(&url, &broker, Some(&ca)).unwrap();
        assert!(api.permissions::<Value>().await.unwrap().is_some());
    }
}
