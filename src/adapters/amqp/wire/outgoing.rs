//! Frames to the broker. They pass unchanged, except that a marked content header is replaced by the real one, which
//! lapin writes at the start of the body. Pure.

use super::{
    frame::{FRAME_BODY, FRAME_END, FRAME_HEADER, HEAD},
    mark,
};

/// The protocol header, sent once, before all frames. It is as long as an empty frame.
const PROTOCOL: &[u8] = b"AMQP";

/// Checks the frames to the broker.
#[derive(Debug, Default)]
pub struct OutgoingFrames {
    /// Bytes of the current frame that pass unchanged.
    pass: usize,
    /// Bytes to drop: the end byte of a removed frame.
    skip: usize,
    /// The start of a frame whose kind is not known yet.
    head: Vec<u8>,
    pending: Option<PendingList>,
}

/// A property list that is not complete yet. Its content header is written when it is.
#[derive(Debug)]
struct PendingList {
    channel: u16,
    body: u64,
    length: usize,
    list: Vec<u8>,
    /// Bytes of the current body frame that still belong to the list, and bytes that belong to the body.
    now: Option<(usize, usize)>,
}

impl OutgoingFrames {
    /// Number of bytes at the front that pass unchanged. The caller may write all or some of them, and then calls
    /// [`passed`](Self::passed). If it is 0, the caller gives the bytes to [`walk`](Self::walk).
    pub fn plain(&self, bytes: &[u8]) -> usize {
        if self.skip > 0 || !self.head.is_empty() || self.pending.is_some() {
            return 0;
        }
        let mut at = self.pass.min(bytes.len());
        while let Some(length) = plain_frame(&bytes[at..]) {
            at = at.saturating_add(length).min(bytes.len());
        }
        at
    }

    /// Notes that the first `written` of these bytes are written. [`plain`](Self::plain) must have allowed them.
    pub fn passed(&mut self, bytes: &[u8], written: usize) {
        let mut end = self.pass;
        while end < written {
            // The start of this frame was complete when `plain` allowed it, so its length is known.
            end += plain_frame(&bytes[end..]).unwrap_or(written - end);
        }
        self.pass = end - written;
    }

    /// Consumes `bytes`, and appends to `out` the bytes to send.
    pub fn walk(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            if self.pass > 0 {
                let (now, rest) = bytes.split_at(self.pass.min(bytes.len()));
                out.extend_from_slice(now);
                self.pass -= now.len();
                bytes = rest;
            } else if self.skip > 0 {
                let step = self.skip.min(bytes.len());
                self.skip -= step;
                bytes = &bytes[step..];
            } else if let Some(pending) = &mut self.pending
                && let Some((left, body)) = pending.now
            {
                let (now, rest) = bytes.split_at(left.min(bytes.len()));
                pending.list.extend_from_slice(now);
                bytes = rest;
                pending.now = Some((left - now.len(), body));
                if left == now.len() {
                    self.taken(body, out);
                }
            } else {
                self.head.push(bytes[0]);
                bytes = &bytes[1..];
                self.headed(out);
            }
        }
    }

    /// The list's part of a body frame is complete. The rest of the frame is `body` bytes of body.
    fn taken(&mut self, body: usize, out: &mut Vec<u8>) {
        let Some(pending) = &mut self.pending else {
            return;
        };
        pending.now = None;
        let channel = pending.channel;
        if pending.list.len() == pending.length {
            let payload = mark::FIXED + pending.list.len();
            out.push(FRAME_HEADER);
            out.extend_from_slice(&channel.to_be_bytes());
            out.extend_from_slice(&(payload as u32).to_be_bytes());
            out.extend_from_slice(&mark::CLASS_BASIC.to_be_bytes());
            out.extend_from_slice(&[0; 2]);
            out.extend_from_slice(&pending.body.to_be_bytes());
            out.extend_from_slice(&pending.list);
            out.push(FRAME_END);
            self.pending = None;
        }
        if body > 0 {
            out.push(FRAME_BODY);
            out.extend_from_slice(&channel.to_be_bytes());
            out.extend_from_slice(&(body as u32).to_be_bytes());
            self.pass = body + 1;
        } else {
            self.skip = 1;
        }
    }

    /// Called after each byte of a frame's start.
    fn headed(&mut self, out: &mut Vec<u8>) {
        let Some((head, _)) = self.head.split_first_chunk::<HEAD>() else {
            return;
        };
        let (kind, channel, size) = parts(head);
        if self.head.starts_with(PROTOCOL) {
            self.pass = 1;
            out.append(&mut self.head);
            return;
        }
        if let Some(pending) = &mut self.pending
            && kind == FRAME_BODY
            && channel == pending.channel
        {
            let left = pending.length - pending.list.len();
            pending.now = Some((left.min(size), size - left.min(size)));
            self.head.clear();
            if size == 0 {
                self.taken(0, out);
            }
            return;
        }
        // When the broker has closed a channel, lapin drops the rest of a publish on it. The broker no longer reads
        // that channel.
        self.pending.take_if(|pending| channel == pending.channel);
        let is_candidate = kind == FRAME_HEADER && size == mark::PAYLOAD;
        if is_candidate && self.head.len() < mark::FRAME {
            return;
        }
        let marked = <&[u8; mark::FRAME]>::try_from(self.head.as_slice());
        match marked.ok().filter(|_| is_candidate).and_then(mark::read) {
            Some((channel, body, length)) => {
                self.pending = Some(PendingList {
                    channel,
                    body,
                    length,
                    list: Vec::new(),
                    now: None,
                });
            }
            None => {
                self.pass = (size + HEAD + 1).saturating_sub(self.head.len());
                out.extend_from_slice(&self.head);
            }
        }
        self.head.clear();
    }
}

fn parts(head: &[u8; HEAD]) -> (u8, u16, usize) {
    let [kind, high, low, size @ ..] = *head;
    (
        kind,
        u16::from_be_bytes([high, low]),
        u32::from_be_bytes(size) as usize,
    )
}

/// Length of the frame at the front, if it passes unchanged for certain.
fn plain_frame(bytes: &[u8]) -> Option<usize> {
    if bytes.starts_with(PROTOCOL) {
        return Some(HEAD + 1);
    }
    let (kind, _, size) = parts(bytes.first_chunk::<HEAD>()?);
    if kind == FRAME_HEADER && size == mark::PAYLOAD {
        let frame = bytes.first_chunk::<{ mark::FRAME }>()?;
        if mark::read(frame).is_some() {
            return None;
        }
    }
    Some(size + HEAD + 1)
}
