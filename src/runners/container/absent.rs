//! Replaces the manager if the engine's client is not built in.

use async_trait::async_trait;

use crate::runner::{CreateRunner, Runner, RunnerManager, StartError};

/// Starts nothing, and reports the missing feature. The configuration is still read, so that it can be checked on any
/// machine.
#[derive(Debug)]
pub(super) struct NotBuiltIn;

#[async_trait]
impl RunnerManager for NotBuiltIn {
    fn kind(&self) -> &'static str {
        "container"
    }

    async fn create(&self, _: CreateRunner) -> Result<Box<dyn Runner>, StartError> {
        Err(StartError {
            what:
                "start a container: tidegate's feature `container` is not built into this program"
                    .to_owned(),
            source: None,
        })
    }
}
