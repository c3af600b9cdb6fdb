//! `src/sync.rs` on the model checker's primitives: every operation is one point at which the
//! scheduler may let another thread run.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use crate::store_buffers;

use shuttle::sync as checked;

pub(crate) use crossbeam_utils::CachePadded;
pub(crate) use parking_lot::Mutex as StaticMutex;
pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU64, Ordering};
pub(crate) use shuttle::thread_local;
pub(crate) use std::sync::OnceLock;
pub(crate) use std::sync::atomic::AtomicU64 as StaticU64;
pub(crate) use store_buffers::{AtomicPtr, heavy_fence, light_fence};

/// A sleep of this length is for ever: a thread that nobody wakes is then a deadlock, and reported.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Whoever spins waits for time to pass, and here none does.
pub(crate) const SPINS: bool = false;

/// parking_lot's mutex: not poisoned by panics.
#[derive(Default)]
pub(crate) struct Mutex<T>(checked::Mutex<T>);

pub(crate) struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    /// `None` only while a condition variable has it.
    held: Option<checked::MutexGuard<'a, T>>,
}

impl<T> Mutex<T> {
    pub fn new(value: T) -> Self {
        Self(checked::Mutex::new(value))
    }

    pub fn lock(&self) -> MutexGuard<'_, T> {
        store_buffers::flush();
        let held = self
            .0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        MutexGuard {
            mutex: self,
            held: Some(held),
        }
    }

    pub fn get_mut(&mut self) -> &mut T {
        self.0
            .get_mut()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.held.as_ref().expect("a guard holds its mutex")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.held.as_mut().expect("a guard holds its mutex")
    }
}

/// parking_lot's condition variable.
pub(crate) struct Condvar(checked::Condvar);

impl Condvar {
    pub fn new() -> Self {
        Self(checked::Condvar::new())
    }

    pub fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        let held = guard.held.take().expect("a guard holds its mutex");
        let held = self.0.wait(held);
        guard.held = Some(held.unwrap_or_else(|poisoned| poisoned.into_inner()));
    }

    /// A sleep that ends at all may end at any moment, and early too: whoever sleeps looks at the
    /// clock and at its mail again. (The checker's own timed wait never ends by itself.)
    pub fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, sleep: Duration) {
        if sleep >= FOR_EVER {
            return self.wait(guard);
        }
        drop(guard.held.take());
        shuttle::thread::yield_now();
        guard.held = guard.mutex.lock().held;
    }

    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    pub fn notify_all(&self) {
        self.0.notify_all();
    }
}

/// As without a model checker: `WASM_POOL_FENCES=none` says that there are none.
pub(crate) fn has_heavy_fences() -> bool {
    std::env::var_os("WASM_POOL_FENCES").is_none_or(|fences| fences != "none")
}

/// Its numbers are unique within an execution, and the same whenever its schedule is replayed: a thread's
/// number comes first, then how many it has asked for.
pub(crate) struct StaticCounter;

impl StaticCounter {
    pub const fn new() -> Self {
        Self
    }

    pub fn next(&self) -> u64 {
        thread_local! {
            static NEXT: std::cell::Cell<u64> = const { std::cell::Cell::new(1) };
        }
        let thread = usize::from(shuttle::current::me()) as u64;
        NEXT.with(|next| thread << 32 | next.replace(next.get() + 1))
    }
}

/// The real ones: no thread of the pool's own runs in a model.
pub(crate) mod unchecked {
    pub(crate) use crossbeam_channel as channel;
    pub(crate) use parking_lot::{Condvar, Mutex};
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    pub(crate) use std::thread;
}

/// In an execution of its own.
#[cfg(test)]
pub(crate) fn unit_test(steps: fn()) {
    shuttle::check_random(steps, 1);
}

/// Left out: no thread of the pool's own runs in a model.
#[cfg(test)]
pub(crate) fn unit_test_of_threads(_: fn()) {}
