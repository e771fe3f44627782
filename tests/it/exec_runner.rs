//! The `exec` runner with real child processes: tests that the conformance suite cannot make for every kind.

mod ending;
mod environment;
mod left_behind;
mod pipes;
mod replies;
mod start;

use tidegate::{
    queue::Message,
    runner::{JobControl, JobEnd},
};

use crate::support::{
    exec::{MIB, failure, file, job, run, script},
    witness::Witness,
};

/// Runs a script without interference, until no process of it is left.
async fn run_script(text: &str, message: Message) -> JobEnd {
    let mut witness = Witness::new();
    let end = run(script(&witness, text), message, JobControl::default()).await;
    witness.gone().await;
    end
}
