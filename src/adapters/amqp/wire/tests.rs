//! Tests of the stream below lapin: frames that are hostile, malformed or too long.

mod properties;

use std::io;

use amq_protocol::frame::{AMQPFrame, parse_frame};
use futures_util::{
    FutureExt as _,
    io::{AsyncReadExt as _, AsyncWriteExt as _},
};

use super::{frame::*, *};
use crate::queue::{HeaderValue, UnreadValue, header_size};

const FRAME_MAX_USUAL: u32 = 131_072;

fn framed(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    out.extend_from_slice(&channel.to_be_bytes());
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    out.extend_from_slice(payload);
    out.push(FRAME_END);
    out
}

fn header_frame(channel: u16, body: u64, list: &[u8]) -> Vec<u8> {
    let mut payload = vec![0, 60, 0, 0];
    payload.extend_from_slice(&body.to_be_bytes());
    payload.extend_from_slice(list);
    framed(FRAME_HEADER, channel, &payload)
}

fn tune_payload(frame_max: u32) -> Vec<u8> {
    let mut payload = vec![0, 10, 0, 30, 0x07, 0xff];
    payload.extend_from_slice(&frame_max.to_be_bytes());
    payload.extend_from_slice(&[0, 60]);
    payload
}

fn tune(frame_max: u32) -> Vec<u8> {
    framed(FRAME_METHOD, 0, &tune_payload(frame_max))
}

fn agreed() -> IncomingFrames {
    let mut incoming = IncomingFrames::new(None);
    let tune = tune(FRAME_MAX_USUAL);
    assert_eq!(incoming.look(&tune), Ok(FrameAction::Pass(tune.len())));
    incoming
}

/// A property list with `levels` nested tables or lists, the header table included.
fn nested(levels: usize, tag: u8) -> Vec<u8> {
    let mut value = Vec::new();
    for level in 0..levels {
        let mut outer = Vec::with_capacity(value.len() + 7);
        if tag == b'F' || level + 1 == levels {
            outer.extend_from_slice(b"\x01k");
        }
        if level > 0 {
            outer.push(tag);
            outer.extend_from_slice(&(value.len() as u32).to_be_bytes());
            outer.extend_from_slice(&value);
        } else {
            outer.push(b'V');
        }
        value = outer;
    }
    let mut list = vec![0x20, 0];
    list.extend_from_slice(&(value.len() as u32).to_be_bytes());
    list.extend_from_slice(&value);
    list
}

/// All frames that lapin's parser reads. Panics where lapin would close the connection.
fn parsed_by_lapin(mut bytes: &[u8]) -> Vec<AMQPFrame> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let (rest, frame) = parse_frame(bytes).expect("lapin reads it");
        frames.push(frame);
        bytes = rest;
    }
    frames
}

/// The message that our code makes from what lapin read.
fn arrived(frames: &[AMQPFrame]) -> (Properties, Headers, Vec<u8>) {
    let [AMQPFrame::Header(_, header), bodies @ ..] = frames else {
        panic!("the first frame is not a content header: {frames:?}");
    };
    let mut body = Vec::new();
    for frame in bodies {
        let AMQPFrame::Body(_, part) = frame else {
            panic!("a frame after the header is not a body frame");
        };
        body.extend_from_slice(part);
    }
    assert_eq!(header.body_size, body.len() as u64);
    let length = mark::preface(&header.properties).expect("it is marked");
    let rest = body.split_off(length);
    let preface = Preface::read(&body).expect("the preface is complete");
    let (properties, headers) = list::read(preface.list, RawTexts::default());
    (properties, headers, rest)
}

#[test]
fn a_text_that_is_not_utf8_is_shown_escaped_and_sent_as_it_came() {
    let raw = b"\xff\xfe\x80raw";
    let mut list = vec![0x04, 0, raw.len() as u8];
    list.extend_from_slice(raw);
    let frame = header_frame(1, 0, &list);
    assert!(parse_frame(frame.as_slice()).is_err(), "lapin cannot");
    let Ok(FrameAction::Replace(_, with)) = agreed().look(&frame) else {
        panic!("the frame is not replaced");
    };
    let (properties, headers, body) = arrived(&parsed_by_lapin(&with));
    assert_eq!(
        properties.correlation_id.as_deref(),
        Some(r"\xff\xfe\x80raw")
    );
    assert!(headers.is_empty() && body.is_empty());
    assert_eq!(list::write(&properties, &headers).expect("it fits"), list);
}

