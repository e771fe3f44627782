//! The pool's keys for answers, and what they become.

use super::{
    RunnerSettings,
    problem::Problem,
    schema::{Flag, Given, Key, Size, Table, Texts},
};

/// Whether, where and how long a pool's answers are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplySettings {
    /// Which messages with a `reply_to` are answered.
    pub answers: Answers,
    /// Queues that an answer may go to, besides to callers by direct reply-to. `*` stands for any text.
    pub allow: Vec<String>,
    /// Bytes that an answer may have. A longer one is not sent; a failure is, in its place.
    pub max: u64,
}

/// Which messages with a `reply_to` are answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Answers {
    /// Those whose runner gives an answer; and with kinds of runner that do, those that fail for good.
    #[default]
    Given,
    /// Each of them, at its end: with the standard output of a job of `exec` or `container`, with nothing where a
    /// runner gives no answer.
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
    /// Whether an answer may go to this queue.
    pub fn allows(&self, queue: &str) -> bool {
        self.allow.iter().any(|pattern| fits(pattern, queue))
    }
}

/// Whether a text is as a pattern has it, in which `*` stands for any text, an empty one too.
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
    // The first place is as good as any: what it leaves is longest.
    for part in middle.split('*') {
        let Some(at) = text.find(part) else {
            return false;
        };
        text = &text[at + part.len()..];
    }
    text.ends_with(end)
}

/// Reads a pool's keys for answers. `reply_allow` comes back as a key, for not every kind of runner answers by itself.
pub(super) fn reply(pool: &mut Table<'_, '_>) -> (ReplySettings, Key<Vec<String>>) {
    let default = ReplySettings::default();
    let reply = pool.optional(
        "reply",
        "Whether messages with a `reply_to` are answered. `true`: each at its end, with the job's standard output where \
         the runner is `exec` or `container`, which is not logged then; `false`: none. When absent, what a runner of `warm` gives as a \
         reply is sent, and its final failures are; of the other two, nothing.",
        Flag,
        "true",
    );
    let allow = pool.key(
        "reply_allow",
        "Queues that answers may go to, `*` standing for any text, such as \"amq.gen-*\". Callers by direct reply-to \
         are answered without being named here; the pools' own queues never are.",
        Texts {
            wants: "an array of queues' names",
            check: |pattern| match pattern.len() {
                0 => Err("write a queue's name, or a pattern such as \"amq.gen-*\"".to_owned()),
                1..=255 => Ok(()),
                _ => Err("write at most 255 bytes".to_owned()),
            },
        },
        default.allow,
    );
    let max = pool.key(
        "reply_max",
        "Longest answer. In place of a longer one goes a failure that says so. At most what the broker takes: 16MiB on \
         RabbitMQ 4.",
        Size,
        default.max,
    );
    if max.is_sound() && max.value > LARGEST {
        pool.refuse(&max, "write at most \"128MiB\": no broker takes more");
    }
    let settings = ReplySettings {
        answers: match reply.value {
            None => Answers::Given,
            Some(true) => Answers::Always,
            Some(false) => Answers::Never,
        },
        allow: allow.value.clone(),
        max: max.value,
    };
    (settings, allow)
}

/// Says so where queues are allowed, and no runner will ever have an answer for them.
pub(super) fn warn_of_no_answers(
    pool: &mut Table<'_, '_>,
    settings: &ReplySettings,
    allow: &Key<Vec<String>>,
    runner: &RunnerSettings,
) {
    let is_silent = match settings.answers {
        Answers::Always => false,
        Answers::Given => !matches!(runner, RunnerSettings::Warm(_)),
        Answers::Never => true,
    };
    if is_silent && allow.given == Given::Well && !settings.allow.is_empty() {
        pool.warn(Problem::new(
            allow.place.clone(),
            allow.path.clone(),
            format!("{:?}", settings.allow),
            "write reply = true too: without it this pool answers nobody",
        ));
    }
}

/// The largest message of RabbitMQ before version 4, as it comes.
const LARGEST: u64 = 128 << 20;

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn a_star_stands_for_any_text() {
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
            // Nothing else is special.
            ("r?plies", "replies", false),
            ("[a-z]", "a", false),
        ] {
            assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
        }
    }
}
