//! What `stats()` says of compilations.

use std::sync::Arc;
use std::time::Duration;

use crate::pool::api::function_name::name_of;
use crate::state::Group;

/// A compilation under way.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CompilationStats {
    /// The function whose acquire has led to it, with its argument types; or the name of a module that is precompiled.
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "crate::pool::api::serde_fields::text")
    )]
    pub signature: Arc<str>,
    /// The group for which it was asked for.
    pub group: Group,
    /// Real time since it began.
    pub time: Duration,
    /// Bytes that are reserved for it in `compile`.
    pub reserved_bytes: u64,
    /// The number of the process that it runs in; `None` if it is this one, or has not been started yet.
    pub process: Option<u32>,
    /// Bytes of memory of its own that the process has now, as the kernel says.
    pub memory_bytes: Option<u64>,
}

impl CompilationStats {
    /// The function's name, without its argument types.
    pub fn name(&self) -> &str {
        name_of(&self.signature)
    }
}

/// Compilations that were ended before they were done, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CompilerKills {
    /// They needed more memory than was reserved; each may have been tried again with more.
    pub cap: u64,
    /// They took too long.
    pub time: u64,
    /// Nobody waited for them any more.
    pub unwanted: u64,
    /// Their function was removed, or replaced.
    pub removed: u64,
    /// The pool was closed.
    pub closed: u64,
}

impl CompilerKills {
    /// All together.
    pub fn total(&self) -> u64 {
        self.cap + self.time + self.unwanted + self.removed + self.closed
    }
}

/// Why a compilation was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KillReason {
    Cap,
    Time,
    Unwanted,
    Removed,
    Closed,
}

impl KillReason {
    pub fn name(self) -> &'static str {
        match self {
            Self::Cap => "cap",
            Self::Time => "time",
            Self::Unwanted => "unwanted",
            Self::Removed => "removed",
            Self::Closed => "closed",
        }
    }

    /// The count of it.
    pub fn of(self, kills: &mut CompilerKills) -> &mut u64 {
        match self {
            Self::Cap => &mut kills.cap,
            Self::Time => &mut kills.time,
            Self::Unwanted => &mut kills.unwanted,
            Self::Removed => &mut kills.removed,
            Self::Closed => &mut kills.closed,
        }
    }
}
