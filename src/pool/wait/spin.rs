//! Waiting for a moment without going to sleep: sleeping and being woken takes some fifty microseconds, and most
//! leases are shorter than that.
//!
//! A thread spins only while there is a processor for it: as long as fewer threads wait in the process than it has
//! processors, so that whoever is waited for runs beside them. How long, each thread learns: twice as long after it
//! was worth it, half as long after it was not.

use std::cell::Cell;
use std::hint::spin_loop;
use std::time::{Duration, Instant};

use crate::sync::{OnceLock, Ordering, SPINS, StaticU64, thread_local};

/// As long as sleeping and being woken takes: who spins for that long in vain has lost as much again.
const MOST: Duration = Duration::from_micros(32);
/// So much is always tried, or nobody would learn that leases have become short.
const LEAST: Duration = Duration::from_micros(4);

/// Threads that wait for something that may come soon, spinning or asleep.
static WAITING: StaticU64 = StaticU64::new(0);

thread_local! {
    static PATIENCE: Cell<Duration> = const { Cell::new(MOST) };
}

/// A thread that waits for something that may come soon.
pub(crate) struct Waiting(());

impl Waiting {
    pub fn begin() -> Self {
        WAITING.fetch_add(1, Ordering::Relaxed);
        Self(())
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
        WAITING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether there is a processor for each who waits, and one for whoever is waited for.
fn has_a_processor() -> bool {
    static PROCESSORS: OnceLock<u64> = OnceLock::new();
    let processors = PROCESSORS
        .get_or_init(|| std::thread::available_parallelism().map_or(1, |n| n.get() as u64));
    WAITING.load(Ordering::Relaxed) < *processors
}
