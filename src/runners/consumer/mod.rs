//! The `consumer` kind: programs that consume the pool's queue themselves, such as `celery worker` or `messenger:consume`.
//!
//! A process is a worker and its runner in one. tidegate decides how many there are, starts them, and tells them to end. It
//! opens no consumer for them, and it does not see, settle, retry or dead-letter a message.
//!
//! # What a process receives
//! No message, and no address of the broker: the pool's `env`, `env_pass` and `env_file` say where it connects to. The
//! environment is cleared except for `PATH`, `HOME`, `LANG`, `TZ` and the variables that the pool lists. It then gets
//! `TIDEGATE_POOL`, `TIDEGATE_PROCESS` (its number: the smallest that no other process of the pool has, from 1 on) and
//! `TIDEGATE_RUN_ID`. In the arguments of the command, `{process}` is that number. The number is unique among the processes
//! that one manager has up. `TIDEGATE_START`, in arguments `{start}`, is an id of the manager: a daemon that takes over,
//! or a changed runner, counts from 1 again while older processes finish. Standard input is at its end.
//!
//! # Output
//! Both outputs are logged line by line, with pool and process number. A process adds at most 1 MiB of each output to the
//! log in a minute. The rest is dropped and counted.
//!
//! # How it ends
//! To shrink, `stop_signal` goes to the process itself, not to its group: a Celery worker's children would end in the middle
//! of their tasks. Then tidegate waits as long as the process takes, or for `stop_timeout`. After that, KILL goes to its
//! group, and the broker delivers again what it held. A drain does the same at the end of the pool's `shutdown_grace`. When
//! the process has ended, what is left of its group is killed.

mod kind;
mod manager;
mod run;
mod settings;

pub(crate) use self::kind::KIND;
pub use self::{
    manager::ConsumerManager,
    settings::{ConsumerSettings, StopSignal},
};
