//! The pure core of tidegate: how many workers a queue deserves, and what becomes of a job.
//!
//! Everything here is a function of its arguments. There is no runtime, no client library, no clock and no I/O: `now`
//! is an argument, and what is to be done comes out as data. So the same code decides in the supervisor, answers
//! `explain`, and can be run over a recorded trace.
//!
//! Not a library of its own for users: use `tidegate`, which has all of it.

pub mod decide;
pub mod escape;
pub mod queue;
pub mod runner;
pub mod settings;
pub mod settle;
pub mod trace;
