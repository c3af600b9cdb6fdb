//! From the door to a live instance: enter, prepare, loaded, born; or abandon.

use alloc::vec::Vec;

use super::amounts::{Amounts, Budget};
use super::entries::{EntryId, Seat};
use super::instances::{Instance, InstanceId};
use super::ledger::{Charge, Shortage};
use super::modules::{ModuleId, Phase};
use super::queue::{Sleeper, Ticket};
use super::recency::Stamp;
use super::requests::{Request, RequestId};
use super::{Effects, Reason, Signal, Slots, State, Types};

/// What an acquire finds when it enters.
pub enum SeatOffer<H: Types> {
    /// An idle instance, claimed for the caller.
    Idle(InstanceId<H>),
    /// A vacant seat, promised to this new request: make an instance.
    Seat(RequestId<H>),
    /// Every seat is leased, promised, or awaited by somebody who came before.
    Full,
    /// The function was removed.
    Gone,
    Closed,
}

/// Whether a caller that found the entry full must really wait.
pub enum SeatWait<H: Types> {
    Queued(Ticket),
    /// A lease ended just now: this instance is claimed for the caller.
    Idle(InstanceId<H>),
}

/// What a request that needs its module's code must do.
pub enum Prepare<H: Types> {
    /// The code is loaded and pinned.
    Ready {
        code: H::Code,
        source: H::Source,
        definition: H::Definition,
    },
    /// The code is nowhere, and this request leads: compile or load it, for all.
    Lead {
        source: H::Source,
        definition: H::Definition,
        /// What the code took last time, in bytes, when there was one.
        code_bytes: Option<u64>,
    },
    /// Another request leads: `follow` it, then ask again.
    Follow(ModuleId<H>),
    /// The code is collected for somebody who has waited for long: `follow` that, then ask again; or be
    /// refused.
    Leaving(ModuleId<H>, Shortage),
    /// As many compilations run as may: wait for one to end, then ask again.
    Queue,
    /// The module failed a short while ago.
    Failed(H::Failure),
    /// The function was removed.
    Gone,
    Closed,
}

/// The function was replaced or removed while the instance was made: destroy it and start again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stale;

impl<H: Types> Prepare<H> {
    const fn is_wait(&self) -> bool {
        matches!(self, Self::Follow(_) | Self::Leaving(..) | Self::Queue)
    }
}

impl<H: Types> State<H> {
    pub fn try_seat(
        &mut self,
        id: EntryId<H>,
        slots: &mut impl Slots<H>,
        out: &mut Effects<H>,
    ) -> SeatOffer<H> {
        self.try_seat_near(id, 0, slots, out)
    }

    /// As `try_seat`, preferring the seat `near`, or the next after it.
    pub fn try_seat_near(
        &mut self,
        id: EntryId<H>,
        near: usize,
        slots: &mut impl Slots<H>,
        out: &mut Effects<H>,
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
        if !entry.queue.is_empty() {
            return SeatOffer::Full;
        }
        slots.set_waited(&entry.handle, false);
        let version = function.version;
        for seat in entry.seats_from(near) {
            let Seat::Taken(instance) = self.entries[id].seats[seat] else {
                continue;
            };
            if !self.claim(instance, slots) {
                continue;
            }
            if self.instances[instance].version == version {
                return SeatOffer::Idle(instance);
            }
            self.dismiss(instance, Reason::Replaced, None, out);
        }
        let entry = &mut self.entries[id];
        let (count, most) = (entry.seats.len(), self.config.seats_per_entry);
        if let Some(seat) = entry.vacant_seat(near) {
            return SeatOffer::Seat(self.promise(id, seat));
        }
        if count == most {
            return SeatOffer::Full;
        }
        entry.add_seats(most);
        slots.add_seats(&entry.handle, entry.seats.len());
        SeatOffer::Seat(self.promise(id, count))
    }

