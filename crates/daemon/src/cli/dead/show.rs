//! Shows dead letters to people.

use anstyle::{AnsiColor, Style};
use nix::sys::signal::Signal;

use super::super::table::{Cell, DIM, Layout, cell};
use tidegate::{
    escape::Escaped,
    settle::{DeadBy, Letter},
    text,
};

/// Limits on untrusted text in the table, in characters. Every publisher can write such text, and one long text would
/// widen the lines of all letters. JSON has the complete text.
const ERROR_SHOWN: usize = 60;
const ID_SHOWN: usize = 64;
const WORD_SHOWN: usize = 24;

const COLUMNS: [&str; 7] = ["ID", "DIED", "ATTEMPTS", "REASON", "EXIT", "SIZE", "ERROR"];

pub(super) fn table(letters: &[Letter]) -> String {
    let rows: Vec<Vec<Cell>> = letters.iter().map(row).collect();
    let is_words = |column| !matches!(column, 2 | 5);
    let layout = Layout::new(&COLUMNS, is_words, &rows);
    let mut text = String::new();
    layout.head(&mut text);
    for row in &rows {
        layout.line(&mut text, row);
    }
    text
}

fn row(letter: &Letter) -> Vec<Cell> {
    let known = |text: Option<String>| match text {
        Some(text) => cell(text),
        None => Cell {
            text: "-".to_owned(),
            style: DIM,
        },
    };
    let died = letter.time.map(text::time);
    vec![
        known(letter.id.as_deref().map(|id| shown(id, ID_SHOWN))),
        known(died),
        known(letter.attempts.map(|attempts| attempts.to_string())),
        Cell {
            style: reason_style(letter.by),
            ..known(reason(letter))
        },
        known(exit(letter)),
        cell(size(letter.size)),
        known(error(letter)),
    ]
}

fn reason(letter: &Letter) -> Option<String> {
    let reason = shown(letter.reason.as_deref()?, WORD_SHOWN);
    Some(match letter.by {
        Some(DeadBy::Broker) => format!("{reason} (broker)"),
        _ => reason,
    })
}

fn reason_style(by: Option<DeadBy>) -> Style {
    match by {
        Some(DeadBy::Tidegate) => AnsiColor::Red.on_default(),
        Some(DeadBy::Broker) => AnsiColor::Yellow.on_default(),
        None => DIM,
    }
}

/// Exit code or signal, or another kind of failure.
fn exit(letter: &Letter) -> Option<String> {
    if let Some(code) = letter.exit_code {
        return Some(code.to_string());
    }
    if let Some(number) = letter.signal {
        let signal = i32::try_from(number)
            .ok()
            .and_then(|number| Signal::try_from(number).ok());
        return Some(match signal {
            Some(signal) => signal.as_str().to_owned(),
            None => format!("signal {number}"),
        });
    }
    let failure = letter.failure.as_deref()?;
    Some(shown(failure, WORD_SHOWN))
}

/// The last error. If the exit code or the signal is shown in its own column, the job's last line of output says more.
fn error(letter: &Letter) -> Option<String> {
    let last_words = || {
        let lines = letter.stderr.as_deref()?.lines().rev();
        lines.map(str::trim).find(|line| !line.is_empty())
    };
    let has_a_column = letter.exit_code.is_some() || letter.signal.is_some();
    let text = match has_a_column {
        true => last_words().or(letter.error.as_deref())?,
        false => letter.error.as_deref()?,
    };
    Some(shown(text, ERROR_SHOWN))
}

/// Untrusted text in a cell, cut to a number of characters. A tab would move the columns, so it is replaced.
fn shown(text: &str, most: usize) -> String {
    let text = Escaped(text).to_string().replace('\t', "\\t");
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut size = bytes as f64 / 1024.0;
    let mut unit = 0;
    while size >= 1023.95 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    format!("{size:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_told_in_the_unit_that_fits() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (1024 * 1024 - 1, "1.0 MiB"),
            (128 << 20, "128.0 MiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn a_name_cannot_be_shown_as_another_name() {
        let letter = Letter {
            id: Some("gpj.\u{202e}exe\u{2066}\u{200b}".to_owned()),
            error: Some("\u{feff}\u{e0041}why".to_owned()),
            ..Letter::default()
        };
        let text = table(&[letter]);
        let shown = [r"gpj.\u{202e}exe\u{2066}\u{200b}", r"\u{feff}\u{e0041}why"];
        assert!(shown.iter().all(|shown| text.contains(shown)), "{text}");
    }

    #[test]
    fn foreign_text_does_not_widen_the_table() {
        let long = || Some("w\u{202e}".repeat(100));
        let letter = Letter {
            id: long(),
            reason: long(),
            by: Some(DeadBy::Broker),
            error: long(),
            failure: long(),
            attempts: Some(u64::MAX),
            size: u64::MAX,
            ..Letter::default()
        };
        let text = table(&[letter]);
        let text = anstream::adapter::strip_str(&text).to_string();
        let widest = text.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(widest < 256, "{widest}: {text}");
        assert_eq!(text.matches('…').count(), 4, "{text}");
        // An id of the usual length is shown completely, so that the user can copy it for `dead retry`.
        let id = "f81d4fae-7dec-11d0-a765-00a0c91e6bf6".to_owned();
        let letter = Letter {
            id: Some(id.clone()),
            ..Letter::default()
        };
        assert!(table(&[letter]).contains(&id));
    }

    #[test]
    fn shows_letters_of_ours_of_the_brokers_and_of_strangers() {
        let at = Some("2026-01-02T03:04:05.678Z".parse().unwrap());
        let failed = Letter {
            id: Some("order-17".to_owned()),
            time: at,
            attempts: Some(5),
            reason: Some("attempts".to_owned()),
            by: Some(DeadBy::Tidegate),
            error: Some("exit code 3".to_owned()),
            failure: Some("exit".to_owned()),
            exit_code: Some(3),
            stderr: Some("Traceback\n  line 4\nValueError: no such picture\n\n".to_owned()),
            size: 1536,
            ..Letter::default()
        };
        let killed = Letter {
            id: Some("or\u{1b}[31mder\t18".to_owned()),
            exit_code: None,
            signal: Some(9),
            error: Some("ended by SIGKILL (signal 9)".to_owned()),
            failure: Some("signal".to_owned()),
            stderr: None,
            ..failed.clone()
        };
        let timed_out = Letter {
            id: Some("order-19".to_owned()),
            attempts: Some(12),
            exit_code: None,
            failure: Some("timeout".to_owned()),
            error: Some("ran longer than 5m ".repeat(9)),
            ..failed.clone()
        };
        let refused = Letter {
            id: Some("order-20".to_owned()),
            attempts: Some(1),
            reason: Some("rejected".to_owned()),
            exit_code: None,
            failure: None,
            error: Some("refused by the job (exit code 65): bad\njson".to_owned()),
            ..failed.clone()
        };
        let expired = Letter {
            time: at,
            reason: Some("expired".to_owned()),
            by: Some(DeadBy::Broker),
            size: 7,
            ..Letter::default()
        };
        let strange = Letter::default();
        let letters = [failed, killed, timed_out, refused, expired, strange];
        let text = table(&letters);
        insta::assert_snapshot!(anstream::adapter::strip_str(&text).to_string());
    }
}
