//! What the leases of a slot leave behind for the bill, in a pool that keeps any: a cache line of its own.

use crate::pool::time::timekeeper::Timekeeper;
use crate::state::Usage;
use crate::sync::{AtomicU64, Ordering};

/// Counts of a slot's leases. Written by the lease's holder alone, but for `settled`, and, once nothing is leased from
/// the slot any more, under the lock.
#[derive(Default)]
#[repr(align(64))]
pub(crate) struct Meter {
    calls: AtomicU64,
    guest_nanos: AtomicU64,
    fuel: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    /// Nanoseconds of all leases that have ended.
    leased: AtomicU64,
    /// When the lease began that has the instance, or the last one ended: twice the nanoseconds, and 1 if it is leased.
    /// Never earlier than before.
    changed: AtomicU64,
    /// Of the leased nanoseconds, those that are on a bill. Under the lock.
    settled: AtomicU64,
}

/// Only its holder writes to it.
#[inline(always)]
fn add(count: &AtomicU64, more: u64) {
    let sum = count.load(Ordering::Relaxed).wrapping_add(more);
    count.store(sum, Ordering::Relaxed);
}

fn take(count: &AtomicU64) -> u64 {
    let taken = count.load(Ordering::Relaxed);
    count.store(0, Ordering::Relaxed);
    taken
}

impl Meter {
    /// On a coarse clock, which may stand before what was written last.
    #[inline(always)]
    pub fn begin_lease(&self, now: u64) {
        let before = self.changed.load(Ordering::Relaxed) >> 1;
        self.changed
            .store(before.max(now) << 1 | 1, Ordering::Relaxed);
    }

    /// Nothing, if it has ended already.
    #[inline(always)]
    pub fn end_lease(&self, now: u64) {
        let changed = self.changed.load(Ordering::Relaxed);
        if changed & 1 == 0 {
            return;
        }
        let began = changed >> 1;
        if now <= began {
            return self.changed.store(began << 1, Ordering::Relaxed);
        }
        self.changed.store(now << 1, Ordering::Relaxed);
        // Whoever reads this sees that the lease has ended.
        let leased = self.leased.load(Ordering::Relaxed);
        let leased = leased.wrapping_add(now - began);
        self.leased.store(leased, Ordering::Release);
    }

    #[inline(always)]
    pub fn count_call(&self) {
        add(&self.calls, 1);
    }

    pub fn add_fuel(&self, units: u64) {
        add(&self.fuel, units);
    }

    pub fn add_bytes_in(&self, bytes: usize) {
        add(&self.bytes_in, bytes as u64);
    }

    pub fn add_bytes_out(&self, bytes: usize) {
        add(&self.bytes_out, bytes as u64);
    }

    #[inline(always)]
    pub fn begin_call(&self, clock: GuestClock<'_>) -> u64 {
        self.count_call();
        clock.now()
    }

    /// A call has ended, or one poll of it.
    #[inline(always)]
    pub fn add_time(&self, began: u64, clock: GuestClock<'_>) {
        let now = clock.now();
        // Most calls are shorter than a beat of the coarse clock.
        if now > began {
            add(&self.guest_nanos, now - began);
        }
    }

    /// Nanoseconds for which the slot's instance was leased since this was asked last, a lease that goes on
    /// included. Under the lock. A lease that begins or ends meanwhile may count from the next time on.
    pub fn leased_nanos(&self, now: u64) -> u64 {
        let ended = self.leased.load(Ordering::Acquire);
        let changed = self.changed.load(Ordering::Relaxed);
        let (at, is_leased) = (changed >> 1, changed & 1 == 1);
        let leased = match is_leased {
            true => ended.saturating_add(now.saturating_sub(at)),
            false => ended,
        };
        // What is known to be later than this instant is for the next time.
        let leased = leased.saturating_sub(at.saturating_sub(now));
        let settled = self.settled.load(Ordering::Relaxed);
        self.settled.store(settled.max(leased), Ordering::Relaxed);
        leased.saturating_sub(settled)
    }

    pub fn usage(&self) -> Usage {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Usage {
            hits: 0,
            calls: of(&self.calls),
            guest_nanos: of(&self.guest_nanos),
            fuel: of(&self.fuel),
            bytes_in: of(&self.bytes_in),
            bytes_out: of(&self.bytes_out),
        }
    }

    /// What it has counted, which somebody else counts from now on.
    pub fn take_usage(&self) -> Usage {
        Usage {
            hits: 0,
            calls: take(&self.calls),
            guest_nanos: take(&self.guest_nanos),
            fuel: take(&self.fuel),
            bytes_in: take(&self.bytes_in),
            bytes_out: take(&self.bytes_out),
        }
    }
}

/// What time in guest code is measured by.
#[derive(Clone, Copy)]
pub(crate) struct GuestClock<'a> {
    pub timekeeper: &'a Timekeeper,
    pub is_exact: bool,
}

impl GuestClock<'_> {
    #[inline(always)]
    pub fn now(self) -> u64 {
        match self.is_exact {
            true => self.timekeeper.now(),
            false => self.timekeeper.roughly_now(),
        }
    }
}
