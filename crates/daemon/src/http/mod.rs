//! HTTP: health, metrics, and the API, on a TCP address and on the command line's Unix socket.
//!
//! [`guard`] says who may ask, [`routes`] what is answered, [`live`] what is streamed, `steer` and `policy` what is
//! changed. `dashboard` is the page for people. [`server`] holds connections, [`socket`] the Unix socket's file. Asks a
//! running supervisor and never owns it.

mod answers;
pub mod api;
mod body;
pub mod caller;
mod connections;
pub mod control;
mod dashboard;
pub mod guard;
pub mod live;
mod openapi;
mod policy;
pub mod routes;
pub mod server;
pub mod socket;
mod steer;
