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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    Empty,
    Notice,
    Idle(Instance),
}

#[derive(Debug)]
pub struct Slot {
    pub content: Content,
    /// A notice was left and is not answered yet; meanwhile nothing here counts as idle.
    pub watched: bool,
    pub stamp: Stamp,
}

impl Slot {
    fn new() -> Self {
        Self {
            content: Content::Empty,
            watched: false,
            stamp: Stamp::default(),
        }
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
    /// Whether a lease of this version may pass without the lock.
    pub fn passes(&self, version: u64) -> bool {
        !self.waited && !self.closed && self.version == version
    }
}

/// A release that looked at the door, found that it may pass, and has not put its instance back
/// yet. It does so while the core is about to leave a notice, or whenever it is told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Race {
    pub door: usize,
    pub seat: usize,
    pub instance: Instance,
}

#[derive(Debug, Default)]
pub struct Doors {
    pub doors: Vec<Door>,
    pub now: u64,
    sequence: u64,
    pub race: Option<Race>,
    /// The race that was run inside the last call of the core.
    pub fired: Option<Race>,
}

impl Doors {
    pub fn open(&mut self, version: u64, seats: usize) -> usize {
        self.doors.push(Door {
            slots: core::iter::repeat_with(Slot::new).take(seats).collect(),
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

    pub fn stamp(&mut self, door: usize, seat: usize) -> Stamp {
        let stamp = self.next_stamp();
        self.slot(door, seat).stamp = stamp;
        stamp
    }

    /// What a fast release does last. True when it displaced a notice: then it must answer.
    pub fn put(&mut self, door: usize, seat: usize, instance: Instance) -> bool {
        self.stamp(door, seat);
        let slot = self.slot(door, seat);
        let before = core::mem::replace(&mut slot.content, Content::Idle(instance));
        before == Content::Notice
    }

    /// The answer to a notice, under the lock: the instance, unless somebody took it since. In
    /// that case the notice stays for the end of that lease.
    pub fn answer(&mut self, door: usize, seat: usize) -> Option<Instance> {
        let slot = self.slot(door, seat);
        match slot.content {
            Content::Idle(instance) => {
                slot.content = Content::Empty;
                slot.watched = false;
                Some(instance)
            }
            _ => {
                slot.content = Content::Notice;
                None
            }
        }
    }
}

impl Slots<Fake> for Doors {
    fn claim(&mut self, &door: &usize, seat: usize, instance: Instance) -> bool {
        let slot = self.slot(door, seat);
        let idle = !slot.watched && slot.content == Content::Idle(instance);
        if idle {
            slot.content = Content::Empty;
        }
        idle
    }

    fn restore(&mut self, &door: &usize, seat: usize, instance: Instance) {
        let slot = self.slot(door, seat);
        assert_eq!(slot.content, Content::Empty, "restored into a full slot");
        slot.content = Content::Idle(instance);
    }

    fn last_used(&self, &door: &usize, seat: usize) -> Stamp {
        self.doors[door].slots[seat].stamp
    }

    fn notify_on_release(&mut self, &door: &usize, seat: usize) -> bool {
        if self.slot(door, seat).watched {
            return true;
        }
        if let Some(race) = self.race.take_if(|r| (r.door, r.seat) == (door, seat)) {
            self.put(door, seat, race.instance);
            assert_eq!(self.fired.replace(race), None, "one race at a time");
        }
        let slot = self.slot(door, seat);
        if matches!(slot.content, Content::Idle(_)) {
            return false;
        }
        slot.content = Content::Notice;
        slot.watched = true;
        true
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

    fn add_seats(&mut self, &door: &usize, count: usize) {
        let slots = &mut self.doors[door].slots;
        assert!(count > slots.len(), "seats are only added");
        slots.resize_with(count, Slot::new);
    }
}
