//! App: the daemon. The one place where adapters meet the actors, and where a process's own affairs are: its lock,
//! its sockets, its signals, its end.
//!
//! ```text
//! signals ─┐
//! drained ─┤
//! stopped ─┼─▶ Event ──▶ State::handle (synchronous) ──▶ Decision ──▶ daemon does it
//! reloaded ┘
//! ```

mod cgroups;
mod daemon;
mod orders;
mod places;
mod pools;
mod signals;
mod state;

pub use self::{
    daemon::{AppError, Options, run},
    places::InTheWay,
    state::Ending,
};
