//! How many instances a group may have at once, and who of the group waits for one.
//!
//! A group that has as many as it may gives up what it has idle, the longest idle first, for what it asks for. With
//! nothing idle, who asks waits in its entry's queue, as it does for an entry that is full; but whatever lease of the
//! group ends next, whoever of the group came first is served, in its own entry: an instance of another entry goes
//! for that.

use alloc::vec::Vec;
use core::mem;

use crate::state::{
    Context, Effects, EntryId, Group, RemovalReason, Seat, Share, ShareId, Signal, Slots, State,
    Types,
};

impl<H: Types> State<H> {
    /// All that becomes of a seat comes through here.
    pub(crate) fn set_seat(&mut self, id: EntryId<H>, seat: usize, to: Seat<H>) {
        let is_vacant = |seat: &Seat<H>| matches!(seat, Seat::Vacant);
        let was = mem::replace(&mut self.entries[id].seats[seat], to);
        let (was_vacant, vacant) = (is_vacant(&was), is_vacant(&to));
        if was_vacant != vacant
            && let Some(share) = self.share_of(id).and_then(|id| self.shares.get_mut(id))
        {
            match vacant {
                true => share.seats -= 1,
                false => share.seats += 1,
            }
        }
    }

    /// The share of the entry's group, if that limits how many instances it has.
    pub(crate) fn limited_share_of(&self, id: EntryId<H>) -> Option<ShareId<H>> {
        let share = self.share_of(id)?;
        self.shares.get(share)?.limits_seats().then_some(share)
    }

    fn seat_limit_of(&self, id: EntryId<H>) -> Option<&Share<H>> {
        self.shares.get(self.limited_share_of(id)?)
    }

    /// Whether the entry's group has as many instances as it may.
    pub(crate) fn is_group_full(&self, id: EntryId<H>) -> bool {
        let share = self.seat_limit_of(id);
        share.is_some_and(|share| share.excess_seats(1) > 0)
    }

    pub(crate) fn may_have_none(&self, id: EntryId<H>) -> bool {
        let share = self.seat_limit_of(id);
        share.is_some_and(|share| share.terms.counts.instances == 0)
    }

    /// Whether the entry alone might occupy one more seat, whatever its group has.
    pub(crate) fn has_own_room(&self, id: EntryId<H>) -> bool {
        let (entry, most) = (&self.entries[id], self.max_instances(id));
        entry.seats.len() < most || entry.occupied() < most
    }

    /// A seat for an entry whose group is full, in place of what the group has idle.
    pub(crate) fn seat_from_group(
        &mut self,
        id: EntryId<H>,
        near: usize,
        cx: &mut Context<H, impl Slots<H>>,
    ) -> Option<usize> {
        let share = self.limited_share_of(id)?;
        // What goes may leave entries unused, and too many of those: this one is not.
        self.note_use(id);
        let mut free = None;
        while free.is_none()
            && self.has_own_room(id)
            && self.is_group_full(id)
            && self.shrink_group(share, 1, cx)
        {
            // None, if somebody of the group has waited for just that.
            free = self.free_seat(id, near, &mut cx.slots);
        }
        free
    }

    /// Makes room for so many more instances of a group, as far as it has any idle: first the spares go that are being made
    /// for it. Whether anything went.
    pub(crate) fn shrink_group(
        &mut self,
        id: ShareId<H>,
        more: usize,
        cx: &mut Context<H, impl Slots<H>>,
    ) -> bool {
        let share = self.shares.get(id);
        let entries: Vec<_> = share.map_or_else(Vec::new, |s| s.entries.iter().copied().collect());
        let excess = |state: &Self| state.shares.get(id).map_or(0, |s| s.excess_seats(more));
        let mut shrinks = false;
        for entry in entries {
            while excess(self) > 0
                && let Some(seat) = self.take_seat_from_spare(entry)
            {
                self.vacate(entry, seat, &mut cx.out);
                shrinks = true;
            }
        }
        for (_, instance) in self.idle_of_share(id, &cx.slots) {
            if excess(self) > 0 && self.claim(instance, &mut cx.slots) {
                self.note_share_seen(instance, &cx.slots);
                self.dismiss(instance, RemovalReason::Room, None, cx);
                shrinks = true;
            }
        }
        shrinks
    }

