//! Every primitive that threads share things through. In one place, so that `tests/interleavings` can build
//! the same sources with a model checker's primitives instead: its `sync.rs` offers the same names.
//! `tests/tidy.rs` checks that nothing goes past this file.
//!
//! Three kinds of things stand here:
//!
//! - **Checked**: each operation is a point at which the model checker may let another thread run. What is stored to
//!   an [`AtomicPtr`] others see late there, as on a machine, unless a fence says otherwise.
//! - **Not checked, because nobody can be late for it**: [`StaticU64`] and [`StaticMutex`] live as long as the
//!   process, so they would carry one execution's state into the next; [`OnceLock`] is written under the
//!   pool's lock or with a value that is always the same, and never changes again. `Arc` and `Weak` come
//!   from `std` directly, for the same reason: the pool decides nothing by a count of references but whether
//!   the last one is gone.
//! - **Not checked, because it belongs to threads that the model does not start** ([`unchecked`]): the clock
//!   thread, the ringers, the housekeeper and the workers exist in pools with a housekeeper, or with code to
//!   compile for tasks; artifacts have a thread of their own, and stores that block. The models have none of
//!   these: there, a scenario's own threads move the clock, sweep and compile.

pub(crate) use std::sync::OnceLock;
pub(crate) use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};
pub(crate) use std::thread_local;

pub(crate) use crossbeam_utils::CachePadded;
pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard};

/// A number of all threads of the process, which is only ever compared: reading it is no step of its own
/// to the model checker.
pub(crate) use std::sync::atomic::AtomicU64 as StaticU64;

/// Something of all threads of the process, which is held for a look-up alone: whoever finds it locked waits
/// for nothing else.
pub(crate) use parking_lot::Mutex as StaticMutex;

/// Keeps what a thread does before it from what it does after it, as others see it, if they put a heavy fence
/// between what they do. It costs nothing but that the compiler exchanges nothing across it.
#[inline(always)]
pub(crate) fn light_fence() {
    std::sync::atomic::compiler_fence(Ordering::SeqCst);
}

/// A full fence in each thread of the process; false if the system refuses it.
pub(crate) fn heavy_fence() -> bool {
    // A process that was forked off may have to register anew.
    membarrier::fence() || (membarrier::register() && membarrier::fence())
}

/// Whether there are heavy fences in this process: asked for once. `WASM_POOL_FENCES=none` says that there are
/// none, to be tested (and measured) without.
pub(crate) fn has_heavy_fences() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| {
        std::env::var_os("WASM_POOL_FENCES").is_none_or(|fences| fences != "none") && heavy_fence()
    })
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod membarrier {
    use rustix::thread::{MembarrierCommand, membarrier};

    pub(super) fn register() -> bool {
        membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok()
    }

    pub(super) fn fence() -> bool {
        membarrier(MembarrierCommand::PrivateExpedited).is_ok()
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod membarrier {
    pub(super) fn register() -> bool {
        false
    }

    pub(super) fn fence() -> bool {
        false
    }
}

/// What the pool's own threads are made of and share, see above.
pub(crate) mod unchecked {
    pub(crate) use crossbeam_channel as channel;
    pub(crate) use parking_lot::{Condvar, Mutex};
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    pub(crate) use std::thread;
}

/// Gives numbers, from 1, each once in the process. The model checker's begins again with each execution, so
/// that a schedule replays exactly.
pub(crate) struct StaticCounter(StaticU64);

impl StaticCounter {
    pub const fn new() -> Self {
        Self(StaticU64::new(1))
    }

    /// A number that this counter has given to nobody else.
    pub fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// Whether threads may spin for a moment before they sleep.
pub(crate) const SPINS: bool = true;

/// Runs a unit test's steps: the model checker's primitives work within one of its executions alone.
#[cfg(test)]
pub(crate) fn unit_test(steps: fn()) {
    steps();
}

/// The same, for steps that start threads of the pool's own, which the model checker leaves out.
#[cfg(test)]
pub(crate) fn unit_test_of_threads(steps: fn()) {
    steps();
}
