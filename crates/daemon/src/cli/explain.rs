//! `tidegate explain POOL`: why a pool has its size.

use std::fmt::Write as _;

use anstyle::Style;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::{
    args::{Cli, ExplainArgs, Format},
    client,
    output::{self, Exit, Failure},
};
use tidegate::escape::Escaped;

const HEAD: Style = Style::new().bold();

pub(super) async fn explain(cli: &Cli, args: &ExplainArgs) -> Result<Exit, Failure> {
    let socket = client::socket(cli, &args.socket)?;
    let name = utf8_percent_encode(&args.pool, NON_ALPHANUMERIC);
    let path = format!("/api/v1/pools/{name}/explain");
    let answer: Value = client::get(&socket, &path, "explain the pool").await?;
    match cli.format {
        Format::Json => output::json(&answer)?,
        Format::Human => output::write(text(&answer).as_bytes())?,
    }
    Ok(Exit::Ok)
}

/// The answer for a person. It uses the text of the record, because the supervisor may be newer than this program.
fn text(answer: &Value) -> String {
    let word = |pointer: &str| answer.pointer(pointer).and_then(Value::as_str);
    let name = word("/name").unwrap_or("?");
    let state = word("/status/state").unwrap_or("?");
    let mut text = format!("{HEAD}{}{HEAD:#} is {}", Escaped(name), Escaped(state));
    if let Some(cause) = word("/status/cause") {
        text = format!("{text}: {}", Escaped(cause));
    }
    let record = word("/text").unwrap_or("nothing was decided yet");
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

    #[test]
    fn prints_the_pool_s_state_before_the_record() {
        let answer = json!({
            "name": "thumbnails",
            "status": {"state": "waiting", "cause": "no queue thumbnails"},
            "text": "expected 0 (by missing)\n\nseen"
        });
        let text = text(&answer);
        let text = anstream::adapter::strip_str(&text).to_string();
        let expected =
            "thumbnails is waiting: no queue thumbnails\nexpected 0 (by missing)\n\nseen\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn no_line_of_the_answer_steers_a_terminal() {
        let answer = json!({
            "name": "a\u{202e}",
            "status": {"state": "faulted", "cause": "\u{1b}[2J"},
            "text": "expected 0\n\u{2066}seen"
        });
        let text = anstream::adapter::strip_str(&text(&answer)).to_string();
        let expected = "a\\u{202e} is faulted: \\u{1b}[2J\nexpected 0\n\\u{2066}seen\n";
        assert_eq!(text, expected);
    }
}
