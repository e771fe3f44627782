//! The requests and answers of a supervisor's API.
//!
//! Plain data, serialised as JSON. One module for each version of the paths (`/api/v1`).

pub mod v1;
