//! Idle instances that were taken out of their slots under the lock, for a plan that may still put them back.

use std::iter;
use std::mem;
use std::sync::Arc;

use hashbrown::HashMap;

use crate::pool::api::target::Target;
use crate::pool::hot::entry::Entry;
use crate::pool::hot::pooled_instance::PooledInstance;
use crate::pool::hot::slots::Slot;
use crate::pool::lent::Lent;
use crate::pool::shared::{InstanceId, ShellTypes};
use crate::state::{Slots, Stamp};

/// An instance, and whose it is.
pub(crate) struct Claimed<T: Send + 'static> {
    pub target: Arc<Target>,
    pub pooled: Box<PooledInstance<T>>,
}

pub(crate) struct Claims<T: Send + 'static> {
    claimed: HashMap<InstanceId<T>, Claimed<T>>,
    /// Those of the pool, as long as its lock is held.
    lent: Lent<T>,
    /// Heavy fences of this plan.
    revocations: u32,
    /// Whether what cannot be claimed, because it is leased, is to report when its lease ends.
    notify: bool,
}

impl<T: Send + 'static> Claims<T> {
    pub fn new() -> Self {
        Self {
            claimed: HashMap::new(),
            lent: Lent::new(),
            revocations: 0,
            notify: false,
        }
    }

    /// From now on, an instance that cannot be claimed is asked to report when its lease ends. So after the
    /// last look before a sleep each instance is either claimed or reports.
    pub fn notify_of_leased(&mut self) {
        self.notify = true;
    }

    /// The pool's lock is taken, or about to be let go: slots are lent under it alone.
    pub fn exchange_lent(&mut self, lent: &mut Lent<T>) {
        mem::swap(&mut self.lent, lent);
        self.revocations = 0;
    }

    /// The slot has no owner then, so that it can be claimed. Whoever looks at one slot of an entry often looks at
    /// all of them, and whoever looks at two entries, at many: there are two heavy fences for all together.
    fn revoke(&mut self, entry: &Entry<T>, slot: &Slot<T>) {
        if !slot.is_lent() {
            return;
        }
        slot.note_loss();
        match self.revocations {
            0 => Slot::revoke(entry.slots()),
            1 => self.lent.revoke_all(),
            // Its owner was just taking from it.
            _ => Slot::revoke(iter::once(slot)),
        }
        self.revocations += 1;
    }

    /// As [`Slots::notify_on_release`].
    fn ask_to_report(&mut self, entry: &Entry<T>, slot: &Slot<T>) -> bool {
        if !slot.start_to_notify() {
            return true;
        }
        self.revoke(entry, slot);
        slot.finds_leased()
    }

    pub fn insert(&mut self, entry: &Entry<T>, pooled: Box<PooledInstance<T>>) {
        let target = entry.target.clone();
        self.claimed.insert(pooled.id, Claimed { target, pooled });
    }

    pub fn take(&mut self, id: InstanceId<T>) -> Option<Claimed<T>> {
        self.claimed.remove(&id)
    }
}

impl<T: Send + 'static> Slots<ShellTypes<T>> for Claims<T> {
    fn claim(&mut self, entry: &Arc<Entry<T>>, seat: usize, id: InstanceId<T>) -> bool {
        let slot = entry.slot(seat);
        loop {
            self.revoke(entry, slot);
            match slot.claim() {
                Some(pooled) => {
                    debug_assert!(pooled.id == id, "a seat's instance lies in its slot");
                    self.insert(entry, pooled);
                    return true;
                }
                None if !self.notify || self.ask_to_report(entry, slot) => return false,
                // Its lease ended just now.
                None => {}
            }
        }
    }

    fn restore(&mut self, entry: &Arc<Entry<T>>, seat: usize, id: InstanceId<T>) {
        if let Some(claimed) = self.take(id) {
            entry.slot(seat).restore(claimed.pooled);
        }
    }

    fn last_used(&self, entry: &Arc<Entry<T>>, seat: usize) -> Stamp {
        entry.slot(seat).last_used()
    }

    fn uses(&self, entry: &Arc<Entry<T>>, seat: usize) -> u64 {
        entry.slot(seat).hits()
    }

    fn seems_idle(&self, entry: &Arc<Entry<T>>, seat: usize) -> bool {
        !entry.slot(seat).is_leased()
    }

    fn asks_leased(&self) -> bool {
        self.notify
    }

    fn notify_on_release(&mut self, entry: &Arc<Entry<T>>, seat: usize) -> bool {
        self.ask_to_report(entry, entry.slot(seat))
    }

    fn set_waited(&mut self, entry: &Arc<Entry<T>>, waited: bool) {
        entry.set_flag(waited);
    }

    fn set_version(&mut self, entry: &Arc<Entry<T>>, version: u64) {
        entry.set_version(version);
    }

    fn set_closed(&mut self, entry: &Arc<Entry<T>>) {
        entry.close();
    }

    fn leased_nanos(&mut self, entry: &Arc<Entry<T>>, seat: usize, now: u64) -> u64 {
        let meter = entry.slot(seat).meter();
        meter.map_or(0, |meter| meter.leased_nanos(now))
    }

    fn add_seats(&mut self, entry: &Arc<Entry<T>>, count: usize) {
        entry.add_seats(count);
    }
}
