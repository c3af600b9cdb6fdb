//! What the pool knows of time without asking the system: a coarse clock, and whether the epoch moves.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::pool::time::alarms::Alarms;
use crate::pool::time::clock::{Clock, SystemClock, nanos};
use crate::pool::time::threads::Threads;
use crate::runtime::guarded;
use crate::sync::unchecked::channel::Sender;
use crate::sync::{AtomicBool, AtomicU64, Ordering};

/// What the clock thread is told.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Control {
    /// Look again whether the epoch is to move.
    Look,
    /// The pool is gone: move the epoch for the leases that are left, then end.
    End,
}

/// What every lease needs of time, without a lock and without asking the system: reading the
/// system's clock costs as much as a guest call.
pub(crate) struct Timekeeper {
    pub this: Weak<Self>,
    clock: TimeSource,
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

enum TimeSource {
    System(SystemClock),
    Host {
        clock: Arc<dyn Clock>,
        /// What it said at the last sweep, for when it panics.
        said: AtomicU64,
    },
}

impl Timekeeper {
    /// With `control`, there are threads that move the epoch and ring alarms.
    pub fn new(clock: Option<Arc<dyn Clock>>, control: Option<Sender<Control>>) -> Arc<Self> {
        let clock = match clock {
            Some(clock) => TimeSource::Host {
                said: AtomicU64::new(nanos(clock.now())),
                clock,
            },
            None => TimeSource::System(SystemClock::new()),
        };
        // Only real time runs on between two beats; another clock says itself what time it is.
        let coarse = match &clock {
            TimeSource::System(clock) if control.is_some() => {
                Some(AtomicU64::new(nanos(clock.now())))
            }
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
            TimeSource::System(clock) => nanos(clock.now()),
            TimeSource::Host { clock, said } => guarded("the clock", || nanos(clock.now()))
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
    pub fn remember_now(&self) {
        if let TimeSource::Host { said, .. } = &self.clock {
            said.store(self.now(), Ordering::Relaxed);
        }
    }

    /// How long a thread may sleep, in real time, that waits for so much time to pass.
    pub fn sleep_for(&self, remaining: u64) -> Duration {
        let remaining = Duration::from_nanos(remaining);
        match &self.clock {
            TimeSource::System(_) => remaining,
            TimeSource::Host { clock, .. } => {
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

    /// Called by every lease that has a deadline. Whether the epoch stood still, and so perhaps the coarse clock, for
    /// longer than a tick.
    #[inline]
    pub fn keep_ticking(&self) -> bool {
        let rested = !self.ticking.load(Ordering::Relaxed);
        if rested {
            self.resume();
        }
        rested
    }

    #[cold]
    fn resume(&self) {
        // What begins now is not to be counted from the last beat on.
        self.beat();
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

impl fmt::Debug for Timekeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timekeeper")
            .field("now", &self.now())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::unit_test_of_threads;

    /// Nobody beats here: what is late is late until somebody wakes the clock.
    #[test]
    fn who_wakes_the_clock_does_not_see_the_time_at_which_it_went_to_rest() {
        unit_test_of_threads(|| {
            let (sender, _receiver) = crate::sync::unchecked::channel::unbounded();
            let timekeeper = Timekeeper::new(None, Some(sender));
            assert!(timekeeper.is_coarse() && !timekeeper.is_ticking());
            let rested = timekeeper.now() + 1_000_000;
            while timekeeper.now() < rested {
                std::hint::spin_loop();
            }
            assert!(timekeeper.roughly_now() < rested);
            assert!(timekeeper.keep_ticking());
            assert!(timekeeper.roughly_now() >= rested);
            assert!(!timekeeper.keep_ticking(), "it ticks already");
        });
    }
}
