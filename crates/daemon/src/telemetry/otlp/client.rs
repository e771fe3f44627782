//! The HTTP client of the exporter.
//!
//! The exporter's thread calls it. A separate runtime on that thread drives its connections. So a slow collector does
//! not delay the daemon, and the end of the daemon's runtime does not interrupt an export. The client also reports
//! whether the collector can be reached, because the exporter hides why a request failed.

use std::{
    fmt,
    str::FromStr as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use rustls::{ClientConfig, RootCertStore};
use tidegate::runner::BoxError;
use tokio::runtime::Runtime;
use tracing::{info, warn};

use crate::telemetry::prometheus::otlp_request;

/// Longest time for one request.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest answer that is read. An answer of a collector is a few bytes.
const ANSWER_BYTES: usize = 64 * 1024;

/// Sends requests to the collector.
pub(super) struct CollectorClient {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    runtime: Runtime,
    endpoint: String,
    /// The configured headers, which may hold credentials. Added here, because the exporter would decode `%` in them.
    headers: HeaderMap,
    /// Whether the last request failed. A collector that stays away gives one warning. Written and read by the
    /// exporter's thread.
    is_failing: AtomicBool,
}

impl fmt::Debug for CollectorClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CollectorClient").finish_non_exhaustive()
    }
}

impl CollectorClient {
    pub(super) fn new(endpoint: String, headers: &[(String, String)]) -> Result<Self, BoxError> {
        let header = |(name, value): &(String, String)| {
            let mut value = HeaderValue::from_str(value)?;
            value.set_sensitive(true);
            Ok::<_, BoxError>((HeaderName::from_str(name)?, value))
        };
        let headers: HeaderMap = headers.iter().map(header).collect::<Result<_, _>>()?;
        let mut roots = RootCertStore::empty();
        if endpoint.starts_with("https:") {
            // A missing system certificate is reported when a connection needs it.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .build();
        Ok(Self {
            // Nothing drives a connection between two batches, so none is kept.
            client: Client::builder(TokioExecutor::new())
                .pool_max_idle_per_host(0)
                .build(connector),
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?,
            endpoint,
            headers,
            is_failing: AtomicBool::new(false),
        })
    }

    async fn send(&self, mut request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let headers = self.headers.iter();
        let headers = headers.map(|(name, value)| (name.clone(), value.clone()));
        request.headers_mut().extend(headers);
        let response = self.client.request(request.map(Full::new)).await?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES).collect().await?;
        Ok(Response::from_parts(head, body.to_bytes()))
    }

    fn works(&self) {
        otlp_request(true);
        if self.is_failing.swap(false, Ordering::Relaxed) {
            info!(endpoint = self.endpoint, "sending spans again");
        }
    }

    fn fails(&self, why: &str) {
        otlp_request(false);
        if !self.is_failing.swap(true, Ordering::Relaxed) {
            warn!(
                endpoint = self.endpoint,
                error = why,
                "could not send spans to the collector; they are dropped until it takes them. Jobs are not affected"
            );
        }
    }
}

#[async_trait]
impl HttpClient for CollectorClient {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let sending = async { tokio::time::timeout(REQUEST_TIMEOUT, self.send(request)).await };
        let answer = match self.runtime.block_on(sending) {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {} s", REQUEST_TIMEOUT.as_secs()).into()),
        };
        match &answer {
            Ok(response) if response.status().is_success() => self.works(),
            Ok(response) => self.fails(&format!("the collector answers {}", response.status())),
            Err(error) => self.fails(&tidegate::run::chain(error.as_ref())),
        }
        answer
    }
}
