//! Classifies lapin's errors. The only place that does.

use std::time::Duration;

use lapin::{
    ErrorKind,
    protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError},
};
use tokio::time;

use super::refusal::kind_by_text;
use crate::queue::{QueueError, QueueErrorKind};

/// Classifies `error`. `operation` is a fragment that is read after "failed to".
pub(super) fn classify(operation: impl Into<String>, error: lapin::Error) -> QueueError {
    QueueError::new(kind_of(&error), operation).with_source(error)
}

fn kind_of(error: &lapin::Error) -> QueueErrorKind {
    if let ErrorKind::ProtocolError(error) = error.kind()
        && let Some(kind) = kind_by_text(error)
    {
        return kind;
    }
    match error.kind() {
        ErrorKind::ProtocolError(error) => match error.kind() {
            AMQPErrorKind::Soft(soft) => match soft {
                AMQPSoftError::NOTFOUND => QueueErrorKind::NotFound,
                AMQPSoftError::ACCESSREFUSED => QueueErrorKind::AccessRefused,
                AMQPSoftError::RESOURCELOCKED => QueueErrorKind::Conflict,
                AMQPSoftError::PRECONDITIONFAILED => precondition(error.get_message().as_str()),
                AMQPSoftError::CONTENTTOOLARGE => QueueErrorKind::TooLarge,
                AMQPSoftError::NOROUTE | AMQPSoftError::NOCONSUMERS => QueueErrorKind::Unroutable,
            },
            // The broker uses this code for a missing or forbidden vhost, and also for limits.
            AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) => QueueErrorKind::AccessRefused,
            AMQPErrorKind::Hard(AMQPHardError::INTERNALERROR) => QueueErrorKind::BrokerFailed,
            // Every other hard error ends the connection.
            AMQPErrorKind::Hard(_) => QueueErrorKind::Disconnected,
        },
        ErrorKind::ChannelsLimitReached => QueueErrorKind::ChannelLimit,
        ErrorKind::AuthProviderError(_) => QueueErrorKind::AccessRefused,
        ErrorKind::SerialisationError(_) => QueueErrorKind::TooLarge,
        ErrorKind::IOError(_)
        | ErrorKind::RuntimeShutdownError(_)
        | ErrorKind::ParsingError(_)
        | ErrorKind::InvalidChannel(_)
        | ErrorKind::InvalidChannelState(..)
        | ErrorKind::InvalidConnectionState(_)
        | ErrorKind::MissingHeartbeatError => QueueErrorKind::Disconnected,
        _ => QueueErrorKind::Other,
    }
}

/// The meaning of a failed precondition. One reply code has many meanings, so only the text distinguishes them.
fn precondition(text: &str) -> QueueErrorKind {
    let text = text.trim_start_matches("PRECONDITION_FAILED - ");
    if text.starts_with("inequivalent arg") {
        QueueErrorKind::Mismatch
    } else if text.starts_with("cannot declare queue") && text.contains("limit") {
        QueueErrorKind::LimitReached
    } else if text.starts_with("message size") {
        QueueErrorKind::TooLarge
    } else {
        QueueErrorKind::Conflict
    }
}

/// The same error. If the broker's answer could not be read, the kind becomes a failure of the broker: RabbitMQ before
/// 4.0 can cut an error text within a character.
pub(super) fn unreadable_is_failed(mut error: QueueError) -> QueueError {
    let source = error
        .source
        .as_ref()
        .and_then(|source| source.downcast_ref::<lapin::Error>());
    if source.is_some_and(|error| matches!(error.kind(), ErrorKind::ParsingError(_))) {
        error.kind = QueueErrorKind::BrokerFailed;
    }
    error
}

/// Whether the broker closed a channel because a delivery was held on it for too long. The reply code has other
/// meanings too, so only the text distinguishes this.
pub(super) fn is_consumer_timeout(error: &lapin::Error) -> bool {
    let ErrorKind::ProtocolError(error) = error.kind() else {
        return false;
    };
    let is_precondition = matches!(
        error.kind(),
        AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED)
    );
    let text = error.get_message().as_str();
    is_precondition && text.contains("delivery acknowledgement") && text.contains("timed out")
}

