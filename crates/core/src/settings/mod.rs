//! Settings that decisions use: plain values, already validated.

mod reply;
mod retry;

pub use self::{
    reply::{Answers, ReplySettings},
    retry::{DeadLetter, RetrySettings},
};
