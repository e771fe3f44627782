use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use amq_protocol::frame::{AMQPFrame, parse_frame, parsing::parse_content_header};
use futures_util::{
    FutureExt as _,
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
};
use proptest::prelude::*;

use super::*;
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

fn agreed() -> Incoming {
    let mut incoming = Incoming::new(None);
    let tune = tune(FRAME_MAX_USUAL);
    assert_eq!(incoming.look(&tune), Ok(Look::Pass(tune.len())));
    incoming
}

/// `levels` tables or lists in one another, the header table included, as a property list.
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

/// All frames that lapin's parser makes of bytes. Fails where it would give up the connection.
fn lapins(mut bytes: &[u8]) -> Vec<AMQPFrame> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let (rest, frame) = parse_frame(bytes).expect("lapin reads it");
        frames.push(frame);
        bytes = rest;
    }
    frames
}

/// What becomes of a message that came so: by our reading of what lapin read.
fn arrived(frames: &[AMQPFrame]) -> (Properties, Headers, Vec<u8>) {
    let [AMQPFrame::Header(_, header), bodies @ ..] = frames else {
        panic!("a content header first: {frames:?}");
    };
    let mut body = Vec::new();
    for frame in bodies {
        let AMQPFrame::Body(_, part) = frame else {
            panic!("bodies after it");
        };
        body.extend_from_slice(part);
    }
    assert_eq!(header.body_size, body.len() as u64);
    let length = mark::preface(&header.properties).expect("it is marked");
    let rest = body.split_off(length);
    let preface = Preface::read(&body).expect("it is whole");
    let (properties, headers) = list::read(preface.list, RawTexts::default());
    (properties, headers, rest)
}

fn any_name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "[a-z]{0,8}".prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 0..12),
    ]
}

/// Values as they come, well formed by RabbitMQ's grammar.
fn any_value() -> impl Strategy<Value = Vec<u8>> {
    let fixed = |tag: u8, bytes: usize| {
        proptest::collection::vec(any::<u8>(), bytes).prop_map(move |value| {
            let mut out = vec![tag];
            out.extend(value);
            out
        })
    };
    let sized = |tag: u8| {
        proptest::collection::vec(any::<u8>(), 0..30).prop_map(move |value| {
            let mut out = vec![tag];
            out.extend_from_slice(&(value.len() as u32).to_be_bytes());
            out.extend(value);
            out
        })
    };
    let leaf = prop_oneof![
        fixed(b't', 1),
        fixed(b'b', 1),
        fixed(b'B', 1),
        fixed(b's', 2),
        fixed(b'u', 2),
        fixed(b'I', 4),
        fixed(b'i', 4),
        fixed(b'f', 4),
        fixed(b'D', 5),
        fixed(b'l', 8),
        fixed(b'd', 8),
        fixed(b'T', 8),
        fixed(b'V', 0),
        sized(b'S'),
        sized(b'x'),
    ];
    leaf.prop_recursive(5, 30, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(|values| {
                let content = values.concat();
                let mut out = vec![b'A'];
                out.extend_from_slice(&(content.len() as u32).to_be_bytes());
                out.extend(content);
                out
            }),
            proptest::collection::vec((any_name(), inner), 0..4).prop_map(|entries| {
                let content = table_content(&entries);
                let mut out = vec![b'F'];
                out.extend_from_slice(&(content.len() as u32).to_be_bytes());
                out.extend(content);
                out
            }),
        ]
    })
}

fn table_content(entries: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut content = Vec::new();
    for (name, value) in entries {
        content.push(name.len() as u8);
        content.extend_from_slice(name);
        content.extend_from_slice(value);
    }
    content
}

