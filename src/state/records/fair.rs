//! Who is next of those who wait for room, where groups have weights: start-time fair queueing (Goyal, Vin and Cheng, 1996).
//!
//! Each who joins gets a tag: the time of a clock that moves with those who are served, or, if its group has others in line,
//! a step behind the last of them. The least tag is first; a group's steps are the shorter, the greater its weight.
//! So whoever has queued a thousand times stands a thousand steps long, and somebody of another group joins at the clock's time,
//! behind one of them at the most. Nobody starves: tags do not change, and the clock reaches each.

use hashbrown::HashMap;

use super::group::Group;

/// What a group of weight 1 moves on by with each that joins: a multiple of every weight there may be would be too long, and
/// a step is rounded down by less than one part in a thousand.
const STEP: u64 = 1 << 20;

/// The greatest weight.
pub const MAX_WEIGHT: u32 = 1000;

/// The clock, and how far each group's line reaches.
#[derive(Default)]
pub struct FairTags {
    now: u64,
    /// Of groups whose line reaches no further than the clock, few are kept.
    ends: HashMap<Group, u64>,
}

impl FairTags {
    pub fn new() -> Self {
        Self::default()
    }

    /// What the tag of somebody of this group would be who joined now.
    pub fn next(&self, group: &Group) -> u64 {
        self.now.max(self.ends.get(group).copied().unwrap_or(0))
    }

    /// The tag of somebody of this group who joins now.
    pub fn join(&mut self, group: &Group, weight: u32, waiting: usize) -> u64 {
        if self.ends.len() > 2 * waiting + 16 {
            let now = self.now;
            self.ends.retain(|_, end| *end > now);
        }
        let tag = self.next(group);
        let step = STEP / u64::from(weight.clamp(1, MAX_WEIGHT));
        self.ends.insert(group.clone(), tag.saturating_add(step));
        tag
    }

    /// The turn of somebody with this tag has come.
    pub fn serve(&mut self, tag: u64) {
        self.now = self.now.max(tag);
    }

    pub fn now(&self) -> u64 {
        self.now
    }

    /// Nobody waits any more.
    pub fn clear(&mut self) {
        *self = Self::new();
    }
}
