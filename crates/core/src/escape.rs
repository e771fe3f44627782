//! Escaping of untrusted text that people see in a terminal or a log.
//!
//! One rule for all of it, see [`is_hidden`]. The module is pure and in the lowest layer, so that every module that
//! shows foreign text can use it.

use std::{
    borrow::Cow,
    fmt::{self, Write},
};

use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

/// Whether a character must be escaped because it controls the display or cannot be seen: controls (Cc), format
/// characters (Cf: bidirectional controls, joiners, soft hyphens, tags), line and paragraph separators (Zl, Zp),
/// surrogates, private use, unassigned characters, and the letters and marks that a program should ignore if it does
/// not know them (variation selectors, fillers).
///
/// An emoji that is joined from several is therefore shown in parts. A joiner in a name is as harmful as an invisible
/// letter.
pub fn is_hidden(char: char) -> bool {
    use GeneralCategory as G;
    if char.is_ascii() {
        return char.is_ascii_control();
    }
    matches!(
        char.general_category(),
        G::Control
            | G::Format
            | G::LineSeparator
            | G::ParagraphSeparator
            | G::Surrogate
            | G::PrivateUse
            | G::Unassigned
    ) || is_ignorable(char)
}

/// The letters and marks with the property `Default_Ignorable_Code_Point`. Unicode adds new ones only in these
/// blocks.
fn is_ignorable(char: char) -> bool {
    matches!(
        char,
        '\u{34f}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{ffa0}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

/// Displays text with hidden characters escaped, as `\n` or `\u{202e}`. So the text cannot forge a line, control a
/// terminal or look like another text. A tab is not escaped.
#[derive(Debug)]
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        escape(f, self.0, |char| char == '\t')
    }
}

/// The same in quotes, for text inside other text. Quotes, backslashes and tabs are escaped too.
#[derive(Debug)]
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for piece in self.0.split_inclusive(['"', '\\']) {
            let (text, last) = match piece.strip_suffix(['"', '\\']) {
                Some(text) => (text, &piece[text.len()..]),
                None => (piece, ""),
            };
            escape(f, text, |_| false)?;
            if !last.is_empty() {
                write!(f, "\\{last}")?;
            }
        }
        f.write_char('"')
    }
}

fn escape(out: &mut impl Write, text: &str, except: impl Fn(char) -> bool) -> fmt::Result {
    let mut shown = 0;
    for (at, char) in text.char_indices() {
        if is_hidden(char) && !except(char) {
            out.write_str(&text[shown..at])?;
            write!(out, "{}", char.escape_default())?;
            shown = at + char.len_utf8();
        }
    }
    out.write_str(&text[shown..])
}

/// Length in bytes of a text as [`Escaped`] displays it.
pub fn escaped_len(text: &str) -> usize {
    struct Count(usize);
    impl Write for Count {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0 += text.len();
            Ok(())
        }
    }
    let mut count = Count(0);
    // Counting does not fail.
    let _ = write!(count, "{}", Escaped(text));
    count.0
}