#[test]
fn deeply_nested_values_are_cut_for_jobs_and_whole_on_copies() {
    for tag in [b'F', b'A'] {
        for levels in [63, 64, 65, 66, 2_000, 30_000] {
            let list = nested(levels, tag);
            let mut frame_size_agreed = IncomingFrames::new(None);
            frame_size_agreed.look(&tune(1 << 20)).expect("a tune");
            let frame = header_frame(1, 0, &list);
            let look = frame_size_agreed.look(&frame).expect("it is accepted");
            if levels <= grammar::MAX_DEPTH {
                assert_eq!(look, FrameAction::Pass(frame.len()), "{levels}");
                parsed_by_lapin(&frame);
                continue;
            }
            let FrameAction::Replace(_, with) = look else {
                panic!("{levels} levels are not replaced");
            };
            let (properties, headers, _) = arrived(&parsed_by_lapin(&with));
            // Dropping, copying, comparing, measuring and showing never recurse deeper than the bound.
            let copy = headers.clone();
            assert_eq!(copy, headers);
            assert_eq!(header_size(&properties, &headers), list.len());
            assert_eq!(list::write(&properties, &headers).expect("it fits"), list);
            let json = crate::runners::process::headers_to_json(&headers).to_string();
            assert!(json.contains("null"), "{json}");
            let shown = format!("{:?}", depth_of(&headers));
            assert_eq!(shown, "64");
        }
    }
}

fn depth_of(headers: &Headers) -> usize {
    fn value(value: &HeaderValue) -> usize {
        match value {
            HeaderValue::Table(table) => depth_of(table),
            HeaderValue::List(values) => 1 + values.iter().map(value_of).max().unwrap_or(0),
            _ => 0,
        }
    }
    fn value_of(v: &HeaderValue) -> usize {
        value(v)
    }
    1 + headers.values().map(value).max().unwrap_or(0)
}

#[test]
fn a_deep_value_that_is_malformed_is_not_sent_back() {
    let mut list = nested(1_000, b'A');
    *list.last_mut().expect("it is long") = b'?';
    let (properties, headers) = list::read(&list, RawTexts::default());
    let copy = list::write(&properties, &headers).expect("it fits");
    let content = grammar::Cursor(&copy[2..]).long().expect("a table");
    assert!(grammar::is_container(
        content,
        grammar::ValueKind::Table,
        grammar::BROKER_REQUIREMENTS
    ));
    assert!(format!("{headers:?}").contains("Binary"));
    let unread = |value: &HeaderValue| matches!(value, HeaderValue::Unread(UnreadValue { .. }));
    assert!(!headers.values().any(unread));
}

#[test]
fn a_content_header_larger_than_a_frame_arrives_whole() {
    let mut list = vec![0x20, 0];
    let value = vec![b'x'; 200_000];
    list.extend_from_slice(&(1 + 1 + 1 + 4 + value.len() as u32).to_be_bytes());
    list.extend_from_slice(b"\x01hS");
    list.extend_from_slice(&(value.len() as u32).to_be_bytes());
    list.extend_from_slice(&value);
    let frame = header_frame(1, 3, &list);
    let Ok(FrameAction::Replace(_, mut with)) = agreed().look(&frame) else {
        panic!("the frame is not replaced");
    };
    with.extend(framed(FRAME_BODY, 1, b"abc"));
    let frames = parsed_by_lapin(&with);
    let (_, headers, body) = arrived(&frames);
    assert_eq!(body, b"abc");
    assert_eq!(headers["h"], HeaderValue::Text(Bytes::from(value)));
    // No frame is larger than lapin accepts.
    let mut rest = with.as_slice();
    while !rest.is_empty() {
        let (after, _) = parse_frame(rest).expect("lapin reads it");
        assert!(rest.len() - after.len() <= FRAME_MAX_USUAL as usize);
        rest = after;
    }
}

