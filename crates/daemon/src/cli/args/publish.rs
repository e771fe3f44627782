//! The arguments of `tidegate publish`.

use std::path::PathBuf;

use clap::Args;

use super::load::BrokerArgs;

#[derive(Debug, Args)]
pub(in crate::cli) struct PublishArgs {
    /// The queue. The message goes through the default exchange
    pub(in crate::cli) queue: String,

    /// The file with the body; `-` is standard input
    #[arg(value_name = "FILE", default_value = "-")]
    pub(in crate::cli) file: PathBuf,

    /// A header; may be repeated
    #[arg(long, value_name = "NAME=TEXT", value_parser = header)]
    pub(in crate::cli) header: Vec<(String, String)>,

    /// The type of the body, such as application/json
    #[arg(long, value_name = "TYPE")]
    pub(in crate::cli) content_type: Option<String>,

    /// The message's id [default: a unique id]
    #[arg(long, value_name = "ID", conflicts_with = "count")]
    pub(in crate::cli) message_id: Option<String>,

    /// How many times to publish it, each time with an id of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub(in crate::cli) count: u64,

    #[command(flatten)]
    pub(in crate::cli) broker: BrokerArgs,
}

fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if (1..=255).contains(&name.len()) => {
            Ok((name.to_owned(), value.to_owned()))
        }
        _ => Err("write NAME=TEXT, with a name of at most 255 bytes".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_a_name_and_a_text() {
        let pair = |name: &str, value: &str| Ok((name.to_owned(), value.to_owned()));
        assert_eq!(header("a=b"), pair("a", "b"));
        assert_eq!(header("a=b=c"), pair("a", "b=c"));
        assert_eq!(header("a="), pair("a", ""));
        assert!(header("a").is_err());
        assert!(header("=b").is_err());
    }
}
