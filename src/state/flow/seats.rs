//! Seats of an entry: an idle instance is found, a vacant seat promised, or somebody waits.

use alloc::vec::Vec;

use crate::state::{
    Context, Effects, EntryId, InstanceId, RemovalReason, Request, RequestId, Seat, Signal,
    Sleeper, Slots, State, Ticket, TooManyWait, Types,
};

/// What an entry has for an acquire.
pub enum SeatOffer<H: Types> {
    /// An idle instance, claimed for the caller.
    Idle(InstanceId<H>),
    /// A vacant seat, promised to this new request: make an instance.
    Seat(RequestId<H>),
    /// Every seat is leased, promised, or awaited by somebody who came before.
    Full,
    /// The group has as many instances as it may, and none that is idle; or somebody waits for one who came before.
    GroupFull,
    /// The group may have no instances at all.
    Barred,
    /// Its guests have failed too often: it is refused until then.
    Quarantined(u64),
    /// The function was removed.
    Gone,
    Closed,
}

/// Whether a caller that found the entry full must really wait.
pub enum SeatWait<H: Types> {
    Queued(Ticket),
    /// A lease ended just now: this instance is claimed for the caller.
    Idle(InstanceId<H>),
    /// A lease of the group ended just now: look again.
    Again,
    /// As many of the group wait as may.
    TooMany(TooManyWait),
}

impl<H: Types> State<H> {
    pub fn try_seat(&mut self, id: EntryId<H>, cx: &mut Context<H, impl Slots<H>>) -> SeatOffer<H> {
        self.try_seat_near(id, 0, cx)
    }

    /// As `try_seat`, preferring the seat `near`, or the next after it.
    pub fn try_seat_near(
        &mut self,
        id: EntryId<H>,
        near: usize,
        cx: &mut Context<H, impl Slots<H>>,
    ) -> SeatOffer<H> {
        let offer = self.find_seat(id, near, cx);
        let entry = self.entries.get(id);
        if entry.is_some_and(|entry| entry.unused.is_none()) && self.limited_share_of(id).is_some()
        {
            // What made room for it may have come to nothing.
            self.forget_if_unused(id, &mut cx.out);
        }
        offer
    }

    fn find_seat(
        &mut self,
        id: EntryId<H>,
        near: usize,
        cx: &mut Context<H, impl Slots<H>>,
    ) -> SeatOffer<H> {
        if self.closed {
            return SeatOffer::Closed;
        }
        let Some(entry) = self.entries.get(id) else {
            return SeatOffer::Gone;
        };
        let Some(function) = self.functions.get(entry.function) else {
            return SeatOffer::Gone;
        };
        if let Some(until) = self.quarantined_until(id) {
            return SeatOffer::Quarantined(until);
        }
        if !entry.queue.is_empty() {
            return self.full(id);
        }
        let (version, seats) = (function.version, entry.seats_from(near));
        self.open_if_it_may(id, &mut cx.slots);
        self.note_share_used(id);
        for seat in seats {
            let Seat::Taken(instance) = self.entries[id].seats[seat] else {
                continue;
            };
            if !self.claim(instance, &mut cx.slots) {
                continue;
            }
            if self.instances[instance].version == version {
                return SeatOffer::Idle(instance);
            }
            self.note_share_seen(instance, &cx.slots);
            self.dismiss(instance, RemovalReason::Replaced, None, cx);
        }
        let free = self.free_seat(id, near, &mut cx.slots);
        let free = free.or_else(|| self.take_seat_from_spare(id));
        match free.or_else(|| self.seat_from_group(id, near, cx)) {
            Some(seat) => SeatOffer::Seat(self.promise(id, seat)),
            None => self.full(id),
        }
    }

    /// Why nobody gets a seat of the entry now.
    fn full(&self, id: EntryId<H>) -> SeatOffer<H> {
        if self.may_have_none(id) {
            SeatOffer::Barred
        } else if self.has_own_room(id) {
            SeatOffer::GroupFull
        } else {
            SeatOffer::Full
        }
    }

    /// A seat that may be taken, made if there is none yet; `None` if as many are occupied as there may be.
    pub(crate) fn free_seat(
        &mut self,
        id: EntryId<H>,
        near: usize,
        slots: &mut impl Slots<H>,
    ) -> Option<usize> {
        if !self.may_occupy(id) {
            return None;
        }
        let entry = &mut self.entries[id];
        entry.vacant_seat(near).or_else(|| {
            let count = entry.seats.len();
            entry.add_seats(self.config.seats_per_entry);
            slots.add_seats(&entry.handle, entry.seats.len());
            Some(count)
        })
    }

    /// Whether one more seat of an entry may be taken or promised.
    fn may_occupy(&self, id: EntryId<H>) -> bool {
        self.has_own_room(id) && !self.is_group_full(id)
    }

    /// Seats of an entry that may be occupied at once.
    pub(crate) fn max_instances(&self, id: EntryId<H>) -> usize {
        let function = self.functions.get(self.entries[id].function);
        let Some(function) = function else {
            return 0;
        };
        let own = function.terms.max_instances;
        let own = own.map_or(usize::MAX, |own| own.get().into());
        own.min(self.config.seats_per_entry)
    }

    /// More seats are occupied than may be, since a `replace` let the function have fewer. The entry is closed for as
    /// long: each lease that ends gives one up.
    pub(crate) fn has_surplus(&self, id: EntryId<H>) -> bool {
        let (entry, most) = (&self.entries[id], self.max_instances(id));
        self.functions.get(entry.function).is_some()
            && entry.seats.len() > most
            && entry.occupied() > most
    }

