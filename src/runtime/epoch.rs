//! The engine's epoch, as the pool moves it: how often, and where it was late.

use std::collections::VecDeque;

use wasmtime::Engine;

use crate::sync::{AtomicU64, Mutex, Ordering};

/// Jumps that are remembered: enough for every lease that does not last through as many more.
const JUMPS: usize = 64;

/// Moves the epoch, and counts: wasmtime does not tell a guest that is interrupted how many ticks have
/// passed, only that its deadline has.
pub(crate) struct Epoch {
    engine: Engine,
    /// Ticks that the pool has made. A host that moves the engine's epoch by itself is not counted.
    ticks: AtomicU64,
    /// The latest jumps, when ticks were late: the count before, and by how many ticks, in order.
    jumps: Mutex<VecDeque<(u64, u64)>>,
}

impl Epoch {
    pub fn new(engine: Engine) -> Self {
        Self {
            engine,
            ticks: AtomicU64::new(0),
            jumps: Mutex::new(VecDeque::new()),
        }
    }

    /// So many ticks pass, at once.
    pub fn advance(&self, ticks: u64) {
        // Counted afterwards: a lease that begins meanwhile is given time too much, and never too little.
        for _ in 0..ticks {
            self.engine.increment_epoch();
        }
        let mut jumps = self.jumps.lock();
        let before = self.ticks();
        if ticks > 1 {
            if jumps.len() == JUMPS {
                jumps.pop_front();
            }
            jumps.push_back((before, ticks));
        }
        self.ticks.store(before + ticks, Ordering::Release);
    }

    #[inline(always)]
    pub fn ticks(&self) -> u64 {
        self.ticks.load(Ordering::Acquire)
    }

    /// Ticks that were overdue when a lease began at this count: the clock was late then, and made up for it
    /// in one jump, in which the lease had no part.
    pub fn overdue(&self, began: u64) -> u64 {
        let jumps = self.jumps.lock();
        match jumps.binary_search_by_key(&began, |(before, _)| *before) {
            Ok(found) => jumps[found].1 - 1,
            Err(_) => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::unit_test;

    #[test]
    fn promise_02_a_lease_pays_only_for_lateness_that_it_has_seen() {
        unit_test(lateness);
    }

    fn lateness() {
        let epoch = Epoch::new(Engine::default());
        for ticks in [1, 5, 3, 1] {
            epoch.advance(ticks);
        }
        assert_eq!(epoch.ticks(), 10);
        let overdue: Vec<_> = (0..11).map(|began| epoch.overdue(began)).collect();
        assert_eq!(overdue, [0, 4, 0, 0, 0, 0, 2, 0, 0, 0, 0]);
        (0..JUMPS).for_each(|_| epoch.advance(2));
        assert_eq!((epoch.overdue(1), epoch.overdue(10)), (0, 1));
    }
}
