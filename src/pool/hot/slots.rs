//! Places for idle instances: what a lease takes out of one and puts back.

use std::iter;

use crate::pool::hot::meter::Meter;
use crate::pool::hot::owned_cell::{Found, OwnedCell};
use crate::pool::hot::pooled_instance::PooledInstance;
use crate::pool::hot::thread::{become_owner, thread_number};
use crate::pool::settings::FIRST_SLOTS;
use crate::pool::time::timekeeper::Timekeeper;
use crate::state::{Stamp, Usage};
use crate::sync::{AtomicBool, AtomicU64, CachePadded, OnceLock, Ordering};

/// The slots of an entry: as many as it has needed at once so far. There may come to be more, which
/// lie in blocks of their own; none ever goes or moves.
pub(crate) struct SlotTable<T: Send + 'static> {
    first: Block<T>,
    further: OnceLock<Box<Further<T>>>,
}

type Block<T> = Box<[CachePadded<Slot<T>>]>;

/// What came after the first slots: each block has as many as there were before, but for the last, which ends with as many
/// as there may be.
struct Further<T: Send + 'static> {
    /// All slots there are, the first ones included. Written under the lock.
    count: AtomicU64,
    /// The block at n begins with seat `FIRST_SLOTS << n`.
    blocks: [OnceLock<Block<T>>; MOST_BLOCKS],
}

/// Enough for the most instances that an entry may have at once.
const MOST_BLOCKS: usize = 13;

fn block<T: Send + 'static>(count: usize, metered: bool) -> Block<T> {
    (0..count)
        .map(|_| CachePadded::new(Slot::new(metered)))
        .collect()
}

impl<T: Send + 'static> SlotTable<T> {
    pub fn new(seats: usize, metered: bool) -> Self {
        let first = block(seats.min(FIRST_SLOTS), metered);
        Self {
            first,
            further: OnceLock::new(),
        }
    }

    #[inline(always)]
    pub fn len(&self) -> usize {
        match self.further.get() {
            None => self.first.len(),
            Some(further) => further.count.load(Ordering::Acquire) as usize,
        }
    }

    /// The slot of a seat that the core has given out.
    #[inline(always)]
    pub fn get(&self, seat: usize) -> &Slot<T> {
        match self.first.get(seat) {
            Some(slot) => slot,
            None => self.get_further(seat),
        }
    }

    #[inline(never)]
    fn get_further(&self, seat: usize) -> &Slot<T> {
        let at = (seat / FIRST_SLOTS).ilog2() as usize;
        let blocks = self.further.get().map(|further| &further.blocks);
        let block = blocks.and_then(|blocks| blocks[at].get());
        let slot = block.and_then(|block| block.get(seat - (FIRST_SLOTS << at)));
        slot.unwrap_or_else(|| unreachable!("seat {seat} was given out, so its slot was made"))
    }

    /// Makes slots until there are `count`. Under the lock: one at a time.
    pub fn extend(&self, count: usize) {
        let metered = self.first.iter().any(|slot| slot.meter.is_some());
        if count <= self.len() {
            return;
        }
        let further = self.further.get_or_init(|| {
            Box::new(Further {
                count: AtomicU64::new(self.first.len() as u64),
                blocks: [const { OnceLock::new() }; MOST_BLOCKS],
            })
        });
        for (at, slots) in further.blocks.iter().enumerate() {
            let from = FIRST_SLOTS << at;
            if from < count {
                slots.get_or_init(|| block(from.min(count - from), metered));
            }
        }
        further.count.store(count as u64, Ordering::Release);
    }

    pub fn iter(&self) -> impl Iterator<Item = &Slot<T>> + Clone {
        self.iter_from(0).map(|(_, slot)| slot)
    }

    /// The slots of this seat and of all behind it, with their seats.
    pub fn iter_from(&self, seat: usize) -> impl Iterator<Item = (usize, &Slot<T>)> + Clone {
        let further = (self.further.get()).map_or(&[][..], |further| &further.blocks);
        let further = further.iter().map_while(OnceLock::get).enumerate();
        let further = further.map(|(at, slots)| (FIRST_SLOTS << at, slots));
        let blocks = iter::once((0, &self.first)).chain(further);
        blocks.flat_map(move |(from, slots)| {
            let first = seat.saturating_sub(from).min(slots.len());
            let slots = slots[first..].iter().enumerate();
            slots.map(move |(n, slot)| (from + first + n, &**slot))
        })
    }
}

/// So many leases in a row must have been of one thread before a slot is lent to it.
const LEND_AFTER: u64 = 8;
/// As many doublings of that: what a slot that changes hands costs its threads is then far below what they lease.
const MOST_DOUBLINGS: u64 = 10;
/// So many are always enough. In tests, slots are lent at once.
const LEND_AT_LAST: u64 = if cfg!(test) {
    1
} else {
    LEND_AFTER << MOST_DOUBLINGS
};

