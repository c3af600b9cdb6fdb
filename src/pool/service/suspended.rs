//! Tasks whose guests wait: to be woken when their leases are to stop.

use std::task::Waker;

use hashbrown::HashMap;

use crate::pool::hot::slots::Slot;
use crate::runtime::{discard, wake};
use crate::sync::Mutex;

/// Their wakers, by the slots of their instances. A task lists itself and then looks whether it is to stop; whoever
/// stops it says so first, and then looks here. So it is not missed, whichever comes first.
#[derive(Default)]
pub(crate) struct Suspended(Mutex<HashMap<usize, Waker>>);

impl Suspended {
    /// The waker of a task that waits. It is the host's: cloned and dropped outside of
    /// the lock.
    pub fn list<T: Send + 'static>(&self, slot: &Slot<T>, waker: &Waker) {
        let waker = waker.clone();
        let before = self.0.lock().insert(key(slot), waker);
        discard(before);
    }

    /// It waits no more.
    pub fn unlist<T: Send + 'static>(&self, slot: &Slot<T>) {
        let waker = self.0.lock().remove(&key(slot));
        discard(waker);
    }

    /// Wakes the task that waits there, if there is one. Never under a lock.
    pub fn wake<T: Send + 'static>(&self, slot: &Slot<T>) {
        let waker = self.0.lock().remove(&key(slot));
        if let Some(waker) = waker {
            wake(waker);
        }
    }
}

/// Slots do not move, and a task's lease keeps its slot.
fn key<T: Send + 'static>(slot: &Slot<T>) -> usize {
    std::ptr::from_ref(slot).addr()
}
