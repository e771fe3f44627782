//! The W3C trace context of a message: its `traceparent` and `tracestate` headers.
//!
//! The format is <https://www.w3.org/TR/trace-context/>. A publisher writes the headers, so nothing in them is trusted:
//! what does not follow the format is left out. Copies carry both headers unchanged.

use super::{HeaderValue, Message};

/// Name of the header with the trace, the parent span and the flags.
pub const TRACEPARENT: &str = "traceparent";
/// Name of the header with what tracing systems add.
pub const TRACESTATE: &str = "tracestate";

/// Length of a `traceparent` of version 00.
const TRACEPARENT_LENGTH: usize = 55;
/// Members that a `tracestate` may have.
const MAX_MEMBERS: usize = 32;
/// Longest key and longest value of a member.
const MAX_PART: usize = 256;

/// A position in a distributed trace, in the W3C format. Always valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    traceparent: String,
    tracestate: Option<String>,
}

impl TraceContext {
    /// A context from its two headers. `None` if `traceparent` is invalid. An invalid or empty `tracestate` is left out.
    pub fn new(traceparent: &str, tracestate: Option<&str>) -> Option<Self> {
        is_traceparent(traceparent).then(|| Self {
            traceparent: traceparent.to_owned(),
            tracestate: tracestate
                .filter(|text| is_tracestate(text))
                .map(str::to_owned),
        })
    }

    /// `version-trace-parent-flags`, in lower-case hexadecimal digits.
    pub fn traceparent(&self) -> &str {
        &self.traceparent
    }

    /// `key=value` pairs of tracing systems, separated by commas.
    pub fn tracestate(&self) -> Option<&str> {
        self.tracestate.as_deref()
    }

    /// The id of the trace: 32 digits.
    pub fn trace_id(&self) -> &str {
        &self.traceparent[3..35]
    }

    /// The id of the span that this context is of: 16 digits.
    pub fn span_id(&self) -> &str {
        &self.traceparent[36..52]
    }

    /// Whether the publisher records this trace.
    pub fn is_sampled(&self) -> bool {
        u8::from_str_radix(&self.traceparent[53..55], 16).is_ok_and(|flags| flags & 1 == 1)
    }
}

impl Message {
    /// The trace context that the publisher has set, if it is valid.
    pub fn trace_context(&self) -> Option<TraceContext> {
        let text = |name| match self.headers.get(name) {
            Some(HeaderValue::Text(bytes) | HeaderValue::Binary(bytes)) => {
                std::str::from_utf8(bytes).ok()
            }
            _ => None,
        };
        TraceContext::new(text(TRACEPARENT)?, text(TRACESTATE))
    }
}