    /// Queues for a seat of an entry that `try_seat` found full, and counts a block.
    pub fn wait_for_seat(
        &mut self,
        id: EntryId<H>,
        waiter: H::Waiter,
        until: u64,
        slots: &mut impl Slots<H>,
    ) -> SeatWait<H> {
        let entry = &self.entries[id];
        let first = entry.queue.is_empty();
        slots.set_waited(&entry.handle, true);
        for (seat, instance) in entry.taken() {
            let ended = !slots.notify_on_release(&entry.handle, seat);
            if ended && first && slots.claim(&entry.handle, seat, instance) {
                slots.set_waited(&entry.handle, false);
                return SeatWait::Idle(instance);
            }
        }
        let entry = &mut self.entries[id];
        let ticket = entry.queue.join(Sleeper {
            waiter,
            until,
            request: None,
        });
        let function = entry.function;
        self.count(function, |counts| counts.blocks += 1);
        SeatWait::Queued(ticket)
    }

    /// Leaves the queue; false when the waiter had been served already.
    pub fn leave_seat_queue(
        &mut self,
        id: EntryId<H>,
        ticket: Ticket,
        slots: &mut impl Slots<H>,
    ) -> bool {
        let Some(entry) = self.entries.get_mut(id) else {
            return false;
        };
        let left = entry.queue.leave(ticket);
        if entry.queue.is_empty() {
            slots.set_waited(&entry.handle, false);
        }
        left
    }

    pub(super) fn promise(&mut self, entry: EntryId<H>, seat: usize) -> RequestId<H> {
        let function = self.entries[entry].function;
        self.count(function, |counts| counts.misses += 1);
        let version = self.functions.get(function).map_or(0, |f| f.version);
        let request = Request::new(Some((entry, seat)), version);
        let id = self.requests.insert(request);
        self.entries[entry].seats[seat] = Seat::Promised(id);
        self.note_use(entry);
        id
    }

    /// Pins the request's module, at the function's present version, and says where its code is.
    pub fn prepare(&mut self, id: RequestId<H>, out: &mut Effects<H>) -> Prepare<H> {
        let prepared = self.find_code(id, out);
        if prepared.is_wait() {
            // Whom it waits for may itself wait for room: it must not be the one in the way.
            let expected = core::mem::take(&mut self.requests[id].expected);
            self.shrink_to(id, Amounts::ZERO, out);
            self.leave_room(id, out);
            if expected != Amounts::ZERO {
                self.wake_room(out);
            }
        }
        // Whoever was woken to compile and does not leaves its turn to the next.
        self.wake_compiler(out);
        prepared
    }

    fn find_code(&mut self, id: RequestId<H>, out: &mut Effects<H>) -> Prepare<H> {
        if self.closed {
            return Prepare::Closed;
        }
        let seat = self.requests[id].seat;
        let function = seat.and_then(|(entry, _)| {
            let function = self.entries.get(entry)?.function;
            self.functions.get(function)
        });
        let Some(function) = function else {
            return Prepare::Gone;
        };
        let (version, module) = (function.version, function.module);
        let definition = function.definition.clone();
        self.requests[id].version = version;
        if self.modules[module].leaving.is_some_and(|by| by != id) {
            // Its code is as good as gone: a pin would only keep it.
            if let Some(before) = self.requests[id].module.take() {
                self.unpin(id, before, out);
            }
            return Prepare::Leaving(module, self.collected_code(module));
        }
        self.pin(id, module, out);
        let now = self.now;
        let full = self.compiling >= self.config.max_compilations;
        let followed = self.requests[id].followed.take() == Some(module);
        let record = &mut self.modules[module];
        match &record.phase {
            Phase::Loaded { code, .. } => Prepare::Ready {
                code: code.clone(),
                source: record.source.clone(),
                definition,
            },
            Phase::InFlight { .. } => {
                self.requests[id].followed = Some(module);
                Prepare::Follow(module)
            }
            Phase::Failed { failure, until } if now < *until || followed => {
                Prepare::Failed(failure.clone())
            }
            Phase::Cold | Phase::Failed { .. } if full => Prepare::Queue,
            Phase::Cold | Phase::Failed { .. } => {
                record.phase = Phase::InFlight { leader: id };
                self.compiling += 1;
                Prepare::Lead {
                    source: record.source.clone(),
                    definition,
                    code_bytes: record.code_bytes,
                }
            }
        }
    }

