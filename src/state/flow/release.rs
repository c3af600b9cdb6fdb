//! The way back: leases end, instances go, and the kernel gets its memory.

use alloc::vec::Vec;

use crate::state::{
    Context, Destroy, Dying, DyingId, Effects, InstanceId, PerBudget, RemovalReason, RequestId,
    Slots, Stamp, State, Types,
};

/// What becomes of an instance whose lease has ended and that the caller holds.
pub enum Returned<H: Types> {
    /// Put it into its slot.
    Park,
    /// Hand it to this waiter.
    Hand(H::Waiter),
    /// It must not be leased again: `dismiss` it.
    Retire(RemovalReason),
}

impl<H: Types> State<H> {
    /// A healthy lease has ended; or a spare has been made.
    pub fn returned(
        &mut self,
        id: InstanceId<H>,
        cx: &mut Context<H, impl Slots<H>>,
    ) -> Returned<H> {
        self.note_share_used(self.instances[id].entry);
        if self.closed {
            return Returned::Retire(RemovalReason::Closed);
        }
        let instance = &self.instances[id];
        match self.functions.get(self.entries[instance.entry].function) {
            None => return Returned::Retire(RemovalReason::Removed),
            Some(function) if function.version != instance.version => {
                return Returned::Retire(RemovalReason::Replaced);
            }
            Some(_) => {}
        }
        if self.has_surplus(instance.entry) {
            return Returned::Retire(RemovalReason::Replaced);
        }
        let home = instance.entry;
        if let Some(share) = self.limited_share_of(home) {
            self.drop_late_of_share(share, &mut cx.out);
        }
        let instance = &self.instances[id];
        if self.is_collected(id) || self.is_awaited_in_group(home) || self.is_turn_of_another(id) {
            return Returned::Retire(RemovalReason::Room);
        }
        let (home, seat) = (instance.entry, instance.seat());
        self.note_overtaken();
        let mut late = Vec::new();
        let entry = &mut self.entries[home];
        let next = entry.queue.pop(self.now, &mut late);
        self.open_if_it_may(home, &mut cx.slots);
        if next.is_some() && self.is_end_awaited(home) {
            // Whoever waits for room, or for an instance of the group, hears of the end of the next lease instead of this one's.
            cx.slots.notify_on_release(&self.entries[home].handle, seat);
        }
        self.notify_late(late, &mut cx.out);
        match next {
            Some((_, sleeper)) => {
                self.note_handed_on(home);
                Returned::Hand(sleeper.waiter)
            }
            None => {
                // Idle, it may be evicted for whoever waits for room.
                self.wake_for_frees(&mut cx.out);
                self.wake_room(&mut cx.out);
                Returned::Park
            }
        }
    }

    /// Ends the life of an instance that the caller holds or has claimed. Its charge stays until
    /// it is freed; its seat is free for the next at once.
    pub fn dismiss(
        &mut self,
        id: InstanceId<H>,
        reason: RemovalReason,
        heir: Option<RequestId<H>>,
        cx: &mut Context<H, impl Slots<H>>,
    ) {
        self.close_bill_of(id, &mut cx.slots);
        let Some(instance) = self.instances.remove(id) else {
            return;
        };
        let heir = heir.or(self.collecting);
        self.recency.remove(instance.known, id);
        self.ages.remove(Stamp::at(instance.created_at), id);
        let module = &mut self.modules[instance.module];
        module.live.remove(&id);
        module.dying += 1;
        if reason.ends_a_lease() {
            module.history.used(Stamp::at(self.now));
        }
        let used_at = match reason.ends_a_lease() {
            true => self.now,
            false => instance.known.at,
        };
        self.note_gone(instance.entry);
        self.note_lost(instance.entry, &instance.charge.amounts(), used_at);
        self.bill_lost(instance.entry, &instance.charge.amounts());
        let function = self.entries[instance.entry].function;
        self.count(function, |counts| match reason.is_eviction() {
            true => counts.evictions += 1,
            false => counts.retirements += 1,
        });
        self.note_spare_gone(instance.entry, reason, instance.is_spare());
        let seat = instance.seat();
        let dying = self.dying.insert(Dying {
            charge: instance.charge,
            module: Some(instance.module),
            heir,
        });
        cx.out.destroy.push(Destroy::Instance {
            dying,
            instance: id,
            reason,
        });
        self.vacate(instance.entry, seat, &mut cx.out);
    }

    /// The shell has destroyed it. What it held goes to its heir as far as that one needs it, and
    /// to everybody otherwise.
    pub fn freed(&mut self, id: DyingId<H>, out: &mut Effects<H>) {
        let Some(dying) = self.dying.remove(id) else {
            return;
        };
        let heir = dying.heir;
        // Whoever collects may lack more than its victims bring; the rest is not there for it yet.
        let earmarked = match heir.is_some() && heir == self.collecting {
            true => self.awaited_by_others(heir).0,
            false => PerBudget::default(),
        };
        match heir.and_then(|heir| self.requests.get_mut(heir)) {
            Some(heir) => {
                let passed = (self.ledger).transfer(dying.charge, &heir.expected, &earmarked);
                heir.take_expected(passed);
                // Somebody else may have freed more of it meanwhile.
                let more = self.ledger.headroom(&heir.expected, &earmarked);
                if let Some(more) = self.ledger.reserve(&more) {
                    heir.take_expected(more);
                }
            }
            None => self.ledger.release(dying.charge),
        }
        if let Some(module) = dying.module {
            self.modules[module].dying -= 1;
            self.drop_out_if_unused(module, out);
        }
        self.wake_for_frees(out);
        self.wake_room(out);
    }

    /// Something has been destroyed, or what was held for a spare is idle or free.
    pub(crate) fn wake_for_frees(&mut self, out: &mut Effects<H>) {
        let mut late = Vec::new();
        while let Some((_, sleeper)) = self.awaiting_frees.pop(self.now, &mut late) {
            self.wake(sleeper, out);
        }
        self.notify_late(late, out);
    }

    /// Refreshes what is known of an instance's last use, for the order and for its module.
    pub(crate) fn observe(&mut self, id: InstanceId<H>, seen: Stamp, slots: &impl Slots<H>) {
        let uses = self.new_uses(id, slots);
        let instance = &mut self.instances[id];
        self.recency.remove(instance.known, id);
        self.recency.insert(seen, id);
        instance.known = seen;
        self.modules[instance.module].history.used_often(seen, uses);
    }
}
