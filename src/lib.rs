//! Docs come later.
extern crate alloc;

mod pool;
mod runtime;
mod state;

pub use pool::*;
pub use runtime::{
    GuestTrap, INSTANCE_OVERHEAD, InspectError, SharedError, StackTooSmall, StoreData,
};
pub use state::{Budget, Group, Policy, Reason};
