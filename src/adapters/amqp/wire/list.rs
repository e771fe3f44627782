//! Property lists as they are encoded, read and written for the cases that lapin cannot handle. Pure.

use bytes::Bytes;

use super::grammar::{
    BROKER_REQUIREMENTS, Cursor, MAX_DEPTH, PROPERTIES, PropertyKind, ValueKind, flag, is_container,
};
use crate::queue::{
    HeaderValue, Headers, Properties, QueueError, QueueErrorKind, RawTexts, UnreadValue,
};

/// Header for the unreadable rest of a malformed list. A broker would refuse the rest itself in a copy, so it is kept
/// as bytes.
const MALFORMED: &str = "x-malformed-properties";

/// Reads a list as far as possible. Texts that are not UTF-8 are escaped and stored in `raw`, which may hold some
/// texts of the message already.
pub(super) fn read(list: &[u8], raw: RawTexts) -> (Properties, Headers) {
    let mut reader = Reader {
        raw,
        malformed: Vec::new(),
    };
    let mut properties = Properties::default();
    let mut headers = Headers::new();
    let mut at = Cursor(list);
    reader.list(&mut at, &mut properties, &mut headers);
    reader.malformed.extend_from_slice(at.0);
    if !reader.malformed.is_empty() {
        let rest = HeaderValue::Binary(Bytes::from(reader.malformed));
        headers.insert(MALFORMED.to_owned(), rest);
    }
    properties.raw = reader.raw;
    (properties, headers)
}

struct Reader {
    raw: RawTexts,
    malformed: Vec<u8>,
}

impl Reader {
    /// Stops with `at` where the list is malformed, or at its end.
    fn list(&mut self, at: &mut Cursor<'_>, properties: &mut Properties, headers: &mut Headers) {
        let Some(flags) = at.u16() else {
            return;
        };
        let mut texts = [const { None }; PROPERTIES.len()];
        let mut octets = [None; PROPERTIES.len()];
        for (place, property) in PROPERTIES.into_iter().enumerate() {
            if flags & flag(place) == 0 {
                continue;
            }
            let begin = *at;
            let read = match property {
                PropertyKind::Text => at
                    .short()
                    .map(|text| texts[place] = Some(self.raw.show(text))),
                PropertyKind::Octet => at.u8().map(|octet| octets[place] = Some(octet)),
                PropertyKind::Timestamp => at.u64().map(|time| properties.timestamp = Some(time)),
                PropertyKind::Headers => at.long().map(|content| *headers = self.table(content, 1)),
            };
            if read.is_none() {
                *at = begin;
                break;
            }
        }
        let [
            content_type,
            content_encoding,
            _,
            _,
            _,
            correlation_id,
            reply_to,
            expiration,
            message_id,
            _,
            kind,
            user_id,
            app_id,
            cluster_id,
        ] = texts;
        *properties = Properties {
            content_type,
            content_encoding,
            delivery_mode: octets[3],
            priority: octets[4],
            correlation_id,
            reply_to,
            expiration,
            message_id,
            timestamp: properties.timestamp,
            kind,
            user_id,
            app_id,
            cluster_id,
            raw: RawTexts::default(),
        };
    }

    /// Recurses at most to the depth to which values are read.
    fn table(&mut self, content: &[u8], depth: usize) -> Headers {
        let mut table = Headers::new();
        let mut at = Cursor(content);
        while !at.0.is_empty() {
            let begin = at;
            let entry = at.short().and_then(|name| {
                let value = self.value(&mut at, depth)?;
                Some((self.raw.show(name), value))
            });
            match entry {
                Some((name, value)) => table.insert(name, value),
                None => {
                    self.malformed.extend_from_slice(begin.0);
                    break;
                }
            };
        }
        table
    }

    fn list_of(&mut self, content: &[u8], depth: usize) -> Vec<HeaderValue> {
        let mut values = Vec::new();
        let mut at = Cursor(content);
        while !at.0.is_empty() {
            let begin = at;
            match self.value(&mut at, depth) {
                Some(value) => values.push(value),
                None => {
                    self.malformed.extend_from_slice(begin.0);
                    break;
                }
            }
        }
        values
    }

