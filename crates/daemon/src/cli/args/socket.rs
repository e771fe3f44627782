//! Which supervisor a command asks.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub(in crate::cli) struct SocketArgs {
    /// Socket of the supervisor [default: from the configuration, or the standard path]
    #[arg(long, value_name = "PATH")]
    pub(in crate::cli) socket: Option<PathBuf>,
}
