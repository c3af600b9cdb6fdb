//! What happens without a request: time passes, limits change, the pool closes.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::ops::Bound;

use crate::state::{
    Context, Effects, EntryId, FunctionId, Group, InstanceId, PerBudget, Recency, RemovalReason,
    Reuse, Signal, Slots, Stamp, State, Types,
};

/// How long what nobody uses stays, in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Expiry {
    /// An instance idle for longer goes, unless its function says otherwise.
    pub idle: Option<u64>,
    /// The clock by which it was used last may have been so late.
    pub slack: u64,
    /// An instance older than this goes, when idle.
    pub lifetime: Option<u64>,
    /// A module without instances, not used for longer, loses its code.
    pub code_idle: Option<u64>,
}

/// How many records one step of a sweep visits: all there are would keep the lock too long. In tests two, so
/// that a sweep takes several steps.
pub(crate) const BATCH: usize = if cfg!(test) { 2 } else { 256 };

/// How far a sweep has come. Each step goes on where the one before it ended.
#[derive(Default)]
pub enum Swept<H: Types> {
    /// Nowhere yet.
    #[default]
    Nothing,
    /// At spares, behind those of this entry.
    Spares(Option<EntryId<H>>),
    /// At functions whose instances may be idle for a time of their own: behind this one's entry for this group.
    Own(FunctionId<H>, Group),
    /// In the order of last use.
    Idle(Option<(Stamp, InstanceId<H>)>),
    /// In the order of age.
    Lifetime(Option<(Stamp, InstanceId<H>)>),
    /// At unused code.
    Code,
}

impl<H: Types> State<H> {
    /// One step of a sweep, which evicts what has been idle or alive for too long: so much as may be
    /// done without letting go of the lock. Whether there is more to do.
    pub fn sweep(&mut self, expiry: Expiry, cx: &mut Context<H, impl Slots<H>>) -> bool {
        self.swept = match core::mem::take(&mut self.swept) {
            Swept::Nothing => {
                self.review_shares(cx);
                self.sweep_spares(None, expiry, cx)
            }
            Swept::Spares(after) => self.sweep_spares(after, expiry, cx),
            Swept::Own(function, group) => self.sweep_own(Some((function, group)), expiry, cx),
            Swept::Idle(after) => self.sweep_idle(after, expiry.idle, cx),
            Swept::Lifetime(after) => self.sweep_old(after, expiry.lifetime, cx),
            Swept::Code => self.sweep_code(expiry.code_idle, &mut cx.out),
        };
        !matches!(self.swept, Swept::Nothing)
    }

    /// What has been idle for longer than its function says.
    pub(crate) fn sweep_own(
        &mut self,
        mut after: Option<(FunctionId<H>, Group)>,
        expiry: Expiry,
        cx: &mut Context<H, impl Slots<H>>,
    ) -> Swept<H> {
        let mut looks = 0;
        while let Some((function, group, entry)) = self.next_own(after.as_ref()) {
            if looks >= BATCH {
                return after.map_or(Swept::Nothing, |(function, group)| {
                    Swept::Own(function, group)
                });
            }
            let terms = self.functions[function].terms;
            let time = terms.idle.own_nanos();
            after = Some((function, group));
            // Spares have a sweep of their own.
            let Some(time) = time.filter(|_| terms.reuse != Reuse::Pristine) else {
                looks += 1;
                continue;
            };
            let time = time.saturating_add(expiry.slack);
            let taken: Vec<_> = self.entries[entry].taken().map(|(_, id)| id).collect();
            looks += 1 + taken.len();
            for id in taken {
                let used = self.last_used(id, &cx.slots);
                let is_over = self.now.saturating_sub(used.at) >= time;
                let stays = self.is_last_pinned(id, &BTreeSet::new());
                if is_over && !stays && self.claim(id, &mut cx.slots) {
                    self.observe(id, used, &cx.slots);
                    self.dismiss(id, RemovalReason::Idle, None, cx);
                }
            }
        }
        self.sweep_idle(None, expiry.idle, cx)
    }