    /// The value at `at`, in a container at this depth.
    fn value(&mut self, at: &mut Cursor<'_>, depth: usize) -> Option<HeaderValue> {
        let begin = at.0;
        let tag = at.u8()?;
        Some(match tag {
            b't' => HeaderValue::Bool(at.u8()? != 0),
            b'b' => HeaderValue::I8(at.u8()?.cast_signed()),
            b'B' => HeaderValue::U8(at.u8()?),
            b's' | b'U' => HeaderValue::I16(at.u16()?.cast_signed()),
            b'u' => HeaderValue::U16(at.u16()?),
            b'I' => HeaderValue::I32(at.u32()?.cast_signed()),
            b'i' => HeaderValue::U32(at.u32()?),
            b'l' | b'L' => HeaderValue::I64(at.u64()?.cast_signed()),
            b'f' => HeaderValue::F32(f32::from_bits(at.u32()?)),
            b'd' => HeaderValue::F64(f64::from_bits(at.u64()?)),
            b'D' => HeaderValue::Decimal {
                scale: at.u8()?,
                value: at.u32()?,
            },
            b'T' => HeaderValue::Timestamp(at.u64()?),
            b'S' => HeaderValue::Text(Bytes::copy_from_slice(at.long()?)),
            b'x' => HeaderValue::Binary(Bytes::copy_from_slice(at.long()?)),
            b'V' => HeaderValue::Void,
            b'A' | b'F' => {
                let content = at.long()?;
                let kind = ValueKind::of(tag)?;
                let encoded = || Bytes::copy_from_slice(&begin[..begin.len() - at.0.len()]);
                if depth < MAX_DEPTH {
                    match kind {
                        ValueKind::Table => HeaderValue::Table(self.table(content, depth + 1)),
                        _ => HeaderValue::List(self.list_of(content, depth + 1)),
                    }
                } else if is_container(content, kind, BROKER_REQUIREMENTS) {
                    HeaderValue::Unread(UnreadValue::new(encoded()))
                } else {
                    HeaderValue::Binary(encoded())
                }
            }
            _ => return None,
        })
    }
}

/// Whether lapin can write these properties and headers.
pub(super) fn is_plain(properties: &Properties, headers: &Headers) -> bool {
    properties.raw.is_empty() && !headers.values().any(holds_unread)
}

fn holds_unread(value: &HeaderValue) -> bool {
    match value {
        HeaderValue::Unread(_) => true,
        HeaderValue::List(values) => values.iter().any(holds_unread),
        HeaderValue::Table(table) => table.values().any(holds_unread),
        _ => false,
    }
}

/// Encodes a property list.
///
/// # Errors
/// [`TooLarge`](QueueErrorKind::TooLarge) if a text is longer than 255 bytes, or the length of a value does not fit
/// four bytes.
pub(super) fn write(properties: &Properties, headers: &Headers) -> Result<Vec<u8>, QueueError> {
    let mut writer = Writer {
        raw: &properties.raw,
        out: vec![0, 0],
    };
    let flags = writer
        .list(properties, headers)
        .ok_or_else(|| QueueError::new(QueueErrorKind::TooLarge, "encode the properties"))?;
    let mut out = writer.out;
    out[..2].copy_from_slice(&flags.to_be_bytes());
    Ok(out)
}

struct Writer<'a> {
    raw: &'a RawTexts,
    out: Vec<u8>,
}

