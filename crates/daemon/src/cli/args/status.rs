//! The arguments of `tidegate status`.

use clap::Args;

use super::socket::SocketArgs;
use tidegate::api::v1::TimeSpan;

#[derive(Debug, Args)]
pub(in crate::cli) struct StatusArgs {
    /// Continue until Ctrl-C. A terminal is redrawn. A pipe gets a new table for each change, or with --format json a
    /// line
    #[arg(long, short)]
    pub(in crate::cli) watch: bool,

    /// Time between two readings
    #[arg(long, value_name = "TIME", default_value = "1s", requires = "watch")]
    pub(in crate::cli) interval: TimeSpan,

    #[command(flatten)]
    pub(in crate::cli) socket: SocketArgs,
}
