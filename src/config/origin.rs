//! Where the keys of a pool's policy come from.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Where a key's value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Origin {
    /// It was not given.
    Default,
    /// The configuration file.
    File,
    /// An environment variable.
    Environment,
    /// The program that uses the library.
    Program,
    /// Someone set it by hand.
    ByHand,
}

impl Origin {
    /// A word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::File => "file",
            Self::Environment => "environment",
            Self::Program => "program",
            Self::ByHand => "set by hand",
        }
    }
}

/// Where the keys of `policy` and `scaling` were given, as `policy.max`. Of a pool that a program made, none.
pub type Origins = BTreeMap<String, Origin>;
