//! What threads share things through. In one place, so that `tests/interleavings` can build the same
//! sources with a model checker's primitives instead.

pub(crate) use std::sync::OnceLock;
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
pub(crate) use std::thread_local;

/// A number of all threads of the process, which is only ever compared: reading it is no step of its own
/// to the model checker.
pub(crate) use std::sync::atomic::AtomicU64 as StaticU64;

pub(crate) use crossbeam_utils::atomic::AtomicCell;
pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard};

/// A number for a thread, from 1. Consecutive for threads that ask one after the other.
pub(crate) fn fresh_thread_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A number for a function, from 1. Of all functions of all pools: threads' tables are shared by all.
pub(crate) fn fresh_uid() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
