//! What compiling takes is reserved before; what should not be compiled is refused before.
//!
//! A binary of its own: it counts the process's heap, so it has an allocator of its own. Tests that measure are a process
//! of their own each.

#[path = "../common/mod.rs"]
mod common;

#[path = "../charges/modules/extremes.rs"]
mod extremes;

mod aside;
mod bound;
mod hooks;
#[cfg(all(target_os = "linux", feature = "compiler"))]
mod left_behind;
mod limits;
mod measured;
mod search;
mod small_stack;
mod turns;

#[global_allocator]
static ALLOCATOR: common::heap::Counting = common::heap::Counting;