/// Sends one request with a time limit: a broker that is alive but does not answer must not block a worker.
pub(super) async fn rpc<T>(
    operation: &str,
    limit: Duration,
    request: impl Future<Output = lapin::Result<T>>,
) -> Result<T, QueueError> {
    match time::timeout(limit, request).await {
        Ok(answer) => answer.map_err(|error| classify(operation, error)),
        Err(_) => Err(QueueError::new(QueueErrorKind::Timeout, operation)),
    }
}

#[cfg(test)]
mod tests {
    use lapin::protocol::AMQPError;

    use super::*;

    #[test]
    fn reply_codes_are_mapped_to_kinds_of_errors() {
        let cases = [
            (404, QueueErrorKind::NotFound),
            (403, QueueErrorKind::AccessRefused),
            (405, QueueErrorKind::Conflict),
            (406, QueueErrorKind::Conflict),
            (311, QueueErrorKind::TooLarge),
            (312, QueueErrorKind::Unroutable),
            (320, QueueErrorKind::Disconnected),
            (501, QueueErrorKind::Disconnected),
            (530, QueueErrorKind::AccessRefused),
            (541, QueueErrorKind::BrokerFailed),
        ];
        for (code, kind) in cases {
            let error = AMQPError::from_id(code, "because".into()).expect("a known code");
            let error = lapin::Error::from(ErrorKind::ProtocolError(error));
            assert_eq!(kind_of(&error), kind, "{code}");
        }
    }

    #[test]
    fn a_failed_precondition_is_recognized_by_its_text() {
        for (text, kind) in [
            (
                "inequivalent arg 'x-message-ttl' for queue 'q' in vhost '/': received the value '1000' of type \
                 'signedint' but current is none",
                QueueErrorKind::Mismatch,
            ),
            (
                "cannot declare queue 'message size': queue limit in vhost '/' (1) is reached",
                QueueErrorKind::LimitReached,
            ),
            (
                "message size 1001 is larger than configured max size 1000",
                QueueErrorKind::TooLarge,
            ),
            (
                "user_id property set to 'a' but authenticated user was 'b'",
                QueueErrorKind::Conflict,
            ),
            ("unknown delivery tag 7", QueueErrorKind::Conflict),
        ] {
            let text = format!("PRECONDITION_FAILED - {text}");
            let error = AMQPError::from_id(406, text.as_str().into()).expect("a known code");
            let error = lapin::Error::from(ErrorKind::ProtocolError(error));
            assert_eq!(kind_of(&error), kind, "{text}");
        }
    }

    #[test]
    fn a_consumer_timeout_is_told_from_other_failed_preconditions() {
        let timed_out = "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. Timeout value used: \
                         30000 ms. This timeout value can be configured, see consumers doc guide to learn more";
        for (code, text, expected) in [
            (406, timed_out, true),
            (406, "PRECONDITION_FAILED - unknown delivery tag 7", false),
            (404, timed_out, false),
        ] {
            let error = AMQPError::from_id(code, text.into()).expect("a known code");
            let error = lapin::Error::from(ErrorKind::ProtocolError(error));
            assert_eq!(is_consumer_timeout(&error), expected, "{code} {text}");
        }
    }

    #[test]
    fn what_ends_a_channel_or_connection_is_a_disconnection() {
        for kind in [
            ErrorKind::MissingHeartbeatError,
            ErrorKind::InvalidChannel(3),
            ErrorKind::IOError(std::sync::Arc::new(std::io::ErrorKind::BrokenPipe.into())),
        ] {
            let error = lapin::Error::from(kind);
            assert_eq!(kind_of(&error), QueueErrorKind::Disconnected, "{error}");
        }
    }
}
