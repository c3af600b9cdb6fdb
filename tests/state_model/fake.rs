//! The shell's side of the slots, as the real one behaves, but in one thread: what two threads may
//! do at the same moment is played by a [`Race`].

use crate::state::{InstanceId, Slots, Stamp, Types};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fake;

impl Types for Fake {
    /// A number that no other definition has.
    type Definition = u32;
    /// Index into [`Doors::doors`].
    type Entry = usize;
    type Source = u8;
    type Code = u32;
    type Failure = u32;
    type Waiter = u32;
}

pub type Instance = InstanceId<Fake>;

/// One slot, as `src/pool/hot/slots.rs` has it.
#[derive(Debug, Default)]
pub struct Slot {
    /// The idle instance. Taken and put by one exchange each.
    pub cell: Option<Instance>,
    /// A hint for who looks without an exchange: set before an instance is put, so that it may lie.
    pub idle: bool,
    /// Whether the lease must take the lock when it ends; meanwhile nothing here counts as idle.
    pub notifies: bool,
    pub stamp: Stamp,
    /// Leases that have ended here.
    pub uses: u64,
    /// Since when the instance is leased that is leased now: where a test says so.
    pub leased_since: Option<u64>,
    /// Nanoseconds of leases that have ended, for which nobody has asked.
    pub leased_nanos: u64,
}

impl Slot {
    /// The instance, if the hint says that one lies here, and it does.
    pub fn take_idle(&mut self) -> Option<Instance> {
        match self.idle {
            true => self.cell.take(),
            false => None,
        }
    }

    /// The exchange of whoever has the lock.
    fn take_out(&mut self) -> Option<Instance> {
        let taken = self.cell.take()?;
        self.idle = false;
        Some(taken)
    }

    fn restore(&mut self, instance: Instance) {
        assert_eq!(self.cell, None, "restored into a full slot");
        self.idle = true;
        self.cell = Some(instance);
    }

    /// The lock's holder has the instance whose lease has ended in its hands.
    pub fn clear_notify(&mut self) {
        self.notifies = false;
    }

    /// A release that saw the flag has the lock now. The instance, unless it has been taken since; then
    /// the flag stays for that lease's end.
    pub fn take_released(&mut self) -> Option<Instance> {
        let ended = self.take_out()?;
        self.clear_notify();
        Some(ended)
    }
}

/// All slots of an entry, and what acquires and releases look at before they touch one.
#[derive(Debug)]
pub struct Door {
    pub slots: Vec<Slot>,
    pub waited: bool,
    pub closed: bool,
    pub version: u64,
}

impl Door {
    /// Whether an acquire may look into the slots without the lock.
    pub fn is_open(&self) -> bool {
        !self.waited && !self.closed
    }

    /// Whether a lease of this version may pass without the lock.
    pub fn overtakes(&self, version: u64) -> bool {
        self.is_open() && self.version == version
    }
}

/// A release that looked at the door, found that it may pass, has marked its slot idle, and has not
/// exchanged the cell yet. It does so while the core asks for this very slot's release, or whenever it is
/// told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Race {
    pub door: usize,
    pub seat: usize,
    pub instance: Instance,
    pub sees_flag: bool,
}

#[derive(Debug, Default)]
pub struct Doors {
    pub doors: Vec<Door>,
    pub now: u64,
    sequence: u64,
    pub race: Option<Race>,
    /// The race that was run inside the last call of the core: its instance was found idle.
    pub fired: Option<Race>,
}

impl Doors {
    pub fn open(&mut self, version: u64, seats: usize) -> usize {
        self.doors.push(Door {
            slots: core::iter::repeat_with(Slot::default).take(seats).collect(),
            waited: false,
            closed: false,
            version,
        });
        self.doors.len() - 1
    }

    pub fn slot(&mut self, door: usize, seat: usize) -> &mut Slot {
        &mut self.doors[door].slots[seat]
    }

    /// Later than every stamp before.
    pub fn next_stamp(&mut self) -> Stamp {
        self.sequence += 1;
        Stamp {
            at: self.now,
            sequence: self.sequence,
        }
    }

