//! HTTP: health, metrics, and the API, on a TCP address and on the command line's Unix socket.
//!
//! [`guard`] decides who may send requests. [`routes`] has the answers, `stream` what is watched live, `steer` and
//! `policy` the changes, and `dead` the dead letters. `dashboard` is the page for people. [`server`] holds connections,
//! and [`socket`] the file of the Unix socket. This module uses a running supervisor and never owns it.

mod answers;
pub mod api;
mod body;
pub mod caller;
mod connections;
pub mod control;
mod dashboard;
mod dead;
pub mod guard;
pub mod live;
mod openapi;
mod policy;
pub mod routes;
pub mod server;
pub mod socket;
mod steer;
mod stream;
