//! What becomes of a request: an instance, growth of one, or nothing.

use crate::state::{
    Amounts, Budget, Charge, Context, Effects, EntryId, Instance, InstanceId, ModuleId, Phase,
    Request, RequestId, Seat, Slots, Stamp, State, Types,
};

/// The function was replaced or removed while the instance was made, or the code prepared: start again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stale;

impl<H: Types> State<H> {
    /// The instance exists and is leased to the caller; as a spare, under [`Stamp::NEVER`], so that it can be
    /// [`returned`](Self::returned). It takes `held` of the request's charge;
    /// the rest is given back.
    pub fn install(
        &mut self,
        id: RequestId<H>,
        held: Amounts,
        stamp: Stamp,
        cx: &mut Context<H, impl Slots<H>>,
    ) -> Result<InstanceId<H>, Stale> {
        let request = &self.requests[id];
        let (Some((entry, seat)), Some(module)) = (request.seat, request.module) else {
            return Err(Stale);
        };
        let function = self.functions.get(self.entries[entry].function);
        let current = function.is_some_and(|f| f.version == request.version);
        if !current || self.closed {
            return Err(Stale);
        }
        let version = request.version;
        let charge = self.requests[id].held.split(&held);
        debug_assert_eq!(
            charge.amounts(),
            held,
            "what an instance holds was reserved for it"
        );
        let known_uses = (cx.slots).uses(&self.entries[entry].handle, seat) as u32;
        let instance = self.instances.insert(Instance {
            entry,
            seat_number: seat as u32,
            module,
            version,
            charge,
            known: stamp,
            known_uses,
            created_at: self.now,
        });
        self.recency.insert(stamp, instance);
        if self.config.keeps_ages {
            self.ages.insert(Stamp::at(self.now), instance);
        }
        self.set_seat(entry, seat, Seat::Taken(instance));
        let record = &mut self.modules[module];
        record.live.insert(instance);
        match stamp == Stamp::NEVER {
            true => self.spares.made += 1,
            false => record.history.used(stamp),
        }
        self.note_live(entry);
        self.note_held(entry, &held);
        self.bill_held(entry, &held);
        self.note_user(entry, module);
        self.bill_code(entry, module);
        self.requests[id].seat = None;
        if self.is_end_awaited(entry) {
            // Whoever needs room, or an instance of the group, asked all leases to report their end, and this one is new.
            self.notify_on_release(instance, &mut cx.slots);
        }
        self.abandon(id, &mut cx.out);
        self.wake_room_beyond_share(entry, &mut cx.out);
        Ok(instance)
    }

    /// Ends a request, wherever it stands: seat, pin, flight and charge are given back. An id that
    /// has ended changes nothing.
    pub fn abandon(&mut self, id: RequestId<H>, out: &mut Effects<H>) {
        let Some(mut request) = self.requests.remove(id) else {
            return;
        };
        self.end_collecting(id, out);
        self.release(request.held.take(), out);
        if request.expected != Amounts::ZERO {
            self.wake_room(out);
        }
        if request.is_for_spare {
            self.wake_for_frees(out);
        }
        if let Some(ticket) = request.room_ticket {
            self.leave_room_queue(ticket, out);
        }
        let place = request.compiles.take();
        if let Some(module) = request.module {
            self.unpin(id, module, out);
        }
        self.leave_place(place);
        if let Some((entry, seat)) = request.seat {
            self.vacate(entry, seat, out);
        }
        // It may have had a turn, or have been promised one.
        self.wake_compiler(out);
    }

    /// A request that is about to wait gives back what others may be waiting for: what it holds,
    /// but for the compiler's work, and its pin, unless it leads a flight. It asks for all of it
    /// again when it is woken: nobody waits for room and holds some, but the one who collects.
    pub fn release_to_wait(&mut self, id: RequestId<H>, out: &mut Effects<H>) {
        if self.collecting == Some(id) {
            return;
        }
        let compile = self.requests[id].held.amounts().get(Budget::Compile);
        self.shrink_to(id, Amounts::ZERO.compile(compile), out);
        let Some(module) = self.requests[id].module else {
            return;
        };
        let phase = &self.modules[module].phase;
        if !matches!(phase, Phase::InFlight { leader } if *leader == id) {
            self.requests[id].module = None;
            self.unpin(id, module, out);
        }
    }

    /// Gives back what the request holds beyond `keep`.
    pub fn shrink_to(&mut self, id: RequestId<H>, keep: Amounts, out: &mut Effects<H>) {
        let kept = self.requests[id].held.split(&keep);
        let surplus = core::mem::replace(&mut self.requests[id].held, kept);
        self.release(surplus, out);
    }

