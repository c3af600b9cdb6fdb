//! The way back: leases end, instances go, the kernel gets its memory, others get room.

use alloc::vec::Vec;

use super::amounts::PerBudget;
use super::entries::{EntryId, Seat};
use super::instances::{Dying, DyingId, InstanceId, Reason};
use super::modules::{ModuleId, Phase};
use super::queue::{Sleeper, Ticket};
use super::recency::Stamp;
use super::requests::RequestId;
use super::{Destroy, Effects, Signal, Slots, State, Types};

/// What becomes of an instance whose lease has ended and that the caller holds.
pub enum Returned<H: Types> {
    /// Put it into its slot.
    Park,
    /// Hand it to this waiter.
    Hand(H::Waiter),
    /// It must not be leased again: `dismiss` it.
    Retire(Reason),
}

impl<H: Types> State<H> {
    /// A healthy lease has ended.
    pub fn returned(
        &mut self,
        id: InstanceId<H>,
        slots: &mut impl Slots<H>,
        out: &mut Effects<H>,
    ) -> Returned<H> {
        if self.closed {
            return Returned::Retire(Reason::Closed);
        }
        let instance = &self.instances[id];
        match self.functions.get(self.entries[instance.entry].function) {
            None => return Returned::Retire(Reason::Removed),
            Some(function) if function.version != instance.version => {
                return Returned::Retire(Reason::Replaced);
            }
            Some(_) => {}
        }
        if self.is_collected(id) {
            return Returned::Retire(Reason::Room);
        }
        let (home, seat) = (instance.entry, instance.seat);
        self.note_pass();
        let mut late = Vec::new();
        let entry = &mut self.entries[home];
        let next = entry.queue.pop(self.now, &mut late);
        if entry.queue.is_empty() {
            slots.set_waited(&entry.handle, false);
        }
        let handed_on =
            next.is_some() && (!self.room_queue.is_empty() || self.ledger.is_overdrawn());
        if handed_on {
            // Whoever needs room was to hear of this lease's end: of the next one's now.
            slots.notify_on_release(&entry.handle, seat);
        }
        self.notify_late(late, out);
        match next {
            Some((_, sleeper)) => Returned::Hand(sleeper.waiter),
            None => {
                // Idle, it may be evicted for whoever waits for room.
                self.wake_room(out);
                Returned::Park
            }
        }
    }

    /// Ends the life of an instance that the caller holds or has claimed. Its charge stays until
    /// it is freed; its seat is free for the next at once.
    pub fn dismiss(
        &mut self,
        id: InstanceId<H>,
        reason: Reason,
        heir: Option<RequestId<H>>,
        out: &mut Effects<H>,
    ) {
        let Some(instance) = self.instances.remove(id) else {
            return;
        };
        let heir = heir.or(self.collecting);
        self.recency.remove(instance.known, id);
        let module = &mut self.modules[instance.module];
        module.live.remove(&id);
        module.dying += 1;
        if reason.ends_a_lease() {
            let at = self.now;
            module.history.used(Stamp { at, sequence: 0 });
        }
        let function = self.entries[instance.entry].function;
        self.count(function, |counts| match reason.is_eviction() {
            true => counts.evictions += 1,
            false => counts.retirements += 1,
        });
        let dying = self.dying.insert(Dying {
            charge: instance.charge,
            module: Some(instance.module),
            heir,
        });
        out.destroy.push(Destroy::Instance {
            dying,
            instance: id,
            reason,
        });
        self.vacate(instance.entry, instance.seat, out);
    }

    /// A seat is free: for the first in the queue, or for anybody.
    pub(super) fn vacate(&mut self, id: EntryId<H>, seat: usize, out: &mut Effects<H>) {
        let entry = &mut self.entries[id];
        entry.seats[seat] = Seat::Vacant;
        let mut late = Vec::new();
        let next = entry.queue.pop(self.now, &mut late);
        self.notify_late(late, out);
        if let Some((_, sleeper)) = next {
            let request = self.promise(id, seat);
            out.wake.push((sleeper.waiter, Signal::Seat(request)));
        } else {
            self.forget_if_unused(id, out);
        }
    }

    /// The shell has destroyed it. What it held goes to its heir as far as that one needs it, and
    /// to everybody otherwise.
    pub fn freed(&mut self, id: DyingId<H>, out: &mut Effects<H>) {
        let Some(dying) = self.dying.remove(id) else {
            return;
        };
        self.ledger.release(dying.charge);
        let heir = dying.heir;
        // Whoever collects may lack more than its victims bring; the rest is not there for it yet.
        let earmarked = match heir.is_some() && heir == self.collecting {
            true => self.awaited_by_others(heir).0,
            false => PerBudget::default(),
        };
        if let Some(heir) = heir.and_then(|heir| self.requests.get_mut(heir)) {
            let part = self.ledger.headroom(&heir.expected, &earmarked);
            if let Some(charge) = self.ledger.reserve(&part) {
                heir.held.merge(charge);
                heir.expected = heir.expected.beyond(&part);
            }
        }
        if let Some(module) = dying.module {
            self.modules[module].dying -= 1;
            self.drop_out_if_unused(module, out);
        }
        let mut late = Vec::new();
        while let Some((_, sleeper)) = self.awaiting_frees.pop(self.now, &mut late) {
            self.wake(sleeper, out);
        }
        self.notify_late(late, out);
        self.wake_room(out);
    }

