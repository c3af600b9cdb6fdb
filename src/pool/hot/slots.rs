//! Places for idle instances: what a lease takes out of one and puts back.

use crate::pool::hot::pooled_instance::PooledInstance;
use crate::pool::hot::thread::thread_number;
use crate::pool::settings::FIRST_SLOTS;
use crate::state::Stamp;
use crate::sync::{AtomicBool, AtomicCell, AtomicU64, CachePadded, OnceLock, Ordering};

/// The slots of an entry: as many as it has needed at once so far. There may come to be more, which
/// lie in blocks of their own; none ever goes or moves.
pub(crate) struct SlotTable<T: Send + 'static> {
    first: Block<T>,
    next: OnceLock<Box<Further<T>>>,
}

type Block<T> = Box<[CachePadded<Slot<T>>]>;

/// As many slots as there were before.
struct Further<T: Send + 'static> {
    /// The number of the first.
    from: usize,
    slots: Block<T>,
    next: OnceLock<Box<Self>>,
}

fn block<T: Send + 'static>(count: usize) -> Block<T> {
    (0..count).map(|_| CachePadded::new(Slot::new())).collect()
}

impl<T: Send + 'static> SlotTable<T> {
    pub fn new(seats: usize) -> Self {
        let first = block(seats.min(FIRST_SLOTS));
        Self {
            first,
            next: OnceLock::new(),
        }
    }

    #[inline(always)]
    pub fn len(&self) -> usize {
        match self.next.get() {
            None => self.first.len(),
            Some(further) => further.end(),
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
        let mut next = self.next.get();
        while let Some(further) = next {
            if let Some(slot) = further.slots.get(seat - further.from) {
                return slot;
            }
            next = further.next.get();
        }
        unreachable!("seat {seat} was given out, so its slot was made")
    }

    /// Makes slots until there are `count`. Under the lock: one at a time.
    pub fn extend(&self, count: usize) {
        let (mut from, mut next) = (self.first.len(), &self.next);
        while let Some(further) = next.get() {
            (from, next) = (from + further.slots.len(), &further.next);
        }
        if count > from {
            next.get_or_init(|| {
                Box::new(Further {
                    from,
                    slots: block(count - from),
                    next: OnceLock::new(),
                })
            });
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Slot<T>> {
        (0..self.len()).map(|seat| self.get(seat))
    }
}

impl<T: Send + 'static> Further<T> {
    #[inline(never)]
    fn end(&self) -> usize {
        match self.next.get() {
            None => self.from + self.slots.len(),
            Some(further) => further.end(),
        }
    }
}

/// A place for one idle instance, and what its leases leave behind.
pub(crate) struct Slot<T: Send + 'static> {
    cell: AtomicCell<Option<Box<PooledInstance<T>>>>,
    used_at: AtomicU64,
    used_sequence: AtomicU64,
    /// Leases that found an instance here. Written by the lease's holder alone, and, once nothing is
    /// leased from here any more, under the lock.
    hits: AtomicU64,
    /// A hint: whether an idle instance lies here. Looking into the cell costs a locked exchange.
    idle: AtomicBool,
    /// The thread that is in a call of the instance, or 0.
    calling: AtomicU64,
    /// Whether the lease must take the lock when it ends. Written under the lock alone.
    notifies: AtomicBool,
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
    pub fn new() -> Self {
        Self {
            cell: AtomicCell::new(None),
            used_at: AtomicU64::new(0),
            used_sequence: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            idle: AtomicBool::new(false),
            calling: AtomicU64::new(0),
            notifies: AtomicBool::new(false),
        }
    }

    /// The instance, if one lies here: taken out.
    #[inline(always)]
    pub fn take_idle(&self) -> Option<Box<PooledInstance<T>>> {
        match self.idle.load(Ordering::Relaxed) {
            true => self.cell.take(),
            false => None,
        }
    }

    /// A lease ends, and its instance lies here. False if somebody must hear of that.
    #[inline(always)]
    pub fn put(&self, pooled: Box<PooledInstance<T>>, stamp: Stamp) -> bool {
        self.mark_idle(stamp);
        drop(self.cell.swap(Some(pooled)));
        !self.notifies.load(Ordering::Relaxed)
    }

    /// A lease begins with an instance that was idle.
    #[inline(always)]
    pub fn lease(&self) {
        self.idle.store(false, Ordering::Relaxed);
        let hits = self.hits.load(Ordering::Relaxed);
        self.hits.store(hits + 1, Ordering::Relaxed);
    }

    /// A lease begins with a new instance.
    pub fn lease_new(&self, stamp: Stamp) {
        self.mark_idle(stamp);
        self.idle.store(false, Ordering::Relaxed);
    }

    /// A lease ends.
    #[inline(always)]
    pub fn mark_idle(&self, stamp: Stamp) {
        self.used_at.store(stamp.at, Ordering::Relaxed);
        self.used_sequence.store(stamp.sequence, Ordering::Relaxed);
        self.idle.store(true, Ordering::Relaxed);
    }

    pub fn last_used(&self) -> Stamp {
        Stamp {
            at: self.used_at.load(Ordering::Relaxed),
            sequence: self.used_sequence.load(Ordering::Relaxed),
        }
    }

    pub fn is_leased(&self) -> bool {
        !self.idle.load(Ordering::Relaxed)
    }

    /// Says that this thread is in a call of the instance, until the guard goes, however it goes.
    #[inline(always)]
    pub fn begin_call(&self) -> Calling<'_> {
        self.calling.store(thread_number(), Ordering::Relaxed);
        Calling(&self.calling)
    }

    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    /// The hits, which somebody else counts from now on.
    pub fn take_hits(&self) -> u64 {
        let hits = self.hits();
        self.hits.store(0, Ordering::Relaxed);
        hits
    }

    pub fn calling(&self) -> u64 {
        self.calling.load(Ordering::Relaxed)
    }

    // Under the lock alone: ──────────────────────────────────────────────────────────────────────

    /// The idle instance. A slot that notifies counts as leased: either it is, or the release that saw the flag
    /// is about to take the lock and says so.
    pub fn claim(&self) -> Option<Box<PooledInstance<T>>> {
        if self.notifies.load(Ordering::Relaxed) {
            return None;
        }
        self.take_out()
    }

    pub fn restore(&self, pooled: Box<PooledInstance<T>>) {
        self.idle.store(true, Ordering::Relaxed);
        self.cell.store(Some(pooled));
    }

    /// Asks the lease to take the lock when it ends; false if the instance is idle after all. See the cases in
    /// `entry.rs`.
    pub fn notify_on_release(&self) -> bool {
        if self.notifies.load(Ordering::Relaxed) {
            return true;
        }
        self.notifies.store(true, Ordering::Relaxed);
        // Written before this exchange: a release whose exchange comes later sees it.
        let Some(idle) = self.take_out() else {
            return true;
        };
        self.clear_notify();
        self.restore(idle);
        false
    }

    /// The lease in this slot has put its instance back and seen the flag. The instance; or `None` if another
    /// lease has taken it since: then that one will see the flag too.
    pub fn take_released(&self) -> Option<Box<PooledInstance<T>>> {
        let ended = self.take_out()?;
        self.clear_notify();
        Some(ended)
    }

    /// The lease in this slot has reported, and still holds its instance.
    pub fn clear_notify(&self) {
        self.notifies.store(false, Ordering::Relaxed);
    }

    /// An exchange even if there is nothing in the cell: releases that come later see all that was
    /// written before it.
    fn take_out(&self) -> Option<Box<PooledInstance<T>>> {
        let taken = self.cell.take()?;
        self.idle.store(false, Ordering::Relaxed);
        Some(taken)
    }
}
