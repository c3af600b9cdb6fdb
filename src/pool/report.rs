//! Brings the metrics recorder up to date with what the pool itself counts.

use std::sync::Arc;

use metrics::{counter, gauge};

use crate::pool::hot::entry::Entry;
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
        instances("idle").set(now.instances.saturating_sub(uses.leased) as f64);
        instances("leased").set(uses.leased as f64);
        gauge!(name::MODULES_LOADED, "pool" => pool.clone()).set(now.modules as f64);
        counter!(name::HITS, "pool" => pool.clone()).absolute(uses.hits);
        counter!(name::MISSES, "pool" => pool.clone()).absolute(now.counts.misses);
        counter!(name::BLOCKS, "pool" => pool.clone()).absolute(now.counts.blocks);
        counter!(name::REFUSALS, "pool" => pool.clone()).absolute(now.refusals);
        counter!(name::GROWTH_REFUSALS, "pool" => pool.clone())
            .absolute(now.counts.growth_refusals);
    }
}

/// What only the slots know.
struct Uses {
    hits: u64,
    leased: usize,
}

/// How many entries or instances are looked at without letting go of the lock.
const BATCH: usize = 256;

impl<T: Send + 'static> Shared<T> {
    /// Looks at all entries and instances, a few at a time: not of one instant, and not in anybody's way.
    fn uses(&self) -> Uses {
        // Entries that are forgotten from here on are missed, rather than counted twice.
        let mut hits = self.past_hits.load(Ordering::Relaxed);
        let mut from = 0;
        loop {
            let (entries, next) =
                self.with_state(|locked, _| locked.state.some_entries(from, BATCH));
            hits += entries.iter().map(|entry| entry.hits()).sum::<u64>();
            from = next;
            if from == 0 {
                break;
            }
        }
        let mut leased = 0;
        loop {
            let (count, next) = self.with_state(|locked, _| {
                let is_leased = |entry: &Arc<Entry<T>>, seat| entry.slot(seat).is_leased();
                locked.state.count_leased(from, BATCH, is_leased)
            });
            leased += count;
            from = next;
            if from == 0 {
                return Uses { hits, leased };
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
        }
    }
}
