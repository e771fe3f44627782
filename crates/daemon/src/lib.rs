//! The daemon: its interfaces to people and to other machines. Telemetry, HTTP, the command line, the demo, the load
//! generator.
//!
//! The top layer, above the library `tidegate`. [`app`] and [`demo`] are the only places where adapters meet the actors
//! that use them; `load` starts none.

mod actions;
pub mod app;
mod chart;
pub mod cli;
mod dead;
pub mod demo;
mod exchange;
mod failures;
mod files;
mod guard;
mod history;
pub mod http;
mod lab;
mod load;
mod management;
pub mod output;
mod predecessors;
mod recordings;
mod reference;
mod reloads;
pub mod telemetry;
mod top;
mod view;
