//! Brings the metrics recorder up to date with what the pool itself counts.

use std::sync::{Arc, Weak};

use metrics::{counter, gauge};

use crate::pool::api::bill::{Bill, Bills};
use crate::pool::hot::entry::Entry;
use crate::pool::roll::{BATCH, Roll};
use crate::pool::service::group_series::{Figures, OTHER};
use crate::pool::service::observe::name;
use crate::pool::shared::{Shared, State};
use crate::state::{Amounts, Budget, FunctionCounts, PerBudget};
use crate::sync::Ordering;

impl<T: Send + 'static> Shared<T> {
    /// Brings the recorder up to date with what the pool itself counts.
    pub fn publish_metrics(&self) {
        let pool = &self.observer.pool;
        let uses = self.uses();
        let now = self.with_state(|locked, _| Totals::of(&locked.state));
        for budget in Budget::ALL {
            gauge!(name::CHARGED, "pool" => pool.clone(), "budget" => budget.name())
                .set(now.charged.get(budget) as f64);
            if now.limits[budget] != u64::MAX {
                gauge!(name::LIMIT, "pool" => pool.clone(), "budget" => budget.name())
                    .set(now.limits[budget] as f64);
            }
        }
        let instances = |state| gauge!(name::INSTANCES, "pool" => pool.clone(), "state" => state);
        let idle = uses.idle.min(now.instances);
        instances("idle").set(idle as f64);
        instances("leased").set((now.instances - idle) as f64);
        gauge!(name::MODULES_LOADED, "pool" => pool.clone()).set(now.modules as f64);
        counter!(name::HITS, "pool" => pool.clone()).absolute(uses.hits);
        counter!(name::MISSES, "pool" => pool.clone()).absolute(now.counts.misses);
        counter!(name::BLOCKS, "pool" => pool.clone()).absolute(now.counts.blocks);
        counter!(name::REFUSALS, "pool" => pool.clone()).absolute(now.refusals);
        counter!(name::GROWTH_REFUSALS, "pool" => pool.clone())
            .absolute(now.counts.growth_refusals);
        counter!(name::SPARES, "pool" => pool.clone()).absolute(now.spares);
        counter!(name::QUARANTINES, "pool" => pool.clone()).absolute(now.quarantines);
        self.publish_bills();
    }

    /// What groups have used since this was told last.
    fn publish_bills(&self) {
        let billing = self.settings.billing;
        let most = billing.map_or(0, |billing| billing.in_metrics());
        if most == 0 {
            return;
        }
        let taken = self.with_state(|locked, cx| {
            locked.bills_taken += 1;
            Some((locked.bills_taken, Bills::take(locked, cx)?))
        });
        let Some((number, bills)) = taken else {
            return;
        };
        let groups = bills.groups.iter();
        let groups = groups.map(|of| (&of.group, figures(&of.bill)));
        let total = figures(&bills.total);
        let told = (self.group_series.lock()).update(number, total, groups, most);
        for (group, [calls, failures, refusals, micros, byte_seconds]) in told {
            let pool = || self.observer.pool.clone();
            let group = group.map_or_else(|| OTHER.to_owned(), |group| group.to_string());
            let group = || group.clone();
            counter!(name::GROUP_CALLS, "pool" => pool(), "group" => group()).increment(calls);
            counter!(name::GROUP_FAILURES, "pool" => pool(), "group" => group())
                .increment(failures);
            counter!(name::GROUP_REFUSALS, "pool" => pool(), "group" => group())
                .increment(refusals);
            counter!(name::GROUP_GUEST_TIME, "pool" => pool(), "group" => group())
                .increment(micros);
            counter!(name::GROUP_MEMORY, "pool" => pool(), "group" => group())
                .increment(byte_seconds);
        }
    }
}

fn figures(bill: &Bill) -> Figures {
    let failures = &bill.failures;
    let micros = bill.guest_time.as_micros();
    let byte_seconds = bill.held(Budget::Memory) / 1_000_000_000;
    let whole = |number: u128| u64::try_from(number).unwrap_or(u64::MAX);
    [
        bill.calls,
        failures.traps + failures.fuel + failures.time + failures.cancelled + failures.host,
        bill.refusals,
        whole(micros),
        whole(byte_seconds),
    ]
}

/// What only the slots know.
struct Uses {
    hits: u64,
    /// Instances that are idle.
    idle: usize,
}

impl<T: Send + 'static> Shared<T> {
    /// Looks at all entries, without the lock: not of one instant, and not in anybody's way.
    fn uses(&self) -> Uses {
        // Entries that are forgotten from here on are missed, rather than counted twice.
        let mut hits = self.past_hits.load(Ordering::Relaxed);
        let mut idle = 0;
        // Whoever sweeps at the same time makes another.
        let mut roll = std::mem::take(&mut *self.roll.lock());
        self.call_the_roll(&mut roll);
        for entry in roll.entries.iter().filter_map(Weak::upgrade) {
            for slot in entry.slots() {
                hits += slot.hits();
                idle += usize::from(!slot.is_leased());
            }
        }
        *self.roll.lock() = roll;
        Uses { hits, idle }
    }

    /// A few at a time, if it has changed.
    pub fn call_the_roll(&self, roll: &mut Roll<Entry<T>>) {
        let changes = Some(self.lock().state.entry_changes());
        if roll.changes == changes {
            return;
        }
        roll.changes = changes;
        roll.entries.clear();
        let mut from = 0;
        loop {
            let (entries, next) = self.lock().state.some_entries(from, BATCH);
            roll.entries.extend(entries.iter().map(Arc::downgrade));
            from = next;
            if from == 0 {
                return;
            }
        }
    }
}

/// What the recorder is told, of one instant.
struct Totals {
    charged: Amounts,
    limits: PerBudget<u64>,
    counts: FunctionCounts,
    instances: usize,
    modules: usize,
    refusals: u64,
    spares: u64,
    quarantines: u64,
}

impl Totals {
    fn of<T: Send + 'static>(state: &State<T>) -> Self {
        Self {
            charged: *state.ledger().charged(),
            limits: *state.ledger().limits(),
            counts: state.totals(),
            instances: state.instance_count(),
            modules: state.loaded_modules(),
            refusals: state.refusals(),
            spares: state.spares_made(),
            quarantines: state.quarantines(),
        }
    }
}
