//! Time, as the pool sees it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use super::alarms::Alarms;
use super::housekeeper::Control;
use crate::runtime::Epoch;
use crate::sync::{AtomicBool, AtomicU64, Ordering};

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

    /// Moves the clock, at most to its end: 584 years after its origin. Threads that wait for a deadline on it notice within a millisecond.
    pub fn advance(&self, by: Duration) {
        let by = nanos(by);
        let advance = |now: u64| Some(now.saturating_add(by));
        // Never `None`, so never an error.
        let _ = (self.0).fetch_update(Ordering::SeqCst, Ordering::SeqCst, advance);
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

/// What every lease needs of time, without a lock and without asking the system: reading the
/// system's clock costs as much as a guest call.
pub(crate) struct Pulse {
    clock: Arc<dyn Clock>,
    /// The clock as of the housekeeper's last beat; `None` when nobody beats, or when the clock is
    /// the host's own and cheap or exact as the host wants it.
    coarse: Option<AtomicU64>,
    /// Whether the epoch moves. It stands still while nothing is leased.
    ticking: AtomicBool,
    control: Option<Sender<Control>>,
    /// Leases that outlived every handle of the pool, and still need the epoch.
    orphans: AtomicU64,
    pub alarms: Alarms,
    pub epoch: Arc<Epoch>,
}

impl Pulse {
    pub fn new(
        clock: Arc<dyn Clock>,
        coarse: bool,
        control: Option<Sender<Control>>,
        epoch: Epoch,
    ) -> Self {
        let coarse = coarse.then(|| AtomicU64::new(nanos(clock.now())));
        Self {
            clock,
            coarse,
            ticking: AtomicBool::new(control.is_none()),
            control,
            orphans: AtomicU64::new(0),
            alarms: Alarms::new(),
            epoch: Arc::new(epoch),
        }
    }

    /// Nanoseconds since the clock's origin, exact.
    pub fn now(&self) -> u64 {
        nanos(self.clock.now())
    }

    /// Nanoseconds since the clock's origin, as late as one beat of the housekeeper.
    #[inline]
    pub fn roughly_now(&self) -> u64 {
        match &self.coarse {
            Some(coarse) => coarse.load(Ordering::Relaxed),
            None => self.now(),
        }
    }

    pub fn is_coarse(&self) -> bool {
        self.coarse.is_some()
    }

    /// Wakes tasks whose time has come.
    pub fn ring(&self) {
        self.alarms.ring(self.now());
    }

    /// Real time until the next alarm should be looked at.
    pub fn next_alarm(&self) -> Option<Duration> {
        let remaining = self.alarms.next()?.saturating_sub(self.now());
        Some(self.sleep_for(remaining))
    }

    pub fn beat(&self) {
        if let Some(coarse) = &self.coarse {
            coarse.store(self.now(), Ordering::Relaxed);
        }
    }

    pub fn sleep_for(&self, remaining: u64) -> Duration {
        self.clock.sleep_for(Duration::from_nanos(remaining))
    }

    /// Called by every lease that has a deadline.
    #[inline]
    pub fn keep_ticking(&self) {
        if !self.ticking.load(Ordering::Relaxed) {
            self.resume();
        }
    }

    #[cold]
    fn resume(&self) {
        if !self.ticking.swap(true, Ordering::AcqRel) {
            self.send(Control::Resume);
        }
    }

    pub fn pause(&self) {
        self.ticking.store(false, Ordering::Release);
    }

    pub fn send(&self, control: Control) {
        if let Some(sender) = &self.control {
            // The channel is unbounded; it can only be closed, and then nobody is to be told.
            let _ = sender.send(control);
        }
    }

    pub fn orphan(&self, leases: u64) {
        // One that ended early has counted below zero, and is made good here.
        self.orphans.fetch_add(leases, Ordering::AcqRel);
    }

    pub fn orphan_ended(&self) {
        self.orphans.fetch_sub(1, Ordering::AcqRel);
    }

    pub fn orphans(&self) -> u64 {
        self.orphans.load(Ordering::Acquire)
    }
}

impl fmt::Debug for Pulse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pulse")
            .field("now", &self.now())
            .finish_non_exhaustive()
    }
}
