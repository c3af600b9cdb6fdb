//! What the kernel says of the whole process: its threads, stacks and code.
//!
//! A binary of its own: tests that run beside these would be counted too, so one runs at a time.
#![cfg(target_os = "linux")]

#[path = "../common/mod.rs"]
mod common;

mod compilations;
mod end_of_pools;
mod errors;
mod forks;
mod stacks;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The process is everybody's: one test at a time, and each begins when the pools of the one before
/// have ended.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    common::until(|| common::kernel::threads("wasm-pool") == 0);
    alone
}