    /// The request sleeps until the flight on this module has ended, or its code is collected no more; `None`
    /// when that is so.
    pub fn follow(
        &mut self,
        module: ModuleId<H>,
        id: RequestId<H>,
        waiter: H::Waiter,
        until: u64,
    ) -> Option<Ticket> {
        let record = self.modules.get_mut(module)?;
        let goes_on = matches!(record.phase, Phase::InFlight { .. }) || record.leaving.is_some();
        if !goes_on {
            return None;
        }
        self.requests[id].asleep_until = Some(until);
        let request = Some(id);
        Some(record.followers.join(Sleeper {
            waiter,
            until,
            request,
        }))
    }

    pub fn leave_flight(&mut self, module: ModuleId<H>, ticket: Ticket) {
        if let Some(module) = self.modules.get_mut(module) {
            module.followers.leave(ticket);
        }
    }

    /// The request sleeps until a compilation has ended.
    pub fn wait_for_compiler(&mut self, id: RequestId<H>, waiter: H::Waiter, until: u64) -> Ticket {
        self.requests[id].asleep_until = Some(until);
        let request = Some(id);
        self.compilers.join(Sleeper {
            waiter,
            until,
            request,
        })
    }

    pub fn leave_compilers(&mut self, ticket: Ticket, out: &mut Effects<H>) {
        if !self.compilers.leave(ticket) {
            // Woken and gone: the turn is the next one's.
            self.wake_compiler(out);
        }
    }

    /// The leader has loaded the code: it is charged `held` of what the request holds, and all
    /// followers look again. `cost` is what it took, in nanoseconds.
    pub fn loaded(
        &mut self,
        id: RequestId<H>,
        code: H::Code,
        held: Amounts,
        cost: u64,
        out: &mut Effects<H>,
    ) {
        let charge = self.requests[id].held.split(&held);
        debug_assert_eq!(
            charge.amounts(),
            held,
            "code is reserved before it is mapped"
        );
        let Some(module) = self.requests[id].module else {
            return self.ledger.release(charge);
        };
        let now = self.now;
        let record = &mut self.modules[module];
        record.code_bytes = Some(held.get(Budget::Code));
        record.history.cost = cost;
        record.history.used(Stamp {
            at: now,
            sequence: 0,
        });
        self.loaded += 1;
        self.end_flight(module, Phase::Loaded { code, charge }, out);
    }

