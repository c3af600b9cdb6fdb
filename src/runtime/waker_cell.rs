//! Who polls a future, and is to be woken.

use std::task::Waker;

use super::host_code::{discard, wake};
use crate::sync::Mutex;

/// The waker of whoever polls, at most one. A future stores its waker here and only then looks whether
/// it is ready; whoever makes it ready does that first and then wakes. So no wake-up is lost, whichever comes
/// first.
#[derive(Default)]
pub(crate) struct WakerCell(Mutex<Option<Waker>>);

impl WakerCell {
    /// Replaces the waker. It is the host's: cloned and dropped outside of the lock.
    pub fn set(&self, waker: &Waker) {
        let waker = waker.clone();
        let before = self.0.lock().replace(waker);
        discard(before);
    }

    /// Takes the waker out.
    pub fn take(&self) -> Option<Waker> {
        self.0.lock().take()
    }

    /// Wakes whoever polls. Never under a lock.
    pub fn wake(&self) {
        if let Some(waker) = self.take() {
            wake(waker);
        }
    }
}
