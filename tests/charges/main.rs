//! What is charged is at least what it takes: of the heap, and of what the kernel maps.
//!
//! A binary of its own: it counts the process's heap, so it has an allocator of its own, and runs one
//! test at a time.

#[path = "../common/mod.rs"]
mod common;

mod bookkeeping;
mod import_sizes;
mod modules;
mod promised_bookkeeping;
mod true_sizes;

use std::sync::{Mutex, MutexGuard, PoisonError};

#[global_allocator]
static ALLOCATOR: common::heap::Counting = common::heap::Counting;

/// The heap is the whole process's: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}
