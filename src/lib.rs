//! Docs come later.
extern crate alloc;

mod pool;
mod runtime;
#[allow(
    dead_code,
    unused_imports,
    reason = "its own tests, which include it by path, use all of it"
)]
mod state;

pub use pool::*;
pub use runtime::{
    GuestTrap, INSTANCE_OVERHEAD, InspectError, SharedError, StackTooSmall, StoreData,
};
pub use state::{Budget, Group, Policy, Reason};
