//! Why a guest can be called by a task alone.

use std::fmt;

/// Why a guest can be called by a task alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum AsyncReason {
    /// The lease is a task's (acquired as a task, or called as one), and a guest's allocator may take as
    /// long as any guest: it would keep the executor's thread.
    LeaseOfATask,
    /// Guests run only as tasks: they import async host functions, or the pool has a
    /// [`fuel_yield_interval`](crate::PoolBuilder::fuel_yield_interval).
    TasksOnly,
}

impl fmt::Display for AsyncReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LeaseOfATask => {
                "the lease is a task's, and the guest's allocator would keep the executor's thread"
            }
            Self::TasksOnly => {
                "its guests run only as tasks, because of async imports or the fuel_yield_interval"
            }
        })
    }
}
