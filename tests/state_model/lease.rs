//! Acquires and the ends of leases, fast and slow.

use crate::fake::{Instance, Race};
use crate::model::{MEntry, MSeat, Model, Place, Queued, Step};
use crate::state::{Amounts, RemovalReason, Returned, SeatOffer, SeatWait, Slots};
use crate::world::{GROUPS, World, pick};

/// What an acquire must find, by the model.
#[derive(Debug, PartialEq, Eq)]
enum Expected {
    Idle(Instance),
    Seat(usize),
    Full,
    Quarantined(u64),
    Gone,
    Closed,
}

impl Model {
    fn expect_enter(&self, entry: usize, near: usize, most: usize) -> Expected {
        if self.closed {
            return Expected::Closed;
        }
        let Some(function) = self.function_of(entry) else {
            return Expected::Gone;
        };
        let record = &self.entries[entry];
        if record.gone {
            return Expected::Gone;
        }
        if let Some(until) = self.quarantined_until(entry) {
            return Expected::Quarantined(until);
        }
        if !record.queue.is_empty() {
            return Expected::Full;
        }
        let count = record.seats.len();
        let seats = || (0..count).map(|n| (near + n) % count);
        let idle = seats().find_map(|seat| match record.seats[seat] {
            MSeat::Taken(id) if self.instances[&id].place == Place::Idle => Some(id),
            _ => None,
        });
        if let Some(id) = idle {
            assert_eq!(self.instances[&id].version, function.version);
            return Expected::Idle(id);
        }
        let taken_over = match self.has_surplus(entry) {
            true => None,
            false => self.seat_of_spare(entry).map(|(seat, _)| seat),
        };
        let occupied = self.occupied(entry) >= function.most();
        let vacant = seats().find(|seat| record.seats[*seat] == MSeat::Vacant);
        // When all are in use, there come to be twice as many.
        let more = (count < most).then_some(count);
        let free = vacant.or(more).filter(|_| !occupied);
        free.or(taken_over).map_or(Expected::Full, Expected::Seat)
    }
}

impl World {
    /// The group is the low part of `dice`; the seat to prefer, the high part.
    pub fn acquire(&mut self, name: u8, dice: u8) {
        if let Some(entry) = self.entry(name, u64::from(dice) % GROUPS) {
            self.try_seat(entry, usize::from(dice >> 4));
        }
    }

    pub fn stray(&mut self, index: u8) {
        let known: Vec<usize> = (0..self.model.entries.len()).collect();
        if let Some(entry) = pick(&known, index) {
            self.try_seat(entry, 0);
        }
    }

    fn try_seat(&mut self, entry: usize, near: usize) {
        let expected = self.model.expect_enter(entry, near, self.seats);
        let is_asked = matches!(
            expected,
            Expected::Idle(_) | Expected::Seat(_) | Expected::Full
        );
        if is_asked && self.model.entries[entry].queue.is_empty() {
            self.model.note_share_used(entry);
        }
        let id = self.model.entries[entry].id;
        let entered = self.state.try_seat_near(id, near, &mut self.cx);
        self.absorb(None);
        let found = match entered {
            SeatOffer::Idle(instance) => {
                self.lease_out(instance, entry);
                self.seen.note("idle found by try_seat");
                Expected::Idle(instance)
            }
            SeatOffer::Seat(request) => {
                let Expected::Seat(seat) = expected else {
                    panic!("a new seat, not {expected:?}");
                };
                let seats = self.cx.slots.doors[entry].slots.len();
                let record = &mut self.model.entries[entry];
                self.seen.note_if(seats > record.seats.len(), "more seats");
                assert!(seats <= (2 * record.seats.len()).min(self.seats));
                record.seats.resize(seats, MSeat::Vacant);
                if record.seats[seat] == MSeat::Promised {
                    self.seen.note("seat taken over from a spare");
                    let spare = self.model.seat_of_spare(entry).expect("its seat").1;
                    self.model.request(spare).seat = None;
                }
                self.model.promise(request, entry, seat);
                Expected::Seat(seat)
            }
            SeatOffer::Full => {
                self.queue_up(entry);
                Expected::Full
            }
            SeatOffer::GroupFull | SeatOffer::Barred => panic!("no group is limited here"),
            SeatOffer::Quarantined(until) => {
                self.seen.note("refused in quarantine");
                Expected::Quarantined(until)
            }
            SeatOffer::Gone => {
                let removed = self.model.function_of(entry).is_none();
                self.seen.note_if(removed, "entered a removed function");
                self.seen.note_if(!removed, "entered a forgotten entry");
                Expected::Gone
            }
            SeatOffer::Closed => Expected::Closed,
        };
        assert_eq!(found, expected);
    }

