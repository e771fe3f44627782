//! Errors and texts from elsewhere, as one line.

/// An error and its causes in one line. A cause that the error above it quotes at its end is not repeated.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// The start of a text, at most `limit` characters long.
pub fn first_chars(text: &str, limit: usize) -> &str {
    match text.char_indices().nth(limit) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

/// The start of a text, at most `limit` bytes long.
pub fn first_bytes(text: &str, limit: usize) -> &str {
    let mut end = text.len().min(limit);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use std::{error::Error, fmt};

    use super::*;

    #[derive(Debug)]
    struct Layer(&'static str, Option<Box<Layer>>);

    impl fmt::Display for Layer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Layer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|layer| layer as _)
        }
    }

    #[test]
    fn a_cause_is_written_unless_the_error_above_it_quotes_it() {
        let error = |top| Layer(top, Some(Box::new(Layer("no", None))));
        assert_eq!(chain(&error("failed to publish")), "failed to publish: no");
        assert_eq!(chain(&error("protocol error: no")), "protocol error: no");
        assert_eq!(chain(&error("nothing works")), "nothing works: no");
    }

    #[test]
    fn a_text_is_cut_between_two_characters() {
        assert_eq!(first_chars("äöü", 2), "äö");
        assert_eq!(first_chars("äö", 2), "äö");
        assert_eq!(first_bytes("äöü", 3), "ä");
        assert_eq!(first_bytes("äö", 9), "äö");
    }
}
