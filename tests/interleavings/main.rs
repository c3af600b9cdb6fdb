//! The library's whole shell and core, as they are, under a model checker (`shuttle`): thousands of
//! schedules of a few threads each, chosen at every atomic operation and every lock.
//!
//! The sources are included by path. `sync.rs` stands in for `src/sync.rs`, and one file of
//! `src/runtime` is replaced: `code.rs` looks modules up instead of compiling them. Stores,
//! instances and calls are real. Waits are for ever unless a scenario is about deadlines, so a lost
//! wake-up is a deadlock, and reported.
//!
//! The scenarios were judged by 50 mutations of the shell and the core (a second look left out, a
//! flag ignored, a wake-up not sent, one at a time): each that changes what a host can see fails some
//! scenario within its first 2,000 schedules, most within ten.
//!
//! Atomic operations are sequentially consistent here, but for the plain stores of slots that belong to a thread:
//! those are seen late (`store_buffers.rs`), and two scenarios leave out a fence to show that this is noticed. What
//! a weaker `Ordering` allows elsewhere is not checked. Counts of references (`Arc`) are not scheduling points.
//!
//! `WASM_POOL_SCHEDULES` sets the number of schedules of each scenario, `WASM_POOL_SEED` other ones
//! than usual. A failure prints its schedule as two lines of hexadecimal digits (and, if it was a
//! random one, its seed). To see it again, and nothing else:
//!
//! ```sh
//! WASM_POOL_REPLAY='9102…4912' cargo test --test interleavings name_of_the_scenario
//! ```
//!
//! It fits the sources that it was found in, and no others: one atomic operation more or less, and
//! it means something else.
#![allow(
    dead_code,
    unused_imports,
    missing_docs,
    reason = "it includes the library's sources, and uses some of them"
)]

extern crate alloc;

#[path = "../../src/artifacts/mod.rs"]
mod artifacts;
#[path = "../../src/compiler/mod.rs"]
mod compiler;
#[path = "../../src/pool/mod.rs"]
mod pool;
mod runtime;
#[path = "../../src/state/mod.rs"]
mod state;
mod sync;

mod bills;
mod cancels;
mod ends;
mod explore;
mod flights;
mod group_seats;
mod owned;
mod prepare;
mod pristine;
mod room;
mod seats;
mod store_buffers;
mod tasks;
mod world;

pub use compiler::{CompileIn, CompilerError, CompilerProcess};
pub use pool::*;
pub use runtime::{
    GuestTrap, INSTANCE_OVERHEAD, ImportError, InspectError, MissingImport, Report, SharedError,
    StackTooSmall, StoreData, SystemError,
};
pub use state::{Budget, Group, Policy, RemovalReason, Reuse};
