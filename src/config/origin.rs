//! The sources of the keys of a pool's policy.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The source of a key's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Origin {
    /// The default: the key was not given.
    Default,
    /// The configuration file.
    File,
    /// An environment variable.
    Environment,
    /// The program that uses the library.
    Program,
    /// An operator set it by hand.
    ByHand,
    /// `tidegate tune` chose it.
    Tuned,
}

impl Origin {
    /// The name of the source.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::File => "file",
            Self::Environment => "environment",
            Self::Program => "program",
            Self::ByHand => "set by hand",
            Self::Tuned => "chosen by tune",
        }
    }
}

/// The sources of the keys of `policy` and `scaling` that were given, by names such as `policy.max`. Empty for a pool
/// that a program made.
pub type Origins = BTreeMap<String, Origin>;
