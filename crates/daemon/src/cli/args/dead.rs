//! The arguments of `tidegate dead`.

use clap::{
    Args, Subcommand,
    builder::{PossibleValue, PossibleValuesParser},
};

use crate::dead::LetterLimit;
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
    /// queue does not change, except that letters that were read are marked `redelivered`. While one list, retry or
    /// purge holds a letter, no other command sees it.
    #[command(after_help = "\
Examples:
  tidegate dead list thumbnails
  tidegate dead list thumbnails --reason rejected --limit all
  tidegate dead list thumbnails --format json | jq -r '.[] | select(.exit_code == 3) | .id'")]
    List(ListArgs),

    /// Show complete dead letters: body, properties, headers, and the end of the standard error
    ///
    /// As JSON it is one object for each letter. Text that is not UTF-8 is `{"base64": "..."}` in JSON, and escaped
    /// (\xff) for people. The queue does not change, as with `list`.
    #[command(after_help = "\
Examples:
  tidegate dead show thumbnails order-17
  tidegate dead show thumbnails order-17 --format json | jq -r .body")]
    Show(ShowArgs),

    /// Put dead letters back into the pool's queue, with all attempts available again
    ///
    /// Takes all dead letters that are there when it begins, or the selected ones. Each copy is confirmed in the pool's
    /// queue before its letter is removed: if this command is killed half way, no letter is lost, and a few may exist
    /// twice. A letter that cannot be put back stays where it is. The message is the one that was first published, with
    /// its own id. Its expiration, CC, BCC, user-id and x-death stay in x-tidegate-original-* headers.
    #[command(after_help = "\
Examples:
  tidegate dead retry thumbnails
  tidegate dead retry thumbnails order-17 order-18
  tidegate dead retry thumbnails --reason attempts --limit 100")]
    Retry(ChoiceArgs),

    /// Delete dead letters permanently
    ///
    /// Deletes all dead letters that are there when it begins, or the selected ones. It asks before it deletes all.
    /// Without a terminal, --yes is required for that.
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

    /// Queue of the dead letters, if the broker dead-letters them [default: the pool's queue with .dead]
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) queue: Option<String>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ListArgs {
    #[command(flatten)]
    pub(in crate::cli) place: DeadLetterPlaceArgs,

    /// Only letters with this reason
    #[arg(long, value_name = "WORD", value_parser = reasons())]
    pub(in crate::cli) reason: Option<String>,

    /// The maximum number of letters, or `all`
    // A quorum queue takes this many back in order.
    #[arg(long, value_name = "N", default_value = "32")]
    pub(in crate::cli) limit: LetterLimit,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ShowArgs {
    #[command(flatten)]
    pub(in crate::cli) place: DeadLetterPlaceArgs,

    /// Complete ids, as `list` shows them. Every letter with such an id is shown
    #[arg(value_name = "ID", required = true)]
    pub(in crate::cli) ids: Vec<String>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ChoiceArgs {
    #[command(flatten)]
    pub(in crate::cli) place: DeadLetterPlaceArgs,

    /// Complete ids, as `list` shows them. Every letter with such an id is selected [default: all letters]
    #[arg(value_name = "ID", conflicts_with_all = ["reason", "limit"])]
    pub(in crate::cli) ids: Vec<String>,

    /// Only letters with this reason
    #[arg(long, value_name = "WORD", value_parser = reasons())]
    pub(in crate::cli) reason: Option<String>,

    /// The maximum number of letters, oldest first
    #[arg(long, value_name = "N")]
    pub(in crate::cli) limit: Option<LetterLimit>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PurgeArgs {
    #[command(flatten)]
    pub(in crate::cli) choice: ChoiceArgs,

    /// Delete all without asking. Required if there is no terminal
    #[arg(long, short)]
    pub(in crate::cli) yes: bool,
}

/// The reasons that a letter may have: those of a pool, and those of the broker.
fn reasons() -> PossibleValuesParser {
    let ours = DeathCause::ALL.map(|cause| {
        let help = match cause {
            DeathCause::Attempts => "all attempts were spent",
            DeathCause::Rejected => "the job rejected its message, or another consumer did",
            DeathCause::Launch => "the command behind a wrapper never started",
            DeathCause::CrashLoop => "too many unfinished deliveries",
        };
        PossibleValue::new(cause.as_str()).help(help)
    });
    let theirs = BROKER_REASONS.iter().filter_map(|word| {
        let help = match *word {
            "expired" => "by the broker: its time to live has passed",
            "maxlen" => "by the broker: its queue was full",
            "delivery_limit" => "by the broker: its quorum queue delivered it too often",
            // The only reason that both have.
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
