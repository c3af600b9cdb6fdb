//! The instances of one (function, group), and who waits for one.

use alloc::boxed::Box;
use alloc::vec;

use super::Handles;
use super::functions::FunctionId;
use super::group::Group;
use super::instances::InstanceId;
use super::queue::Queue;
use super::registry::Id;
use super::requests::RequestId;

pub type EntryId<H> = Id<Entry<H>>;

/// Invariants:
/// - **E1** a seat that is `Taken` names a live instance whose entry and seat are these.
/// - **E2** a seat that is `Promised` names a live request that holds this seat.
/// - **E3** nobody waits while a seat is vacant.
pub struct Entry<H: Handles> {
    pub function: FunctionId<H>,
    pub group: Group,
    /// The shell's side: slots, where idle instances really are.
    pub handle: H::Entry,
    pub seats: Box<[Seat<H>]>,
    pub queue: Queue<H::Waiter>,
}

/// One of the leases that an entry may hold at once.
pub enum Seat<H: Handles> {
    /// Nobody has it; the next acquire may make an instance.
    Vacant,
    /// A request is making an instance for it; left by its birth or by the request's end.
    Promised(RequestId<H>),
    /// An instance has it, idle in the slot of the same number, or leased.
    Taken(InstanceId<H>),
}

impl<H: Handles> Clone for Seat<H> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<H: Handles> Copy for Seat<H> {}

impl<H: Handles> Entry<H> {
    pub fn new(function: FunctionId<H>, group: Group, handle: H::Entry, seats: usize) -> Self {
        Self {
            function,
            group,
            handle,
            seats: vec![Seat::Vacant; seats].into_boxed_slice(),
            queue: Queue::new(),
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

    pub fn taken(&self) -> impl Iterator<Item = (usize, InstanceId<H>)> + '_ {
        self.seats
            .iter()
            .enumerate()
            .filter_map(|(n, seat)| match seat {
                Seat::Taken(instance) => Some((n, *instance)),
                _ => None,
            })
    }

    pub fn is_unused(&self) -> bool {
        self.queue.is_empty() && self.seats.iter().all(|s| matches!(s, Seat::Vacant))
    }
}
