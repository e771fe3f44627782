//! What can be typed after `tidegate status`.

use clap::Args;

use super::socket::SocketArgs;
use tidegate::api::v1::Span;

#[derive(Debug, Args)]
pub(in crate::cli) struct StatusArgs {
    /// Go on until Ctrl-C: the terminal is redrawn; a pipe gets a block, or with --format json a line, for each change
    #[arg(long, short)]
    pub(in crate::cli) watch: bool,

    /// Time between two readings
    #[arg(long, value_name = "TIME", default_value = "1s", requires = "watch")]
    pub(in crate::cli) interval: Span,

    #[command(flatten)]
    pub(in crate::cli) socket: SocketArgs,
}