prop_compose! {
    /// Property lists as they come, well formed.
    fn any_list()(
        texts in proptest::collection::vec(proptest::option::of(any_name()), 10),
        octets in proptest::collection::vec(proptest::option::of(any::<u8>()), 2),
        time in proptest::option::of(any::<u64>()),
        headers in proptest::option::of(
            proptest::collection::vec((any_name(), any_value()), 0..5),
        ),
    ) -> Vec<u8> {
        let (mut texts, mut octets) = (texts.into_iter(), octets.into_iter());
        let mut flags = 0;
        let mut list = vec![0, 0];
        for (place, property) in grammar::PROPERTIES.into_iter().enumerate() {
            let bytes = match property {
                grammar::Property::Text => texts.next().flatten().map(|text| {
                    let mut out = vec![text.len() as u8];
                    out.extend(text);
                    out
                }),
                grammar::Property::Octet => octets.next().flatten().map(|octet| vec![octet]),
                grammar::Property::Timestamp => time.map(|time| time.to_be_bytes().to_vec()),
                grammar::Property::Headers => headers.as_ref().map(|entries| {
                    let content = table_content(entries);
                    let mut out = (content.len() as u32).to_be_bytes().to_vec();
                    out.extend(content);
                    out
                }),
            };
            if let Some(bytes) = bytes {
                flags |= grammar::flag(place);
                list.extend(bytes);
            }
        }
        list[..2].copy_from_slice(&u16::to_be_bytes(flags));
        list
    }
}

