//! Others' text on its way to a log or a terminal.

use std::fmt::{self, Write};

/// Shows text with its control characters escaped, so that it can neither forge a log line nor steer a terminal.
/// A tab stays as it is.
#[derive(Debug)]
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for char in self.0.chars() {
            if char.is_control() && char != '\t' {
                write!(f, "{}", char.escape_default())?;
            } else {
                f.write_char(char)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_what_steers_a_terminal_and_leaves_the_rest() {
        let text = "caf\u{e9}\t\u{1b}[31mred\r\n\u{9b}2J \\n";
        assert_eq!(
            Escaped(text).to_string(),
            "caf\u{e9}\t\\u{1b}[31mred\\r\\n\\u{9b}2J \\n"
        );
    }
}
