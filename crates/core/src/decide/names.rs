//! Names of queues: their longest length, including what we append.

/// Longest short string of AMQP in bytes. A queue's name is one.
pub const NAME_BYTES: usize = 255;

/// Longest name with non-ASCII characters, in bytes, for which RabbitMQ 4.0 can report a missing queue.
///
/// RabbitMQ cuts an error text to 255 bytes. RabbitMQ 4.0 fails in its own code when it cuts a text with non-ASCII
/// characters, and ends the connection with error 541. The text is `NOT_FOUND - no queue '' in vhost '/'` around the
/// name. A virtual host with a longer name leaves less room.
pub const NAME_BYTES_BEYOND_ASCII: usize = NAME_BYTES - 36;

/// Length in bytes from which an error text about a non-ASCII name may be cut. The longest error texts also contain
/// other names.
const WARY_FROM: usize = 48;

/// Bytes that a queue's name may have if `suffix` is the longest suffix that we append.
pub fn name_room(queue: &str, suffix: &str) -> usize {
    let limit = match queue.is_ascii() {
        true => NAME_BYTES,
        false => NAME_BYTES_BEYOND_ASCII,
    };
    limit.saturating_sub(suffix.len())
}

/// Whether RabbitMQ 4.0 may fail on an error text about this queue, and so end the connection.
pub fn may_break_error_texts(queue: &str) -> bool {
    !queue.is_ascii() && queue.len() >= WARY_FROM
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_beyond_ascii_must_be_shorter() {
        assert_eq!(name_room("jobs", ".dead"), 250);
        assert_eq!(name_room("aufträge", ".dead"), 214);
        assert_eq!(name_room("jobs", &"x".repeat(300)), 0);
    }

    #[test]
    fn only_long_names_beyond_ascii_may_break_error_texts() {
        assert!(!may_break_error_texts(&"a".repeat(255)));
        assert!(!may_break_error_texts("aufträge"));
        assert!(may_break_error_texts(&"ä".repeat(24)));
    }
}
