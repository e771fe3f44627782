//! The daemon. Only this module connects adapters to the actors. It also owns the resources of the process: its lock,
//! sockets, signals and end.
//!
//! ```text
//! signals ─┐
//! drained ─┤
//! stopped ─┼─▶ Event ──▶ State::handle (synchronous) ──▶ Decision ──▶ daemon does it
//! reloaded ┘
//! ```

mod cgroups;
mod control;
mod daemon;
mod error;
mod instance;
mod obstacles;
mod orders;
mod pools;
mod reload;
mod signals;
mod state;

pub use self::{
    daemon::{Options, PreparedDaemon},
    error::AppError,
    obstacles::StartObstacles,
    state::Ending,
};
