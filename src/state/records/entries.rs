//! The instances of one (function, group), and who waits for one.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec;
use core::num::NonZeroU64;

use super::arena::Id;
use super::functions::FunctionId;
use super::group::Group;
use super::instances::InstanceId;
use super::queue::Queue;
use super::requests::RequestId;
use crate::state::Types;

pub type EntryId<H> = Id<Entry<H>>;

/// The instances of one function for one group, and who waits for one.
///
/// Invariants:
/// - **E1** a seat that is `Taken` names a live instance whose entry and seat are these.
/// - **E2** a seat that is `Promised` names a live request that holds this seat.
/// - **E3** nobody waits while fewer seats are occupied than its function, and its group, may have.
/// - **E4** `unused` is its place in the order of unused entries: it has one while it is unused and its
///   function is defined.
pub struct Entry<H: Types> {
    pub function: FunctionId<H>,
    pub group: Group,
    /// The shell's side: slots, where idle instances really are.
    pub handle: H::Entry,
    /// As many as it has needed at once so far; they double when it needs more.
    pub seats: Box<[Seat<H>]>,
    pub queue: Queue<H>,
    /// Handles of the host's that keep it.
    pub handles: usize,
    pub unused: Option<NonZeroU64>,
}

/// One of the leases that an entry may hold at once.
pub enum Seat<H: Types> {
    /// Nobody has it; the next acquire may make an instance.
    Vacant,
    /// A request is making an instance for it; left when that is installed, or when the request ends.
    Promised(RequestId<H>),
    /// An instance has it, idle in the slot of the same number, or leased.
    Taken(InstanceId<H>),
}

impl<H: Types> Clone for Seat<H> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<H: Types> Copy for Seat<H> {}

impl<H: Types> Entry<H> {
    pub fn new(function: FunctionId<H>, group: Group, handle: H::Entry, seats: usize) -> Self {
        Self {
            function,
            group,
            handle,
            seats: vec![Seat::Vacant; seats].into_boxed_slice(),
            queue: Queue::new(),
            handles: 0,
            unused: None,
        }
    }

    /// All seats, `near` first.
    pub fn seats_from(&self, near: usize) -> impl Iterator<Item = usize> + use<H> {
        let count = self.seats.len();
        (0..count).map(move |n| (near + n) % count)
    }

    pub fn vacant_seat(&self, near: usize) -> Option<usize> {
        (self.seats_from(near)).find(|seat| matches!(self.seats[*seat], Seat::Vacant))
    }

    /// Seats that are taken or promised.
    pub fn occupied(&self) -> usize {
        let vacant = |seat: &&Seat<H>| matches!(seat, Seat::Vacant);
        self.seats.len() - self.seats.iter().filter(vacant).count()
    }

    pub fn taken(&self) -> impl Iterator<Item = (usize, InstanceId<H>)> + '_ {
        self.seats
            .iter()
            .enumerate()
            .filter_map(|(n, seat)| match seat {
                Seat::Taken(instance) => Some((n, *instance)),
                _ => None,
            })
    }

    /// Twice as many seats, or as many as there may be.
    pub fn add_seats(&mut self, most: usize) {
        let count = self.seats.len().saturating_mul(2).min(most);
        let mut seats = core::mem::take(&mut self.seats).into_vec();
        seats.resize(count, Seat::Vacant);
        self.seats = seats.into_boxed_slice();
    }

    /// It holds nothing, and nobody waits for it.
    pub fn is_vacant(&self) -> bool {
        self.queue.is_empty() && self.seats.iter().all(|s| matches!(s, Seat::Vacant))
    }

    /// It is vacant, and no handle keeps it.
    pub fn is_unused(&self) -> bool {
        self.handles == 0 && self.is_vacant()
    }
}

/// Entries that nothing but their function's name leads to, the longest unused first.
pub struct Unused<H: Types> {
    order: BTreeMap<NonZeroU64, EntryId<H>>,
    last: u64,
}

impl<H: Types> Unused<H> {
    pub const fn new() -> Self {
        Self {
            order: BTreeMap::new(),
            last: 0,
        }
    }

    /// The place of an entry that was used just now.
    pub fn join(&mut self, entry: EntryId<H>) -> NonZeroU64 {
        self.last += 1;
        let rank = NonZeroU64::MIN.saturating_add(self.last);
        self.order.insert(rank, entry);
        rank
    }

    pub fn leave(&mut self, rank: NonZeroU64) {
        self.order.remove(&rank);
    }

    pub fn first(&self) -> Option<EntryId<H>> {
        self.order.values().next().copied()
    }

    pub fn at(&self, rank: NonZeroU64) -> Option<EntryId<H>> {
        self.order.get(&rank).copied()
    }

    pub fn len(&self) -> usize {
        self.order.len()
    }
}
