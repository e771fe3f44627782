//! The findings of `tidegate check --broker`, each with its severity.

use std::fmt;

use serde::Serialize;

use tidegate::decide::PoolName;

/// One thing that was seen, or could not be.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) severity: Severity,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pool: Option<PoolName>,
    pub(super) what: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    Ok,
    Warning,
    Error,
    Unseen,
}

impl Severity {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Unseen => "not seen",
        }
    }
}

impl Finding {
    pub(super) fn of_pool(severity: Severity, pool: &PoolName, what: String) -> Self {
        Self {
            severity,
            pool: Some(pool.clone()),
            what,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.pool {
            Some(pool) => write!(f, "pool {pool}: {}", self.what),
            None => f.write_str(&self.what),
        }
    }
}
