//! Whether a guest may go on: asked whenever the deadline of its store's epoch comes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;

use parking_lot::Mutex;
use wasmtime::UpdateDeadline;

use super::epoch::Epoch;
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
    epoch: Arc<Epoch>,
    /// Ticks that had passed at the last look.
    seen: u64,
    /// Ticks that are left.
    left: u64,
    /// Whether others go on between two ticks: in a task.
    pub yields: bool,
    stop: Arc<Stop>,
}

impl Turn {
    pub fn new(ticks: u64, stop: Arc<Stop>, epoch: Arc<Epoch>) -> Self {
        Self {
            seen: epoch.ticks(),
            epoch,
            left: ticks,
            yields: false,
            stop,
        }
    }

    pub fn over(&mut self) -> wasmtime::Result<UpdateDeadline> {
        if self.stop.is_asked() {
            return Err(Stopped.into());
        }
        // Several ticks may have passed since the last look, if they were late. At least one has, whoever
        // made it.
        let now = self.epoch.ticks();
        let passed = now.saturating_sub(std::mem::replace(&mut self.seen, now));
        self.left = self.left.saturating_sub(passed.max(1));
        if self.left == 0 {
            return Ok(UpdateDeadline::Interrupt);
        }
        Ok(match self.yields {
            true => UpdateDeadline::Yield(1),
            false => UpdateDeadline::Continue(1),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promise_02_ticks_that_came_at_once_have_all_passed() {
        let engine = wasmtime::Engine::default();
        let epoch = Arc::new(Epoch::new(engine.clone()));
        let mut turn = Turn::new(10, Arc::default(), epoch.clone());
        let goes_on = |turn: &mut Turn| matches!(turn.over(), Ok(UpdateDeadline::Continue(1)));
        epoch.advance(5);
        assert!(goes_on(&mut turn), "5 are left");
        // A host that moves the epoch by itself is not counted by the pool.
        engine.increment_epoch();
        assert!(goes_on(&mut turn), "4 are left");
        epoch.advance(4);
        assert!(matches!(turn.over(), Ok(UpdateDeadline::Interrupt)));
    }
}