impl Writer<'_> {
    fn list(&mut self, properties: &Properties, headers: &Headers) -> Option<u16> {
        let Properties {
            content_type,
            content_encoding,
            delivery_mode,
            priority,
            correlation_id,
            reply_to,
            expiration,
            message_id,
            timestamp,
            kind,
            user_id,
            app_id,
            cluster_id,
            raw: _,
        } = properties;
        let texts = [
            (0, content_type),
            (1, content_encoding),
            (5, correlation_id),
            (6, reply_to),
            (7, expiration),
            (8, message_id),
            (10, kind),
            (11, user_id),
            (12, app_id),
            (13, cluster_id),
        ];
        let mut flags = 0;
        for (place, property) in PROPERTIES.into_iter().enumerate() {
            let before = self.out.len();
            match property {
                PropertyKind::Text => {
                    let text = texts.iter().find(|(at, _)| *at == place)?.1;
                    if let Some(text) = text {
                        self.short(text)?;
                    }
                }
                PropertyKind::Octet => {
                    let octet = if place == 3 { delivery_mode } else { priority };
                    self.out.extend(octet.iter());
                }
                PropertyKind::Timestamp => {
                    self.out
                        .extend(timestamp.iter().flat_map(|time| time.to_be_bytes()));
                }
                PropertyKind::Headers if headers.is_empty() => {}
                PropertyKind::Headers => self.table(headers)?,
            }
            if self.out.len() > before {
                flags |= flag(place);
            }
        }
        Some(flags)
    }

    fn short(&mut self, shown: &str) -> Option<()> {
        let bytes = self.raw.bytes(shown);
        self.out.push(u8::try_from(bytes.len()).ok()?);
        self.out.extend_from_slice(bytes);
        Some(())
    }

    fn long(&mut self, bytes: &[u8]) -> Option<()> {
        let length = u32::try_from(bytes.len()).ok()?;
        self.out.extend_from_slice(&length.to_be_bytes());
        self.out.extend_from_slice(bytes);
        Some(())
    }

    /// Writes `content` with its length before it.
    fn sized(&mut self, content: impl FnOnce(&mut Self) -> Option<()>) -> Option<()> {
        let at = self.out.len();
        self.out.extend_from_slice(&[0; 4]);
        content(self)?;
        let length = u32::try_from(self.out.len() - at - 4).ok()?;
        self.out[at..at + 4].copy_from_slice(&length.to_be_bytes());
        Some(())
    }

    fn table(&mut self, table: &Headers) -> Option<()> {
        self.sized(|writer| {
            for (name, value) in table {
                writer.short(name)?;
                writer.value(value)?;
            }
            Some(())
        })
    }

    fn value(&mut self, value: &HeaderValue) -> Option<()> {
        macro_rules! fixed {
            ($tag:literal, $value:expr) => {{
                self.out.push($tag);
                self.out.extend_from_slice(&$value.to_be_bytes());
            }};
        }
        match value {
            HeaderValue::Bool(v) => fixed!(b't', u8::from(*v)),
            HeaderValue::I8(v) => fixed!(b'b', v),
            HeaderValue::U8(v) => fixed!(b'B', v),
            HeaderValue::I16(v) => fixed!(b's', v),
            HeaderValue::U16(v) => fixed!(b'u', v),
            HeaderValue::I32(v) => fixed!(b'I', v),
            HeaderValue::U32(v) => fixed!(b'i', v),
            HeaderValue::I64(v) => fixed!(b'l', v),
            HeaderValue::F32(v) => fixed!(b'f', v),
            HeaderValue::F64(v) => fixed!(b'd', v),
            HeaderValue::Timestamp(v) => fixed!(b'T', v),
            HeaderValue::Decimal { scale, value } => {
                self.out.extend_from_slice(&[b'D', *scale]);
                self.out.extend_from_slice(&value.to_be_bytes());
            }
            HeaderValue::Text(bytes) => {
                self.out.push(b'S');
                self.long(bytes)?;
            }
            HeaderValue::Binary(bytes) => {
                self.out.push(b'x');
                self.long(bytes)?;
            }
            HeaderValue::Void => self.out.push(b'V'),
            HeaderValue::List(values) => {
                self.out.push(b'A');
                self.sized(|writer| values.iter().try_for_each(|value| writer.value(value)))?;
            }
            HeaderValue::Table(table) => {
                self.out.push(b'F');
                self.table(table)?;
            }
            HeaderValue::Unread(value) => self.out.extend_from_slice(value.encoded()),
        }
        Some(())
    }
}
