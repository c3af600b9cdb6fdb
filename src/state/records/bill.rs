//! What something has used so far, and what it has held for how long.

use super::amounts::{Amounts, Budget, PerBudget};

/// How a call of a guest can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    Trap,
    Fuel,
    Time,
    Cancelled,
    Host,
}

impl Failure {
    pub const ALL: [Self; 5] = [
        Self::Trap,
        Self::Fuel,
        Self::Time,
        Self::Cancelled,
        Self::Host,
    ];
}

/// What leases leave behind in their slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Leases of instances that were there.
    pub hits: u64,
    pub calls: u64,
    /// Nanoseconds in guest code.
    pub guest_nanos: u64,
    /// Units of fuel.
    pub fuel: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

impl Usage {
    pub fn add(&mut self, other: &Self) {
        self.hits += other.hits;
        self.calls += other.calls;
        // By a clock of the host's, which may leap.
        self.guest_nanos = self.guest_nanos.saturating_add(other.guest_nanos);
        self.fuel = self.fuel.saturating_add(other.fuel);
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
    }
}

/// What something has used so far: a group, a function, or all that are gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bill {
    pub usage: Usage,
    pub misses: u64,
    pub blocks: u64,
    pub room_waits: u64,
    pub refusals: u64,
    pub growth_refusals: u64,
    /// In the order of [`Failure::ALL`].
    pub failures: [u64; Failure::ALL.len()],
    pub compilations: u64,
    pub compile_nanos: u64,
    /// Units of each budget, times the nanoseconds that they were held: by instances, and of the code that they run, the
    /// part that falls to them.
    pub held: PerBudget<u128>,
    /// Of what instances held, the part in which they were leased.
    pub leased: PerBudget<u128>,
}

impl Bill {
    pub fn add(&mut self, other: &Self) {
        self.usage.add(&other.usage);
        self.misses += other.misses;
        self.blocks += other.blocks;
        self.room_waits += other.room_waits;
        self.refusals += other.refusals;
        self.growth_refusals += other.growth_refusals;
        for (own, others) in self.failures.iter_mut().zip(other.failures) {
            *own += others;
        }
        self.compilations += other.compilations;
        self.compile_nanos += other.compile_nanos;
        self.held = sum(&self.held, &other.held);
        self.leased = sum(&self.leased, &other.leased);
    }
}

pub fn sum(a: &PerBudget<u128>, b: &PerBudget<u128>) -> PerBudget<u128> {
    PerBudget::from_fn(|budget| a[budget] + b[budget])
}

/// So much, held for so long.
pub fn over_time(amounts: &Amounts, nanos: u64) -> PerBudget<u128> {
    PerBudget::from_fn(|budget: Budget| u128::from(amounts.get(budget)) * u128::from(nanos))
}

/// The bill of a group or a function that there is, as it runs up.
#[derive(Debug, Default)]
pub struct Account {
    pub bill: Bill,
    /// **B1** What its live instances are charged.
    pub holds: Amounts,
    /// Until when `bill.held` has what they held.
    settled_at: u64,
    /// **B2** How many entries are of it.
    pub entries: usize,
    /// Which of all partings its last was, of a group that has lost its last entry.
    pub parting: u64,
}

impl Account {
    pub fn settle(&mut self, now: u64) {
        let nanos = now.saturating_sub(self.settled_at);
        self.settled_at = self.settled_at.max(now);
        if nanos > 0 && self.holds != Amounts::ZERO {
            self.bill.held = sum(&self.bill.held, &over_time(&self.holds, nanos));
        }
    }

    /// From now on it holds so much more.
    pub fn note_held(&mut self, more: &Amounts, now: u64) {
        self.settle(now);
        self.holds = self.holds.saturating_add(more);
    }

    /// From now on it holds so much less.
    pub fn note_lost(&mut self, less: &Amounts, now: u64) {
        self.settle(now);
        self.holds = self.holds.beyond(less);
    }
}
