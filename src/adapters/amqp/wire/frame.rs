//! The form of a frame: <https://www.rabbitmq.com/resources/specs/amqp0-9-1.pdf>, section 2.3.5.

pub(in crate::adapters::amqp) use crate::config::FRAME_MAX;

pub(super) const FRAME_METHOD: u8 = 1;
pub(super) const FRAME_HEADER: u8 = 2;
pub(super) const FRAME_BODY: u8 = 3;
pub(super) const FRAME_HEARTBEAT: u8 = 8;
pub(super) const FRAME_END: u8 = 0xce;
/// Size of type, channel and size, in bytes.
pub(super) const HEAD: usize = 7;

/// Smallest frame size that can be agreed, in bytes.
pub(super) const FRAME_MIN: u32 = 4096;
