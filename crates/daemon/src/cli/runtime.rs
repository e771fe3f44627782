//! The runtime of a command.

use anyhow::Context;

use crate::output::{CommandFailure, Exit};

/// Runs a command to its end.
pub(super) fn block_on<T>(work: impl Future<Output = T>) -> Result<T, CommandFailure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the runtime")
        .map_err(|error| CommandFailure::new(Exit::Unexpected, error))?;
    let done = runtime.block_on(work);
    // The process ends now. lapin's own thread may be waiting for a task. If the runtime ended first, that thread would
    // panic and print this on standard error.
    std::mem::forget(runtime);
    Ok(done)
}