    /// There may be room for another instance of the group.
    pub(crate) fn serve_group(&mut self, group: &Group, cx: &mut Context<H, impl Slots<H>>) {
        let share = self.shares.find(group);
        let entries: Vec<_> = match share.and_then(|id| self.shares.get(id)) {
            Some(share) => share.entries.iter().copied().collect(),
            // Nothing is said of it any more.
            None => {
                let entries = self.entries.iter();
                let waited = entries.filter(|(_, e)| !e.queue.is_empty());
                let waited = waited.map(|(id, _)| id);
                waited.filter(|id| self.share_group(*id) == group).collect()
            }
        };
        let is_limited = |id: &ShareId<H>| self.shares.get(*id).is_some_and(Share::limits_seats);
        if let Some(share) = share.filter(is_limited) {
            self.shed(share, &entries, cx);
            for id in &entries {
                if self.entries.get(*id).is_some_and(|e| !e.queue.is_empty()) {
                    self.add_seats_for_all(*id, 0, &mut cx.slots);
                }
            }
            self.serve_share(share, &mut cx.out);
        }
        for id in entries {
            let entry = self.entries.get(id);
            if entry.is_none_or(|entry| entry.queue.is_empty()) {
                continue;
            }
            if self.may_have_none(id) {
                let queue = &mut self.entries[id].queue;
                let told = queue.drain().map(|waiter| (waiter, Signal::Retry));
                cx.out.wake.extend(told);
            }
            self.fit_seats(id, cx);
            self.open_if_it_may(id, &mut cx.slots);
            self.forget_if_unused(id, &mut cx.out);
        }
    }

    /// What the group has beyond what it may have goes: now, if it is idle, and when its lease ends otherwise.
    fn shed(&mut self, id: ShareId<H>, entries: &[EntryId<H>], cx: &mut Context<H, impl Slots<H>>) {
        let excess = |state: &Self| state.shares.get(id).map_or(0, |s| s.excess_seats(0));
        while excess(self) > 0 {
            self.shrink_group(id, 0, cx);
            if self.notify_on_releases_of(entries, &mut cx.slots) {
                break;
            }
        }
    }

    /// Who waits for an instance of the group, and is late, is told, and waits no more.
    pub(crate) fn drop_late_of_share(&mut self, id: ShareId<H>, out: &mut Effects<H>) {
        let share = self.shares.get(id);
        let entries = share.into_iter().flat_map(|share| &share.entries);
        let awaited = entries.filter(|id| !self.entries[**id].queue.is_empty());
        for id in awaited.copied().collect::<Vec<_>>() {
            let Some(entry) = self.entries.get_mut(id) else {
                continue;
            };
            let mut late = Vec::new();
            entry.queue.drop_late(self.now, &mut late);
            if late.is_empty() {
                continue;
            }
            self.notify_late(late, out);
            self.forget_if_unused(id, out);
        }
    }

    /// As far as there is room, whoever of the group came first has a seat.
    pub(crate) fn serve_share(&mut self, id: ShareId<H>, out: &mut Effects<H>) {
        self.drop_late_of_share(id, out);
        loop {
            let Some(share) = self.shares.get(id).filter(|s| s.excess_seats(1) == 0) else {
                return;
            };
            let entries = share.entries.iter().copied();
            let waiting = entries.filter_map(|id| {
                let entry = &self.entries[id];
                let (first, seat) = (entry.queue.first()?, entry.vacant_seat(0)?);
                self.has_own_room(id).then_some((first, id, seat))
            });
            let Some((_, entry, seat)) = waiting.min_by_key(|(first, ..)| *first) else {
                return;
            };
            self.offer(entry, seat, out);
        }
    }

