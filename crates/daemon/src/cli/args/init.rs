//! The arguments of `tidegate init`.

use clap::Args;

#[derive(Debug, Args)]
pub(in crate::cli) struct InitArgs {
    /// The queue
    #[arg(long, value_name = "QUEUE")]
    pub(in crate::cli) queue: String,

    /// The pool's name [default: made from the queue's name]
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) pool: Option<String>,

    /// The broker [default: $AMQP_URL]
    #[arg(long, value_name = "URL")]
    pub(in crate::cli) url: Option<String>,

    /// Write no JSON schema for editors beside the file, and no line that names it
    #[arg(long)]
    pub(in crate::cli) no_schema: bool,

    /// The command that runs for each job, with its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(in crate::cli) command: Vec<String>,
}