    /// The next entry of a function with a time of its own.
    fn next_own(
        &self,
        after: Option<&(FunctionId<H>, Group)>,
    ) -> Option<(FunctionId<H>, Group, EntryId<H>)> {
        let behind = |(function, group): &(FunctionId<H>, Group)| {
            let all = &self.functions.get(*function)?.entries;
            let mut behind = all.range((Bound::Excluded(group.clone()), Bound::Unbounded));
            behind
                .next()
                .map(|(group, entry)| (*function, group.clone(), *entry))
        };
        let first = |function: &FunctionId<H>| {
            let (group, entry) = self.functions[*function].entries.first_key_value()?;
            Some((*function, group.clone(), *entry))
        };
        let from = after.map_or(Bound::Unbounded, |(function, _)| Bound::Excluded(*function));
        let next = || (self.own_idle_times.range((from, Bound::Unbounded))).find_map(first);
        after.and_then(behind).or_else(next)
    }

    fn has_own_idle_time(&self, id: InstanceId<H>) -> bool {
        let function = self.entries[self.instances[id].entry].function;
        self.own_idle_times.contains(&function)
    }

    fn sweep_idle(
        &mut self,
        after: Option<(Stamp, InstanceId<H>)>,
        idle: Option<u64>,
        cx: &mut Context<H, impl Slots<H>>,
    ) -> Swept<H> {
        let Some(idle) = idle else {
            return Swept::Lifetime(None);
        };
        let mut after = after.or(Some(Recency::BEHIND_UNUSED));
        for _ in 0..BATCH {
            let Some((known, id)) = self.recency.next(after) else {
                return Swept::Lifetime(None);
            };
            let seen = self.last_used(id, &cx.slots);
            if seen > known {
                // It was used since, and has its place further on.
                self.observe(id, seen, &cx.slots);
                continue;
            }
            if self.now.saturating_sub(known.at) < idle {
                return Swept::Lifetime(None);
            }
            after = Some((known, id));
            // Spares have a sweep of their own, whatever was taken for a use of theirs.
            let stays = self.has_own_idle_time(id)
                || self.is_pristine(self.instances[id].entry)
                || self.is_last_pinned(id, &BTreeSet::new());
            if !stays && self.claim(id, &mut cx.slots) {
                self.dismiss(id, RemovalReason::Idle, None, cx);
            }
        }
        Swept::Idle(after)
    }

    fn sweep_old(
        &mut self,
        mut after: Option<(Stamp, InstanceId<H>)>,
        lifetime: Option<u64>,
        cx: &mut Context<H, impl Slots<H>>,
    ) -> Swept<H> {
        let Some(lifetime) = lifetime else {
            return Swept::Code;
        };
        for _ in 0..BATCH {
            let Some((created, id)) = self.ages.next(after) else {
                return Swept::Code;
            };
            if self.now.saturating_sub(created.at) < lifetime {
                return Swept::Code;
            }
            after = Some((created, id));
            if self.claim(id, &mut cx.slots) {
                self.observe(id, self.last_used(id, &cx.slots), &cx.slots);
                self.dismiss(id, RemovalReason::Lifetime, None, cx);
            }
        }
        Swept::Lifetime(after)
    }

    /// The system has no room where the budgets have: up to `count` idle instances go, the least
    /// recently used first, and as much code that nobody uses. How much went.
    pub fn relieve(&mut self, count: usize, cx: &mut Context<H, impl Slots<H>>) -> usize {
        self.modules.settle();
        let code: Vec<_> = (self.modules.unused().take(count))
            .map(|(_, id)| id)
            .collect();
        for id in &code {
            self.unload(*id, None, &mut cx.out);
        }
        let mut instances = 0;
        let mut cursor = None;
        while instances < count
            && let Some((_, id)) = self.next_by_recency(&mut cursor, &cx.slots)
        {
            let stays = self.is_last_pinned(id, &BTreeSet::new());
            if !stays && self.claim(id, &mut cx.slots) {
                self.dismiss(id, RemovalReason::Room, None, cx);
                instances += 1;
            }
        }
        if code.is_empty() && instances == 0 {
            return self.relieve_of_pinned(count, cx);
        }
        code.len() + instances
    }

