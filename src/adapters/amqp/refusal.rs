//! The meaning of a broker's refusals beyond their reply codes. All code that parses refusal texts is here.

use lapin::{
    ErrorKind,
    protocol::{AMQPError, AMQPErrorKind, AMQPHardError, AMQPSoftError},
};

use crate::queue::QueueErrorKind;

/// The kind of an error for which the reply code alone would give another kind.
pub(super) fn kind_by_text(error: &AMQPError) -> Option<QueueErrorKind> {
    let text = error.get_message().as_str();
    match error.kind() {
        // The limit of a user or a node. The broker also refuses virtual hosts with this code.
        AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) if text.contains("channels opened") => {
            Some(QueueErrorKind::ChannelLimit)
        }
        // All types of queues accept our consumers' arguments, except streams.
        AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED)
            if text.contains("invalid arg 'x-priority'") && text.contains("stream") =>
        {
            Some(QueueErrorKind::Unsuitable)
        }
        // A classic queue of a cluster whose node is down: it exists, with its messages.
        AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND)
            if text.contains("home node '") && text.contains("' is down or inaccessible") =>
        {
            Some(QueueErrorKind::Refused)
        }
        _ => None,
    }
}

/// The broker's text, if it refused a channel. `None` for any other error, and for lapin's own limit, which does not
/// end the connection.
pub(super) fn channel_limit(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let error = error.downcast_ref::<lapin::Error>()?;
    let ErrorKind::ProtocolError(error) = error.kind() else {
        return None;
    };
    (kind_by_text(error) == Some(QueueErrorKind::ChannelLimit))
        .then(|| error.get_message().as_str().to_owned())
}

/// The number at the end of a refusal: `limit of (10)`.
pub(super) fn number_in(text: &str) -> Option<usize> {
    let (_, after) = text.rsplit_once('(')?;
    let (number, _) = after.split_once(')')?;
    number.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_text_tells() {
        let user = "NOT_ALLOWED - number of channels opened for user 'lim' has reached the maximum allowed user limit \
                    of (10)";
        let node = "NOT_ALLOWED - number of channels opened on node 'r@h' has reached the maximum allowed limit of (7)";
        let stream = "PRECONDITION_FAILED - invalid arg 'x-priority' for queue 's' in vhost '/' of queue type \
                      rabbit_stream_queue";
        let home =
            "NOT_FOUND - home node 'r@h' of durable queue 'q' in vhost '/' is down or inaccessible";
        let connections =
            "NOT_ALLOWED - connection refused for user 'c': user connection limit (2) is reached";
        for (code, text, kind, number) in [
            (530, user, Some(QueueErrorKind::ChannelLimit), Some(10)),
            (530, node, Some(QueueErrorKind::ChannelLimit), Some(7)),
            (530, connections, None, Some(2)),
            (530, "NOT_ALLOWED - vhost none not found", None, None),
            (404, home, Some(QueueErrorKind::Refused), None),
            (404, "NOT_FOUND - no queue 'q' in vhost '/'", None, None),
            (406, stream, Some(QueueErrorKind::Unsuitable), None),
            (
                406,
                "PRECONDITION_FAILED - unknown delivery tag 7",
                None,
                None,
            ),
        ] {
            let error = AMQPError::from_id(code, text.into()).expect("a known code");
            assert_eq!(kind_by_text(&error), kind, "{text}");
            assert_eq!(number_in(text), number, "{text}");
            let error = lapin::Error::from(ErrorKind::ProtocolError(error));
            let said = (kind == Some(QueueErrorKind::ChannelLimit)).then(|| text.to_owned());
            assert_eq!(channel_limit(&error), said);
        }
    }
}
