//! For any bytes from a broker: the wire stream refuses them, or lapin's parser accepts what the wire stream passes
//! on.
#![no_main]

use amq_protocol::frame::{AMQPFrame, parse_frame, parsing::parse_content_header};
use libfuzzer_sys::fuzz_target;
use tidegate::adapters::amqp::wire::{FrameAction, IncomingFrames};

const TUNE: &[u8] = b"\x01\0\0\0\0\0\x0c\0\x0a\0\x1e\x07\xff\0\x02\0\0\0\x3c\xce";

fn agreed() -> IncomingFrames {
    let mut incoming = IncomingFrames::new(None);
    assert_eq!(incoming.look(TUNE), Ok(FrameAction::Pass(TUNE.len())));
    incoming
}

fn taken(mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let (rest, frame) = parse_frame(bytes).expect("lapin takes it");
        assert!(!matches!(frame, AMQPFrame::ProtocolHeader(_)));
        bytes = rest;
    }
}

fuzz_target!(|data: &[u8]| {
    // As a complete content header. It is never refused, and replaced only if lapin cannot read it.
    let mut frame = vec![2, 0, 1];
    frame.extend_from_slice(&(data.len() as u32 + 12).to_be_bytes());
    frame.extend_from_slice(b"\0\x3c\0\0\0\0\0\0\0\0\0\0");
    frame.extend_from_slice(data);
    frame.push(0xce);
    match agreed().look(&frame) {
        Ok(FrameAction::Pass(length)) => {
            assert_eq!(length, frame.len());
            taken(&frame);
        }
        Ok(FrameAction::Replace(length, with)) => {
            assert_eq!(length, frame.len());
            // Lapin's parser recurses. A small frame cannot be nested deep enough to overflow the stack.
            if frame.len() < 4096 {
                let parsed = parse_content_header(&frame[7..frame.len() - 1]);
                let is_read = matches!(parsed, Ok((rest, _)) if rest.is_empty());
                // 64 levels need at least 5 bytes each.
                assert!(!is_read || frame.len() > 64 * 5);
            }
            taken(&with);
        }
        other => panic!("{other:?}"),
    }
    // As a stream of frames.
    let mut incoming = agreed();
    let mut rest = data;
    while let Ok(look) = incoming.look(rest) {
        let length = match look {
            FrameAction::Wait(_) => break,
            FrameAction::Pass(length) => length,
            FrameAction::Replace(length, with) => {
                taken(&with);
                length
            }
        };
        match rest.split_at_checked(length) {
            Some((frame, after)) => {
                // Lapin itself detects a body with a broken end: nothing inside a body is parsed.
                if matches!(frame[0], 1 | 2) {
                    let _ = parse_frame(frame);
                }
                rest = after;
            }
            None => break,
        }
        if rest.is_empty() {
            break;
        }
    }
});