    /// There is nothing else: what is pinned goes, too.
    fn relieve_of_pinned(&mut self, count: usize, cx: &mut Context<H, impl Slots<H>>) -> usize {
        let (mut instances, mut cursor) = (0, None);
        while instances < count
            && !self.pinned.is_empty()
            && let Some((_, id)) = self.next_by_recency(&mut cursor, &cx.slots)
        {
            if self.claim(id, &mut cx.slots) {
                self.dismiss(id, RemovalReason::Room, None, cx);
                instances += 1;
            }
        }
        let pinned = self.pinned.values().map(|(module, _)| *module);
        let unused = pinned.filter(|id| {
            let module = &self.modules[*id];
            module.is_loaded() && module.is_unused()
        });
        let unused: BTreeSet<_> = unused.take(count).collect();
        for id in &unused {
            self.unload(*id, None, &mut cx.out);
        }
        instances + unused.len()
    }

    fn sweep_code(&mut self, code_idle: Option<u64>, out: &mut Effects<H>) -> Swept<H> {
        let Some(idle) = code_idle else {
            return Swept::Nothing;
        };
        self.modules.settle();
        let is_old = |used: &Stamp| self.now.saturating_sub(used.at) >= idle;
        let unused = self.modules.unused().take(BATCH);
        let old: Vec<_> = unused.take_while(|(used, _)| is_old(used)).collect();
        for (_, id) in &old {
            self.unload(*id, None, out);
        }
        match old.len() {
            BATCH => Swept::Code,
            _ => Swept::Nothing,
        }
    }

    /// Raised limits hold at once and wake who waits for room; under lowered ones, idle instances
    /// and unused code are evicted, and what leases still hold is an overdraft.
    pub fn set_limits(&mut self, limits: PerBudget<u64>, cx: &mut Context<H, impl Slots<H>>) {
        self.ledger.set_limits(limits);
        self.repay(cx);
        if self.overdraft_of_leases().iter().any(|(_, over)| over > 0) {
            // It is repaid as they end; what ended just now, at the next sweep.
            self.notify_on_all_releases(&mut cx.slots);
        }
        self.wake_room(&mut cx.out);
    }

    /// Evicts these of the instances, if they are still idle.
    pub fn evict(&mut self, ids: &[InstanceId<H>], cx: &mut Context<H, impl Slots<H>>) -> usize {
        let mut evicted = 0;
        for &id in ids {
            if self.instances.get(id).is_some() && self.claim(id, &mut cx.slots) {
                self.observe(id, self.last_used(id, &cx.slots), &cx.slots);
                self.dismiss(id, RemovalReason::NotRetained, None, cx);
                evicted += 1;
            }
        }
        evicted
    }

    /// Refuses everything from now on, wakes everybody, evicts all that is idle. Leases end as
    /// they please; the last one to be freed takes the last charge with it.
    pub fn close(&mut self, cx: &mut Context<H, impl Slots<H>>) {
        self.closed = true;
        if let Some(by) = self.collecting {
            self.end_collecting(by, &mut cx.out);
        }
        for id in self.entries.ids() {
            // Some are forgotten on the way, when too many are unused.
            let Some(entry) = self.entries.get_mut(id) else {
                continue;
            };
            cx.slots.set_closed(&entry.handle);
            let told = entry.queue.drain().map(|waiter| (waiter, Signal::Closed));
            let before = cx.out.wake.len();
            cx.out.wake.extend(told);
            let was_awaited = cx.out.wake.len() > before;
            self.dismiss_all(id, RemovalReason::Closed, cx);
            if was_awaited {
                self.forget_if_unused(id, &mut cx.out);
            }
        }
        for queue in [&mut self.room_queue, &mut self.awaiting_frees] {
            cx.out
                .wake
                .extend(queue.drain().map(|waiter| (waiter, Signal::Closed)));
        }
        let compilers = self.compile_turns.drain().into_iter();
        cx.out
            .wake
            .extend(compilers.map(|waiter| (waiter, Signal::Closed)));
        self.turn = None;
        for id in self.modules.ids() {
            let followers = self.modules[id].followers.drain();
            cx.out
                .wake
                .extend(followers.map(|waiter| (waiter, Signal::Closed)));
            self.drop_out_if_unused(id, &mut cx.out);
        }
    }
}
