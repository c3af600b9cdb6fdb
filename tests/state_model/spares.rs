//! Spares: what the core makes ahead of leases, in the random runs; and how many, by direct questions.

use crate::fake::{Fake, Instance};
use crate::model::{MInstance, MSeat, Model, Place, Request, Sleep, Step};
use crate::pool::{Module, NONE, Pool};
use crate::state::{
    Amounts, Budget, EntryId, Expiry, FunctionTerms, Policy, RemovalReason, ReserveOutcome,
    Returned, Reuse, SeatOffer, SpareToMake, Spares, Stamp,
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

    /// Room first; and when it is asked again, the instance.
    pub fn make_spare(&mut self, id: Request, fails: bool) {
        let target = self.instance_need(id);
        if self.model.requests[&id].held != Amounts::ZERO {
            return match fails {
                true => self.give_up_spare(id),
                false => self.install_spare(id, target),
            };
        }
        let outlook = self.model.outlook(id, &target);
        let may = !self.model.closed && !self.is_room_awaited() && self.model.overdraft() == [0; 8];
        let has_room = self.state.reserve_for_spare(id, target);
        assert!(self.cx.out.destroy.is_empty(), "nothing goes for a spare");
        assert_eq!(has_room, may && outlook.is_granted(), "{outlook:?}");
        match has_room {
            true => self.model.request(id).held = target,
            false => self.give_up_spare(id),
        }
    }

    fn give_up_spare(&mut self, id: Request) {
        let seat = self.model.requests[&id].seat;
        self.seen.note("spare given up");
        self.model.end(id);
        self.state.give_up_spare(id, &mut self.cx);
        self.absorb(None);
        if let Some((entry, _)) = seat {
            let wanted = self.spares_of(entry).map_or(0, |spares| spares.wanted);
            assert!(wanted <= self.ready(entry).len());
        }
    }

    fn install_spare(&mut self, id: Request, target: Amounts) {
        let stale = self.model.is_stale(id) || self.model.requests[&id].seat.is_none();
        let request = self.model.request(id);
        let (version, (door, seat)) = (request.version, request.seat.unwrap_or_default());
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

impl Model {
    /// The first seat of an entry that a spare is made for, and its request.
    pub fn seat_of_spare(&self, entry: usize) -> Option<(usize, Request)> {
        let spares = self.requests.iter().filter(|(_, r)| r.step == Step::Spare);
        let seats = spares.filter_map(|(id, r)| Some((r.seat?, *id)));
        let own = seats.filter(|((at, _), _)| *at == entry);
        own.map(|((_, seat), id)| (seat, id)).min()
    }

    /// A request has become an instance, which the shell holds.
    pub fn bear(
        &mut self,
        id: Instance,
        (entry, seat): (usize, usize),
        key: u8,
        version: u64,
        holds: Amounts,
        last: Stamp,
    ) {
        let function = self.function_of(entry);
        let pristine = function.is_some_and(|f| f.terms.reuse == Reuse::Pristine);
        let record = MInstance {
            entry,
            seat,
            key,
            version,
            holds,
            last,
            created_at: self.now,
            place: Place::Held,
            leaked: None,
            pristine,
            unseen: false,
        };
        self.instances.insert(id, record);
        self.entries[entry].seats[seat] = MSeat::Taken(id);
        if let Some(share) = self.share_of(entry) {
            share.users_of.insert(key);
        }
    }
}

// Asked directly: ─────────────────────────────────────────────────────────────────────────────

const F: Module = Module::new(1, 1);
const OTHERS: [Module; 2] = [Module::new(2, 1), Module::new(3, 1)];

/// Room for so much memory; functions whose instances are leased once.
fn pristine(memory: u64) -> Pool {
    let mut pool = Pool::new(Policy::ModuleLru, &[(Budget::Memory, memory)]);
    pool.terms = FunctionTerms {
        reuse: Reuse::Pristine,
        ..FunctionTerms::default()
    };
    pool
}

impl Pool {
    /// The leases end, and their instances are destroyed.
    fn spend(&mut self, leases: &[Instance]) {
        for id in leases {
            (self.state).dismiss(*id, RemovalReason::Uses, None, &mut self.cx);
        }
        self.destroy();
    }

    /// Makes spares until none is wanted, or there is no room; how many.
    fn refill(&mut self) -> usize {
        let mut made = 0;
        while let Some(spare) = self.state.begin_spare(&mut self.cx) {
            let (id, holds) = (spare.request, NONE.memory(1).stack(1).mappings(1));
            if !self.state.reserve_for_spare(id, holds) {
                self.state.give_up_spare(id, &mut self.cx);
                continue;
            }
            let never = Stamp::NEVER;
            let born = self.state.install(id, holds, never, &mut self.cx);
            let born = born.unwrap_or_else(|_| panic!("nothing was replaced"));
            let seat = self.state.instance(born).expect("alive").seat();
            let slot = self.cx.slots.slot(spare.entry, seat);
            slot.stamp = never;
            slot.clear_notify();
            let parked = self.state.returned(born, &mut self.cx);
            assert!(matches!(parked, Returned::Park));
            self.cx.slots.restore_spare(spare.entry, seat, born);
            made += 1;
        }
        made
    }

    fn wanted(&self, entry: EntryId<Fake>) -> usize {
        self.state
            .spares_of(entry)
            .map_or(0, |spares| spares.wanted)
    }
}

#[test]
fn each_lack_doubles_what_is_wanted() {
    let mut pool = pristine(100);
    let entry = pool.entry(F, 1);
    for wanted in [1, 2] {
        let lease = pool.lease_new(F);
        assert_eq!(pool.wanted(entry), wanted);
        pool.spend(&[lease]);
    }
    // It has two seats.
    assert_eq!(pool.refill(), 2);
    assert_eq!(pool.refill(), 0);
}

#[test]
fn a_spare_that_goes_for_room_is_not_made_again_at_once() {
    let mut pool = pristine(4);
    let entry = pool.entry(F, 1);
    let leases = [pool.lease_new(F), pool.lease_new(F)];
    pool.spend(&leases);
    assert_eq!(pool.refill(), 2);
    pool.terms = FunctionTerms::default();
    OTHERS.iter().for_each(|module| _ = pool.idle(*module));
    let growth = pool.state.begin_growth(None);
    let room = (pool.state).reserve(growth, NONE.memory(1), &mut pool.cx);
    assert_eq!(room, ReserveOutcome::Evicting);
    pool.destroy();
    assert_eq!(pool.wanted(entry), 1, "it was a spare that went");
    pool.state.abandon(growth, &mut pool.cx.out);
    assert_eq!(pool.refill(), 0);
}

/// An entry whose leases use spares as fast as they are made takes none from others.
#[test]
fn entries_are_refilled_in_turn() {
    let mut pool = pristine(100);
    let all = [1, 2, 3].map(|group| pool.entry(F, group));
    let leases: Vec<_> = [1, 2, 3, 1, 2, 3]
        .map(|group| pool.lease_in(group, F))
        .into();
    pool.spend(&leases);
    let mut served = Vec::new();
    for _ in 0..6 {
        let spare = pool.state.begin_spare(&mut pool.cx).expect("wanted");
        served.push(pool.state.entry_of(spare.request).expect("a seat"));
        // Nothing comes of it, and as many are wanted as before.
        pool.state.abandon(spare.request, &mut pool.cx.out);
    }
    assert_eq!(served, [all, all].concat());
}

/// What was taken and replaced within the period was needed.
#[test]
fn what_leases_have_used_of_them_stays() {
    let mut pool = pristine(100);
    let entry = pool.entry(F, 1);
    let leases = [pool.lease_new(F), pool.lease_new(F)];
    pool.spend(&leases);
    assert_eq!(pool.refill(), 2);
    let expiry = Expiry {
        idle: Some(10),
        ..Expiry::default()
    };
    let pass = |pool: &mut Pool| {
        pool.cx.slots.now += 10;
        pool.state.advance(pool.cx.slots.now);
        while pool.state.sweep(expiry, &mut pool.cx) {}
        pool.destroy();
    };
    pass(&mut pool);
    for _ in 0..3 {
        let leases = [(); 2].map(|()| {
            let taken = pool.state.try_seat(entry, &mut pool.cx);
            let SeatOffer::Idle(lease) = taken else {
                panic!("a spare is there");
            };
            lease
        });
        pool.spend(&leases);
        assert_eq!(pool.refill(), 2);
        pass(&mut pool);
        assert_eq!(pool.wanted(entry), 2);
    }
    pass(&mut pool);
    assert_eq!(pool.wanted(entry), 0);
}

/// Somebody has evicted for memory, and has the stack that was free until that is there.
#[test]
fn what_others_hold_meanwhile_is_no_room_for_spares() {
    let limits = [(Budget::Memory, 4), (Budget::Stack, 8)];
    let mut pool = Pool::new(Policy::ModuleLru, &limits);
    OTHERS.iter().for_each(|module| _ = pool.idle(*module));
    pool.terms.reuse = Reuse::Pristine;
    let lease = pool.lease_new(F);
    pool.spend(&[lease]);
    let growth = pool.state.begin_growth(None);
    // Two of memory are missing, and the other six of stack are free.
    let needs = NONE.memory(4).stack(6);
    let room = (pool.state).reserve(growth, needs, &mut pool.cx);
    assert_eq!(room, ReserveOutcome::Evicting);
    assert_eq!(pool.refill(), 0);
    pool.destroy();
    let room = (pool.state).reserve(growth, needs, &mut pool.cx);
    assert_eq!(room, ReserveOutcome::Granted);
}
