//! How a call is stopped from outside.

use std::sync::Arc;
use std::task::Waker;

use super::host_code::discard;
use super::waker_cell::WakerCell;
use crate::sync::{AtomicBool, Ordering};

/// Whether somebody has asked for the calls of a lease to stop.
#[derive(Default)]
pub(crate) struct CancelFlag {
    cancelled: AtomicBool,
    /// Who polls the call, if it is a task's.
    waker: WakerCell,
}

/// A call was stopped from outside.
#[derive(Debug, thiserror::Error)]
#[error("the call was cancelled")]
pub(crate) struct Cancelled;

impl CancelFlag {
    /// A guest notices at the next tick of the epoch, a task that waits for its host at once.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
        self.waker.wake();
    }

    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// As new, for another lease's calls: nobody else has it. False if it was used to cancel, or somebody has it.
    pub fn renew(this: &mut Arc<Self>) -> bool {
        let Some(flag) = Arc::get_mut(this) else {
            return false;
        };
        // Who polled the last call is kept by nothing here.
        discard(flag.waker.take());
        !flag.is_cancelled()
    }

    /// Wakes this one when somebody cancels, or at once if that has happened.
    pub fn notify(&self, waker: &Waker) {
        self.waker.set(waker);
        if self.is_cancelled() {
            self.waker.wake();
        }
    }
}
