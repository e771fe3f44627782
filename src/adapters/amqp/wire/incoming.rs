//! Frames from the broker: each is passed on unchanged, replaced or refused. Pure.

use std::collections::HashMap;

use tidegate_core::text::first_bytes;

use super::{
    frame::{
        FRAME_BODY, FRAME_END, FRAME_HEADER, FRAME_HEARTBEAT, FRAME_MAX, FRAME_METHOD, FRAME_MIN,
        HEAD,
    },
    grammar::{Cursor, LAPIN_REQUIREMENTS, ValueKind, is_container, is_plain},
    mark,
};
use crate::queue::RawTexts;

/// Largest content header that is accepted. A broker sends a content header whole even if it is larger than the
/// agreed frame size: it may be as large as the publisher's frames, plus what the broker adds.
const HEADER_MAX: usize = 16 << 20;

/// Largest frame before the frame size is agreed.
const GREETING_MAX: usize = 64 << 10;

/// What to do with the bytes of a frame.
#[derive(Debug, PartialEq, Eq)]
pub enum FrameAction {
    /// Pass on this number of bytes unchanged. For a body this can be more than `look` has seen.
    Pass(usize),
    /// Look again when this number of bytes has arrived.
    Wait(usize),
    /// Replace this number of bytes by these.
    Replace(usize, Vec<u8>),
}

/// Why the connection is closed: no broker sends these bytes.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameError {
    /// The frame is larger than the agreed size, or than the largest content header.
    #[error("the broker sent a frame of {0} bytes, which is too large")]
    TooLarge(usize),
    /// The frame has an unknown type.
    #[error("the broker sent a frame of the unknown type {0}")]
    Type(u8),
    /// The frame does not end where its size says.
    #[error("the broker sent a frame without an end byte")]
    End,
    /// The frame holds a method that brokers do not send, or a method that is cut short.
    #[error("the broker sent the method {0}.{1}, which is not allowed or is cut short")]
    Method(u16, u16),
    /// The frame holds a content header that is cut short.
    #[error("the broker sent a content header that is cut short")]
    Header,
}

/// Checks the frames from the broker.
#[derive(Debug)]
pub struct IncomingFrames {
    /// The frame size that our side asks for, in bytes; 0 accepts the broker's size.
    ours: u32,
    agreed: Option<usize>,
    /// Exchange and routing key of deliveries whose content header has not arrived, if lapin cannot read them. The
    /// map's key is the channel.
    names: HashMap<u16, DeliveryNames>,
}

#[derive(Debug)]
struct DeliveryNames {
    exchange: Vec<u8>,
    routing_key: Vec<u8>,
}

impl IncomingFrames {
    /// For a connection on which our side asks for this frame size, in bytes.
    pub fn new(ours: Option<u32>) -> Self {
        Self {
            ours: ours.unwrap_or(0),
            agreed: None,
            names: HashMap::new(),
        }
    }

    pub(super) fn frame_max(&self) -> usize {
        self.agreed.unwrap_or(GREETING_MAX)
    }

    /// Decides about the frame at the front of `bytes`.
    ///
    /// # Errors
    /// The connection must be closed.
    pub fn look(&mut self, bytes: &[u8]) -> Result<FrameAction, FrameError> {
        let Some((head, _)) = bytes.split_first_chunk::<HEAD>() else {
            return Ok(FrameAction::Wait(HEAD));
        };
        let [kind, channel @ .., _, _, _, _] = *head;
        let [_, _, _, size @ ..] = *head;
        let channel = u16::from_be_bytes([channel[0], channel[1]]);
        let size = u32::from_be_bytes(size) as usize;
        let length = size.saturating_add(HEAD + 1);
        let limit = match kind {
            FRAME_HEADER => HEADER_MAX,
            FRAME_METHOD | FRAME_BODY | FRAME_HEARTBEAT => self.frame_max(),
            // A broker of another protocol answers with a protocol header. Lapin reports that well.
            b'A' if self.agreed.is_none() => return Ok(FrameAction::Pass(HEAD + 1)),
            other => return Err(FrameError::Type(other)),
        };
        if length > limit {
            return Err(FrameError::TooLarge(length));
        }
        if kind == FRAME_BODY || kind == FRAME_HEARTBEAT {
            return Ok(FrameAction::Pass(length));
        }
        let Some((payload, end)) = bytes
            .get(HEAD..length)
            .and_then(<[u8]>::split_last_chunk::<1>)
            .map(|(payload, [end])| (payload, *end))
        else {
            return Ok(FrameAction::Wait(length));
        };
        if end != FRAME_END {
            return Err(FrameError::End);
        }
        let replaced = match kind {
            FRAME_METHOD => self.method(channel, payload)?,
            _ => self.header(channel, payload, length)?,
        };
        Ok(match replaced {
            None => FrameAction::Pass(length),
            Some(replaced) => FrameAction::Replace(length, replaced),
        })
    }