/// A JSON document with the hidden characters in its strings escaped as JSON escapes. It decodes to the same values.
/// Text between the strings is not changed.
pub fn escaped_json(json: &str) -> Cow<'_, str> {
    // Characters below a space occur only between strings: inside strings JSON requires them to be escaped.
    let is_hidden = |char: char| char >= ' ' && is_hidden(char);
    if !json.contains(is_hidden) {
        return Cow::Borrowed(json);
    }
    let mut text = String::with_capacity(json.len() + 64);
    for char in json.chars() {
        if is_hidden(char) {
            for unit in char.encode_utf16(&mut [0; 2]) {
                let _ = write!(text, "\\u{unit:04x}");
            }
        } else {
            text.push(char);
        }
    }
    Cow::Owned(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escapes_what_controls_a_terminal_and_leaves_the_rest() {
        let text = "caf\u{e9}\t\u{1b}[31mred\r\n\u{9b}2J \\n";
        assert_eq!(
            Escaped(text).to_string(),
            "caf\u{e9}\t\\u{1b}[31mred\\r\\n\\u{9b}2J \\n"
        );
    }

    #[test]
    fn escapes_what_cannot_be_seen() {
        for (text, shown) in [
            ("gpj.\u{202e}exe", r"gpj.\u{202e}exe"),
            ("\u{2066}a\u{2069}", r"\u{2066}a\u{2069}"),
            ("\u{200e}\u{200f}\u{61c}", r"\u{200e}\u{200f}\u{61c}"),
            (
                "pay\u{ad}pal\u{200b}\u{feff}",
                r"pay\u{ad}pal\u{200b}\u{feff}",
            ),
            ("\u{2028}\u{2029}", r"\u{2028}\u{2029}"),
            ("\u{e0041}\u{e0100}\u{fe0f}", r"\u{e0041}\u{e0100}\u{fe0f}"),
            ("\u{3164}\u{115f}\u{ffa0}", r"\u{3164}\u{115f}\u{ffa0}"),
            ("\u{e000}\u{10ffff}\u{378}", r"\u{e000}\u{10ffff}\u{378}"),
            ("\u{1f469}\u{200d}\u{1f4bb}", "\u{1f469}\\u{200d}\u{1f4bb}"),
        ] {
            assert_eq!(Escaped(text).to_string(), shown);
        }
    }

    #[test]
    fn leaves_text_of_every_script_as_it_is() {
        for text in [
            "plain \"text\" with \\ and tab\t",
            "caf\u{e9} cafe\u{301} na\u{ef}ve",
            "\u{65e5}\u{672c}\u{8a9e}\u{3000}\u{d55c}\u{ad6d}\u{c5b4}",
            "\u{928}\u{92e}\u{938}\u{94d}\u{924}\u{947}",
            "\u{645}\u{631}\u{62d}\u{628}\u{627} \u{5e9}\u{5dc}\u{5d5}\u{5dd}",
            "\u{1f680}\u{1f9d1}\u{1f3fd} \u{1f1e9}\u{1f1ea} \u{2713} \u{fffd}\u{a0}\u{20ac}",
        ] {
            assert_eq!(Escaped(text).to_string(), text);
        }
    }

    #[test]
    fn text_in_quotes_cannot_end_the_quotes() {
        let text = "a \"b\" \\ c\t\u{202e}";
        assert_eq!(Quoted(text).to_string(), r#""a \"b\" \\ c\t\u{202e}""#);
        assert_eq!(Quoted("").to_string(), r#""""#);
    }

    #[test]
    fn hides_nothing_else_that_the_standard_library_calls_printable() {
        for char in (0x20..=0x10_ffff).filter_map(char::from_u32) {
            let shown: String = format!("x{char}").escape_debug().collect();
            if is_hidden(char) && !is_ignorable(char) {
                assert!(shown.contains("\\u{"), "{char:?}");
            }
        }
    }

    proptest! {
        // Compared with the tables of another crate, regex-syntax.
        #[test]
        fn knows_controls_formats_separators_and_private_use(text in "[\\p{Cc}\\p{Cf}\\p{Zl}\\p{Zp}\\p{Co}]{1,50}") {
            prop_assert!(text.chars().all(is_hidden), "{text:?}");
        }

        #[test]
        fn nothing_hidden_is_ever_shown(text in any::<String>(), odd in "[\\p{C}\\p{Z}\"\\\\a]{0,20}") {
            for text in [text, odd] {
                let shown = Escaped(&text).to_string();
                prop_assert!(!shown.contains(|char| is_hidden(char) && char != '\t'), "{shown:?}");
                prop_assert_eq!(escaped_len(&text), shown.len());
                let quoted = Quoted(&text).to_string();
                prop_assert!(!quoted.contains(is_hidden), "{quoted:?}");
            }
        }

        #[test]
        fn escaped_json_shows_nothing_hidden_and_says_the_same(texts in prop::collection::vec(any::<String>(), 0..4)) {
            let json = serde_json::to_string(&texts).unwrap();
            let shown = escaped_json(&json);
            prop_assert!(!shown.contains(is_hidden), "{shown:?}");
            let read: Vec<String> = serde_json::from_str(&shown).unwrap();
            prop_assert_eq!(read, texts);
        }
    }
}