#[test]
fn a_routing_key_that_is_not_utf8_reaches_the_message() {
    let mut deliver = vec![0, 60, 0, 60, 1, b't'];
    deliver.extend_from_slice(&7_u64.to_be_bytes());
    deliver.extend_from_slice(b"\0\x02ex\x03a\xffb");
    let mut incoming = agreed();
    let Ok(FrameAction::Replace(_, with)) = incoming.look(&framed(FRAME_METHOD, 9, &deliver))
    else {
        panic!("the frame is not replaced");
    };
    parsed_by_lapin(&with);
    // The content header of another channel does not use these names.
    let other = header_frame(8, 0, &[0, 0]);
    assert_eq!(incoming.look(&other), Ok(FrameAction::Pass(other.len())));
    let Ok(FrameAction::Replace(_, with)) = incoming.look(&header_frame(9, 0, &[0, 0])) else {
        panic!("the names do not arrive with it");
    };
    let frames = parsed_by_lapin(&with);
    let [AMQPFrame::Header(..), AMQPFrame::Body(_, preface)] = frames.as_slice() else {
        panic!("{frames:?}");
    };
    let names = Preface::read(preface).and_then(|preface| preface.names);
    assert_eq!(names, Some((b"ex".as_slice(), b"a\xffb".as_slice())));
    assert!(
        incoming
            .look(&other)
            .is_ok_and(|look| look == FrameAction::Pass(other.len()))
    );
}

#[test]
fn long_names_that_are_not_utf8_still_fit_a_short_string() {
    let mut deliver = vec![0, 60, 0, 60, 1, b't'];
    deliver.extend_from_slice(&7_u64.to_be_bytes());
    deliver.extend_from_slice(b"\0\0\xff");
    deliver.extend_from_slice(&[0xfe; 255]);
    let Ok(FrameAction::Replace(_, with)) = agreed().look(&framed(FRAME_METHOD, 9, &deliver))
    else {
        panic!("the frame is not replaced");
    };
    parsed_by_lapin(&with);
}

#[test]
fn frames_larger_than_agreed_are_refused_before_they_arrive() {
    let head = |kind: u8, size: u32| {
        let mut head = vec![kind, 0, 1];
        head.extend_from_slice(&size.to_be_bytes());
        head
    };
    for kind in [FRAME_METHOD, FRAME_HEADER, FRAME_BODY, FRAME_HEARTBEAT] {
        for size in [u32::MAX, 1 << 30] {
            let refused = agreed().look(&head(kind, size));
            assert!(
                matches!(refused, Err(FrameError::TooLarge(_))),
                "{kind} {size}"
            );
        }
    }
    for kind in [FRAME_METHOD, FRAME_BODY] {
        let most = FRAME_MAX_USUAL - 8;
        assert!(agreed().look(&head(kind, most)).is_ok());
        assert!(agreed().look(&head(kind, most + 1)).is_err());
        assert!(
            IncomingFrames::new(None)
                .look(&head(kind, 1 << 17))
                .is_err()
        );
    }
    assert_eq!(agreed().look(&head(9, 0)), Err(FrameError::Type(9)));
}

#[test]
fn a_broker_without_a_frame_limit_gets_our_limit() {
    for (said, asked, heard, agreed) in [
        (0, None, FRAME_MAX, FRAME_MAX),
        (u32::MAX, None, FRAME_MAX, FRAME_MAX),
        (0, Some(8192), FRAME_MAX, 8192),
        (131_072, None, 131_072, 131_072),
        (131_072, Some(1 << 20), 131_072, 131_072),
        (131_072, Some(0), 131_072, 131_072),
        (100, None, 100, 4096),
    ] {
        let mut incoming = IncomingFrames::new(asked);
        let given = match incoming.look(&tune(said)).expect("a tune") {
            FrameAction::Replace(_, with) => with,
            _ => tune(said),
        };
        assert_eq!(given, tune(heard), "{said} {asked:?}");
        assert_eq!(incoming.frame_max(), agreed as usize, "{said} {asked:?}");
    }
}