    /// What a release does first, once it has found that it may pass.
    pub fn mark_idle(&mut self, door: usize, seat: usize) -> Stamp {
        let stamp = self.next_stamp();
        let slot = self.slot(door, seat);
        slot.leased_nanos += slot.leased_since.take().map_or(0, |since| stamp.at - since);
        slot.stamp = stamp;
        slot.uses += 1;
        slot.idle = true;
        stamp
    }

    /// What it does next: the exchange, then a look at the flag. True if it must take the lock.
    pub fn put(&mut self, door: usize, seat: usize, instance: Instance) -> bool {
        let slot = self.slot(door, seat);
        let before = slot.cell.replace(instance);
        assert_eq!(before, None, "two instances in one slot");
        slot.notifies
    }
}

impl Doors {
    /// What nobody has leased lies ready.
    pub fn restore_spare(&mut self, door: usize, seat: usize, instance: Instance) {
        self.slot(door, seat).restore(instance);
    }
}

impl Slots<Fake> for Doors {
    fn claim(&mut self, &door: &usize, seat: usize, instance: Instance) -> bool {
        let slot = self.slot(door, seat);
        if slot.notifies {
            return false;
        }
        let claimed = slot.take_out();
        assert!(claimed.is_none_or(|claimed| claimed == instance));
        claimed.is_some()
    }

    fn restore(&mut self, &door: &usize, seat: usize, instance: Instance) {
        self.slot(door, seat).restore(instance);
    }

    fn last_used(&self, &door: &usize, seat: usize) -> Stamp {
        self.doors[door].slots[seat].stamp
    }

    fn uses(&self, &door: &usize, seat: usize) -> u64 {
        self.doors[door].slots[seat].uses
    }

    fn seems_idle(&self, &door: &usize, seat: usize) -> bool {
        let slot = &self.doors[door].slots[seat];
        slot.idle && !slot.notifies
    }

    fn asks_leased(&self) -> bool {
        false
    }

    /// The flag, then an exchange of the cell. A release's exchange comes
    ///
    /// - before this one, and the release reads the flag before it is set, or when it is taken back: then
    ///   the instance is found here, and nobody else hears of it (`sees_flag: false`);
    /// - before this one, and the release reads the flag in between: then the instance is found here, and
    ///   its release takes the lock all the same, whatever has become of the instance by then
    ///   (`sees_flag: true`);
    /// - after this one, so that it sees the flag: that is any later [`Doors::put`].
    fn notify_on_release(&mut self, &door: &usize, seat: usize) -> bool {
        if self.slot(door, seat).notifies {
            return true;
        }
        let race = self.race.take_if(|r| (r.door, r.seat) == (door, seat));
        if let Some(race) = race.filter(|race| !race.sees_flag) {
            assert!(!self.put(door, seat, race.instance), "no flag was set");
        }
        self.slot(door, seat).notifies = true;
        if let Some(race) = race.filter(|race| race.sees_flag) {
            assert!(self.put(door, seat, race.instance), "a flag was set");
        }
        if let Some(race) = race {
            assert_eq!(self.fired.replace(race), None, "one race at a time");
        }
        let slot = self.slot(door, seat);
        let Some(idle) = slot.take_out() else {
            return true;
        };
        slot.clear_notify();
        slot.restore(idle);
        false
    }

    fn set_waited(&mut self, &door: &usize, waited: bool) {
        self.doors[door].waited = waited;
    }

    fn set_version(&mut self, &door: &usize, version: u64) {
        assert!(version > self.doors[door].version, "versions only grow");
        self.doors[door].version = version;
    }

    fn set_closed(&mut self, &door: &usize) {
        self.doors[door].closed = true;
    }

    fn leased_nanos(&mut self, &door: &usize, seat: usize, now: u64) -> u64 {
        let slot = self.slot(door, seat);
        let goes_on = slot.leased_since.as_mut();
        let goes_on = goes_on.map_or(0, |since| now - core::mem::replace(since, now));
        core::mem::take(&mut slot.leased_nanos) + goes_on
    }

    fn add_seats(&mut self, &door: &usize, count: usize) {
        let slots = &mut self.doors[door].slots;
        assert!(count > slots.len(), "seats are only added");
        slots.resize_with(count, Slot::default);
    }
}
