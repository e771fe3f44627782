//! Properties for any bytes in both directions, cut at any place.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use amq_protocol::frame::parsing::parse_content_header;
use futures_util::io::{AsyncRead, AsyncWrite};
use proptest::prelude::*;

use super::*;

fn any_name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "[a-z]{0,8}".prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 0..12),
    ]
}

/// Encoded values, well formed by RabbitMQ's grammar.
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
    /// Encoded property lists, well formed.
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
                grammar::PropertyKind::Text => texts.next().flatten().map(|text| {
                    let mut out = vec![text.len() as u8];
                    out.extend(text);
                    out
                }),
                grammar::PropertyKind::Octet => octets.next().flatten().map(|octet| vec![octet]),
                grammar::PropertyKind::Timestamp => time.map(|time| time.to_be_bytes().to_vec()),
                grammar::PropertyKind::Headers => headers.as_ref().map(|entries| {
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

/// Any bytes in the place of a list: well formed lists, lists with changed bytes, and random bytes.
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

    /// Our check agrees with lapin's parser, so nothing is replaced without need.
    #[test]
    fn a_content_header_that_lapin_reads_passes_unchanged_and_any_other_is_replaced(
        list in any_bytes_for_a_list(),
        body in 0..100_u64,
    ) {
        let frame = header_frame(3, body, &list);
        let parsed = parse_content_header(&frame[HEAD..frame.len() - 1]);
        let is_read = matches!(parsed, Ok((rest, _)) if rest.is_empty());
        let look = agreed().look(&frame);
        match look {
            Ok(FrameAction::Pass(length)) => {
                prop_assert!(is_read);
                prop_assert_eq!(length, frame.len());
            }
            Ok(FrameAction::Replace(length, with)) => {
                prop_assert!(!is_read);
                prop_assert_eq!(length, frame.len());
                let mut stream = with;
                if body > 0 {
                    stream.extend(framed(FRAME_BODY, 3, &vec![7; body as usize]));
                }
                let (properties, headers, rest) = arrived(&parsed_by_lapin(&stream));
                prop_assert_eq!(rest.len() as u64, body);
                // A copy of any message can be sent.
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
        // Duplicate names, the order of names, an empty table and values with several encodings are normalised.
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
            Ok(FrameAction::Pass(length)) => {
                prop_assert_eq!(length, frame.len());
                parsed_by_lapin(&frame);
            }
            Ok(FrameAction::Replace(_, with)) => {
                parsed_by_lapin(&with);
            }
            Ok(FrameAction::Wait(_)) => prop_assert!(false, "the frame is complete"),
            Err(_) => {}
        }
    }

    /// The result does not depend on how the bytes are cut, or on the space in lapin's buffer.
    #[test]
    fn reads_the_same_bytes_however_they_arrive(
        lists in proptest::collection::vec(any_bytes_for_a_list(), 1..8),
        bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 8),
        cuts in proptest::collection::vec(0..60_usize, 1..40),
        room in 1..300_usize,
    ) {
        let mut sent = tune(FRAME_MAX_USUAL);
        let mut expected = sent.clone();
        let mut walk = IncomingFrames::new(None);
        prop_assert!(walk.look(&sent).is_ok());
        for (list, body) in lists.iter().zip(&bodies) {
            let frame = header_frame(1, body.len() as u64, list);
            match walk.look(&frame).expect("a content header is never refused") {
                FrameAction::Replace(_, with) => expected.extend(with),
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
    fn writes_the_same_bytes_however_they_are_taken(
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
                written.extend(mark::frame(2, body.len() as u64, list.len()).expect("the lengths fit"));
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
            // The broker sees other frame boundaries, but the same body.
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

/// All frames, with body frames replaced by their payload.
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
                assert!(size > 0, "a body frame is empty");
                out.extend_from_slice(&frame[7..7 + size]);
            }
            _ => out.extend_from_slice(frame),
        }
        bytes = rest;
    }
    out
}

/// A stream that gives and takes these numbers of bytes, and is pending in between.
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
    panic!("no progress");
}
