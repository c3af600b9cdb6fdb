//! The engine's epoch, and how often the pool has moved it.

use std::sync::atomic::{AtomicU64, Ordering};

use wasmtime::Engine;

/// Moves the epoch, and counts: wasmtime does not tell a guest that is interrupted how many ticks have
/// passed, only that its deadline has.
pub(crate) struct Epoch {
    engine: Engine,
    /// Ticks that the pool has made. A host that moves the engine's epoch by itself is not counted.
    ticks: AtomicU64,
}

impl Epoch {
    pub fn new(engine: Engine) -> Self {
        let ticks = AtomicU64::new(0);
        Self { engine, ticks }
    }

    /// So many ticks pass, at once.
    pub fn advance(&self, ticks: u64) {
        // Counted first: whoever is interrupted by these ticks sees all of them.
        self.ticks.fetch_add(ticks, Ordering::Release);
        for _ in 0..ticks {
            self.engine.increment_epoch();
        }
    }

    pub fn ticks(&self) -> u64 {
        self.ticks.load(Ordering::Acquire)
    }
}