    /// Code without instances stays or goes, as the policy says; without functions it goes, and
    /// its record with it.
    pub(super) fn drop_out_if_unused(&mut self, id: ModuleId<H>, out: &mut Effects<H>) {
        let Some(module) = self.modules.get(id) else {
            return;
        };
        if !module.is_unused() {
            return;
        }
        let unnamed = module.functions == 0;
        let leaves = module.leaving.is_some();
        if unnamed || leaves || self.closed || !self.config.policy.retains_code() {
            self.unload(id, None, out);
        }
        if unnamed && let Some(module) = self.modules.remove(id) {
            self.module_index.remove(&module.key);
        }
    }

    /// Takes a module's code away; nothing may be using it.
    pub(super) fn unload(
        &mut self,
        id: ModuleId<H>,
        heir: Option<RequestId<H>>,
        out: &mut Effects<H>,
    ) {
        let module = &mut self.modules[id];
        if !module.is_loaded() {
            return;
        }
        if let Phase::Loaded { code, charge } = core::mem::replace(&mut module.phase, Phase::Cold) {
            self.open_module(id, out);
            self.code_dropped += 1;
            self.loaded -= 1;
            let dying = self.dying.insert(Dying {
                charge,
                module: None,
                heir: heir.or(self.collecting),
            });
            out.destroy.push(Destroy::Code { dying, code });
        }
    }

    /// Queues for room, in its old place if it has one; every lease is asked to report its end.
    /// `None` when one had ended just now: then look again at once.
    pub fn wait_for_room(
        &mut self,
        id: RequestId<H>,
        waiter: H::Waiter,
        slots: &mut impl Slots<H>,
    ) -> Option<Ticket> {
        if !self.notify_on_all_releases(slots) {
            return None;
        }
        // It has no deadline before it sleeps.
        let waiter = Sleeper {
            waiter,
            until: u64::MAX,
            request: Some(id),
        };
        let ticket = match self.requests[id].room_ticket {
            Some(ticket) => {
                self.room_queue.leave(ticket);
                self.room_queue.rejoin(ticket, waiter);
                self.turn.take_if(|turn| *turn == ticket);
                ticket
            }
            None => self.room_queue.join(waiter),
        };
        let request = &mut self.requests[id];
        request.room_ticket = Some(ticket);
        request.since.get_or_insert(self.passes);
        Some(ticket)
    }

    /// The request that has queued for room sleeps from now on.
    pub fn sleep_for_room(&mut self, id: RequestId<H>, until: u64) {
        let request = &mut self.requests[id];
        if let Some(ticket) = request.room_ticket {
            request.asleep_until = Some(until);
            self.room_queue.set_deadline(ticket, until);
        }
    }

    /// Asks every lease to report its end. False when one had ended just now.
    pub(super) fn notify_on_all_releases(&mut self, slots: &mut impl Slots<H>) -> bool {
        let mut all = true;
        for id in self.instances.ids() {
            all &= self.is_idle(id, slots) || self.notify_on_release(id, slots);
        }
        all
    }

    fn is_idle(&self, id: InstanceId<H>, slots: &mut impl Slots<H>) -> bool {
        let idle = self.claim(id, slots);
        if idle {
            self.restore(id, slots);
        }
        idle
    }

    /// The request sleeps until something has been destroyed: in nobody's queue, and in nobody's way.
    pub fn wait_for_frees(&mut self, id: RequestId<H>, waiter: H::Waiter, until: u64) -> Ticket {
        self.requests[id].asleep_until = Some(until);
        self.awaiting_frees.join(Sleeper {
            waiter,
            until,
            request: Some(id),
        })
    }

    pub fn leave_frees_queue(&mut self, ticket: Ticket) {
        self.awaiting_frees.leave(ticket);
    }

    /// The request does not wait for room any more: it has it, or gives up.
    pub fn leave_room(&mut self, id: RequestId<H>, out: &mut Effects<H>) {
        self.end_collecting(id, out);
        let Some(request) = self.requests.get_mut(id) else {
            return;
        };
        request.asleep_until = None;
        if let Some(ticket) = request.room_ticket.take() {
            self.leave_room_queue(ticket, out);
        }
    }

    pub(super) fn leave_room_queue(&mut self, ticket: Ticket, out: &mut Effects<H>) {
        self.room_queue.leave(ticket);
        self.turn.take_if(|turn| *turn == ticket);
        // It may have been in the way of smaller ones.
        self.wake_room(out);
    }

    /// There may be room now for the first who waits for it; served, that one wakes the next.
    pub fn wake_room(&mut self, out: &mut Effects<H>) {
        if self.turn.is_some() {
            return;
        }
        let mut late = Vec::new();
        let first = self.room_queue.pop(self.now, &mut late);
        self.notify_late(late, out);
        if let Some((ticket, sleeper)) = first {
            self.turn = Some(ticket);
            self.wake(sleeper, out);
        }
    }

    /// Refreshes what is known of an instance's last use, for the order and for its module.
    pub(super) fn observe(&mut self, id: InstanceId<H>, seen: Stamp) {
        let instance = &mut self.instances[id];
        self.recency.remove(instance.known, id);
        self.recency.insert(seen, id);
        instance.known = seen;
        self.modules[instance.module].history.used(seen);
    }
}
