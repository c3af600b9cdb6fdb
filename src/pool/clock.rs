//! Time, as the pool sees it.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use super::alarms::Alarms;
use super::clock_thread::Control;
use super::threads::Threads;

use crate::runtime::guarded;
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

/// What every lease needs of time, without a lock and without asking the system: reading the
/// system's clock costs as much as a guest call.
pub(crate) struct Pulse {
    pub this: Weak<Self>,
    clock: Source,
    /// The clock as of the clock thread's last beat; `None` when nobody beats, or when the clock is the host's own
    /// and cheap or exact as the host wants it.
    coarse: Option<AtomicU64>,
    /// Whether the epoch moves. It stands still while nothing is leased.
    ticking: AtomicBool,
    /// To the clock thread, if there is one.
    control: Option<Sender<Control>>,
    /// Leases that outlived every handle of the pool, and still need the epoch.
    orphans: AtomicU64,
    pub alarms: Alarms,
    /// The clock thread's and the ringers': they may outlive the pool.
    pub threads: Threads,
}

enum Source {
    System(SystemClock),
    Host {
        clock: Arc<dyn Clock>,
        /// What it said at the last sweep, for when it panics.
        said: AtomicU64,
    },
}

impl Pulse {
    /// With `control`, there are threads that move the epoch and ring alarms.
    pub fn new(clock: Option<Arc<dyn Clock>>, control: Option<Sender<Control>>) -> Arc<Self> {
        let clock = match clock {
            Some(clock) => Source::Host {
                said: AtomicU64::new(nanos(clock.now())),
                clock,
            },
            None => Source::System(SystemClock::new()),
        };
        // Only real time runs on between two beats; another clock says itself what time it is.
        let coarse = match &clock {
            Source::System(clock) if control.is_some() => Some(AtomicU64::new(nanos(clock.now()))),
            _ => None,
        };
        Arc::new_cyclic(|this| Self {
            this: this.clone(),
            clock,
            coarse,
            ticking: AtomicBool::new(control.is_none()),
            control,
            orphans: AtomicU64::new(0),
            alarms: Alarms::new(),
            threads: Threads::new(),
        })
    }

    /// Nanoseconds since the clock's origin, exact. A clock that panics stands still.
    pub fn now(&self) -> u64 {
        match &self.clock {
            Source::System(clock) => nanos(clock.now()),
            Source::Host { clock, said } => guarded("the clock", || nanos(clock.now()))
                .unwrap_or_else(|| said.load(Ordering::Relaxed)),
        }
    }

    /// Nanoseconds since the clock's origin, as late as one beat of the clock thread.
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

    /// Publishes the coarse clock.
    pub fn beat(&self) {
        if let Some(coarse) = &self.coarse {
            coarse.store(self.now(), Ordering::Relaxed);
        }
    }

    /// Remembers what the host's clock says.
    pub fn look(&self) {
        if let Source::Host { said, .. } = &self.clock {
            said.store(self.now(), Ordering::Relaxed);
        }
    }

    /// How long a thread may sleep, in real time, that waits for so much time to pass.
    pub fn sleep_for(&self, remaining: u64) -> Duration {
        let remaining = Duration::from_nanos(remaining);
        match &self.clock {
            Source::System(_) => remaining,
            Source::Host { clock, .. } => {
                guarded("the clock", || clock.sleep_for(remaining)).unwrap_or(remaining)
            }
        }
    }

    /// Whether the pool has threads of its own.
    pub fn has_threads(&self) -> bool {
        self.control.is_some()
    }

    pub fn is_ticking(&self) -> bool {
        self.ticking.load(Ordering::Acquire)
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
            self.send(Control::Look);
        }
    }

    /// The clock thread finds out at its next tick.
    pub fn pause(&self) {
        // Without threads, the host moves the epoch, and it is not known when.
        self.ticking
            .store(self.control.is_none(), Ordering::Release);
    }

    fn send(&self, control: Control) {
        if let Some(sender) = &self.control {
            // The channel is unbounded; it can only be closed, and then nobody is to be told.
            let _ = sender.send(control);
        }
    }

    /// The pool is gone, and so many leases are left. Waits for the threads if there are none.
    pub fn end(&self, leases: u64) {
        // One that ended early has counted below zero, and is made good here.
        self.orphans.fetch_add(leases, Ordering::AcqRel);
        self.send(Control::End);
        self.alarms.end();
        if leases == 0 {
            self.threads.join();
        } else {
            self.threads.detach();
        }
    }

    pub fn orphan_ended(&self) {
        if self.orphans.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.alarms.end();
            self.send(Control::Look);
        }
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