/// Versions after 00 may add fields at the end, and never have the number ff.
fn is_traceparent(text: &str) -> bool {
    let is_hex = |part: &str, length: usize| {
        part.len() == length
            && part
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let is_id = |part: &str, length| is_hex(part, length) && part.bytes().any(|byte| byte != b'0');
    let mut parts = text.splitn(5, '-');
    let (Some(version), Some(trace), Some(span), Some(flags)) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let is_known_end = match parts.next() {
        None => text.len() == TRACEPARENT_LENGTH,
        Some(rest) => {
            version != "00" && !rest.is_empty() && text.len() <= MAX_PART && is_visible(rest)
        }
    };
    is_known_end
        && is_hex(version, 2)
        && version != "ff"
        && is_id(trace, 32)
        && is_id(span, 16)
        && is_hex(flags, 2)
}

fn is_visible(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// A list of `key=value` members. Members may be empty, but not all.
fn is_tracestate(text: &str) -> bool {
    let members: Vec<_> = text
        .split(',')
        .map(|member| member.trim_matches([' ', '\t']))
        .filter(|member| !member.is_empty())
        .collect();
    let is_member = |member: &&str| {
        member
            .split_once('=')
            .is_some_and(|(key, value)| is_key(key) && is_value(value))
    };
    // A key may be there once.
    let keys = || members.iter().filter_map(|member| member.split('=').next());
    let is_unique = || (keys().enumerate()).all(|(at, key)| !keys().take(at).any(|k| k == key));
    !members.is_empty()
        && members.len() <= MAX_MEMBERS
        && members.iter().all(is_member)
        && is_unique()
}

fn is_key(key: &str) -> bool {
    let is_part = |part: &str| {
        part.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit())
            && part
                .bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/'))
    };
    let mut parts = key.split('@');
    let (tenant, system) = (parts.next(), parts.next());
    key.len() <= MAX_PART
        && parts.next().is_none()
        && tenant.is_some_and(is_part)
        && system.is_none_or(is_part)
}

fn is_value(value: &str) -> bool {
    !value.is_empty()
        && value.len() <= MAX_PART
        && !value.ends_with(' ')
        && value
            .bytes()
            .all(|byte| matches!(byte, b' '..=b'~') && byte != b',' && byte != b'=')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::queue::Headers;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn message(headers: &[(&str, HeaderValue)]) -> Message {
        Message {
            headers: headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone()))
                .collect::<Headers>(),
            ..Message::default()
        }
    }

    #[test]
    fn reads_the_parts_of_a_context() {
        let message = message(&[
            (TRACEPARENT, PARENT.into()),
            (TRACESTATE, "congo=t61rcWkgMzE,rojo=00f0".into()),
        ]);
        let context = message.trace_context().unwrap();
        assert_eq!(context.traceparent(), PARENT);
        assert_eq!(context.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(context.span_id(), "00f067aa0ba902b7");
        assert_eq!(context.tracestate(), Some("congo=t61rcWkgMzE,rojo=00f0"));
        assert!(context.is_sampled());
        let unsampled = format!("{}00", &PARENT[..53]);
        assert!(!TraceContext::new(&unsampled, None).unwrap().is_sampled());
    }

    #[test]
    fn leaves_out_a_traceparent_that_is_invalid() {
        let trace = &PARENT[3..35];
        let span = &PARENT[36..52];
        for invalid in [
            String::new(),
            "00".to_owned(),
            PARENT.to_uppercase(),
            format!("{PARENT}-"),
            format!("{PARENT}-00"),
            format!("{PARENT} "),
            format!("{PARENT}\n"),
            format!("ff-{trace}-{span}-01"),
            format!("0g-{trace}-{span}-01"),
            format!("00-{}-{span}-01", "0".repeat(32)),
            format!("00-{trace}-{}-01", "0".repeat(16)),
            format!("00-{trace}0-{span}-01"),
            format!("00-{trace}-{span}-1"),
            format!("00-{trace}-{span}"),
            format!("01-{trace}-{span}-01-"),
            format!("01-{trace}-{span}-01-\u{7}"),
            format!("01-{trace}-{span}-01-{}", "x".repeat(300)),
        ] {
            assert_eq!(TraceContext::new(&invalid, None), None, "{invalid:?}");
        }
        assert_eq!(message(&[(TRACEPARENT, 7.into())]).trace_context(), None);
        let bytes = HeaderValue::Text(b"\xff"[..].into());
        assert_eq!(message(&[(TRACEPARENT, bytes)]).trace_context(), None);
        // Without a traceparent its tracestate means nothing.
        assert_eq!(message(&[(TRACESTATE, "a=b".into())]).trace_context(), None);
    }

    #[test]
    fn accepts_keys_that_a_later_version_adds() {
        let later = format!("cc{}-what-the-future", &PARENT[2..]);
        let context = TraceContext::new(&later, None).unwrap();
        assert_eq!(context.traceparent(), later);
        assert_eq!(context.span_id(), "00f067aa0ba902b7");
    }

    #[test]
    fn leaves_out_a_tracestate_that_is_invalid_and_keeps_the_trace() {
        let with = |state: &str| {
            let context = TraceContext::new(PARENT, Some(state)).unwrap();
            context.tracestate().map(str::to_owned)
        };
        for valid in [
            "a=b",
            "a=b, ,c=d",
            "tenant@system=value with space",
            "0a=!~",
        ] {
            assert_eq!(with(valid).as_deref(), Some(valid));
        }
        let many = |n: usize| {
            let members: Vec<_> = (0..n).map(|n| format!("k{n}=v")).collect();
            members.join(",")
        };
        assert!(with(&many(32)).is_some());
        for invalid in [
            "",
            " , ",
            "a",
            "a=",
            "=b",
            "A=b",
            "a=b=c",
            "a=b,a=c",
            "a@b@c=d",
            "a@=d",
            "a=b\n",
            "a=\u{e9}",
            &many(33),
            &format!("{}=b", "k".repeat(257)),
            &format!("a={}", "v".repeat(257)),
        ] {
            assert_eq!(with(invalid), None, "{invalid:?}");
        }
    }

    proptest! {
        /// The accessors cut the text at fixed places.
        #[test]
        fn never_panics_on_an_accepted_context(parent in ".{0,60}", state in ".{0,60}") {
            if let Some(context) = TraceContext::new(&parent, Some(&state)) {
                let _ = (context.trace_id(), context.span_id(), context.is_sampled());
            }
        }
    }
}