    /// The leader could not: followers and whoever asks before `until` get the same failure.
    pub fn failed(
        &mut self,
        id: RequestId<H>,
        failure: H::Failure,
        until: u64,
        out: &mut Effects<H>,
    ) {
        if let Some(module) = self.requests[id].module {
            self.end_flight(module, Phase::Failed { failure, until }, out);
        }
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

    /// The exact size of the code is known before it is mapped; the next flight will reserve it.
    pub fn note_code_bytes(&mut self, id: RequestId<H>, bytes: u64) {
        if let Some(module) = self.requests[id].module {
            self.modules[module].code_bytes = Some(bytes);
        }
    }

    fn end_flight(&mut self, module: ModuleId<H>, phase: Phase<H>, out: &mut Effects<H>) {
        let record = &mut self.modules[module];
        let flight = core::mem::replace(&mut record.phase, phase);
        if let Phase::InFlight { .. } = flight {
            let (now, mut late) = (self.now, Vec::new());
            while let Some((_, sleeper)) = self.modules[module].followers.pop(now, &mut late) {
                self.wake(sleeper, out);
            }
            self.notify_late(late, out);
            self.compiling -= 1;
            self.wake_compiler(out);
        }
    }

    fn wake_compiler(&mut self, out: &mut Effects<H>) {
        if self.compiling < self.config.max_compilations {
            let mut late = Vec::new();
            let next = self.compilers.pop(self.now, &mut late);
            self.notify_late(late, out);
            if let Some((_, sleeper)) = next {
                self.wake(sleeper, out);
            }
        }
    }

    pub(super) fn forget_failure(&mut self, module: ModuleId<H>) {
        let phase = &mut self.modules[module].phase;
        if matches!(phase, Phase::Failed { .. }) {
            *phase = Phase::Cold;
        }
    }

    /// Gives back what the request holds beyond `keep`.
    pub fn shrink_to(&mut self, id: RequestId<H>, keep: Amounts, out: &mut Effects<H>) {
        let kept = self.requests[id].held.split(&keep);
        let surplus = core::mem::replace(&mut self.requests[id].held, kept);
        self.release(surplus, out);
    }

    /// The instance exists and is leased to the caller. It takes `held` of the request's charge;
    /// the rest is given back.
    pub fn install(
        &mut self,
        id: RequestId<H>,
        held: Amounts,
        stamp: Stamp,
        slots: &mut impl Slots<H>,
        out: &mut Effects<H>,
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
        let instance = self.instances.insert(Instance {
            entry,
            seat,
            module,
            version,
            charge,
            known: stamp,
            created_at: self.now,
        });
        self.recency.insert(stamp, instance);
        self.entries[entry].seats[seat] = Seat::Taken(instance);
        let record = &mut self.modules[module];
        record.live.insert(instance);
        record.history.used(stamp);
        self.requests[id].seat = None;
        if !self.room_queue.is_empty() || self.ledger.is_overdrawn() {
            // Whoever needs room asked all leases to report their end, and this one is new.
            self.notify_on_release(instance, slots);
        }
        self.abandon(id, out);
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
        if let Some(ticket) = request.room_ticket {
            self.leave_room_queue(ticket, out);
        }
        if let Some(module) = request.module {
            self.unpin(id, module, out);
        }
        if let Some((entry, seat)) = request.seat {
            self.vacate(entry, seat, out);
        }
        // It may have been woken to compile, and taken no turn.
        self.wake_compiler(out);
    }

    fn pin(&mut self, id: RequestId<H>, module: ModuleId<H>, out: &mut Effects<H>) {
        let before = self.requests[id].module.replace(module);
        if before == Some(module) {
            return;
        }
        self.modules[module].pins += 1;
        if let Some(before) = before {
            self.unpin(id, before, out);
        }
    }

    fn unpin(&mut self, id: RequestId<H>, module: ModuleId<H>, out: &mut Effects<H>) {
        let record = &mut self.modules[module];
        record.pins -= 1;
        // Only who was refused for this pin has to look again: waiters pin their modules whenever
        // they look, and would wake each other for ever.
        let wanted = record.pins == 0 && core::mem::take(&mut record.wanted);
        let led = matches!(&record.phase, Phase::InFlight { leader } if *leader == id);
        if led {
            self.end_flight(module, Phase::Cold, out);
        }
        self.drop_out_if_unused(module, out);
        if wanted {
            self.wake_room(out);
        }
    }

    /// Growth of a live instance is a request of its own, without a seat.
    pub fn begin_growth(&mut self) -> RequestId<H> {
        self.requests.insert(Request::new(None, 0))
    }

    /// What the request holds becomes part of the instance's charge.
    pub fn grown(&mut self, id: RequestId<H>, instance: InstanceId<H>, out: &mut Effects<H>) {
        let charge = self.requests[id].held.take();
        match self.instances.get_mut(instance) {
            Some(instance) => instance.charge.merge(charge),
            None => self.release(charge, out),
        }
        self.abandon(id, out);
    }

    /// What the request holds becomes part of what `of` holds, whose instance is not born yet.
    pub fn grown_for_request(&mut self, id: RequestId<H>, of: RequestId<H>, out: &mut Effects<H>) {
        let charge = self.requests[id].held.take();
        match self.requests.get_mut(of) {
            Some(request) => request.held.merge(charge),
            None => self.release(charge, out),
        }
        self.abandon(id, out);
    }

    /// A growth that was granted did not happen.
    pub fn shrink(&mut self, instance: InstanceId<H>, by: Amounts, out: &mut Effects<H>) {
        if let Some(instance) = self.instances.get_mut(instance) {
            let charge = instance.charge.split(&by);
            self.release(charge, out);
        }
    }

    pub fn count_growth_refusal(&mut self, entry: EntryId<H>) {
        if let Some(entry) = self.entries.get(entry) {
            let function = entry.function;
            self.count(function, |counts| counts.growth_refusals += 1);
        }
    }

    /// The module that a request has pinned.
    pub fn module_of(&self, id: RequestId<H>) -> Option<ModuleId<H>> {
        self.requests.get(id)?.module
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

    pub(super) fn release(&mut self, charge: Charge, out: &mut Effects<H>) {
        if charge != Charge::NONE {
            self.ledger.release(charge);
            self.wake_room(out);
        } else {
            self.ledger.release(charge);
        }
    }
}
