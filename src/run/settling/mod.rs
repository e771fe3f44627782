//! Settling: a verdict carried out at the broker.
//!
//! Each copy is confirmed before its original is acknowledged, so a crash in between repeats a message and never
//! loses one; so is an answer, after the copy that it may tell of. While one of them cannot be published, the delivery
//! is held; the pool's gate is closed only where nothing can be published at all (`copying`).

mod copy_publish;
mod copying;
mod held;
mod hold;
mod prepare;
mod publish;
mod replies;

pub(crate) use self::{
    held::HeldDelivery, hold::HoldUntil, prepare::prepare, publish::stay_blocked,
    replies::output_use,
};
