//! Whether a guest may go on: asked whenever the deadline of its store's epoch comes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;

use parking_lot::Mutex;
use wasmtime::UpdateDeadline;

use super::host_code::{discard, wake};

/// Someone asked a lease's calls to stop.
#[derive(Default)]
pub(crate) struct Stop {
    asked: AtomicBool,
    /// Who polls the call, if it is a task's.
    reader: Mutex<Option<Waker>>,
}

/// A call was stopped from outside.
#[derive(Debug, thiserror::Error)]
#[error("the call was cancelled")]
pub(crate) struct Stopped;

impl Stop {
    /// A guest notices at the next tick of the epoch, a task that waits for its host at once.
    pub fn ask(&self) {
        self.asked.store(true, Ordering::Release);
        let reader = self.reader.lock().take();
        if let Some(reader) = reader {
            wake(reader);
        }
    }

    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    /// Wakes this one when asked, or at once if that has happened.
    pub fn listen(&self, reader: Waker) {
        let before = self.reader.lock().replace(reader);
        discard(before);
        if self.is_asked() {
            self.ask();
        }
    }
}

/// A store that is looked at each tick: it can be stopped, or must let others go on in between.
pub(crate) struct Turn {
    /// Ticks that are left after this one.
    left: u64,
    /// Whether others go on between two ticks: in a task.
    pub yields: bool,
    stop: Arc<Stop>,
}

impl Turn {
    pub fn new(ticks: u64, stop: Arc<Stop>) -> Self {
        Self {
            left: ticks.saturating_sub(1),
            yields: false,
            stop,
        }
    }

    pub fn over(&mut self) -> wasmtime::Result<UpdateDeadline> {
        if self.stop.is_asked() {
            return Err(Stopped.into());
        }
        if self.left == 0 {
            return Ok(UpdateDeadline::Interrupt);
        }
        self.left -= 1;
        Ok(match self.yields {
            true => UpdateDeadline::Yield(1),
            false => UpdateDeadline::Continue(1),
        })
    }
}
