//! Waiting for a moment without going to sleep: sleeping and being woken takes some fifty microseconds, and most
//! leases are shorter than that.
//!
//! A thread spins only while there is a processor for it: as long as fewer threads wait in the process than it has
//! processors, so that whoever is waited for runs beside them. How long, each thread learns: twice as long after it
//! was worth it, half as long after it was not.

use std::cell::Cell;
use std::hint::spin_loop;
use std::time::{Duration, Instant};

use crate::sync::{AtomicBool, OnceLock, Ordering, SPINS, StaticU64, thread_local};

/// As long as sleeping and being woken may take: who spins for that long in vain has lost as much again.
const MOST: Duration = Duration::from_micros(64);
/// So much is always tried, or nobody would learn that leases have become short.
const LEAST: Duration = Duration::from_micros(8);

/// Threads that wait for something that may come soon, spinning or asleep, and have not been told that it has.
static WAITING: StaticU64 = StaticU64::new(0);

thread_local! {
    static PATIENCE: Cell<Duration> = const { Cell::new(MOST) };
}

/// Whether a thread waits for something that may come soon.
pub(crate) struct Waiting(AtomicBool);

impl Waiting {
    pub const fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    pub fn begin(&self) {
        if !self.0.swap(true, Ordering::Relaxed) {
            WAITING.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Said by whoever wakes the thread: one that is asleep is awake only many microseconds later, and if it still
    /// counted, whoever waits for it in turn would see no processor for itself, and go to sleep as well.
    pub fn end(&self) {
        if self.0.swap(false, Ordering::Relaxed) {
            WAITING.fetch_sub(1, Ordering::Relaxed);
        }
    }

    #[cfg(test)]
    pub fn counts(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Spins until something has come, or for as long as this thread has patience. The model checker knows no time,
    /// and has all who wait sleep.
    pub fn spin_until(&self, has_come: impl Fn() -> bool) {
        if !SPINS {
            return;
        }
        let patience = PATIENCE.with(Cell::get);
        let began = Instant::now();
        while has_a_processor() {
            for _ in 0..8 {
                if has_come() {
                    PATIENCE.with(|most| most.set(MOST.min(patience * 2)));
                    return;
                }
                spin_loop();
            }
            if began.elapsed() >= patience {
                PATIENCE.with(|most| most.set(LEAST.max(patience / 2)));
                return;
            }
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.end();
    }
}

/// Whether there is a processor for each who waits, and one for whoever is waited for.
fn has_a_processor() -> bool {
    static PROCESSORS: OnceLock<u64> = OnceLock::new();
    let processors = PROCESSORS
        .get_or_init(|| std::thread::available_parallelism().map_or(1, |n| n.get() as u64));
    WAITING.load(Ordering::Relaxed) < *processors
}
