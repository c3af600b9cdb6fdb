//! Why a request is refused for its group's sake (or for that of who answers for the function), where that is no budget.

use std::fmt;

/// The limit of a group that refuses a request: see [`AcquireError::GroupLimit`](crate::AcquireError::GroupLimit).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum GroupLimit {
    /// It may have no instances at all: see [`Share::max_instances`](crate::Share::max_instances).
    Instances,
    /// So many of its requests wait already: see [`Share::max_waiting`](crate::Share::max_waiting).
    Waiting(u32),
}

impl fmt::Display for GroupLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Instances => f.write_str("its group may have no instances"),
            Self::Waiting(limit) => write!(
                f,
                "it would have to wait, and no more than {limit} requests of its group may at once"
            ),
        }
    }
}
