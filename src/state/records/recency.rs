//! The order of last use, kept lazily.
//!
//! A lease that ends writes a stamp into its slot and tells nobody. So the order kept here is made
//! of stamps that may be too old, and not too new (**I3**): the oldest one known is refreshed, and when it
//! was right it belongs to the least recently used instance. Each instance is refreshed at most
//! once per look, O(log n) each; no use of an instance ever touches this order.

use alloc::collections::BTreeSet;

use super::instances::InstanceId;
use crate::state::Types;

/// When something was last used: time, then a sequence number that orders uses within one reading
/// of a coarse clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    /// Nanoseconds since the clock's origin.
    pub at: u64,
    pub sequence: u64,
}

impl Stamp {
    /// Of what nobody has used yet: before every use, since sequence numbers begin at 1.
    pub const NEVER: Self = Self { at: 0, sequence: 0 };

    /// Before all uses at this time.
    pub const fn at(at: u64) -> Self {
        Self { at, sequence: 0 }
    }
}

/// Instances in the order of some stamp of each.
pub struct Recency<H: Types> {
    order: BTreeSet<(Stamp, InstanceId<H>)>,
}

impl<H: Types> Recency<H> {
    pub const fn new() -> Self {
        Self {
            order: BTreeSet::new(),
        }
    }

    pub fn insert(&mut self, known: Stamp, instance: InstanceId<H>) {
        self.order.insert((known, instance));
    }

    pub fn remove(&mut self, known: Stamp, instance: InstanceId<H>) -> bool {
        self.order.remove(&(known, instance))
    }

    /// Behind those that nobody has used, before all others.
    pub const BEHIND_UNUSED: (Stamp, InstanceId<H>) = (Stamp::NEVER, InstanceId::LAST);

    /// The oldest instance known to be later than `after`, in the order of what is known.
    pub fn next(&self, after: Option<(Stamp, InstanceId<H>)>) -> Option<(Stamp, InstanceId<H>)> {
        use core::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        self.order.range((from, Unbounded)).next().copied()
    }

    pub fn len(&self) -> usize {
        self.order.len()
    }

    pub fn contains(&self, known: Stamp, instance: InstanceId<H>) -> bool {
        self.order.contains(&(known, instance))
    }
}