/// A place for one idle instance, and what its leases leave behind.
pub(crate) struct Slot<T: Send + 'static> {
    cell: OwnedCell<PooledInstance<T>>,
    used_at: AtomicU64,
    used_sequence: AtomicU64,
    /// Leases that found an instance here. Written by the lease's holder alone, and, once nothing is
    /// leased from here any more, under the lock. So are the next two.
    hits: AtomicU64,
    /// The thread that found an instance here last, by an exchange, and how often in a row.
    finder: AtomicU64,
    found: AtomicU64,
    /// The thread that is in a call of the instance, or 0.
    calling: AtomicU64,
    /// The lease that is to stop; see [`Slot::stop`].
    stopped: AtomicU64,
    /// How often its owner lost it to others. Written under the lock alone, as the next ones.
    losses: AtomicU64,
    /// In a pool that keeps bills.
    meter: Option<Box<Meter>>,
    /// Whether the lease must take the lock when it ends.
    notifies: AtomicBool,
    /// Whether it is listed among those that are lent.
    listed: AtomicBool,
}

/// A call under way; see [`Slot::begin_call`].
pub(crate) struct Calling<'a>(&'a AtomicU64);

impl Drop for Calling<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

impl<T: Send + 'static> Slot<T> {
    pub fn new(is_metered: bool) -> Self {
        Self {
            meter: is_metered.then(Box::default),
            cell: OwnedCell::new(),
            used_at: AtomicU64::new(0),
            used_sequence: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            finder: AtomicU64::new(0),
            found: AtomicU64::new(0),
            calling: AtomicU64::new(0),
            stopped: AtomicU64::new(0),
            losses: AtomicU64::new(0),
            notifies: AtomicBool::new(false),
            listed: AtomicBool::new(false),
        }
    }

    /// The instance, if one lies here and needs no lock to be taken.
    #[inline(always)]
    pub fn take(&self) -> Found<PooledInstance<T>> {
        self.cell.take()
    }

    /// A lease ends, and its instance lies here. False if somebody must hear of that.
    #[inline(always)]
    pub fn put(&self, pooled: Box<PooledInstance<T>>, stamp: Stamp) -> bool {
        self.set_last_used(stamp);
        self.cell.put(pooled) && !self.notifies.load(Ordering::Relaxed)
    }

    /// A lease begins with an instance that was idle.
    #[inline(always)]
    pub fn begin_lease(&self, timekeeper: &Timekeeper) {
        let hits = self.hits.load(Ordering::Relaxed);
        self.hits.store(hits + 1, Ordering::Relaxed);
        if let Some(meter) = &self.meter {
            meter.begin_lease(timekeeper.roughly_now());
        }
    }

    #[inline(always)]
    pub fn set_last_used(&self, stamp: Stamp) {
        if let Some(meter) = &self.meter {
            meter.end_lease(stamp.at);
        }
        self.used_at.store(stamp.at, Ordering::Relaxed);
        self.used_sequence.store(stamp.sequence, Ordering::Relaxed);
    }

    pub fn last_used(&self) -> Stamp {
        Stamp {
            at: self.used_at.load(Ordering::Relaxed),
            sequence: self.used_sequence.load(Ordering::Relaxed),
        }
    }

    /// Whether no idle instance lies here, as far as this thread can see.
    pub fn is_leased(&self) -> bool {
        self.cell.is_empty()
    }

    /// Whether somebody is to be notified when the lease ends.
    pub fn notifies(&self) -> bool {
        self.notifies.load(Ordering::Relaxed)
    }

    /// Says that this thread is in a call of the instance, until the guard goes, however it goes.
    #[inline(always)]
    pub fn begin_call(&self) -> Calling<'_> {
        self.calling.store(thread_number(), Ordering::Relaxed);
        Calling(&self.calling)
    }

    #[inline(always)]
    pub fn meter(&self) -> Option<&Meter> {
        self.meter.as_deref()
    }

    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    /// What its leases have left behind.
    pub fn usage(&self) -> Usage {
        let metered = self.meter().map(Meter::usage);
        Usage {
            hits: self.hits(),
            ..metered.unwrap_or_default()
        }
    }

    /// The same, which somebody else counts from now on.
    pub fn take_usage(&self) -> Usage {
        let hits = self.hits();
        self.hits.store(0, Ordering::Relaxed);
        let metered = self.meter().map(Meter::take_usage);
        Usage {
            hits,
            ..metered.unwrap_or_default()
        }
    }

    pub fn calling(&self) -> u64 {
        self.calling.load(Ordering::Relaxed)
    }

    /// Tells it from all other slots, for as long as somebody has its entry.
    pub fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Whether the lease that has this slot's instance is to stop: for its holder.
    #[inline(always)]
    pub fn is_stopped(&self) -> bool {
        let stopped = self.stopped.load(Ordering::Acquire);
        stopped != 0 && stopped == self.hits() + 1
    }

    /// This thread has found an instance here by an exchange. Whether it has done so often enough to own the slot from now on.
    #[inline(always)]
    pub fn is_worth_lending(&self) -> bool {
        let thread = thread_number();
        if self.finder.load(Ordering::Relaxed) != thread {
            self.finder.store(thread, Ordering::Relaxed);
            self.found.store(0, Ordering::Relaxed);
        }
        let found = self.found.load(Ordering::Relaxed) + 1;
        self.found.store(found, Ordering::Relaxed);
        let losses = self.losses.load(Ordering::Relaxed);
        // Should it be the owner, whose leases end on other threads, it has nothing to gain.
        let enough = (LEND_AFTER << losses.min(MOST_DOUBLINGS)).min(LEND_AT_LAST);
        found >= enough && !self.cell.is_own()
    }

    // Under the lock alone: ──────────────────────────────────────────────────────────────────────

    /// From now on this thread owns the slot, whose instance it has leased. Whether the slot has to be listed.
    pub fn lend(&self) -> bool {
        self.found.store(0, Ordering::Relaxed);
        Self::revoke([self].into_iter());
        if self.is_lent() || self.notifies.load(Ordering::Relaxed) {
            return false;
        }
        match become_owner() {
            Some(owner) => self.cell.lend(owner),
            None => return false,
        }
        !self.listed.swap(true, Ordering::Relaxed)
    }

    /// Whether it has an owner, so that it must be revoked before anything here can be claimed.
    pub fn is_lent(&self) -> bool {
        self.cell.has_owner()
    }

    /// They have no owners any more, at the price of one heavy fence; but those that their owners are just
    /// taking from, which count as leased.
    pub fn revoke<'a>(slots: impl Iterator<Item = &'a Self> + Clone) {
        OwnedCell::revoke(slots.map(|slot| &slot.cell));
    }

    /// Its owner loses it because somebody else needs it: next time it has to use it for longer. Who has ended
    /// loses nothing.
    pub fn note_loss(&self) {
        if !self.cell.has_living_owner() {
            return;
        }
        let losses = self.losses.load(Ordering::Relaxed);
        self.losses.store(losses + 1, Ordering::Relaxed);
    }

    pub fn unlist(&self) {
        self.listed.store(false, Ordering::Relaxed);
    }

    /// The idle instance, of a slot that is not lent. A slot that notifies counts as leased: either it is, or the
    /// release that saw the flag is about to take the lock and says so.
    pub fn claim(&self) -> Option<Box<PooledInstance<T>>> {
        if self.notifies.load(Ordering::Relaxed) {
            return None;
        }
        let idle = self.cell.take_shared()?;
        self.stopped.store(0, Ordering::Relaxed);
        Some(idle)
    }

    pub fn restore(&self, pooled: Box<PooledInstance<T>>) {
        self.cell.put_shared(pooled);
    }

    /// There is a new instance, which is leased from the moment on at which the core has it.
    pub fn begin_instance(&self, stamp: Stamp, now: u64) {
        self.set_last_used(stamp);
        if let Some(meter) = self.meter() {
            meter.begin_lease(now);
        }
    }

    /// Asks the lease to take the lock when it ends; false if it was asked already. If the slot is lent, it must be
    /// revoked now; then see [`Self::finds_leased`].
    pub fn start_to_notify(&self) -> bool {
        !self.notifies.swap(true, Ordering::Relaxed)
    }

    /// Whether the lease that was asked will do so; false if the instance is idle after all, and will not. See the
    /// cases in `entry.rs`.
    pub fn finds_leased(&self) -> bool {
        // The flag was written before this exchange: a release whose exchange comes later sees it.
        let Some(idle) = self.cell.take_shared() else {
            return true;
        };
        self.end_lease();
        self.restore(idle);
        false
    }

    /// The lease in this slot has put its instance back and seen that it has to say so. The instance; or `None` if
    /// another lease has taken it since: then that one will see the flag too.
    pub fn take_released(&self) -> Option<Box<PooledInstance<T>>> {
        // It may have been put by who was the owner until then.
        Self::revoke([self].into_iter());
        let ended = self.cell.take_shared()?;
        self.end_lease();
        Some(ended)
    }

    /// The lease that has this slot's instance is to stop; whether there is one, as far as this thread can see. One that
    /// begins or ends at this moment may be meant or not. No later one is: it counts as another hit, or begins under the
    /// lock, with nothing to stop.
    pub fn stop(&self) -> bool {
        let is_leased = self.is_leased();
        if is_leased {
            self.stopped.store(self.hits() + 1, Ordering::Release);
        }
        is_leased
    }

    /// A lease has ended whose instance does not come back.
    pub fn end_metered_lease(&self, now: u64) {
        if let Some(meter) = &self.meter {
            meter.end_lease(now);
        }
    }

    /// The lease in this slot has ended, whatever becomes of its instance: nobody wants it to report or to stop.
    pub fn end_lease(&self) {
        self.notifies.store(false, Ordering::Relaxed);
        self.stopped.store(0, Ordering::Relaxed);
    }
}