    fn queue_up(&mut self, entry: usize) {
        let waiter = self.model.number();
        let id = self.model.entries[entry].id;
        let first = self.model.entries[entry].queue.is_empty();
        let until = self.until(waiter);
        let wait = self.state.wait_for_seat(id, waiter, until, &mut self.cx);
        self.absorb(None);
        match wait {
            SeatWait::Queued(ticket) => {
                self.seen.note("blocked");
                let queue = &mut self.model.entries[entry].queue;
                queue.push_back(Queued {
                    waiter,
                    ticket,
                    until,
                    leaked: false,
                });
            }
            SeatWait::Idle(instance) => {
                self.seen.note("lease ended as it was awaited");
                assert!(first, "overtook those who wait");
                self.lease_out(instance, entry);
            }
            SeatWait::Again | SeatWait::TooMany(_) => panic!("no group is limited here"),
        }
    }

    /// An acquire that looks into the slots, and enters when it finds nothing.
    pub fn fast(&mut self, index: u8, first: u8) {
        let doors = self.cx.slots.doors.len();
        if doors == 0 {
            return;
        }
        let entry = usize::from(index) % doors;
        let door = &mut self.cx.slots.doors[entry];
        if !door.is_open() {
            return self.try_seat(entry, usize::from(first));
        }
        let (version, seats) = (door.version, door.slots.len());
        let mut seats = (0..seats).map(|n| (n + usize::from(first)) % seats);
        let found = seats.find_map(|seat| Some((seat, door.slots[seat].take_idle()?)));
        let Some((seat, instance)) = found else {
            return self.try_seat(entry, usize::from(first));
        };
        if self.model.instances[&instance].version != version {
            self.seen.note("stale instance found without the lock");
            self.give_back(instance);
            return self.try_seat(entry, usize::from(first));
        }
        let unheard = self.cx.slots.slot(entry, seat).notifies;
        self.seen
            .note_if(unheard, "leased again before its release was heard of");
        let refused = self.model.quarantined_until(entry);
        assert_eq!(refused, None, "leased in quarantine");
        self.lease_out(instance, entry);
        self.model.instance(instance).unseen = true;
        self.seen.note("idle found without the lock");
    }

    /// Every way to a lease leads through here.
    pub fn lease_out(&mut self, id: Instance, entry: usize) {
        assert!(!self.model.closed, "leased from a closed pool");
        let function = self.model.function_of(entry);
        let version = function.map(|f| f.version);
        let instance = self.model.instance(id);
        assert_eq!(instance.entry, entry, "C-I2: {id:?} is another group's");
        assert_eq!(Some(instance.version), version, "C-N2: {id:?} is stale");
        let lent = instance.place == Place::Leased;
        assert!(!lent, "{id:?} is leased twice");
        instance.place = Place::Leased;
        instance.unseen = false;
        let seat = instance.seat;
        self.cx.slots.slot(entry, seat).idle = false;
    }

    pub fn leave_seat(&mut self, index: u8) {
        let waiting: Vec<_> = (self.model.entries.iter().enumerate())
            .flat_map(|(n, e)| e.queue.iter().map(move |w| (n, *w)))
            .filter(|(_, w)| !w.leaked)
            .collect();
        let Some((entry, Queued { waiter, ticket, .. })) = pick(&waiting, index) else {
            return;
        };
        self.seen.note("left the queue for a seat");
        let record = &mut self.model.entries[entry];
        record.queue.retain(|w| w.waiter != waiter);
        let id = record.id;
        let left = self.state.leave_seat_queue(id, ticket, &mut self.cx);
        assert!(left, "who waits can leave");
        let again = self.state.leave_seat_queue(id, ticket, &mut self.cx);
        assert!(!again, "and leaves once");
    }

