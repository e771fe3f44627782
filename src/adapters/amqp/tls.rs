//! Certificates for `amqps://`.
//!
//! Read at each connection attempt, so that a certificate that was renewed on disk is used from the next reconnection
//! on. The broker's certificate and name are always verified.

use std::path::{Path, PathBuf};

use lapin::tcp::{RustlsConnector, RustlsConnectorConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use crate::{
    config::TlsSettings,
    queue::{QueueError, QueueErrorKind},
};

/// A connector that trusts the system's authorities and those of `settings.ca`.
pub(super) async fn connector(settings: &TlsSettings) -> Result<RustlsConnector, QueueError> {
    let settings = settings.clone();
    // Reads files and parses a whole store of authorities, which would block a worker thread of the runtime.
    let built = tokio::task::spawn_blocking(move || build(&settings)).await;
    built.unwrap_or_else(|error| Err(failed("prepare tls", error)))
}

fn build(settings: &TlsSettings) -> Result<RustlsConnector, QueueError> {
    let mut config = match (RustlsConnectorConfig::new_with_native_certs(), &settings.ca) {
        (Ok(config), _) => config,
        // A small image may have no store. The user's own authority is then enough.
        (Err(_), Some(_)) => RustlsConnectorConfig::default(),
        (Err(error), None) => {
            return Err(failed("find the system's certificate authorities", error));
        }
    };
    if let Some(path) = &settings.ca {
        config.add_parsable_certificates(certificates(path)?);
    }
    let connector = match (&settings.cert, &settings.key) {
        (Some(cert), Some(key)) => {
            config.connector_with_single_cert(certificates(cert)?, private_key(key)?)
        }
        // The configuration refuses one without the other. A user of the library gets the error here.
        (None, None) => config.connector_with_no_client_auth(),
        _ => {
            let what = "prepare tls: a certificate and its key go together";
            return Err(QueueError::new(QueueErrorKind::Other, what));
        }
    };
    connector.map_err(|error| failed("prepare tls", error))
}

fn certificates(path: &PathBuf) -> Result<Vec<CertificateDer<'static>>, QueueError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let found: Vec<_> = read.map_err(|error| unreadable("certificates", path, error))?;
    if found.is_empty() {
        let what = format!("find a certificate in {}", path.display());
        return Err(QueueError::new(QueueErrorKind::Other, what));
    }
    Ok(found)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, QueueError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| unreadable("a private key", path, error))
}

fn unreadable(what: &str, path: &Path, error: rustls_pki_types::pem::Error) -> QueueError {
    failed(format!("read {what} from {}", path.display()), error)
}

fn failed(
    operation: impl Into<String>,
    error: impl std::error::Error + Send + Sync + 'static,
) -> QueueError {
    QueueError::new(QueueErrorKind::Other, operation).with_source(error)
}
