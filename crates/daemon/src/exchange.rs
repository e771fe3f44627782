//! One request and its answer, over any connector.

use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, StatusCode, body::Bytes};
use hyper_util::{
    client::legacy::{Client, connect::Connect},
    rt::TokioExecutor,
};

use tidegate::runner::BoxError;

/// A client that keeps no idle connections: a command sends one or two requests, and ends.
pub(crate) fn client<C: Connect + Clone>(connector: C) -> Client<C, Full<Bytes>> {
    Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(0)
        .build(connector)
}

/// Sends a request, and reads the answer up to a limit in bytes.
pub(crate) async fn exchange<C>(
    client: &Client<C, Full<Bytes>>,
    request: Request<Full<Bytes>>,
    most: usize,
) -> Result<(StatusCode, Bytes), BoxError>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let response = client.request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), most).collect().await?;
    Ok((status, body.to_bytes()))
}
