//! Makes sure that the engine has the image.

use std::{borrow::Cow, time::Duration};

use bollard::{Docker, query_parameters::CreateImageOptions};
use futures_util::StreamExt as _;
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use super::{
    Pull,
    engine::{EngineError, EngineErrorKind, LONG},
};
use crate::runner::StartError;

/// Shortest time between two pulls with `always`. Registries limit pulls, and there may be many jobs.
const FRESH: Duration = Duration::from_secs(600);

/// How long a pull may make no progress.
const STALLED: Duration = Duration::from_secs(300);

/// The image of a pool.
#[derive(Debug)]
pub(super) struct Image {
    name: String,
    pull: Pull,
    /// The image is not checked before this instant. The first task that needs the image pulls it. The others wait for
    /// the result.
    sure_until: Mutex<Option<Instant>>,
}

impl Image {
    pub(super) fn new(name: &str, pull: Pull) -> Self {
        Self {
            name: name.to_owned(),
            pull,
            sure_until: Mutex::new(None),
        }
    }

    /// Makes sure that the engine has the image, within the pool's `pull` setting.
    ///
    /// # Errors
    /// The engine does not have the image, and the image cannot be pulled.
    ///
    /// # Cancel-safety
    /// Cancel-safe: a pull is cancelled.
    pub(super) async fn ensure(&self, docker: &Docker) -> Result<(), StartError> {
        let mut sure_until = self.sure_until.lock().await;
        if sure_until.is_some_and(|until| Instant::now() < until) {
            return Ok(());
        }
        let sure_for = match self.pull {
            // If the image is missing, the creation of the container reports this.
            Pull::Never => LONG,
            Pull::Missing => {
                if !self.is_there(docker).await? {
                    self.pull(docker)
                        .await
                        .map_err(|error| self.failed(error))?;
                }
                LONG
            }
            Pull::Always => {
                if let Err(error) = self.pull(docker).await {
                    // If the registry is unreachable, jobs still run with the image that the engine has.
                    if !self.is_there(docker).await? {
                        return Err(self.failed(error));
                    }
                    tracing::warn!(image = self.name, %error, "image not pulled; the engine's present image is used");
                }
                FRESH
            }
        };
        *sure_until = Some(Instant::now() + sure_for);
        Ok(())
    }

    /// The engine did not have the image when a container was created.
    pub(super) async fn forget(&self) {
        *self.sure_until.lock().await = None;
    }

    async fn is_there(&self, docker: &Docker) -> Result<bool, StartError> {
        match docker
            .inspect_image(&self.name)
            .await
            .map_err(EngineError::from)
        {
            Ok(_) => Ok(true),
            Err(error) if error.kind == EngineErrorKind::NotFound => Ok(false),
            Err(error) => Err(error.into_start_error(format!("look for the image {}", self.name))),
        }
    }

    async fn pull(&self, docker: &Docker) -> Result<(), EngineError> {
        tracing::info!(image = self.name, "pulling an image");
        let options = CreateImageOptions {
            from_image: Some(tagged(&self.name).into_owned()),
            ..CreateImageOptions::default()
        };
        // A slow pull is allowed. A pull without any progress is not.
        let docker = docker.clone().with_timeout(LONG);
        let mut progress = docker.create_image(Some(options), None, None);
        loop {
            match timeout(STALLED, progress.next()).await {
                Ok(Some(step)) => step.map(drop)?,
                Ok(None) => return Ok(()),
                Err(_) => {
                    return Err(EngineError::new(
                        EngineErrorKind::Refused,
                        "the pull makes no progress",
                    ));
                }
            }
        }
    }

    fn failed(&self, error: EngineError) -> StartError {
        error.into_start_error(format!("pull the image {}", self.name))
    }
}

/// The name with a tag. Without a tag an engine pulls all tags.
fn tagged(name: &str) -> Cow<'_, str> {
    let last = name.rsplit('/').next().unwrap_or(name);
    match last.contains([':', '@']) {
        true => name.into(),
        false => format!("{name}:latest").into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pulls_one_image_and_not_all_that_have_its_name() {
        for (name, expected) in [
            ("thumbs", "thumbs:latest"),
            ("thumbs:1", "thumbs:1"),
            ("host:5000/a/thumbs", "host:5000/a/thumbs:latest"),
            ("host:5000/a/thumbs:1", "host:5000/a/thumbs:1"),
            ("thumbs@sha256:00", "thumbs@sha256:00"),
        ] {
            assert_eq!(tagged(name), expected);
        }
    }
}
