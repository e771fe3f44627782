//! Settings that decisions are made by: plain values, already checked.

mod reply;
mod retry;

pub use self::{
    reply::{Answers, ReplySettings},
    retry::{DeadLetter, RetrySettings},
};
