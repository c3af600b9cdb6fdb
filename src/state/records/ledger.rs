//! The accounts: what is charged of each budget, and what may be.
//!
//! A [`Charge`] is a part of what is charged, and whoever holds it answers for it. Only the ledger makes one
//! ([`Ledger::reserve`]) and only the ledger takes one back ([`Ledger::release`]); between the two
//! it can only be split and merged. So the sum is conserved by construction, and passing bytes
//! from a victim to the request that evicted it never touches a total.

use super::amounts::{Amounts, Budget, PerBudget};
use super::bill::{over_time, sum};

/// An amount that the ledger has counted as charged. It cannot be copied: a holder keeps it, hands
/// it on, or gives it back.
#[derive(Debug, Default, PartialEq, Eq)]
#[must_use = "a charge that is dropped is never released"]
pub struct Charge(Amounts);

impl Charge {
    pub const NONE: Self = Self(Amounts::ZERO);

    pub fn amounts(&self) -> Amounts {
        self.0
    }

    /// Takes as much of `wanted` as this charge holds.
    pub fn split(&mut self, wanted: &Amounts) -> Self {
        let part = self.0.min(wanted);
        self.0 = self.0.beyond(&part);
        Self(part)
    }

    pub fn take(&mut self) -> Self {
        core::mem::take(self)
    }

    pub fn merge(&mut self, other: Self) {
        self.0 = (self.0)
            .checked_add(&other.0)
            .expect("L1: two charges of one ledger add up to less than the ledger");
    }
}

/// Why an amount cannot be reserved: the budget that lacks most of what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    pub budget: Budget,
    pub requested: u64,
    pub limit: u64,
    pub charged: u64,
    /// What idle instances and unused modules could free of this budget.
    pub evictable: u64,
    /// What is kept of this budget, or will be, for a request that has waited for long.
    pub promised: u64,
    /// What is idle of it and was left, because it is reserved for other groups, or pinned.
    pub reserved: u64,
    /// Whether it is the limit of one group, and what is charged and evictable is that group's.
    pub of_group: bool,
}

impl Shortage {
    /// The same shortage, of a request that holds `own` of what it asks for.
    pub fn including(mut self, own: &Amounts) -> Self {
        let own = own.get(self.budget);
        self.requested = self.requested.saturating_add(own);
        self.charged = self.charged.saturating_sub(own);
        self
    }
}

/// What is charged of each budget, and what may be.
///
/// Invariants:
/// - **L1** `charged` is the sum of all charges that anybody holds.
/// - **L2** `charged ≤ limit + tolerated` for every budget.
/// - **L3** `charged ≤ peak`, the greatest that it ever was.
#[derive(Debug)]
pub struct Ledger {
    limits: PerBudget<u64>,
    charged: Amounts,
    /// What was charged beyond a limit when that was set, as far as it has not been paid back: the overdraft.
    /// Nothing is reserved of a budget that has one.
    tolerated: PerBudget<u64>,
    peak: PerBudget<u64>,
    /// Units, times the nanoseconds that they were charged.
    over_time: PerBudget<u128>,
}

impl Ledger {
    pub fn new(limits: PerBudget<u64>) -> Self {
        Self {
            limits,
            charged: Amounts::ZERO,
            tolerated: PerBudget::default(),
            peak: PerBudget::default(),
            over_time: PerBudget::default(),
        }
    }

    /// So many nanoseconds pass, in which nothing changes.
    pub fn pass(&mut self, nanos: u64) {
        if nanos > 0 {
            self.over_time = sum(&self.over_time, &over_time(&self.charged, nanos));
        }
    }

    /// What was charged so far, times the nanoseconds for which it was.
    pub fn charged_over_time(&self) -> &PerBudget<u128> {
        &self.over_time
    }

    pub fn limits(&self) -> &PerBudget<u64> {
        &self.limits
    }

    pub fn set_limits(&mut self, limits: PerBudget<u64>) {
        self.limits = limits;
        self.tolerated = self.overdraft();
    }

    pub fn tolerated(&self) -> &PerBudget<u64> {
        &self.tolerated
    }

    pub fn charged(&self) -> &Amounts {
        &self.charged
    }

    pub fn peak(&self) -> &PerBudget<u64> {
        &self.peak
    }

