//! Spares: what the core makes ahead of leases, in the random runs; and how many, by direct questions.

use crate::fake::Instance;
use crate::model::{MSeat, Place, Request, Sleep, Step};
use crate::state::{
    Amounts, Expiry, RemovalReason, Returned, Reuse, SpareToMake, Spares, Stamp,
};
use crate::world::World;

/// Spares that an entry may have.
pub const MAX_SPARES: usize = 2;

impl World {
    /// A lease of an instance that is leased once has ended; false if it is another one's.
    pub fn spend(&mut self, id: Instance) -> bool {
        if !self.model.instances[&id].pristine {
            return false;
        }
        let (door, seat, _) = self.home(id);
        self.cx.slots.slot(door, seat).clear_notify();
        self.model.instance(id).place = Place::Held;
        self.dismiss(id, RemovalReason::Uses);
        self.seen.note("spent");
        true
    }

    fn is_room_awaited(&self) -> bool {
        let waits = |sleep| matches!(sleep, Sleep::Room(_));
        let mut naps = self.model.requests.values().filter_map(|r| r.nap);
        naps.any(|nap| !nap.late && waits(nap.sleep))
    }

    fn ready(&self, entry: usize) -> Vec<Instance> {
        let seats = self.model.entries[entry].seats.iter();
        let taken = seats.filter_map(|seat| match seat {
            MSeat::Taken(id) => Some(*id),
            MSeat::Vacant | MSeat::Promised => None,
        });
        let is_idle = |id: &Instance| self.model.instances[id].place == Place::Idle;
        taken.filter(is_idle).collect()
    }

    fn spares_of(&self, entry: usize) -> Option<Spares> {
        self.state.spares_of(self.model.entries[entry].id)
    }

    pub fn begin_spare(&mut self) {
        let misses = self.state.totals().misses;
        let begun = self.state.begin_spare(&mut self.cx);
        self.absorb(None);
        assert_eq!(self.state.totals().misses, misses, "nobody has missed it");
        let Some(SpareToMake {
            request,
            entry,
            source: key,
            definition,
        }) = begun
        else {
            return;
        };
        self.seen.note("spare begun");
        assert!(!self.model.closed && !self.is_room_awaited());
        let function = self.model.function_of(entry).expect("a defined function");
        assert_eq!(function.terms.reuse, Reuse::Pristine);
        assert_eq!((function.key, function.definition), (key, definition));
        assert!(self.model.loaded().any(|(loaded, _)| loaded == key));
        assert!(self.model.may_occupy(entry) && self.model.entries[entry].queue.is_empty());
        let (id, version) = (function.id, function.version);
        let making = (self.model.requests.values())
            .filter(|r| r.step == Step::Spare && r.seat.is_some_and(|(at, _)| at == entry));
        let has = self.ready(entry).len() + making.count();
        let wanted = self.spares_of(entry).expect("it wants some").wanted;
        assert!(has < wanted && wanted <= MAX_SPARES, "{has} of {wanted}");
        let seat = self.state.seat_of(request).expect("a seat");
        let seats = self.cx.slots.doors[entry].slots.len();
        let record = &mut self.model.entries[entry];
        record.seats.resize(seats, MSeat::Vacant);
        assert_eq!(record.seats[seat], MSeat::Vacant);
        record.seats[seat] = MSeat::Promised;
        self.model.begin(request, Some(id), version, Step::Spare);
        self.model.request(request).seat = Some((entry, seat));
        self.model.pin(request, key);
        // In use from now on.
        self.model.forget(&[]);
    }

    pub fn make_spare(&mut self, id: Request, fails: bool) {
        let target = self.instance_need(id);
        let outlook = self.model.outlook(id, &target);
        let may = !self.model.closed && !self.is_room_awaited() && self.model.overdraft() == [0; 7];
        let has_room = self.state.reserve_for_spare(id, target);
        assert!(self.cx.out.destroy.is_empty(), "nothing goes for a spare");
        assert_eq!(has_room, may && outlook.is_granted(), "{outlook:?}");
        if has_room {
            self.model.request(id).held = target;
        }
        if !has_room || fails {
            let (entry, _) = self.model.requests[&id].seat.expect("a seat");
            self.seen.note("spare given up");
            self.model.end(id);
            self.state.give_up_spare(id, &mut self.cx);
            self.absorb(None);
            let wanted = self.spares_of(entry).map_or(0, |spares| spares.wanted);
            assert!(wanted <= self.ready(entry).len());
            return;
        }
        self.install_spare(id, target);
    }

    fn install_spare(&mut self, id: Request, target: Amounts) {
        let stale = self.model.is_stale(id);
        let request = self.model.request(id);
        let (version, (door, seat)) = (request.version, request.seat.expect("a seat"));
        let key = request.key.expect("pinned");
        let installed = self.state.install(id, target, Stamp::NEVER, &mut self.cx);
        let Ok(instance) = installed else {
            assert!(stale, "a current spare was refused");
            self.seen.note("stale spare");
            self.model.end(id);
            self.state.abandon(id, &mut self.cx.out);
            return self.absorb(None);
        };
        assert!(!stale, "C-N2: a stale spare was born");
        self.model.requests.remove(&id);
        let (home, last) = ((door, seat), Stamp::NEVER);
        self.model.bear(instance, home, key, version, target, last);
        self.cx.slots.slot(door, seat).stamp = Stamp::NEVER;
        self.absorb(None);
        self.cx.slots.slot(door, seat).clear_notify();
        self.model.note_share_used(door);
        let collected = self.model.is_collected(instance);
        if !collected {
            self.model.note_overtaken();
            self.model.skip_late(door);
        }
        let next = self.model.entries[door].queue.front().copied();
        match self.state.returned(instance, &mut self.cx) {
            Returned::Park => {
                assert!(next.is_none() && !collected, "it is needed elsewhere");
                self.cx.slots.restore_spare(door, seat, instance);
                self.note_parked(door, seat, instance);
                self.absorb(None);
                self.seen.note("spare parked");
            }
            Returned::Hand(waiter) => {
                let next = next.expect("somebody waits");
                assert_eq!(waiter, next.waiter, "seats go to who came first");
                self.model.entries[door].queue.pop_front();
                self.absorb(None);
                self.lease_out(instance, door);
                self.model.instance(instance).leaked = next.leaked.then_some(next.until);
                self.seen.note("spare handed over");
            }
            Returned::Retire(reason) => {
                assert!(collected && reason == RemovalReason::Room, "{reason}");
                self.absorb(None);
                self.dismiss(instance, reason);
            }
        }
    }

    /// Those that a sweep finds to be too many.
    pub fn spares_to_trim(&self, expiry: Expiry) -> Vec<Instance> {
        let mut all = Vec::new();
        for entry in 0..self.model.entries.len() {
            let Some(spares) = self.spares_of(entry) else {
                continue;
            };
            let terms = self.model.function_of(entry).expect("of a function").terms;
            let period = match terms.idle.is_own() {
                true => terms.idle.own_nanos().map(|own| own + expiry.slack),
                false => expiry.idle,
            };
            let mut ready = self.ready(entry);
            let fewest = spares.fewest.min(ready.len());
            if period.is_some_and(|period| self.model.now - spares.since >= period) {
                ready.sort_by_key(|id| self.model.instances[id].created_at);
                all.extend(ready.into_iter().take(fewest));
            }
        }
        all
    }
}
