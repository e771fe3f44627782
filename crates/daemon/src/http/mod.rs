//! HTTP: health, metrics, and the API, on a TCP address and on the command line's Unix socket.
//!
//! [`guard`] says who may ask, [`routes`] what is answered, [`server`] holds connections, [`socket`] the Unix
//! socket's file. Reads a running supervisor and never owns it.

mod body;
pub mod caller;
mod connections;
pub mod control;
pub mod guard;
pub mod routes;
pub mod server;
pub mod socket;