    /// How much of each budget is missing before `need` could be reserved, if `earmarked` is left
    /// for others.
    pub fn missing(&self, need: &Amounts, earmarked: &PerBudget<u64>) -> PerBudget<u64> {
        PerBudget::from_fn(|budget| match need.get(budget) {
            0 => 0,
            wanted => (self.charged.get(budget).saturating_add(wanted))
                .saturating_add(earmarked[budget])
                .saturating_sub(self.limits[budget]),
        })
    }

    /// How much of each budget is charged beyond its limit.
    pub fn overdraft(&self) -> PerBudget<u64> {
        PerBudget::from_fn(|b| self.charged.get(b).saturating_sub(self.limits[b]))
    }

    pub fn is_overdrawn(&self) -> bool {
        self.overdraft().iter().any(|(_, over)| over > 0)
    }

    /// Charges `need`, or nothing: all of it must fit under every limit.
    pub fn reserve(&mut self, need: &Amounts) -> Option<Charge> {
        let none = PerBudget::default();
        if self
            .missing(need, &none)
            .iter()
            .any(|(_, missing)| missing > 0)
        {
            return None;
        }
        self.charged = self.charged.checked_add(need)?;
        for budget in Budget::ALL {
            let peak = self.peak[budget].max(self.charged.get(budget));
            self.peak.set(budget, peak);
        }
        Some(Charge(*need))
    }

    /// Gives a charge back. Call it when the kernel has the memory, and not before.
    pub fn release(&mut self, charge: Charge) {
        self.charged = (self.charged)
            .checked_sub(&charge.0)
            .expect("L1: a charge is released once");
        let over = self.overdraft();
        self.tolerated = PerBudget::from_fn(|b| self.tolerated[b].min(over[b]));
    }

    /// Passes on what a victim was charged: as much of it as `need` asks for, and as the limits leave to
    /// it, becomes the charge that is returned, and was charged all the time. The rest is released.
    pub fn transfer(
        &mut self,
        mut of_victim: Charge,
        need: &Amounts,
        earmarked: &PerBudget<u64>,
    ) -> Charge {
        let others = self.charged.beyond(&of_victim.0);
        let part = self.headroom_beside(&others, need, earmarked);
        let passed = of_victim.split(&part);
        self.release(of_victim);
        passed
    }

    /// The greatest part of `need` that fits under every limit now: what a request can hold
    /// already while it waits for its victims.
    pub fn headroom(&self, need: &Amounts, earmarked: &PerBudget<u64>) -> Amounts {
        self.headroom_beside(&self.charged, need, earmarked)
    }

    /// The same, if so much were charged.
    fn headroom_beside(
        &self,
        charged: &Amounts,
        need: &Amounts,
        earmarked: &PerBudget<u64>,
    ) -> Amounts {
        let taken = |b: Budget| charged.get(b).saturating_add(earmarked[b]);
        let free = |b: Budget| self.limits[b].saturating_sub(taken(b));
        let mut bytes = free(Budget::Total);
        let mut mapped = free(Budget::Mapped);
        let mut take = |b: Budget| {
            let mut part = need.get(b).min(free(b)).min(bytes);
            if matches!(b, Budget::Code | Budget::Stack) {
                part = part.min(mapped);
                mapped -= part;
            }
            bytes -= part;
            part
        };
        let count = |b: Budget| need.get(b).min(free(b));
        Amounts::ZERO
            .memory(take(Budget::Memory))
            .code(take(Budget::Code))
            .compile(take(Budget::Compile))
            .stack(take(Budget::Stack))
            .mappings(count(Budget::Mappings))
            .instances(count(Budget::Instances))
    }

    /// The shortage to report: of the budgets that lack something, the one that lacks the largest
    /// share of its request.
    pub fn shortage(
        &self,
        need: &Amounts,
        missing: &PerBudget<u64>,
        evictable: &Amounts,
    ) -> Shortage {
        let share = |b: Budget, m: u64| u128::from(m) * 1000 / u128::from(need.get(b).max(1));
        let budget = missing
            .iter()
            .filter(|&(_, m)| m > 0)
            .max_by_key(|&(b, m)| (share(b, m), core::cmp::Reverse(b)))
            .map_or(Budget::Total, |(b, _)| b);
        Shortage {
            budget,
            requested: need.get(budget),
            limit: self.limits[budget],
            charged: self.charged.get(budget),
            evictable: evictable.get(budget),
            promised: 0,
            reserved: 0,
            of_group: false,
        }
    }
}
