//! Slots that belong to a thread: which those are, and when they are taken back.

use std::sync::Arc;

use crate::pool::hot::entry::Entry;
use crate::pool::hot::slots::Slot;
use crate::pool::shared::{EntryId, Shared};
use crate::state::Stamp;

/// How many of them are looked at for each time that the lock is taken. In tests two.
const BATCH: usize = if cfg!(test) { 2 } else { 256 };

/// Every slot that has an owner, and perhaps some that have none any more. Under the pool's lock.
pub(crate) struct Lent<T: Send + 'static>(Vec<LentSlot<T>>);

struct LentSlot<T: Send + 'static> {
    entry: Arc<Entry<T>>,
    seat: usize,
    /// Its last use, as the last round has seen it.
    seen: Stamp,
}

impl<T: Send + 'static> LentSlot<T> {
    fn slot(&self) -> &Slot<T> {
        self.entry.slot(self.seat)
    }

    /// Whether it stays listed.
    fn is_kept(&self) -> bool {
        let kept = self.slot().is_lent() && !self.entry.is_closed();
        if !kept {
            self.slot().unlist();
        }
        kept
    }
}

impl<T: Send + 'static> Lent<T> {
    pub fn new() -> Self {
        Self(Vec::new())
    }

    /// Those that have no owner any more, or will never be leased from again, are not kept: now and then, so that
    /// there are never many, even if nobody sweeps.
    fn push(&mut self, lent: LentSlot<T>) {
        if self.0.len() >= BATCH && self.0.len().is_power_of_two() {
            self.0.retain(LentSlot::is_kept);
        }
        self.0.push(lent);
    }

    pub fn revoke_all(&self) {
        Slot::revoke(self.0.iter().map(LentSlot::slot));
    }

    /// Takes back the slots among the `BATCH` up to `end` that were not used since the last round, with one heavy
    /// fence; where to go on, 0 if this was all.
    fn revoke_unused(&mut self, end: usize) -> usize {
        let end = end.min(self.0.len());
        let from = end.saturating_sub(BATCH);
        let is_unused =
            |lent: &&LentSlot<T>| !lent.slot().is_leased() && lent.slot().last_used() == lent.seen;
        // Looked at once: their owners may use them meanwhile.
        let listed = self.0[from..end].iter();
        let unused: Vec<_> = listed.filter(is_unused).map(LentSlot::slot).collect();
        Slot::revoke(unused.into_iter());
        for at in (from..end).rev() {
            let lent = &mut self.0[at];
            lent.seen = lent.slot().last_used();
            if !lent.is_kept() {
                self.0.swap_remove(at);
            }
        }
        from
    }
}

impl<T: Send + 'static> Shared<T> {
    /// This thread owns the slot from now on, whose instance it has leased.
    pub fn lend(&self, id: EntryId<T>, seat: usize) {
        let mut locked = self.lock();
        let Some(entry) = locked.state.entry_handle(id).cloned() else {
            return;
        };
        let slot = entry.slot(seat);
        if slot.lend() {
            let seen = slot.last_used();
            locked.lent.push(LentSlot { entry, seat, seen });
        }
    }

    /// Takes back the slots that their owners have not used since this was called last: what is evicted for its age
    /// is then revoked already.
    pub fn revoke_unused(&self) {
        let mut end = usize::MAX;
        while end > 0 {
            end = self.lock().lent.revoke_unused(end);
        }
    }
}
