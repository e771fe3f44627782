//! The arguments of `record`.

use std::path::PathBuf;

use clap::Args;

use super::SocketArgs;
use tidegate::api::v1::TimeSpan;

#[derive(Debug, Args)]
pub(in crate::cli) struct RecordArgs {
    /// The pool
    pub(in crate::cli) pool: String,

    /// How long to record; Ctrl-C ends it earlier
    #[arg(long, value_name = "TIME")]
    pub(in crate::cli) duration: TimeSpan,

    /// The file to write; `-` is standard output
    #[arg(long, value_name = "FILE.csv")]
    pub(in crate::cli) output: PathBuf,

    #[command(flatten)]
    pub(in crate::cli) socket: SocketArgs,
}
