//! What can be typed after `tidegate dead`.

use clap::{
    Args, Subcommand,
    builder::{PossibleValue, PossibleValuesParser},
};

use crate::dead::Most;
use tidegate::settle::{BROKER_REASONS, DeathCause};

#[derive(Debug, Args)]
pub(in crate::cli) struct DeadArgs {
    #[command(subcommand)]
    pub(in crate::cli) command: DeadCommand,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum DeadCommand {
    /// Show the dead letters, oldest first
    ///
    /// Id, time of death, attempts, reason, exit code or signal, size and the last error of each; never its body. The
    /// queue stays as it was, but for the mark `redelivered` on what was looked at. While a list, a retry or a purge
    /// looks at a letter, no other sees it.
    #[command(after_help = "\
Examples:
  tidegate dead list thumbnails
  tidegate dead list thumbnails --reason rejected --limit all
  tidegate dead list thumbnails --format json | jq -r '.[] | select(.exit_code == 3) | .id'")]
    List(ListArgs),

    /// Show dead letters whole: body, properties, headers, and the end of the standard error
    ///
    /// As JSON it is one object for each letter. Text that is not UTF-8 is `{"base64": "..."}` there, and escaped (\xff)
    /// for people. The queue stays as it was, as with `list`.
    #[command(after_help = "\
Examples:
  tidegate dead show thumbnails order-17
  tidegate dead show thumbnails order-17 --format json | jq -r .body")]
    Show(ShowArgs),

    /// Put dead letters back into the pool's queue, with their attempts before them
    ///
    /// All that are there when it begins, or those chosen. Each is confirmed in the queue before it leaves the dead
    /// letters: when this is killed half way none is lost, and a few may be there twice. What cannot be put back
    /// stays where it is. The message is what was first published, under its own id; its expiration, CC, BCC, user-id
    /// and x-death stay in x-tidegate-original-* headers.
    #[command(after_help = "\
Examples:
  tidegate dead retry thumbnails
  tidegate dead retry thumbnails order-17 order-18
  tidegate dead retry thumbnails --reason attempts --limit 100")]
    Retry(ChoiceArgs),

    /// Delete dead letters for good
    ///
    /// All that are there when it begins, or those chosen. Before it deletes all it asks; where there is no terminal to
    /// ask at, it wants --yes.
    #[command(after_help = "\
Examples:
  tidegate dead purge thumbnails
  tidegate dead purge thumbnails order-17
  tidegate dead purge thumbnails --reason rejected
  tidegate dead purge thumbnails --yes    all of them, in a script")]
    Purge(PurgeArgs),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct DeadLetterPlaceArgs {
    /// The pool
    pub(in crate::cli) pool: String,

    /// Queue of the dead letters, where the broker's own dead-lettering decides [default: the pool's queue with .dead]
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) queue: Option<String>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ListArgs {
    #[command(flatten)]
    pub(in crate::cli) place: DeadLetterPlaceArgs,

    /// Only those that died for this reason
    #[arg(long, value_name = "WORD", value_parser = reasons())]
    pub(in crate::cli) reason: Option<String>,

    /// At most so many, or `all`
    // What a quorum queue takes back in order.
    #[arg(long, value_name = "N", default_value = "32")]
    pub(in crate::cli) limit: Most,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ShowArgs {
    #[command(flatten)]
    pub(in crate::cli) place: DeadLetterPlaceArgs,

    /// Ids as `list` shows them, whole; every letter of such an id is shown
    #[arg(value_name = "ID", required = true)]
    pub(in crate::cli) ids: Vec<String>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ChoiceArgs {
    #[command(flatten)]
    pub(in crate::cli) place: DeadLetterPlaceArgs,

    /// Ids as `list` shows them, whole; every letter of such an id is meant [default: all letters]
    #[arg(value_name = "ID", conflicts_with_all = ["reason", "limit"])]
    pub(in crate::cli) ids: Vec<String>,

    /// Only those that died for this reason
    #[arg(long, value_name = "WORD", value_parser = reasons())]
    pub(in crate::cli) reason: Option<String>,

    /// At most so many, the oldest first
    #[arg(long, value_name = "N")]
    pub(in crate::cli) limit: Option<Most>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PurgeArgs {
    #[command(flatten)]
    pub(in crate::cli) choice: ChoiceArgs,

    /// Delete all without asking. Wanted where there is no terminal to ask at
    #[arg(long, short)]
    pub(in crate::cli) yes: bool,
}

/// The words that a letter may have for its death: a pool's, and the broker's.
fn reasons() -> PossibleValuesParser {
    let ours = DeathCause::ALL.map(|cause| {
        let help = match cause {
            DeathCause::Attempts => "all attempts were spent",
            DeathCause::Rejected => {
                "the job refused itself; or the broker had it from a consumer that did"
            }
            DeathCause::Launch => "the command behind a wrapper never started",
            DeathCause::CrashLoop => "too many unfinished deliveries",
        };
        PossibleValue::new(cause.as_str()).help(help)
    });
    let theirs = BROKER_REASONS.iter().filter_map(|word| {
        let help = match *word {
            "expired" => "by the broker: it waited beyond its time to live",
            "maxlen" => "by the broker: its queue was full",
            "delivery_limit" => "by the broker: its quorum queue had delivered it too often",
            // The one word that both have.
            _ => return None,
        };
        Some(PossibleValue::new(*word).help(help))
    });
    ours.into_iter().chain(theirs).collect::<Vec<_>>().into()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Dead {
        #[command(flatten)]
        args: DeadArgs,
    }

    #[test]
    fn takes_each_reason_that_a_letter_may_have_and_no_other() {
        let parse = |command, word| Dead::try_parse_from(["dead", command, "p", "--reason", word]);
        let ours = DeathCause::ALL.map(DeathCause::as_str);
        for command in ["list", "retry", "purge"] {
            for word in ours.iter().chain(&BROKER_REASONS) {
                assert!(parse(command, word).is_ok(), "{command} {word}");
            }
            for word in ["attemps", "Attempts", "reply-too-large", ""] {
                let error = parse(command, word).expect_err(word).to_string();
                for known in ours.iter().chain(&BROKER_REASONS) {
                    assert_eq!(error.matches(&format!(" {known}")).count(), 1, "{error}");
                }
            }
        }
    }
}
