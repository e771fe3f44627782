//! What a supervisor's API and its callers say to each other.
//!
//! Plain data that reads and writes as JSON, one module for each version of the paths (`/api/v1`).

pub mod v1;
