//! Live instances, and what is being destroyed.

use core::fmt;

use super::arena::Id;
use super::entries::EntryId;
use super::ledger::Charge;
use super::modules::ModuleId;
use super::recency::Stamp;
use super::requests::RequestId;
use crate::state::Types;

pub type InstanceId<H> = Id<Instance<H>>;
pub type DyingId<H> = Id<Dying<H>>;

/// One instance, idle or leased: which of the two, only its slot knows.
///
/// Invariants:
/// - **I1** its entry's seat is `Taken` by it.
/// - **I2** the order of last use holds it once, under `known`.
/// - **I3** `known` is not later than its slot's stamp, as far as stamps only grow: see
///   [`State::recount_last_uses`](super::State::recount_last_uses).
/// - **I4** the order of age, if it is kept, holds each instance once, under `created_at`.
pub struct Instance<H: Types> {
    pub entry: EntryId<H>,
    pub seat_number: u32,
    pub module: ModuleId<H>,
    pub version: u64,
    /// All it holds: fixed cost, memories, tables, mappings.
    pub charge: Charge,
    /// Its last use, as far as the core knows.
    pub known: Stamp,
    /// Leases that its slot had counted when the core last looked.
    pub known_uses: u32,
    /// Nanoseconds since the clock's origin.
    pub created_at: u64,
}

impl<H: Types> Instance<H> {
    /// Its seat in its entry.
    pub const fn seat(&self) -> usize {
        self.seat_number as usize
    }

    /// Made ahead of its lease, and nobody has used it yet, as far as the core knows.
    pub fn is_spare(&self) -> bool {
        self.known == Stamp::NEVER
    }
}

/// Something evicted, retired or dropped out that the kernel does not have back yet. It stays
/// charged until the shell has destroyed it and says so.
pub struct Dying<H: Types> {
    pub charge: Charge,
    /// The module of a dying instance: its code cannot go before the instance.
    pub module: Option<ModuleId<H>>,
    /// Whose need it was evicted for: what it frees goes there first.
    pub heir: Option<RequestId<H>>,
}

/// Why an instance left the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RemovalReason {
    /// Evicted to make room: in a budget, or where the operating system refused what the budgets grant.
    Room,
    /// Idle longer than the idle timeout.
    Idle,
    /// Used `max_uses` times; or leased, where an instance is leased but once.
    Uses,
    /// Older than `max_lifetime`.
    Lifetime,
    /// Grown beyond what an idle instance may keep.
    Oversize,
    /// A call trapped, ran out of fuel or time, failed in the host, or panicked.
    Failed,
    /// The holder asked for it, or a recycle hook refused it.
    Discarded,
    /// Its function was removed, or replaced by one of another type.
    Removed,
    /// Its function was replaced.
    Replaced,
    /// `retain` did not want it.
    NotRetained,
    /// The pool was closed.
    Closed,
}

impl fmt::Display for RemovalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl RemovalReason {
    /// Every reason.
    pub const ALL: [Self; 11] = [
        Self::Room,
        Self::Idle,
        Self::Uses,
        Self::Lifetime,
        Self::Oversize,
        Self::Failed,
        Self::Discarded,
        Self::Removed,
        Self::Replaced,
        Self::NotRetained,
        Self::Closed,
    ];

    /// The name that metrics and traces use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Room => "room",
            Self::Idle => "idle",
            Self::Uses => "uses",
            Self::Lifetime => "lifetime",
            Self::Oversize => "oversize",
            Self::Failed => "failed",
            Self::Discarded => "discarded",
            Self::Removed => "removed",
            Self::Replaced => "replaced",
            Self::NotRetained => "not_retained",
            Self::Closed => "closed",
        }
    }

    /// Retired straight from a lease, and so in use until now.
    pub const fn ends_a_lease(self) -> bool {
        matches!(
            self,
            Self::Uses | Self::Oversize | Self::Failed | Self::Discarded
        )
    }

    /// Evicted while idle and healthy, as opposed to retired for what it did or had become.
    pub const fn is_eviction(self) -> bool {
        matches!(self, Self::Room | Self::Idle | Self::NotRetained)
    }
}
