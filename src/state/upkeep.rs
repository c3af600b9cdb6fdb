//! What happens without a request: time passes, limits change, the pool closes.

use alloc::vec::Vec;

use super::amounts::PerBudget;
use super::instances::{InstanceId, Reason};
use super::modules::ModuleId;
use super::{Effects, Handles, Signal, Slots, State};

/// How long things may lie about, in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shelf {
    /// An instance idle for longer goes.
    pub idle: Option<u64>,
    /// An instance older than this goes, when idle.
    pub lifetime: Option<u64>,
    /// A module without instances, not used for longer, loses its code.
    pub code_idle: Option<u64>,
}

/// Entries that one sweep looks at: all of them, were they 100,000, would keep the lock too long.
const ENTRIES_A_SWEEP: usize = 1024;

/// Instances that one sweep evicts, or looks at: for the same reason. Two make the tests go round.
const INSTANCES_A_SWEEP: usize = if cfg!(test) { 2 } else { 128 };

impl<H: Handles> State<H> {
    /// Evicts what has been idle or alive for too long, a bounded number; true if there may be more: then
    /// sweep again.
    pub fn sweep(&mut self, shelf: Shelf, slots: &mut impl Slots<H>, out: &mut Effects<H>) -> bool {
        if let Some(idle) = shelf.idle
            && self.sweep_idle(idle, slots, out)
        {
            return true;
        }
        if let Some(lifetime) = shelf.lifetime
            && self.sweep_old(lifetime, slots, out)
        {
            return true;
        }
        if let Some(idle) = shelf.code_idle {
            for id in self.modules.ids() {
                let module = &self.modules[id];
                let since = self.now.saturating_sub(module.history.last_used.at);
                if module.is_unused() && since >= idle {
                    self.unload(id, None, out);
                }
            }
        }
        self.forget_unused_entries(slots);
        false
    }

    fn sweep_idle(&mut self, idle: u64, slots: &mut impl Slots<H>, out: &mut Effects<H>) -> bool {
        let mut cursor = None;
        let mut evicted = 0;
        while let Some((stamp, id)) = self.next_by_recency(&mut cursor, slots) {
            if self.now.saturating_sub(stamp.at) < idle {
                break;
            }
            if self.claim(id, slots) {
                self.dismiss(id, Reason::Idle, None, out);
                evicted += 1;
                if evicted == INSTANCES_A_SWEEP {
                    return true;
                }
            }
        }
        false
    }

    fn sweep_old(
        &mut self,
        lifetime: u64,
        slots: &mut impl Slots<H>,
        out: &mut Effects<H>,
    ) -> bool {
        let (ids, next) = (self.instances).some_ids(self.aged_at, INSTANCES_A_SWEEP);
        self.aged_at = next;
        for id in ids {
            let old = self.now.saturating_sub(self.instances[id].born) >= lifetime;
            if old && self.claim(id, slots) {
                self.observe(id, self.last_used(id, slots));
                self.dismiss(id, Reason::Lifetime, None, out);
            }
        }
        next > 0
    }

    /// The system has no room where the budgets have: up to `count` idle instances go, the least
    /// recently used first, and as much code that nobody uses. How much went.
    pub fn relieve(
        &mut self,
        count: usize,
        slots: &mut impl Slots<H>,
        out: &mut Effects<H>,
    ) -> usize {
        let is_idle_code = |id: &ModuleId<H>| {
            let module = &self.modules[*id];
            module.is_loaded() && module.is_unused()
        };
        let mut code: Vec<_> = self
            .modules
            .ids()
            .into_iter()
            .filter(is_idle_code)
            .collect();
        code.sort_by_key(|id| self.modules[*id].history.last_used);
        code.truncate(count);
        for id in &code {
            self.unload(*id, None, out);
        }
        let mut instances = 0;
        let mut cursor = None;
        while instances < count
            && let Some((_, id)) = self.next_by_recency(&mut cursor, slots)
        {
            if self.claim(id, slots) {
                self.dismiss(id, Reason::Room, None, out);
                instances += 1;
            }
        }
        code.len() + instances
    }

    /// Entries that hold nothing and that nobody can reach but through their function's name.
    fn forget_unused_entries(&mut self, slots: &mut impl Slots<H>) {
        let (ids, next) = self.entries.some_ids(self.looked_at, ENTRIES_A_SWEEP);
        self.looked_at = next;
        for id in ids {
            let entry = &self.entries[id];
            if entry.is_unused() && slots.is_forgotten(&entry.handle) {
                let Some(entry) = self.entries.remove(id) else {
                    continue;
                };
                if let Some(function) = self.functions.get_mut(entry.function) {
                    function.entries.remove(&entry.group);
                }
            }
        }
    }

    /// Raised limits hold at once and wake who waits for room; under lowered ones, idle instances
    /// and unused code are evicted, and what leases still hold is an overdraft.
    pub fn set_limits(
        &mut self,
        limits: PerBudget<u64>,
        slots: &mut impl Slots<H>,
        out: &mut Effects<H>,
    ) {
        self.ledger.set_limits(limits);
        self.repay(slots, out);
        if self.overdraft_of_leases().iter().any(|(_, over)| over > 0) {
            // It is repaid as they end; what ended just now, at the next sweep.
            self.watch_leases(slots);
        }
        self.wake_room(out);
    }

    /// Evicts these of the instances, if they are still idle.
    pub fn evict(
        &mut self,
        ids: &[InstanceId<H>],
        slots: &mut impl Slots<H>,
        out: &mut Effects<H>,
    ) -> usize {
        let mut evicted = 0;
        for &id in ids {
            if self.instances.get(id).is_some() && self.claim(id, slots) {
                self.observe(id, self.last_used(id, slots));
                self.dismiss(id, Reason::NotRetained, None, out);
                evicted += 1;
            }
        }
        evicted
    }

    /// Refuses everything from now on, wakes everybody, evicts all that is idle. Leases end as
    /// they please; the last one to be freed takes the last charge with it.
    pub fn close(&mut self, slots: &mut impl Slots<H>, out: &mut Effects<H>) {
        self.closed = true;
        for id in self.entries.ids() {
            let entry = &mut self.entries[id];
            slots.set_closed(&entry.handle);
            while let Some(waiter) = entry.queue.pop() {
                out.wake.push((waiter, Signal::Closed));
            }
            self.dismiss_all(id, Reason::Closed, slots, out);
        }
        let queues = [&mut self.room, &mut self.soon, &mut self.compilers];
        for waiter in queues.into_iter().flat_map(drain) {
            out.wake.push((waiter, Signal::Closed));
        }
        self.turn = None;
        for id in self.modules.ids() {
            self.drop_out_if_unused(id, out);
        }
    }
}

fn drain<W>(queue: &mut super::Queue<W>) -> Vec<W> {
    core::iter::from_fn(|| queue.pop()).collect()
}
