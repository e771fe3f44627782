//! `tidegate explain POOL`: why a pool has its size.

use std::fmt::Write as _;

use anstyle::Style;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{
    args::{Cli, ExplainArgs, Format},
    client, supervisor,
};
use crate::output::{self, CommandFailure, Exit};
use tidegate::{api::v1::Explanation, escape::Escaped};

const HEAD: Style = Style::new().bold();

pub(super) async fn explain(cli: &Cli, args: &ExplainArgs) -> Result<Exit, CommandFailure> {
    let supervisor = supervisor::find(cli, &args.socket)?;
    let name = utf8_percent_encode(&args.pool, NON_ALPHANUMERIC);
    let path = format!("/api/v1/pools/{name}/explain");
    let answer: Explanation = client::get(&supervisor, &path, "explain the pool").await?;
    match cli.format {
        Format::Json => output::json(&answer)?,
        Format::Human => output::write(text(&answer).as_bytes())?,
    }
    Ok(Exit::Ok)
}

/// The answer for a person. The text of the record comes from the supervisor, because it may be newer than this
/// program.
fn text(answer: &Explanation) -> String {
    let name = Escaped(answer.name.as_str());
    let mut text = format!("{HEAD}{name}{HEAD:#} is {}", answer.status.state.as_str());
    if let Some(cause) = &answer.status.cause {
        text = format!("{text}: {}", Escaped(cause));
    }
    let record = answer.text.as_deref().unwrap_or("nothing was decided yet");
    text.push('\n');
    for line in record.lines() {
        let _ = writeln!(text, "{}", Escaped(line));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(name: &str, state: &str, cause: &str, text: &str) -> Explanation {
        let status = json!({
            "name": name, "queue": "thumbnails", "state": state, "cause": cause,
            "depth": {"ready": 0, "age_ms": null, "stale": true},
            "delayed": 0, "demand": 0, "expected": 0,
            "workers": {"bare": 0, "live": 0, "draining": 0},
            "runners": {"idle": 0, "busy": 0},
            "jobs": {"done": 0, "retried": 0, "dead": 0, "requeued": 0, "lost": 0}
        });
        let answer = json!({"name": name, "status": status, "decision": null, "text": text});
        serde_json::from_value(answer).unwrap()
    }

    #[test]
    fn prints_the_pool_s_state_before_the_record() {
        let answer = answer(
            "thumbnails",
            "waiting",
            "no queue thumbnails",
            "expected 0 (by missing)\n\nseen",
        );
        let text = text(&answer);
        let text = anstream::adapter::strip_str(&text).to_string();
        let expected =
            "thumbnails is waiting: no queue thumbnails\nexpected 0 (by missing)\n\nseen\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn no_line_of_the_answer_controls_a_terminal() {
        let answer = answer(
            "a\u{202e}",
            "faulted",
            "\u{1b}[2J",
            "expected 0\n\u{2066}seen",
        );
        let text = anstream::adapter::strip_str(&text(&answer)).to_string();
        let expected = "a\\u{202e} is faulted: \\u{1b}[2J\nexpected 0\n\\u{2066}seen\n";
        assert_eq!(text, expected);
    }
}