    // The ends of leases: ─────────────────────────────────────────────────────────────────────

    /// Does something to a lease, unless it is about to end or to grow.
    pub fn with_lease(&mut self, index: u8, act: impl FnOnce(&mut Self, Instance)) {
        let Some(id) = pick(&self.model.leases(), index) else {
            return;
        };
        if self.cx.slots.race.is_some_and(|race| race.instance == id) {
            return self.finish_race();
        }
        if !self.is_growing(id) {
            act(self, id);
        }
    }

    pub fn is_growing(&self, id: Instance) -> bool {
        let grows = |step: Step| matches!(step, Step::Grow(growing, _) if growing == id);
        self.model.requests.values().any(|r| grows(r.step))
    }

    pub fn home(&self, id: Instance) -> (usize, usize, u64) {
        let instance = &self.model.instances[&id];
        (instance.entry, instance.seat, instance.version)
    }

    /// Straight into the slot, unless the door is not open. If the slot notifies, the lock is taken, at
    /// once or later.
    pub fn release_fast(&mut self, id: Instance, at_once: bool) {
        if self.spend(id) {
            return;
        }
        let (door, seat, version) = self.home(id);
        if !self.cx.slots.doors[door].overtakes(version) {
            return self.release_slow(id);
        }
        self.cx.slots.mark_idle(door, seat);
        self.put(door, seat, id);
        if at_once && self.model.reports.last() == Some(&(door, seat)) {
            let last = self.model.reports.len() - 1;
            self.report(last as u8);
        }
    }

    fn put(&mut self, door: usize, seat: usize, id: Instance) {
        if self.cx.slots.put(door, seat, id) {
            self.seen.note("released where it must be reported");
            self.model.reports.push((door, seat));
        } else {
            self.seen.note("released without the lock");
        }
        self.note_parked(door, seat, id);
    }

    pub fn note_parked(&mut self, door: usize, seat: usize, id: Instance) {
        let slot = self.cx.slots.slot(door, seat);
        let (notifies, last) = (slot.notifies, slot.stamp);
        let instance = self.model.instance(id);
        instance.last = last;
        instance.place = match notifies {
            true => Place::Unheard,
            false => Place::Idle,
        };
    }

    pub fn start_race(&mut self, id: Instance, sees_flag: bool) {
        if self.spend(id) {
            return;
        }
        let (door, seat, version) = self.home(id);
        if self.cx.slots.race.is_none() && self.cx.slots.doors[door].overtakes(version) {
            self.cx.slots.mark_idle(door, seat);
            self.cx.slots.race = Some(Race {
                door,
                seat,
                instance: id,
                sees_flag,
            });
        }
    }

    /// The release that looked at its door some time ago goes on, whatever has happened since.
    pub fn finish_race(&mut self) {
        if let Some(race) = self.cx.slots.race.take() {
            self.put(race.door, race.seat, race.instance);
        }
    }

    /// The same happened inside the core's last call, which found the instance.
    pub fn apply_fired_race(&mut self) {
        let Some(race) = self.cx.slots.fired.take() else {
            return;
        };
        self.seen
            .note_if(!race.sees_flag, "release came before the flag");
        if race.sees_flag {
            self.seen.note("release came between flag and exchange");
            self.model.reports.push((race.door, race.seat));
        }
        let instance = self.model.instance(race.instance);
        instance.place = Place::Idle;
        instance.last = self.cx.slots.slot(race.door, race.seat).stamp;
    }

    /// A release that saw its slot's flag takes the lock.
    pub fn report(&mut self, index: u8) {
        let Some(place) = pick(&self.model.reports, index) else {
            return;
        };
        let at = self.model.reports.iter().position(|a| *a == place);
        self.model.reports.remove(at.expect("it was picked"));
        match self.cx.slots.slot(place.0, place.1).take_released() {
            Some(id) => {
                self.seen.note("release reported");
                self.give_back(id);
            }
            None => {
                self.seen.note("reported, and leased again");
                self.state.wake_room(&mut self.cx.out);
                self.absorb(None);
            }
        }
    }

