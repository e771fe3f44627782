//! The mark: a property list that lapin cannot read or write travels at the start of the message's body. Pure.
//!
//! A marked content header has exactly one header. Its name is a secret of this process, and its value is the length
//! of the *preface*: the bytes at the start of the body that do not belong to the body. Nobody outside knows the
//! name, so no publisher can mark a message. When lapin drops a message, its preface is dropped with its body, so no
//! other state is needed. A body can have several frames, so a list of any size fits.

use std::{collections::BTreeMap, sync::OnceLock};

use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, ShortString},
};

use super::{
    frame::{FRAME_END, FRAME_HEADER, HEAD},
    grammar::flag,
};

/// Class `basic`, the only class with content.
pub(super) const CLASS_BASIC: u16 = 60;
/// Class, weight and body size. They precede the property list.
pub(super) const FIXED: usize = 12;
const NAME: usize = 32;
const TABLE: usize = 1 + NAME + 1 + 4;
const LIST: usize = 2 + 4 + TABLE;
/// Size of a marked content header's payload, in bytes.
pub(super) const PAYLOAD: usize = FIXED + LIST;
/// Size of a marked content header's frame, in bytes.
pub(super) const FRAME: usize = HEAD + PAYLOAD + 1;

fn name() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| format!("{:032x}", rand::random::<u128>()))
}

/// The frame of a marked content header, for `preface` bytes of preface and `body` bytes of body.
///
/// `None` if a length does not fit its field.
pub(super) fn frame(channel: u16, body: u64, preface: usize) -> Option<Vec<u8>> {
    let length = u32::try_from(preface).ok()?;
    let body = body.checked_add(length.into())?;
    let mut frame = Vec::with_capacity(FRAME);
    frame.push(FRAME_HEADER);
    frame.extend_from_slice(&channel.to_be_bytes());
    frame.extend_from_slice(&(PAYLOAD as u32).to_be_bytes());
    frame.extend_from_slice(&CLASS_BASIC.to_be_bytes());
    frame.extend_from_slice(&[0; 2]);
    frame.extend_from_slice(&body.to_be_bytes());
    frame.extend_from_slice(&flag(2).to_be_bytes());
    frame.extend_from_slice(&(TABLE as u32).to_be_bytes());
    frame.push(NAME as u8);
    frame.extend_from_slice(name().as_bytes());
    frame.push(b'i');
    frame.extend_from_slice(&length.to_be_bytes());
    frame.push(FRAME_END);
    Some(frame)
}

/// The properties that lapin writes as a mark.
pub(super) fn properties(preface: usize) -> Option<BasicProperties> {
    let length = AMQPValue::LongUInt(u32::try_from(preface).ok()?);
    let table = BTreeMap::from([(ShortString::try_new(name()).ok()?, length)]);
    Some(BasicProperties::default().with_headers(FieldTable::from(table)))
}

/// The length of the preface, or `None` if these properties are not a mark.
pub(super) fn preface(properties: &BasicProperties) -> Option<usize> {
    let table = properties.headers().as_ref()?.inner();
    if table.len() != 1 {
        return None;
    }
    match table.get(name())? {
        AMQPValue::LongUInt(length) => usize::try_from(*length).ok(),
        _ => None,
    }
}

/// Channel, size of the body without its preface, and length of the preface; `None` if the frame is not marked.
pub(super) fn read(frame: &[u8; FRAME]) -> Option<(u16, u64, usize)> {
    let channel = u16::from_be_bytes([frame[1], frame[2]]);
    let (size, list) = frame[HEAD + 4..].split_first_chunk::<8>()?;
    let length = u32::from_be_bytes(*list[LIST - 4..].first_chunk()?);
    let body = u64::from_be_bytes(*size).checked_sub(length.into())?;
    let length = usize::try_from(length).ok()?;
    (self::frame(channel, body, length)?.as_slice() == frame).then_some((channel, body, length))
}

#[cfg(test)]
mod tests {
    use lapin::types::generation::{gen_field_table, gen_short_uint};

    use super::*;

    #[test]
    fn a_mark_is_what_lapin_writes_and_is_read_back() {
        let frame = frame(7, 1_000, 300).expect("the lengths fit");
        assert_eq!(frame.len(), FRAME);
        let as_array: &[u8; FRAME] = frame.as_slice().try_into().expect("its size");
        assert_eq!(read(as_array), Some((7, 1_000, 300)));
        let properties = properties(300).expect("the lengths fit");
        assert_eq!(preface(&properties), Some(300));
        let table = properties.headers().as_ref().expect("a table");
        let flags = gen_short_uint(properties.bitmask())(Vec::new().into()).expect("two bytes");
        let (written, _) = gen_field_table(table)(flags).expect("a table").into_inner();
        assert_eq!(written, frame[HEAD + FIXED..FRAME - 1]);
    }

    #[test]
    fn a_mark_with_another_name_is_ignored() {
        let mut frame = frame(1, 0, 2).expect("the lengths fit");
        frame[HEAD + FIXED + 8] ^= 1;
        assert_eq!(read(frame.as_slice().try_into().expect("its size")), None);
        let table = BTreeMap::from([("0".repeat(32).into(), AMQPValue::LongUInt(2))]);
        let forged = BasicProperties::default().with_headers(FieldTable::from(table));
        assert_eq!(preface(&forged), None);
        assert_eq!(preface(&BasicProperties::default()), None);
    }
}
