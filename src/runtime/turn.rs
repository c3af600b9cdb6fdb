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
    /// Whether there was no look yet.
    is_new: bool,
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
            is_new: true,
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
        if std::mem::take(&mut self.is_new) {
            // What was overdue before it began is not its time.
            self.seen += self.epoch.overdue(self.seen);
        }
        // Several ticks may have passed since the last look, if they were late. At least one has, whoever
        // made it, and though it may not have been counted yet.
        let passed = self.epoch.ticks().saturating_sub(self.seen).max(1);
        self.seen += passed;
        self.left = self.left.saturating_sub(passed);
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
        epoch.advance(1);
        assert!(goes_on(&mut turn), "9 are left");
        epoch.advance(4);
        assert!(goes_on(&mut turn), "5 are left");
        // A host that moves the epoch by itself is not counted by the pool.
        engine.increment_epoch();
        assert!(goes_on(&mut turn), "4 are left");
        epoch.advance(5);
        assert!(matches!(turn.over(), Ok(UpdateDeadline::Interrupt)));
    }

    #[test]
    fn promise_02_lateness_from_before_it_began_does_not_count() {
        let epoch = Arc::new(Epoch::new(wasmtime::Engine::default()));
        let mut turn = Turn::new(3, Arc::default(), epoch.clone());
        let goes_on = |turn: &mut Turn| matches!(turn.over(), Ok(UpdateDeadline::Continue(1)));
        epoch.advance(50);
        assert!(goes_on(&mut turn), "as one tick");
        epoch.advance(1);
        assert!(goes_on(&mut turn));
        epoch.advance(1);
        assert!(!goes_on(&mut turn));
    }
}
