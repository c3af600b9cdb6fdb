//! Spares: instances made ahead of their leases, where each lease has one that nobody has used.
//!
//! A spare is an idle instance like any other: charged, in its slot, leased without the lock. It stands before all others
//! in the order of last use, as what was never used, and so it is the first to go when room is needed. None is ever made
//! at the expense of anything else: what makes spares takes room that is free, and gives up if there is none.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::upkeep::{BATCH, Expiry, Swept};
use crate::state::{
    Amounts, Context, EntryId, InstanceId, Prepare, RemovalReason, Request, RequestId, Reuse, Seat,
    ShareId, Slots, Spares, State, Types,
};

/// A spare to make.
pub struct SpareToMake<H: Types> {
    pub request: RequestId<H>,
    pub entry: H::Entry,
    pub source: H::Source,
    pub definition: H::Definition,
}

impl<H: Types> State<H> {
    /// Whether each lease of this entry has an instance of its own.
    pub(crate) fn is_pristine(&self, id: EntryId<H>) -> bool {
        let entry = self.entries.get(id);
        let function = entry.and_then(|entry| self.functions.get(entry.function));
        function.is_some_and(|function| function.terms.reuse == Reuse::Pristine)
    }

    /// A lease has to make its instance itself.
    pub(crate) fn note_lack_of_spares(&mut self, id: EntryId<H>) {
        if self.is_pristine(id) {
            self.spares.raise(id, self.config.max_spares, self.now);
        }
    }

    /// An instance of this entry goes. If a lease has ended, another spare is wanted; if it gave its room to somebody,
    /// one less.
    pub(crate) fn note_spare_gone(
        &mut self,
        id: EntryId<H>,
        reason: RemovalReason,
        was_spare: bool,
    ) {
        if reason.ends_a_lease() {
            self.spares.ask_to_refill(id);
        } else if was_spare && reason == RemovalReason::Room {
            self.spares.lower(id, 1);
        }
    }

    /// What the entry's function says of reuse may be another thing now, or it is gone.
    pub(crate) fn review_spares(&mut self, id: EntryId<H>) {
        if !self.is_pristine(id) {
            self.spares.forget(id);
        }
    }

    /// Its instances that seem to be idle.
    fn ready(&self, id: EntryId<H>, slots: &impl Slots<H>) -> Vec<InstanceId<H>> {
        let Some(entry) = self.entries.get(id) else {
            return Vec::new();
        };
        let taken = entry.taken();
        let ready = taken.filter(|(seat, _)| slots.seems_idle(&entry.handle, *seat));
        ready.map(|(_, instance)| instance).collect()
    }

    fn spares_in_making(&self, id: EntryId<H>) -> usize {
        let is_for_spare = |seat: &&Seat<H>| match seat {
            Seat::Promised(request) => self.requests[*request].is_for_spare,
            Seat::Vacant | Seat::Taken(_) => false,
        };
        let seats = self.entries[id].seats.iter();
        seats.filter(is_for_spare).count()
    }

    /// Whether any entry may have fewer spares than it should.
    pub fn wants_spares(&self) -> bool {
        !self.closed && !self.spares.to_refill().is_empty()
    }

    /// The next spare to make, for some entry that has too few; `None` when there is nothing more to make. Nothing is
    /// compiled for a spare: its code is loaded, and pinned from here on.
    pub fn begin_spare(&mut self, cx: &mut Context<H, impl Slots<H>>) -> Option<SpareToMake<H>> {
        while !self.closed
            && let Some(id) = self.spares.next_to_refill()
        {
            if let Some(seat) = self.seat_for_spare(id, &mut cx.slots) {
                let entry = &self.entries[id];
                let (function, handle) = (entry.function, entry.handle.clone());
                let version = self.functions[function].version;
                let mut request = Request::new(Some(function), version);
                request.seat = Some((id, seat));
                request.is_for_spare = true;
                let request = self.requests.insert(request);
                self.set_seat(id, seat, Seat::Promised(request));
                self.note_use(id);
                if let Prepare::Ready { source, definition } = self.prepare(request, &mut cx.out) {
                    return Some(SpareToMake {
                        request,
                        entry: handle,
                        source,
                        definition,
                    });
                }
                self.abandon(request, &mut cx.out);
            }
            self.spares.end_refill(id);
        }
        None
    }

    /// A lease needs the seat more than a spare that is being made, and that whoever makes it may be held up with: it takes
    /// the seat, and the spare comes to nothing.
    pub(crate) fn take_seat_from_spare(&mut self, id: EntryId<H>) -> Option<usize> {
        let seats = self.entries.get(id)?.seats.iter().enumerate();
        let mut promised = seats.filter_map(|(seat, state)| match state {
            Seat::Promised(request) => Some((seat, *request)),
            Seat::Vacant | Seat::Taken(_) => None,
        });
        let (seat, request) = promised.find(|(_, id)| self.requests[*id].is_for_spare)?;
        if self.has_surplus(id) {
            return None;
        }
        self.requests[request].seat = None;
        Some(seat)
    }

    pub fn is_for_spare(&self, id: RequestId<H>) -> bool {
        let request = self.requests.get(id);
        request.is_some_and(|request| request.is_for_spare)
    }