#[test]
fn a_method_that_only_clients_send_is_refused_whatever_its_tables_hold() {
    let deep = nested(20_000, b'A');
    let mut declare = vec![0, 50, 0, 10, 0, 0, 1, b'q', 0];
    declare.extend_from_slice(&deep[2..]);
    let mut incoming = IncomingFrames::new(None);
    incoming.look(&tune(1 << 20)).expect("a tune");
    let refused = incoming.look(&framed(FRAME_METHOD, 1, &declare));
    assert_eq!(refused, Err(FrameError::Method(50, 10)));

    let mut start = vec![0, 10, 0, 10, 0, 9];
    start.extend_from_slice(&nested(3_000, b'A')[2..]);
    start.extend_from_slice(b"\0\0\0\x05PLAIN\0\0\0\x05en_US");
    let frame = framed(FRAME_METHOD, 0, &start);
    let Ok(FrameAction::Replace(_, with)) = IncomingFrames::new(None).look(&frame) else {
        panic!("its table is not replaced");
    };
    parsed_by_lapin(&with);
}

#[test]
fn a_stream_ends_at_a_frame_that_breaks_the_grammar() {
    let mut bytes = tune(FRAME_MAX_USUAL);
    bytes.extend_from_slice(&[FRAME_BODY, 0, 1, 0xff, 0xff, 0xff, 0xff]);
    let mut wire = Wire::new(bytes.as_slice(), None);
    let mut all = Vec::new();
    let error = wire
        .read_to_end(&mut all)
        .now_or_never()
        .expect("nothing waits")
        .expect_err("a frame without end");
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    let mut sink = Wire::new(futures_util::io::Cursor::new(Vec::new()), None);
    sink.write_all(b"AMQP\0\0\x09\x01")
        .now_or_never()
        .expect("nothing waits")
        .expect("it is written");
}

#[test]
fn a_publish_that_lapin_drops_half_way_consumes_nothing_of_the_next_one() {
    let close_ok = framed(FRAME_METHOD, 2, b"\0\x14\0\x29");
    let plain = [header_frame(2, 2, &[0, 0]), framed(FRAME_BODY, 2, b"ab")].concat();
    let other = framed(FRAME_HEARTBEAT, 0, b"");
    let mut sent = mark::frame(2, 10, 100).expect("the lengths fit");
    sent.extend(framed(FRAME_BODY, 2, b"part of it"));
    sent.extend(&other);
    sent.extend(&close_ok);
    sent.extend(&plain);
    let mut out = Vec::new();
    OutgoingFrames::default().walk(&sent, &mut out);
    assert_eq!(out, [other, close_ok, plain].concat());
}

#[test]
fn names_of_a_delivery_without_content_are_not_used_for_the_next() {
    let deliver = |key: u8| {
        let mut deliver = vec![0, 60, 0, 60, 1, b't'];
        deliver.extend_from_slice(&7_u64.to_be_bytes());
        deliver.extend_from_slice(&[0, 0, 1, key]);
        framed(FRAME_METHOD, 9, &deliver)
    };
    let mut incoming = agreed();
    assert!(matches!(
        incoming.look(&deliver(0xff)),
        Ok(FrameAction::Replace(..))
    ));
    let plain = deliver(b'k');
    assert_eq!(incoming.look(&plain), Ok(FrameAction::Pass(plain.len())));
    let header = header_frame(9, 0, &[0, 0]);
    assert_eq!(incoming.look(&header), Ok(FrameAction::Pass(header.len())));
}

#[test]
fn a_greeting_that_is_nested_too_deep_is_not_a_table() {
    assert!(begins_with_table(&nested(64, b'F')[2..]));
    assert!(!begins_with_table(&nested(65, b'F')[2..]));
    assert!(!begins_with_table(b"\0\0\0\x01"));
}
