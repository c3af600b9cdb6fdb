//! Whether a guest may go on: asked whenever the deadline of its store's epoch comes.

use std::sync::Arc;

use wasmtime::UpdateDeadline;

use super::cancel_flag::{CancelFlag, Cancelled};
use super::epoch::Epoch;

/// A store that is looked at each tick: it can be stopped, or must let others go on in between. It is kept for
/// the next lease that needs it, and rests meanwhile.
pub(crate) struct EpochState {
    epoch: Arc<Epoch>,
    /// No lease needs it.
    rests: bool,
    /// Ticks that had passed at the last interrupt.
    seen: u64,
    /// Whether there was no interrupt yet.
    is_new: bool,
    /// Ticks that are left.
    left: u64,
    /// Whether others go on between two ticks: in a task.
    pub yields: bool,
    cancel: Arc<CancelFlag>,
}

impl EpochState {
    pub fn new(ticks: u64, epoch: Arc<Epoch>) -> Self {
        Self {
            seen: epoch.ticks(),
            is_new: true,
            rests: false,
            epoch,
            left: ticks,
            yields: false,
            cancel: Arc::default(),
        }
    }

    /// For another lease, as if it were new.
    pub fn restart(&mut self, ticks: u64) {
        self.seen = self.epoch.ticks();
        self.is_new = true;
        self.rests = false;
        self.left = ticks;
        self.yields = false;
    }

    /// What stops the lease's calls.
    pub fn cancel(&self) -> &Arc<CancelFlag> {
        &self.cancel
    }

    /// The lease is over. False if it cannot be restarted: somebody may still cancel that lease's calls.
    pub fn rest(&mut self) -> bool {
        self.rests = true;
        CancelFlag::renew(&mut self.cancel)
    }

    pub fn rests(&self) -> bool {
        self.rests
    }

    pub fn over(&mut self) -> wasmtime::Result<UpdateDeadline> {
        if self.cancel.is_cancelled() {
            return Err(Cancelled.into());
        }
        if std::mem::take(&mut self.is_new) {
            // What was overdue before it began is not its time.
            self.seen += self.epoch.overdue(self.seen);
        }
        // Several ticks may have passed since the last interrupt, if they were late. At least one has, whoever
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
    use crate::sync::unit_test;

    #[test]
    fn promise_02_ticks_that_came_at_once_have_all_passed() {
        unit_test(jump);
    }

    fn jump() {
        let engine = wasmtime::Engine::default();
        let epoch = Arc::new(Epoch::new(engine.clone()));
        let mut epoch_state = EpochState::new(10, epoch.clone());
        let goes_on = |epoch_state: &mut EpochState| {
            matches!(epoch_state.over(), Ok(UpdateDeadline::Continue(1)))
        };
        epoch.advance(1);
        assert!(goes_on(&mut epoch_state), "9 are left");
        epoch.advance(4);
        assert!(goes_on(&mut epoch_state), "5 are left");
        // A host that moves the epoch by itself is not counted by the pool.
        engine.increment_epoch();
        assert!(goes_on(&mut epoch_state), "4 are left");
        epoch.advance(5);
        assert!(matches!(epoch_state.over(), Ok(UpdateDeadline::Interrupt)));
    }

    #[test]
    fn promise_02_lateness_from_before_it_began_does_not_count() {
        unit_test(lateness);
    }

    fn lateness() {
        let epoch = Arc::new(Epoch::new(wasmtime::Engine::default()));
        let mut epoch_state = EpochState::new(3, epoch.clone());
        let goes_on = |epoch_state: &mut EpochState| {
            matches!(epoch_state.over(), Ok(UpdateDeadline::Continue(1)))
        };
        epoch.advance(50);
        assert!(goes_on(&mut epoch_state), "as one tick");
        epoch.advance(1);
        assert!(goes_on(&mut epoch_state));
        epoch.advance(1);
        assert!(!goes_on(&mut epoch_state));
    }
}