/// Lists of any bytes: well formed, well formed but for some bytes, and none at all.
fn any_bytes_for_a_list() -> impl Strategy<Value = Vec<u8>> {
    let broken = (
        any_list(),
        proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        any::<bool>(),
    )
        .prop_map(|(mut list, changes, cut)| {
            for (at, byte) in changes {
                let at = at.index(list.len());
                list[at] = byte;
                if cut {
                    list.truncate(at.max(1));
                }
            }
            list
        });
    prop_oneof![
        2 => any_list(),
        4 => broken,
        1 => proptest::collection::vec(any::<u8>(), 0..80),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// The walk and lapin's parser are of one mind, so nothing is replaced that need not be.
    #[test]
    fn a_content_header_that_lapin_reads_goes_on_uncopied_and_any_other_becomes_one(
        list in any_bytes_for_a_list(),
        body in 0..100_u64,
    ) {
        let frame = header_frame(3, body, &list);
        let parsed = parse_content_header(&frame[HEAD..frame.len() - 1]);
        let is_read = matches!(parsed, Ok((rest, _)) if rest.is_empty());
        let look = agreed().look(&frame);
        match look {
            Ok(Look::Pass(length)) => {
                prop_assert!(is_read);
                prop_assert_eq!(length, frame.len());
            }
            Ok(Look::Replace(length, with)) => {
                prop_assert!(!is_read);
                prop_assert_eq!(length, frame.len());
                let mut stream = with;
                if body > 0 {
                    stream.extend(framed(FRAME_BODY, 3, &vec![7; body as usize]));
                }
                let (properties, headers, rest) = arrived(&lapins(&stream));
                prop_assert_eq!(rest.len() as u64, body);
                // Whatever it was, a copy of it can be sent.
                let copy = list::write(&properties, &headers).expect("it fits");
                prop_assert_eq!(copy.len(), header_size(&properties, &headers) - if headers.is_empty() { 4 } else { 0 });
                let again = list::read(&copy, RawTexts::default());
                prop_assert!(!again.1.contains_key("x-malformed-properties") || headers.contains_key("x-malformed-properties"));
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn a_list_is_read_and_written_again_byte_for_byte(list in any_list()) {
        let (properties, headers) = list::read(&list, RawTexts::default());
        prop_assert!(!headers.contains_key("x-malformed-properties"));
        let written = list::write(&properties, &headers).expect("it fits");
        // Names that stand twice, the order of names, an empty table and what has several encodings become one.
        let (properties, headers) = list::read(&written, RawTexts::default());
        prop_assert_eq!(list::write(&properties, &headers).expect("it fits"), written);
    }

    #[test]
    fn any_method_is_read_by_lapin_or_refused(
        class in prop_oneof![Just(10_u16), Just(20), Just(50), Just(60), any::<u16>()],
        method in prop_oneof![0..130_u16, any::<u16>()],
        arguments in proptest::collection::vec(any::<u8>(), 0..60),
    ) {
        let mut payload = class.to_be_bytes().to_vec();
        payload.extend_from_slice(&method.to_be_bytes());
        payload.extend(arguments);
        let frame = framed(FRAME_METHOD, 1, &payload);
        match agreed().look(&frame) {
            Ok(Look::Pass(length)) => {
                prop_assert_eq!(length, frame.len());
                lapins(&frame);
            }
            Ok(Look::Replace(_, with)) => {
                lapins(&with);
            }
            Ok(Look::Wait(_)) => prop_assert!(false, "it is whole"),
            Err(_) => {}
        }
    }

    /// However the bytes are cut, and whatever room lapin has.
    #[test]
    fn what_is_read_is_the_same_however_it_arrives(
        lists in proptest::collection::vec(any_bytes_for_a_list(), 1..8),
        bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 8),
        cuts in proptest::collection::vec(0..60_usize, 1..40),
        room in 1..300_usize,
    ) {
        let mut sent = tune(FRAME_MAX_USUAL);
        let mut expected = sent.clone();
        let mut walk = Incoming::new(None);
        prop_assert!(walk.look(&sent).is_ok());
        for (list, body) in lists.iter().zip(&bodies) {
            let frame = header_frame(1, body.len() as u64, list);
            match walk.look(&frame).expect("a content header is never refused") {
                Look::Replace(_, with) => expected.extend(with),
                _ => expected.extend(&frame),
            }
            sent.extend(frame);
            for part in body.chunks(20) {
                let frame = framed(FRAME_BODY, 1, part);
                sent.extend(&frame);
                expected.extend(frame);
            }
        }
        let mut wire = Wire::new(Pipe::holding(&sent, &cuts), None);
        let mut read = Vec::new();
        let mut buf = vec![0; room];
        loop {
            let got = wait(|cx| Pin::new(&mut wire).poll_read(cx, &mut buf)).expect("it reads");
            if got == 0 {
                break;
            }
            read.extend_from_slice(&buf[..got]);
        }
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn what_is_written_is_the_same_however_it_is_taken(
        messages in proptest::collection::vec(
            (any::<bool>(), proptest::collection::vec(any::<u8>(), 2..200), proptest::collection::vec(any::<u8>(), 0..200)),
            1..6,
        ),
        chunk in 10..120_usize,
        cuts in proptest::collection::vec(1..80_usize, 1..40),
        room in 1..300_usize,
    ) {
        let mut written = b"AMQP\0\0\x09\x01".to_vec();
        let mut expected = written.clone();
        for (is_marked, list, body) in &messages {
            let publish = framed(FRAME_METHOD, 2, b"\0\x3c\0\x28\0\0\0\x01q\0");
            written.extend(&publish);
            expected.extend(&publish);
            let plain = header_frame(2, body.len() as u64, list);
            expected.extend(&plain);
            if *is_marked {
                written.extend(mark::frame(2, body.len() as u64, list.len()).expect("it can be said"));
                let together = [list.as_slice(), body].concat();
                for part in together.chunks(chunk) {
                    written.extend(framed(FRAME_BODY, 2, part));
                }
            } else {
                written.extend(&plain);
                for part in body.chunks(chunk) {
                    written.extend(framed(FRAME_BODY, 2, part));
                }
            }
            let heartbeat = framed(FRAME_HEARTBEAT, 0, b"");
            written.extend(&heartbeat);
            // The broker sees the body cut elsewhere, and the same bytes.
            expected.extend(body);
            expected.extend(heartbeat);
        }
        let mut wire = Wire::new(Pipe::taking(&cuts), None);
        let mut rest = written.as_slice();
        while !rest.is_empty() {
            let most = rest.len().min(room);
            let taken = wait(|cx| Pin::new(&mut wire).poll_write(cx, &rest[..most])).expect("it writes");
            rest = &rest[taken..];
        }
        wait(|cx| Pin::new(&mut wire).poll_flush(cx)).expect("it flushes");
        let got = wire.into_inner().written;
        prop_assert_eq!(without_body_frames(&got), expected);
    }
}

/// Frames with the bodies' own bytes in the place of their frames.
fn without_body_frames(mut bytes: &[u8]) -> Vec<u8> {
    let (protocol, rest) = bytes.split_at(8);
    let mut out = protocol.to_vec();
    bytes = rest;
    while !bytes.is_empty() {
        let size = u32::from_be_bytes(bytes[3..7].try_into().expect("four bytes")) as usize;
        let (frame, rest) = bytes.split_at(size + 8);
        assert_eq!(frame[size + 7], FRAME_END);
        match frame[0] {
            FRAME_BODY => {
                assert!(size > 0, "an empty body frame is none");
                out.extend_from_slice(&frame[7..7 + size]);
            }
            _ => out.extend_from_slice(frame),
        }
        bytes = rest;
    }
    out
}

/// A stream that gives and takes so many bytes at a time, and has nothing or no room in between.
#[derive(Debug)]
struct Pipe {
    unread: VecDeque<u8>,
    written: Vec<u8>,
    cuts: VecDeque<usize>,
    is_turn: bool,
}

impl Pipe {
    fn holding(bytes: &[u8], cuts: &[usize]) -> Self {
        Self {
            unread: bytes.iter().copied().collect(),
            written: Vec::new(),
            cuts: cuts.iter().copied().collect(),
            is_turn: false,
        }
    }

    fn taking(cuts: &[usize]) -> Self {
        Self::holding(&[], cuts)
    }

    fn turn(&mut self) -> Poll<usize> {
        self.is_turn = !self.is_turn;
        if !self.is_turn {
            return Poll::Pending;
        }
        let now = self.cuts.pop_front().unwrap_or(0).max(1);
        self.cuts.push_back(now);
        Poll::Ready(now)
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let most = std::task::ready!(self.turn()).min(buf.len());
        let got = self.unread.len().min(most);
        for slot in &mut buf[..got] {
            *slot = self.unread.pop_front().expect("counted");
        }
        Poll::Ready(Ok(got))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let most = std::task::ready!(self.turn()).min(buf.len());
        self.written.extend_from_slice(&buf[..most]);
        Poll::Ready(Ok(most))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn wait<T>(mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
    let mut cx = Context::from_waker(std::task::Waker::noop());
    for _ in 0..1_000_000 {
        if let Poll::Ready(value) = poll(&mut cx) {
            return value;
        }
    }
    panic!("it stands still");
}

#[test]
fn a_text_that_is_not_utf8_is_shown_escaped_and_sent_as_it_came() {
    let raw = b"\xff\xfe\x80raw";
    let mut list = vec![0x04, 0, raw.len() as u8];
    list.extend_from_slice(raw);
    let frame = header_frame(1, 0, &list);
    assert!(parse_frame(frame.as_slice()).is_err(), "lapin cannot");
    let Ok(Look::Replace(_, with)) = agreed().look(&frame) else {
        panic!("it is replaced");
    };
    let (properties, headers, body) = arrived(&lapins(&with));
    assert_eq!(
        properties.correlation_id.as_deref(),
        Some(r"\xff\xfe\x80raw")
    );
    assert!(headers.is_empty() && body.is_empty());
    assert_eq!(list::write(&properties, &headers).expect("it fits"), list);
}

#[test]
fn values_of_any_depth_are_cut_for_jobs_and_whole_on_copies() {
    for tag in [b'F', b'A'] {
        for levels in [63, 64, 65, 66, 2_000, 30_000] {
            let list = nested(levels, tag);
            let mut frame_size_agreed = Incoming::new(None);
            frame_size_agreed.look(&tune(1 << 20)).expect("a tune");
            let frame = header_frame(1, 0, &list);
            let look = frame_size_agreed.look(&frame).expect("it is taken");
            if levels <= grammar::MAX_DEPTH {
                assert_eq!(look, Look::Pass(frame.len()), "{levels}");
                lapins(&frame);
                continue;
            }
            let Look::Replace(_, with) = look else {
                panic!("{levels} levels are replaced");
            };
            let (properties, headers, _) = arrived(&lapins(&with));
            // Where it is dropped, copied, compared, measured or shown, nothing recurses further than the bound.
            let copy = headers.clone();
            assert_eq!(copy, headers);
            assert_eq!(header_size(&properties, &headers), list.len());
            assert_eq!(list::write(&properties, &headers).expect("it fits"), list);
            let json = crate::adapters::process::headers_to_json(&headers).to_string();
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
        grammar::Kind::Table,
        grammar::BROKERS
    ));
    assert!(format!("{headers:?}").contains("Binary"));
    let unread = |value: &HeaderValue| matches!(value, HeaderValue::Unread(UnreadValue { .. }));
    assert!(!headers.values().any(unread));
}

#[test]
fn a_content_header_beyond_the_frame_arrives_whole() {
    let mut list = vec![0x20, 0];
    let value = vec![b'x'; 200_000];
    list.extend_from_slice(&(1 + 1 + 1 + 4 + value.len() as u32).to_be_bytes());
    list.extend_from_slice(b"\x01hS");
    list.extend_from_slice(&(value.len() as u32).to_be_bytes());
    list.extend_from_slice(&value);
    let frame = header_frame(1, 3, &list);
    let Ok(Look::Replace(_, mut with)) = agreed().look(&frame) else {
        panic!("it is replaced");
    };
    with.extend(framed(FRAME_BODY, 1, b"abc"));
    let frames = lapins(&with);
    let (_, headers, body) = arrived(&frames);
    assert_eq!(body, b"abc");
    assert_eq!(headers["h"], HeaderValue::Text(Bytes::from(value)));
    // None is larger than what lapin takes.
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
    let Ok(Look::Replace(_, with)) = incoming.look(&framed(FRAME_METHOD, 9, &deliver)) else {
        panic!("it is replaced");
    };
    lapins(&with);
    // Another channel's content header is not its own.
    let other = header_frame(8, 0, &[0, 0]);
    assert_eq!(incoming.look(&other), Ok(Look::Pass(other.len())));
    let Ok(Look::Replace(_, with)) = incoming.look(&header_frame(9, 0, &[0, 0])) else {
        panic!("it brings the names");
    };
    let frames = lapins(&with);
    let [AMQPFrame::Header(..), AMQPFrame::Body(_, preface)] = frames.as_slice() else {
        panic!("{frames:?}");
    };
    let names = Preface::read(preface).and_then(|preface| preface.names);
    assert_eq!(names, Some((b"ex".as_slice(), b"a\xffb".as_slice())));
    assert!(
        incoming
            .look(&other)
            .is_ok_and(|look| look == Look::Pass(other.len()))
    );
}

#[test]
fn long_names_of_other_bytes_still_fit_a_short_string() {
    let mut deliver = vec![0, 60, 0, 60, 1, b't'];
    deliver.extend_from_slice(&7_u64.to_be_bytes());
    deliver.extend_from_slice(b"\0\0\xff");
    deliver.extend_from_slice(&[0xfe; 255]);
    let Ok(Look::Replace(_, with)) = agreed().look(&framed(FRAME_METHOD, 9, &deliver)) else {
        panic!("it is replaced");
    };
    lapins(&with);
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
                matches!(refused, Err(Refused::TooLarge(_))),
                "{kind} {size}"
            );
        }
    }
    for kind in [FRAME_METHOD, FRAME_BODY] {
        let most = FRAME_MAX_USUAL - 8;
        assert!(agreed().look(&head(kind, most)).is_ok());
        assert!(agreed().look(&head(kind, most + 1)).is_err());
        assert!(Incoming::new(None).look(&head(kind, 1 << 17)).is_err());
    }
    assert_eq!(agreed().look(&head(9, 0)), Err(Refused::Type(9)));
}

#[test]
fn a_broker_without_a_bound_is_given_ours() {
    for (said, asked, heard, agreed) in [
        (0, None, FRAME_MAX, FRAME_MAX),
        (u32::MAX, None, FRAME_MAX, FRAME_MAX),
        (0, Some(8192), FRAME_MAX, 8192),
        (131_072, None, 131_072, 131_072),
        (131_072, Some(1 << 20), 131_072, 131_072),
        (131_072, Some(0), 131_072, 131_072),
        (100, None, 100, 4096),
    ] {
        let mut incoming = Incoming::new(asked);
        let given = match incoming.look(&tune(said)).expect("a tune") {
            Look::Replace(_, with) => with,
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
    let mut incoming = Incoming::new(None);
    incoming.look(&tune(1 << 20)).expect("a tune");
    let refused = incoming.look(&framed(FRAME_METHOD, 1, &declare));
    assert_eq!(refused, Err(Refused::Method(50, 10)));

    let mut start = vec![0, 10, 0, 10, 0, 9];
    start.extend_from_slice(&nested(3_000, b'A')[2..]);
    start.extend_from_slice(b"\0\0\0\x05PLAIN\0\0\0\x05en_US");
    let frame = framed(FRAME_METHOD, 0, &start);
    let Ok(Look::Replace(_, with)) = Incoming::new(None).look(&frame) else {
        panic!("its table goes");
    };
    lapins(&with);
}

#[test]
fn a_stream_ends_where_the_peer_refuses_the_grammar() {
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
fn a_publish_that_lapin_drops_half_way_takes_nothing_of_the_next() {
    let close_ok = framed(FRAME_METHOD, 2, b"\0\x14\0\x29");
    let plain = [header_frame(2, 2, &[0, 0]), framed(FRAME_BODY, 2, b"ab")].concat();
    let other = framed(FRAME_HEARTBEAT, 0, b"");
    let mut sent = mark::frame(2, 10, 100).expect("it can be said");
    sent.extend(framed(FRAME_BODY, 2, b"part of it"));
    sent.extend(&other);
    sent.extend(&close_ok);
    sent.extend(&plain);
    let mut out = Vec::new();
    Outgoing::default().walk(&sent, &mut out);
    assert_eq!(out, [other, close_ok, plain].concat());
}

#[test]
fn names_of_a_delivery_without_its_content_are_not_anothers() {
    let deliver = |key: u8| {
        let mut deliver = vec![0, 60, 0, 60, 1, b't'];
        deliver.extend_from_slice(&7_u64.to_be_bytes());
        deliver.extend_from_slice(&[0, 0, 1, key]);
        framed(FRAME_METHOD, 9, &deliver)
    };
    let mut incoming = agreed();
    assert!(matches!(
        incoming.look(&deliver(0xff)),
        Ok(Look::Replace(..))
    ));
    let plain = deliver(b'k');
    assert_eq!(incoming.look(&plain), Ok(Look::Pass(plain.len())));
    let header = header_frame(9, 0, &[0, 0]);
    assert_eq!(incoming.look(&header), Ok(Look::Pass(header.len())));
}

#[test]
fn a_greeting_that_is_nested_too_deep_is_none() {
    assert!(begins_with_table(&nested(64, b'F')[2..]));
    assert!(!begins_with_table(&nested(65, b'F')[2..]));
    assert!(!begins_with_table(b"\0\0\0\x01"));
}
