//! The pool's keys for answers, and the settings that they become.

pub use tidegate_core::settings::{Answers, ReplySettings};

use super::{
    problem::Problem,
    schema::{Flag, Key, KeyPresence, Size, Table, Texts},
};
use crate::runners::RunnerSettings;

/// Reads a pool's keys for answers. Returns `reply_allow` as a key, because not every kind of runner gives answers
/// itself.
pub(super) fn reply(pool: &mut Table<'_, '_>) -> (ReplySettings, Key<Vec<String>>) {
    let default = ReplySettings::default();
    let reply = pool.optional(
        "reply",
        "Whether messages with a `reply_to` are answered. `true`: each message is answered when its job has ended. For \
        `exec` and `container` the answer is the job's standard output, which is not logged then. `false`: no answers. \
        When absent, `warm` sends its runners' replies and final failures, and the other kinds send nothing.",
        Flag,
        "true",
    );
    let allow = pool.key(
        "reply_allow",
        "Queues that answers may go to. `*` matches any text, such as \"amq.gen-*\". Callers by direct reply-to need \
        no entry here. The pools' own queues never get answers.",
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
        "Longest answer. Instead of a longer answer, a failure with this reason is sent. At most the broker's own \
        limit: 16MiB on RabbitMQ 4.",
        Size,
        default.max,
    );
    if max.is_sound() && max.value > MAX_REPLY {
        pool.refuse(&max, "write at most \"128MiB\": no broker accepts more");
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

/// Warns if queues are allowed for answers, but no runner of the pool will ever answer.
pub(super) fn warn_of_no_answers(
    pool: &mut Table<'_, '_>,
    settings: &ReplySettings,
    allow: &Key<Vec<String>>,
    runner: &RunnerSettings,
) {
    let is_silent = match settings.answers {
        Answers::Always => false,
        Answers::Given => !runner.answers(),
        Answers::Never => true,
    };
    if is_silent && allow.given == KeyPresence::Valid && !settings.allow.is_empty() {
        pool.warn(Problem::new(
            allow.place.clone(),
            allow.path.clone(),
            format!("{:?}", settings.allow),
            "write reply = true too: without it this pool sends no answers",
        ));
    }
}

/// The largest message of RabbitMQ before version 4, by default.
const MAX_REPLY: u64 = 128 << 20;
