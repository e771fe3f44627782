//! Demo: a tide of jobs, and a pool that rises and falls with it.

use crate::surface::cli::{Exit, Failure};

/// Runs the demo.
///
/// # Errors
/// The tide was not what it should have been.
pub async fn run() -> Result<Exit, Failure> {
    Ok(Exit::Ok)
}
