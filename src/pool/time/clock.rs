//! Time, as the pool sees it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::sync::{AtomicU64, Ordering};

/// Where the pool gets the time from. Everything that depends on time works on any clock, so a
/// test can move it by hand ([`ManualClock`]).
///
/// Only the epoch, which ends calls that run too long, follows real time: a guest burns that and
/// no other.
pub trait Clock: Send + Sync + 'static {
    /// Time since an origin of the clock's own. Must never go backwards.
    fn now(&self) -> Duration;

    /// How long a thread may sleep in real time before it looks at this clock again, when it waits
    /// for `remaining` to pass on it. The default suits clocks that run at real speed.
    fn sleep_for(&self, remaining: Duration) -> Duration {
        remaining
    }
}

/// Real, monotonic time.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock(Instant);

impl SystemClock {
    /// A clock whose origin is now.
    pub fn new() -> Self {
        Self(Instant::now())
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

/// A clock that stands still until it is moved. Clones share the time.
///
/// ```
/// use std::time::Duration;
/// use wasm_pool::{Clock, ManualClock};
/// let clock = ManualClock::new();
/// clock.advance(Duration::from_secs(5));
/// assert_eq!(clock.clone().now(), Duration::from_secs(5));
/// ```
#[derive(Debug, Clone, Default)]
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    /// A clock that stands at its origin.
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the clock, at most to the end of its time: 584 years from its origin. Threads that wait for a
    /// deadline on it notice within a millisecond.
    pub fn advance(&self, by: Duration) {
        let by = nanos(by);
        let add = |now: u64| Some(now.saturating_add(by));
        // It always adds, and so cannot fail.
        let _ = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, add);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::SeqCst))
    }

    fn sleep_for(&self, remaining: Duration) -> Duration {
        remaining.min(Duration::from_millis(1))
    }
}

/// Nanoseconds of a duration, or all that 64 bits hold: 584 years.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