    /// Whether an instance of this entry whose lease has ended must go: for somebody of its group who came before all that
    /// wait for the entry, or since the group has more than it may.
    pub(crate) fn is_awaited_in_group(&self, home: EntryId<H>) -> bool {
        let Some(share) = self.seat_limit_of(home) else {
            return false;
        };
        let first = |id: EntryId<H>| self.entries[id].queue.first();
        let own = first(home);
        let others = share.entries.iter().copied().filter(|id| *id != home);
        let others = others.filter(|id| self.has_own_room(*id)).filter_map(first);
        let comes_first = |other| own.is_none_or(|own| other < own);
        share.excess_seats(0) > 0 || others.min().is_some_and(comes_first)
    }

    /// Whether somebody must hear of the end of a lease of this entry who does not wait for the entry itself.
    pub(crate) fn is_end_awaited(&self, id: EntryId<H>) -> bool {
        !self.room_queue.is_empty() || self.ledger.is_overdrawn() || self.is_group_awaited(id)
    }

    /// Whether somebody waits for an instance of the entry's group, or that has more than it may.
    fn is_group_awaited(&self, id: EntryId<H>) -> bool {
        let share = self.seat_limit_of(id);
        let is_awaited =
            |id: &EntryId<H>| !self.entries[*id].queue.is_empty() && self.has_own_room(*id);
        share.is_some_and(|share| share.excess_seats(0) > 0 || share.entries.iter().any(is_awaited))
    }

    /// Asks all leases of the other entries of the group to report their ends, for somebody who is about to wait for this
    /// one, and makes a seat for it. False when one had ended just now.
    pub(crate) fn notify_on_releases_of_group(
        &mut self,
        id: EntryId<H>,
        slots: &mut impl Slots<H>,
    ) -> bool {
        let share = self.seat_limit_of(id);
        let Some(share) = share.filter(|_| self.has_own_room(id)) else {
            return true;
        };
        let others: Vec<_> = share.entries.iter().copied().filter(|o| *o != id).collect();
        let all = self.notify_on_releases_of(&others, slots);
        self.add_seats_for_all(id, 1, slots);
        all
    }

    /// There are seats for all who wait for the entry, and so many more, as far as its group may have them: so none has to be
    /// made when room is found for them.
    fn add_seats_for_all(&mut self, id: EntryId<H>, more: usize, slots: &mut impl Slots<H>) {
        let limit = self.seat_limit_of(id).map_or(usize::MAX, Share::most_seats);
        let most = limit.min(self.max_instances(id));
        let entry = &mut self.entries[id];
        let seats = most.min(entry.occupied() + entry.queue.len() + more);
        while entry.seats.len() < seats {
            entry.add_seats(self.config.seats_per_entry);
            slots.add_seats(&entry.handle, entry.seats.len());
        }
    }

    /// Asks all leases of these entries to report their ends. False when one had ended just now, or what seems leased is
    /// idle.
    fn notify_on_releases_of(&self, entries: &[EntryId<H>], slots: &mut impl Slots<H>) -> bool {
        let mut all = true;
        for entry in entries.iter().filter_map(|id| self.entries.get(*id)) {
            for (seat, _) in entry.taken() {
                all &= slots.notify_on_release(&entry.handle, seat);
            }
        }
        all
    }

    /// The seats of which one must be given up to serve who waits for this entry: those of the entry, or of its group. For
    /// some of them an instance is still being made.
    pub fn awaited_seats(&self, id: EntryId<H>) -> Vec<(&H::Entry, usize)> {
        let share = self.seat_limit_of(id);
        let share = share.filter(|_| self.has_own_room(id));
        let entries: Vec<_> = match share {
            Some(share) => share.entries.iter().copied().collect(),
            None => Vec::from([id]),
        };
        let mut awaited = Vec::new();
        for entry in entries.into_iter().filter_map(|id| self.entries.get(id)) {
            let seats = entry.seats.iter().enumerate();
            let occupied = seats.filter(|(_, seat)| !matches!(seat, Seat::Vacant));
            awaited.extend(occupied.map(|(number, _)| (&entry.handle, number)));
        }
        awaited
    }
}
