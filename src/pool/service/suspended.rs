//! Tasks whose guests wait: to be woken when their leases are to stop.

use std::task::Waker;

use hashbrown::HashMap;

use crate::runtime::{discard, wake};
use crate::sync::Mutex;

/// Their wakers, by the addresses of their instances' slots, which do not move. A task lists itself and then looks whether
/// it is to stop; whoever stops it says so first, and then looks here. So it is not missed, whichever comes first.
#[derive(Default)]
pub(crate) struct Suspended(Mutex<HashMap<usize, Waker>>);

impl Suspended {
    /// The waker of a task that waits. It is the host's: cloned and dropped outside of the lock.
    pub fn list(&self, slot: usize, waker: &Waker) {
        let waker = waker.clone();
        let before = self.0.lock().insert(slot, waker);
        discard(before);
    }

    /// It waits no more.
    pub fn unlist(&self, slot: usize) {
        let waker = self.0.lock().remove(&slot);
        discard(waker);
    }

    /// Wakes the task that waits there, if there is one. Never under a lock.
    pub fn wake(&self, slot: usize) {
        let waker = self.0.lock().remove(&slot);
        if let Some(waker) = waker {
            wake(waker);
        }
    }
}
