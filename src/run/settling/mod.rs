//! Settling: carrying out a verdict at the broker.
//!
//! The broker confirms each copy before the original is acknowledged. So a crash in between repeats a message, and never
//! loses one. A reply is published after the copy, and confirmed too. While one of them cannot be published, the delivery is
//! held. The pool's gate is closed only if nothing can be published at all (`copying`).

mod copy_publish;
mod copying;
mod give_back;
mod held;
mod hold;
mod prepare;
mod publish;
mod replies;

pub(crate) use self::{
    give_back::WaitingReturns, held::HeldDelivery, hold::HoldUntil, prepare::prepare,
    publish::stay_blocked, replies::output_use,
};