    /// What is known of an entry's spares.
    pub fn spares_of(&self, id: EntryId<H>) -> Option<Spares> {
        self.spares.get(id)
    }

    fn seat_for_spare(&mut self, id: EntryId<H>, slots: &mut impl Slots<H>) -> Option<usize> {
        let ready = self.ready(id, slots).len();
        // As few as leases have left since the last one was made.
        self.spares.note_ready(id, ready);
        let wanted = self.spares.get(id)?.wanted;
        let has = ready + self.spares_in_making(id);
        let entry = self.entries.get(id)?;
        let module = &self.modules[self.functions.get(entry.function)?.module];
        let may_be = module.is_loaded() && module.collected_for.is_none();
        let is_awaited = !entry.queue.is_empty() || self.is_room_awaited();
        if has >= wanted || !may_be || is_awaited || self.quarantined_until(id).is_some() {
            return None;
        }
        self.free_seat(id, 0, slots)
    }

    /// Makes a request for a spare hold what it needs, if that is free: nothing is evicted, and nobody who waits is
    /// passed. False if there is no room.
    pub fn reserve_for_spare(&mut self, id: RequestId<H>, target: Amounts) -> bool {
        let is_scarce = self.is_room_awaited() || self.ledger.is_overdrawn();
        if self.closed || is_scarce || self.exceeds_share(id, &target) {
            return false;
        }
        let need = target.beyond(&self.requests[id].held.amounts());
        let (earmarked, _) = self.awaited();
        let missing = self.ledger.missing(&need, &earmarked);
        if missing.iter().any(|(_, lacks)| lacks > 0) {
            return false;
        }
        let charge = self.ledger.reserve(&need);
        let has_room = charge.is_some();
        if let Some(charge) = charge {
            self.requests[id].held.merge(charge);
        }
        has_room
    }

    /// What requests for spares hold, of this share or of all: in a moment it is idle, or free. Nothing, to another of them.
    pub(crate) fn held_for_spares(&self, by: RequestId<H>, share: Option<ShareId<H>>) -> Amounts {
        if self.is_for_spare(by) {
            return Amounts::ZERO;
        }
        let spares = self.requests.iter().map(|(_, request)| request);
        let spares = spares.filter(|request| request.is_for_spare);
        let own = spares.filter(|r| share.is_none() || self.share_of_request(r) == share);
        own.fold(Amounts::ZERO, |all, request| {
            all.saturating_add(&request.held.amounts())
        })
    }

    /// A spare cannot be made, for lack of room or any other reason: no more are wanted than there are, until a lease
    /// finds none. The request ends.
    pub fn give_up_spare(&mut self, id: RequestId<H>, cx: &mut Context<H, impl Slots<H>>) {
        let entry = self.entry_of(id);
        self.abandon(id, &mut cx.out);
        let Some(entry) = entry else {
            return;
        };
        if let Some(spares) = self.spares.get(entry) {
            let has = self.ready(entry, &cx.slots).len();
            self.spares.lower(entry, spares.wanted.saturating_sub(has));
            self.spares.end_refill(entry);
        }
    }

    /// Spares that have been ready for a whole period, and that nobody needed: as many go, and as many fewer are wanted.
    pub(crate) fn sweep_spares(
        &mut self,
        mut after: Option<EntryId<H>>,
        expiry: Expiry,
        cx: &mut Context<H, impl Slots<H>>,
    ) -> Swept<H> {
        let mut looks = 0;
        while let Some(id) = self.spares.next(after) {
            if looks >= BATCH {
                return Swept::Spares(after);
            }
            after = Some(id);
            looks += 1 + self.entries[id].seats.len();
            let terms = self.functions.get(self.entries[id].function);
            let own = terms.map(|function| function.terms.idle);
            let period = match own.filter(|own| own.is_own()) {
                Some(own) => own.own_nanos().map(|own| own.saturating_add(expiry.slack)),
                None => expiry.idle,
            };
            if let Some(period) = period {
                self.sweep_spares_of(id, period, cx);
            }
        }
        self.sweep_own(None, expiry, cx)
    }

    fn sweep_spares_of(&mut self, id: EntryId<H>, period: u64, cx: &mut Context<H, impl Slots<H>>) {
        let mut ready = self.ready(id, &cx.slots);
        self.spares.note_ready(id, ready.len());
        let spares = self.spares.get(id);
        let Some(spares) = spares.filter(|s| self.now.saturating_sub(s.since) >= period) else {
            return;
        };
        // The oldest first: a younger one may have been made within the period.
        ready.sort_by_key(|instance| self.instances[*instance].created_at);
        let mut left = ready.len();
        for instance in ready.into_iter().take(spares.fewest) {
            let stays = self.is_last_pinned(instance, &BTreeSet::new());
            if !stays && self.claim(instance, &mut cx.slots) {
                self.observe(instance, self.last_used(instance, &cx.slots), &cx.slots);
                self.dismiss(instance, RemovalReason::Idle, None, cx);
                left -= 1;
            }
        }
        self.spares.begin_period(id, left, self.now);
        self.spares.lower(id, spares.fewest);
    }
}