    fn header(
        &mut self,
        channel: u16,
        payload: &[u8],
        length: usize,
    ) -> Result<Option<Vec<u8>>, FrameError> {
        let (fixed, list) = payload
            .split_first_chunk::<{ mark::FIXED }>()
            .ok_or(FrameError::Header)?;
        let names = match self.names.is_empty() {
            true => None,
            false => self.names.remove(&channel),
        };
        if names.is_none() && length <= self.frame_max() && is_plain(list) {
            return Ok(None);
        }
        let [_, _, _, _, body @ ..] = *fixed;
        let body = u64::from_be_bytes(body);
        let preface = Preface::write(names, list);
        let mut out = mark::frame(channel, body, preface.len()).ok_or(FrameError::Header)?;
        for part in preface.chunks(self.frame_max() - HEAD - 1) {
            frame(&mut out, FRAME_BODY, channel, part);
        }
        Ok(Some(out))
    }

    fn method(&mut self, channel: u16, payload: &[u8]) -> Result<Option<Vec<u8>>, FrameError> {
        let mut at = Cursor(payload);
        let (Some(class), Some(method)) = (at.u16(), at.u16()) else {
            return Err(FrameError::Method(0, 0));
        };
        if !self.names.is_empty() {
            self.names.remove(&channel);
        }
        let refused = FrameError::Method(class, method);
        let Some(layout) = layout(class, method) else {
            return Err(refused);
        };
        let arguments = at;
        let Some(is_plain) = fields(layout, arguments, |_, plain| plain) else {
            return Err(refused);
        };
        if (class, method) == TUNE {
            return Ok(self.tune(channel, payload));
        }
        if is_plain {
            return Ok(None);
        }
        let mut repaired = payload[..4].to_vec();
        let mut names = Vec::new();
        fields(layout, arguments, |field, _| {
            match field {
                MethodArgument::Short(text) => {
                    let shown = RawTexts::default().show(text);
                    let shown = first_bytes(&shown, usize::from(u8::MAX));
                    repaired.push(shown.len() as u8);
                    repaired.extend_from_slice(shown.as_bytes());
                    names.push(text);
                }
                // Only a greeting has a table, and nothing of it is needed.
                MethodArgument::Table(content)
                    if !is_container(content, ValueKind::Table, LAPIN_REQUIREMENTS) =>
                {
                    repaired.extend_from_slice(&[0; 4]);
                }
                MethodArgument::Table(content) => {
                    repaired.extend_from_slice(&(content.len() as u32).to_be_bytes());
                    repaired.extend_from_slice(content);
                }
                MethodArgument::Other(bytes) => repaired.extend_from_slice(bytes),
            }
            true
        });
        // Both methods have these two texts last. Only these are kept, because copies carry them.
        if let ((60, 60) | (60, 71), [.., exchange, routing_key]) = ((class, method), &names[..]) {
            let names = DeliveryNames {
                exchange: exchange.to_vec(),
                routing_key: routing_key.to_vec(),
            };
            self.names.insert(channel, names);
        }
        let mut out = Vec::with_capacity(repaired.len() + HEAD + 1);
        frame(&mut out, FRAME_METHOD, channel, &repaired);
        Ok(Some(out))
    }

    /// Notes the agreed frame size, by lapin's rule. A `frame_max` of 0 means no limit. Lapin allocates memory for
    /// many frames of the size that the broker names, so a broker without a limit is given ours.
    fn tune(&mut self, channel: u16, payload: &[u8]) -> Option<Vec<u8>> {
        let mut at = Cursor(payload.get(6..)?);
        let said = at.u32()?;
        let theirs = match said {
            0 => FRAME_MAX,
            said => said.min(FRAME_MAX),
        };
        let agreed = match self.ours {
            0 => theirs,
            ours => ours.min(theirs),
        };
        self.agreed = Some(agreed.max(FRAME_MIN) as usize);
        if theirs == said {
            return None;
        }
        let mut payload = payload.to_vec();
        payload[6..10].copy_from_slice(&theirs.to_be_bytes());
        let mut out = Vec::new();
        frame(&mut out, FRAME_METHOD, channel, &payload);
        Some(out)
    }
}

/// The bytes that precede the body of a marked message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Preface<'a> {
    /// Exchange and routing key, if lapin could not read them.
    pub(super) names: Option<(&'a [u8], &'a [u8])>,
    /// The property list.
    pub(super) list: &'a [u8],
}

