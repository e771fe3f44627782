//! Names of queues: how long one may be, with what we add to it.

/// Bytes of a short string, and so of a queue's name.
pub const NAME_BYTES: usize = 255;

/// Bytes of a name beyond ASCII up to which RabbitMQ 4.0 can say that there is no such queue.
///
/// An error text is cut to 255 bytes. RabbitMQ 4.0 fails in its own code at cutting one with characters beyond ASCII,
/// and ends the connection with error 541. The text is `NOT_FOUND - no queue '' in vhost '/'` around the name; a virtual
/// host with a longer name leaves less.
pub const NAME_BYTES_BEYOND_ASCII: usize = NAME_BYTES - 36;

/// Bytes of a name beyond ASCII from which some error text about it may be cut: the longest texts name other things too.
const WARY_FROM: usize = 48;

/// Bytes that a queue's name may have where `suffix` is the longest of what we add to it.
pub fn name_room(queue: &str, suffix: &str) -> usize {
    let limit = match queue.is_ascii() {
        true => NAME_BYTES,
        false => NAME_BYTES_BEYOND_ASCII,
    };
    limit.saturating_sub(suffix.len())
}

/// Whether RabbitMQ 4.0 may fail at an error text about this queue, and so end the connection that asked.
pub fn may_break_error_texts(queue: &str) -> bool {
    !queue.is_ascii() && queue.len() >= WARY_FROM
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_beyond_ascii_has_less_room() {
        assert_eq!(name_room("jobs", ".dead"), 250);
        assert_eq!(name_room("aufträge", ".dead"), 214);
        assert_eq!(name_room("jobs", &"x".repeat(300)), 0);
    }

    #[test]
    fn only_long_names_beyond_ascii_are_asked_for_apart() {
        assert!(!may_break_error_texts(&"a".repeat(255)));
        assert!(!may_break_error_texts("aufträge"));
        assert!(may_break_error_texts(&"ä".repeat(24)));
    }
}