    pub fn release_slow(&mut self, id: Instance) {
        self.give_back(id);
    }

    /// Under the lock, with the instance in hand.
    fn give_back(&mut self, id: Instance) {
        let (door, seat, version) = self.home(id);
        self.cx.slots.slot(door, seat).clear_notify();
        self.model.instance(id).last = self.cx.slots.mark_idle(door, seat);
        self.model.instance(id).place = Place::Held;
        let current = self.model.function_of(door).map(|f| f.version);
        self.model.note_share_used(door);
        let collected = self.model.is_collected(id);
        // Unless nobody may have it any more.
        let surplus = self.model.has_surplus(door);
        let is_current = !self.model.closed && current == Some(version) && !surplus;
        if is_current && !collected {
            self.model.skip_late(door);
        }
        let next = self.model.entries[door].queue.front().copied();
        let returned = self.state.returned(id, &mut self.cx);
        match returned {
            Returned::Park => {
                assert!(!self.model.closed && current == Some(version) && next.is_none());
                assert!(!collected, "{id:?} is needed, and stays");
                self.model.note_overtaken();
                self.cx.slots.restore(&door, seat, id);
                self.note_parked(door, seat, id);
                self.absorb(None);
                self.repay();
            }
            Returned::Hand(waiter) => {
                let next = next.expect("somebody waits");
                assert_eq!(waiter, next.waiter, "seats go to who came first");
                assert!(!collected, "{id:?} is needed, and handed over");
                self.model.note_overtaken();
                self.model.entries[door].queue.pop_front();
                self.absorb(None);
                self.lease_out(id, door);
                self.model.instance(id).leaked = next.leaked.then_some(next.until);
                self.seen.note("handed over");
            }
            Returned::Retire(reason) => {
                let expected = match current {
                    _ if self.model.closed => RemovalReason::Closed,
                    None => RemovalReason::Removed,
                    Some(current) if current != version => RemovalReason::Replaced,
                    Some(_) if surplus => {
                        self.seen.note("surplus given up");
                        RemovalReason::Replaced
                    }
                    Some(_) => {
                        assert!(collected, "a current instance was retired");
                        self.seen.note("collected as its lease ended");
                        RemovalReason::Room
                    }
                };
                assert_eq!(reason, expected);
                self.absorb(None);
                self.dismiss(id, reason);
            }
        }
    }

    pub fn trap(&mut self, id: Instance) {
        self.fail(id);
        let (door, seat, _) = self.home(id);
        self.cx.slots.slot(door, seat).clear_notify();
        self.model.instance(id).place = Place::Held;
        self.dismiss(id, RemovalReason::Failed);
    }

    pub fn dismiss(&mut self, id: Instance, reason: RemovalReason) {
        self.state.dismiss(id, reason, None, &mut self.cx);
        self.absorb(None);
        assert!(!self.model.instances.contains_key(&id), "dismissed is gone");
    }

    // Growth: ─────────────────────────────────────────────────────────────────────────────────

    pub fn begin_growth(&mut self, id: Instance, by: u64) {
        let entry = self.model.instances[&id].entry;
        let entry = self.model.entries[entry].id;
        let request = self.state.begin_growth(Some(entry));
        self.model.begin(request, None, 0, Step::Grow(id, by));
    }

    pub fn shrink(&mut self, id: Instance, by: u64) {
        let by = Amounts::ZERO.memory(by);
        self.state.shrink(id, by, &mut self.cx);
        let instance = self.model.instance(id);
        instance.holds = instance.holds.beyond(&by);
        self.absorb(None);
    }
}

impl MEntry {
    pub fn new(
        id: crate::state::EntryId<crate::fake::Fake>,
        function: crate::state::FunctionId<crate::fake::Fake>,
        (group, share): (u8, u8),
        seats: usize,
    ) -> Self {
        Self {
            id,
            function,
            group,
            share,
            seats: vec![MSeat::Vacant; seats],
            queue: Default::default(),
            handles: 0,
            used: 0,
            gone: false,
        }
    }
}