    /// Growth of an instance of this entry is a request of its own, without a seat.
    pub fn begin_growth(&mut self, of: Option<EntryId<H>>) -> RequestId<H> {
        let mut request = Request::new(None, 0);
        request.grows = of;
        self.requests.insert(request)
    }

    /// Work for no function, which holds room until it is abandoned.
    pub fn begin_work(&mut self) -> RequestId<H> {
        self.requests.insert(Request::new(None, 0))
    }

    /// What the request holds stands from now on, until `end_standing`; the request ends.
    pub fn keep_standing(&mut self, id: RequestId<H>, out: &mut Effects<H>) {
        if let Some(request) = self.requests.get_mut(id) {
            self.standing.merge(request.held.take());
        }
        self.abandon(id, out);
    }

    /// So much is held from now on, until the pool is gone; or nothing, if the limits have no room for it.
    pub fn set_aside(&mut self, amounts: &Amounts) -> bool {
        let charge = self.ledger.reserve(amounts);
        let fits = charge.is_some();
        self.set_aside.merge(charge.unwrap_or_default());
        fits
    }

    /// Nothing stands any more.
    pub fn end_standing(&mut self, out: &mut Effects<H>) {
        let charge = self.standing.take();
        self.release(charge, out);
    }

    /// What the request holds becomes part of the instance's charge.
    pub fn grown(
        &mut self,
        id: RequestId<H>,
        instance: InstanceId<H>,
        cx: &mut Context<H, impl Slots<H>>,
    ) {
        self.settle_lease(instance, &mut cx.slots);
        let charge = self.requests[id].held.take();
        match self.instances.get_mut(instance) {
            Some(instance) => {
                let (entry, more) = (instance.entry, charge.amounts());
                instance.charge.merge(charge);
                self.note_held(entry, &more);
                self.bill_held(entry, &more);
                self.wake_room_beyond_share(entry, &mut cx.out);
            }
            None => self.release(charge, &mut cx.out),
        }
        self.abandon(id, &mut cx.out);
    }

    /// What the request holds becomes part of what `of` holds, whose instance is not installed yet.
    pub fn grown_for_request(&mut self, id: RequestId<H>, of: RequestId<H>, out: &mut Effects<H>) {
        let charge = self.requests[id].held.take();
        match self.requests.get_mut(of) {
            Some(request) => request.held.merge(charge),
            None => self.release(charge, out),
        }
        self.abandon(id, out);
    }

    /// A growth that was granted did not happen.
    pub fn shrink(
        &mut self,
        instance: InstanceId<H>,
        by: Amounts,
        cx: &mut Context<H, impl Slots<H>>,
    ) {
        self.settle_lease(instance, &mut cx.slots);
        if let Some(instance) = self.instances.get_mut(instance) {
            let charge = instance.charge.split(&by);
            let (entry, used_at) = (instance.entry, instance.known.at);
            self.note_lost(entry, &charge.amounts(), used_at);
            self.bill_lost(entry, &charge.amounts());
            self.release(charge, &mut cx.out);
        }
    }

    pub fn count_growth_refusal(&mut self, entry: EntryId<H>) {
        self.bill_growth_refusal(entry);
        if let Some(entry) = self.entries.get(entry) {
            let function = entry.function;
            self.count(function, |counts| counts.growth_refusals += 1);
        }
    }

    /// The module that a request has pinned.
    pub fn module_of(&self, id: RequestId<H>) -> Option<ModuleId<H>> {
        self.requests.get(id)?.module
    }

    /// The entry that a request makes an instance of.
    pub fn entry_of(&self, id: RequestId<H>) -> Option<EntryId<H>> {
        let (entry, _) = self.requests.get(id)?.seat?;
        Some(entry)
    }

    /// The seat that was promised to a request.
    pub fn seat_of(&self, id: RequestId<H>) -> Option<usize> {
        let (_, seat) = self.requests.get(id)?.seat?;
        Some(seat)
    }

    /// Whether the request has a place among those who wait for room.
    pub fn has_waited_for_room(&self, id: RequestId<H>) -> bool {
        self.requests
            .get(id)
            .is_some_and(|r| r.room_ticket.is_some())
    }

    pub fn holds_anything(&self, id: RequestId<H>) -> bool {
        self.held(id).is_some_and(|held| held != Amounts::ZERO)
    }

    /// What a request holds now.
    pub fn held(&self, id: RequestId<H>) -> Option<Amounts> {
        Some(self.requests.get(id)?.held.amounts())
    }

    pub(crate) fn release(&mut self, charge: Charge, out: &mut Effects<H>) {
        if charge != Charge::NONE {
            self.ledger.release(charge);
            self.wake_room(out);
        } else {
            self.ledger.release(charge);
        }
    }
}