    /// Its function may have another number of instances from now on.
    pub(crate) fn fit_seats(&mut self, id: EntryId<H>, cx: &mut Context<H, impl Slots<H>>) {
        if self.entries.get(id).is_none() {
            return;
        }
        if self.has_surplus(id) {
            cx.slots.set_waited(&self.entries[id].handle, true);
        }
        loop {
            while !self.entries[id].queue.is_empty() {
                let free = self.free_seat(id, 0, &mut cx.slots);
                let Some(seat) = free.or_else(|| self.seat_from_group(id, 0, cx)) else {
                    break;
                };
                self.offer(id, seat, &mut cx.out);
            }
            // Who waits on may wait for the group from now on.
            if self.entries[id].queue.is_empty()
                || self.notify_on_releases_of_group(id, &mut cx.slots)
            {
                return;
            }
        }
    }

    /// Queues for a seat of an entry that `try_seat` found full, and counts a block.
    pub fn wait_for_seat(
        &mut self,
        id: EntryId<H>,
        waiter: H::Waiter,
        until: u64,
        cx: &mut Context<H, impl Slots<H>>,
    ) -> SeatWait<H> {
        if let Some(too_many) = self.too_many_wait(id) {
            return SeatWait::TooMany(too_many);
        }
        let slots = &mut cx.slots;
        let entry = &self.entries[id];
        let first = entry.queue.is_empty();
        slots.set_waited(&entry.handle, true);
        for (seat, instance) in entry.taken() {
            let ended = !slots.notify_on_release(&entry.handle, seat);
            if ended && first && slots.claim(&entry.handle, seat, instance) {
                slots.set_waited(&entry.handle, false);
                if self.is_end_awaited(id) {
                    self.notify_on_release(instance, slots);
                }
                return SeatWait::Idle(instance);
            }
        }
        while !self.notify_on_releases_of_group(id, &mut cx.slots) {
            // A lease of the group ended just now: for whoever came first.
            if !self.entries[id].queue.is_empty()
                && let Some(share) = self.limited_share_of(id)
                && self.shrink_group(share, 1, cx)
            {
                continue;
            }
            self.open_if_it_may(id, &mut cx.slots);
            return SeatWait::Again;
        }
        if self.may_occupy(id) && self.entries[id].queue.is_empty() {
            self.open_if_it_may(id, &mut cx.slots);
            return SeatWait::Again;
        }
        self.arrivals += 1;
        let arrival = self.arrivals;
        let sleeper = Sleeper {
            waiter,
            until,
            request: None,
        };
        let entry = &mut self.entries[id];
        let ticket = entry.queue.join_at(arrival, sleeper);
        let function = entry.function;
        self.note_use(id);
        self.count(function, |counts| counts.blocks += 1);
        self.bill_block(id);
        SeatWait::Queued(ticket)
    }

    /// Leaves the queue; false when the waiter had been served already.
    pub fn leave_seat_queue(
        &mut self,
        id: EntryId<H>,
        ticket: Ticket,
        cx: &mut Context<H, impl Slots<H>>,
    ) -> bool {
        let Some(entry) = self.entries.get_mut(id) else {
            return false;
        };
        let left = entry.queue.leave(ticket).is_some();
        self.open_if_it_may(id, &mut cx.slots);
        self.forget_if_unused(id, &mut cx.out);
        left
    }

    /// Acquires and releases of the entry need no lock any more, unless somebody waits or it is in quarantine.
    pub(crate) fn open_if_it_may(&self, id: EntryId<H>, slots: &mut impl Slots<H>) {
        if !self.stays_closed(id) {
            slots.set_waited(&self.entries[id].handle, false);
        }
    }

    pub(crate) fn promise(&mut self, entry: EntryId<H>, seat: usize) -> RequestId<H> {
        let function = self.entries[entry].function;
        self.count(function, |counts| counts.misses += 1);
        self.bill_miss(entry);
        self.note_lack_of_spares(entry);
        let version = self.functions.get(function).map_or(0, |f| f.version);
        let mut request = Request::new(Some(function), version);
        request.seat = Some((entry, seat));
        let id = self.requests.insert(request);
        self.set_seat(entry, seat, Seat::Promised(id));
        self.note_use(entry);
        self.note_share_used(entry);
        id
    }

    /// A seat is free: for the first in the queue, or for anybody.
    pub(crate) fn vacate(&mut self, id: EntryId<H>, seat: usize, out: &mut Effects<H>) {
        self.set_seat(id, seat, Seat::Vacant);
        match self.limited_share_of(id) {
            Some(share) => self.serve_share(share, out),
            None if self.may_occupy(id) => self.offer(id, seat, out),
            None => {}
        }
        self.forget_if_unused(id, out);
    }

    /// A vacant seat is promised to the first in the queue, if anybody is.
    pub(crate) fn offer(&mut self, id: EntryId<H>, seat: usize, out: &mut Effects<H>) {
        let entry = &mut self.entries[id];
        let mut late = Vec::new();
        let next = entry.queue.pop(self.now, &mut late);
        self.notify_late(late, out);
        if let Some((_, sleeper)) = next {
            let request = self.promise(id, seat);
            self.requests[request].has_waited = true;
            out.wake.push((sleeper.waiter, Signal::Seat(request)));
        }
    }
}