impl<'a> Preface<'a> {
    fn write(names: Option<DeliveryNames>, list: &[u8]) -> Vec<u8> {
        let mut preface = Vec::with_capacity(list.len() + 1);
        preface.push(u8::from(names.is_some()));
        if let Some(names) = names {
            for name in [names.exchange, names.routing_key] {
                // Both were short strings, so each length fits one byte.
                preface.push(name.len() as u8);
                preface.extend_from_slice(&name);
            }
        }
        preface.extend_from_slice(list);
        preface
    }

    /// Reads a preface that [`write`](Self::write) made; `None` for other bytes.
    pub(super) fn read(preface: &'a [u8]) -> Option<Self> {
        let mut at = Cursor(preface);
        let names = match at.u8()? {
            0 => None,
            _ => Some((at.short()?, at.short()?)),
        };
        Some(Self { names, list: at.0 })
    }
}

fn frame(out: &mut Vec<u8>, kind: u8, channel: u16, payload: &[u8]) {
    out.push(kind);
    out.extend_from_slice(&channel.to_be_bytes());
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    out.extend_from_slice(payload);
    out.push(FRAME_END);
}

const TUNE: (u16, u16) = (10, 30);

/// The arguments of each method that a broker may send: `o` is one byte, `h` two, `l` four, `L` eight, `s` a short
/// string, `S` a long string, `F` a table. A method that only clients send is not listed, even if it has a table.
fn layout(class: u16, method: u16) -> Option<&'static [u8]> {
    Some(match (class, method) {
        // connection: start, secure, tune, open-ok, close, close-ok, blocked, unblocked, update-secret-ok
        (10, 10) => b"ooFSS",
        (10, 20) => b"S",
        (10, 30) => b"hlh",
        (10, 41) => b"s",
        (10, 50) => b"hshh",
        (10, 51) => b"",
        (10, 60) => b"s",
        (10, 61 | 71) => b"",
        // channel: open-ok, flow, flow-ok, close, close-ok
        (20, 11) => b"S",
        (20, 20 | 21) => b"o",
        (20, 40) => b"hshh",
        (20, 41) => b"",
        // access: request-ok; exchange: all answers
        (30, 11) => b"h",
        (40, 11 | 21 | 31 | 51) => b"",
        // queue: declare-ok, bind-ok, purge-ok, delete-ok, unbind-ok
        (50, 11) => b"sll",
        (50, 31 | 41) => b"l",
        (50, 21 | 51) => b"",
        // basic: qos-ok, consume-ok, cancel, cancel-ok, return, deliver, get-ok, get-empty, ack, nack, recover-ok
        (60, 11 | 111) => b"",
        (60, 21 | 31) => b"s",
        (60, 30) => b"so",
        (60, 50) => b"hsss",
        (60, 60) => b"sLoss",
        (60, 71) => b"Lossl",
        (60, 72) => b"s",
        (60, 80 | 120) => b"Lo",
        // confirm and tx: all answers
        (85, 11) => b"",
        (90, 11 | 21 | 31) => b"",
        _ => return None,
    })
}

/// One argument of a method.
#[derive(Debug)]
enum MethodArgument<'a> {
    Short(&'a [u8]),
    Table(&'a [u8]),
    /// Any other argument, as its bytes.
    Other(&'a [u8]),
}

/// Calls `each` with every argument and whether lapin can read it. Returns whether all calls returned true, or `None`
/// if the arguments do not match the layout.
fn fields<'a>(
    layout: &[u8],
    mut at: Cursor<'a>,
    mut each: impl FnMut(MethodArgument<'a>, bool) -> bool,
) -> Option<bool> {
    let mut all = true;
    for kind in layout {
        let begin = at.0;
        let (field, plain) = match kind {
            b's' => {
                let text = at.short()?;
                (
                    MethodArgument::Short(text),
                    text.is_ascii() || std::str::from_utf8(text).is_ok(),
                )
            }
            b'F' => {
                let content = at.long()?;
                (
                    MethodArgument::Table(content),
                    is_container(content, ValueKind::Table, LAPIN_REQUIREMENTS),
                )
            }
            b'S' => {
                at.long()?;
                (
                    MethodArgument::Other(&begin[..begin.len() - at.0.len()]),
                    true,
                )
            }
            fixed => {
                let bytes = match fixed {
                    b'o' => 1,
                    b'h' => 2,
                    b'l' => 4,
                    _ => 8,
                };
                (MethodArgument::Other(at.take(bytes)?), true)
            }
        };
        all &= each(field, plain);
    }
    at.0.is_empty().then_some(all)
}
