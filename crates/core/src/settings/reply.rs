//! Settings of a pool's replies.

/// Settings of a pool's replies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplySettings {
    /// Which messages with a `reply_to` are answered.
    pub answers: Answers,
    /// Queues that a reply may go to. Callers that use direct reply-to are always allowed. `*` matches any text.
    pub allow: Vec<String>,
    /// Largest reply, in bytes. Instead of a longer reply, a failure is sent.
    pub max: u64,
}

/// Which messages with a `reply_to` are answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Answers {
    /// Messages whose runner gives a reply. With such kinds of runner, messages whose job finally fails too.
    #[default]
    Given,
    /// Each message, when its job has ended. The reply of an `exec` or `container` job is its standard output. If a
    /// runner gives no reply, an empty one is sent.
    Always,
    /// None.
    Never,
}

impl Default for ReplySettings {
    fn default() -> Self {
        Self {
            answers: Answers::default(),
            allow: Vec::new(),
            max: 1024 * 1024,
        }
    }
}

impl ReplySettings {
    /// Whether a reply may go to this queue.
    pub fn allows(&self, queue: &str) -> bool {
        self.allow.iter().any(|pattern| fits(pattern, queue))
    }
}

/// Whether a text matches a pattern, in which `*` matches any text, also an empty one.
fn fits(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(start) else {
        return false;
    };
    let (middle, end) = match rest.rsplit_once('*') {
        Some((middle, end)) => (middle, end),
        None => ("", rest),
    };
    // The first match is always right: it leaves the most text for the parts that follow.
    for part in middle.split('*') {
        let Some(at) = text.find(part) else {
            return false;
        };
        text = &text[at + part.len()..];
    }
    text.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn a_star_matches_any_text() {
        for (pattern, text, expected) in [
            ("replies", "replies", true),
            ("replies", "replies2", false),
            ("replies", "", false),
            ("*", "", true),
            ("*", "any.thing", true),
            ("amq.gen-*", "amq.gen-Xa9", true),
            ("amq.gen-*", "amq.gen-", true),
            ("amq.gen-*", "x.amq.gen-1", false),
            ("*.replies", "web.replies", true),
            ("*.replies", "web.replies.2", false),
            ("web.*.replies", "web.1.replies", true),
            ("web.*.replies", "web.replies", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("a*b*b", "ab", false),
            ("a*a", "a", false),
            ("**", "x", true),
            ("a**b", "ab", true),
            ("\u{e9}*\u{e9}", "\u{e9}\u{e9}", true),
            // No other character is special.
            ("r?plies", "replies", false),
            ("[a-z]", "a", false),
        ] {
            assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
        }
    }
}
