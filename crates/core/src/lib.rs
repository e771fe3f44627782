//! The pure core of tidegate: how many workers a queue needs, and what happens to a job.
//!
//! Every function here depends only on its arguments. There is no runtime, no client library, no clock and no I/O:
//! `now` is an argument, and decisions are returned as data. So the same code decides in the supervisor, answers
//! `explain`, and can run over a recorded trace.
//!
//! This crate is not meant for users. Use `tidegate`, which exports all of it.

pub mod decide;
pub mod escape;
mod json_time;
pub mod keys;
pub mod queue;
pub mod runner;
pub mod settings;
pub mod settle;
pub mod text;
pub mod trace;
