//! Machine: what the system gives this process: its rights, its users, its cgroups.
//!
//! Floor 0. Looks, and changes nothing; knows no configuration and no runner. So `check` and the launcher see the
//! same things by the same code.

pub mod cgroup;
pub mod rights;
pub mod users;
