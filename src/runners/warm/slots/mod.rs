//! Processes that have several jobs at a time (version 2 of the protocol). Each place for a job is a slot, and a slot is a
//! runner for the pool.
//!
//! - `processes` knows every process, and gives out free slots. It starts a process if no slot is free.
//! - `conversation` is the task that owns one process: it writes jobs, reads answers and the log, and ends the process.
//! - `slot` is the runner. It has its job's own deadline and stop.
//!
//! # A job and its process
//! A job that is stopped or reaches its timeout is told to stop by a line. If it does not answer within `kill_grace`, its
//! slot is given up: the process gets no other job, continues with the jobs that it has, and is ended after them. A process
//! that ends or violates the protocol fails all jobs that it had, and no other jobs. Jobs of which it had read nothing run
//! in another process.
//!
//! # How it ends
//! When the last slot of a process is released, its input is closed, and it is killed after `kill_grace`.

mod conversation;
mod processes;
mod slot;

pub(super) use self::{
    processes::{Processes, Taken},
    slot::WarmSlot,
};
