//! The hot path: an entry's slots, where idle instances are taken from and put back.
//!
//! A warm lease takes an instance out of its slot and puts it back, and touches nothing that
//! another thread writes, as long as each thread finds an instance in its own slot: no lock, no
//! account (idle and leased are charged alike), no order of recency, no reference count.
//!
//! # Who hears of a lease's end
//!
//! Two words tell a release that it cannot just put its instance back and go:
//!
//! - the entry's **control word**: the function's version and two flags, `WAITED` (somebody waits for an
//!   instance) and `CLOSED` (the function was removed, or the pool is closed). An instance made for version 3
//!   passes while the word is exactly 12 (3 << 2). A release reads it before it touches its slot.
//! - the slot's flag **notifies**: somebody wants this instance, or the room that it takes. A release reads it
//!   after it has put its instance back.
//!
//! Both are written under the pool's lock. Whoever writes them then exchanges the slot's cell
//! ([`Slot::finds_leased`]); a release exchanges the same cell when it puts its instance back
//! ([`Slot::put`]). The exchanges of one cell have an order, so there are four cases:
//!
//! 1. The release reads the control word after it was written. It keeps its instance in hand and takes the
//!    lock ([`NotReturned::InHand`]).
//! 2. It read the word before, and its exchange is the first. The waiter's exchange finds the instance: it is
//!    idle, and nobody has to wait for it. Should the release see the flag all the same, it takes the lock,
//!    and deals with what lies in the slot then.
//! 3. It read the word before, and the waiter's exchange is the first. That one finds nothing, so the waiter
//!    sleeps. The release's exchange comes after it and sees all that was written before it: so the release
//!    finds the flag, takes the lock ([`NotReturned::InSlot`]) and takes its instance out again
//!    ([`Slot::take_released`]), for the waiter.
//! 4. As 3, but another lease takes the instance between the release's exchange and its lock (it may, if it
//!    is room that somebody waits for, and not this entry). Then `take_released` finds nothing, and leaves the
//!    flag: the end of that lease is the one that is reported.
//!
//! If the slot belongs to a thread, its release does not exchange. Then whoever writes revokes the slot before it
//! exchanges ([`Slot::revoke`]), with the same cases: the instance is found, or the release finds that the slot was
//! revoked, and takes the lock. A thread that was about to take counts as a lease, and if it gives up, reports so.
//!
//! In each case somebody learns of the end of the lease under the lock, where everything else is decided.

use std::fmt;
use std::sync::{Arc, Weak};

use crate::pool::api::target::Target;
use crate::pool::hot::entry_hash::{FunctionKey, entry_hash, group_hash};
use crate::pool::hot::meter::GuestClock;
use crate::pool::hot::owned_cell::Found;
use crate::pool::hot::pooled_instance::PooledInstance;
use crate::pool::hot::preferred_seat;
use crate::pool::hot::slots::{Slot, SlotTable};
use crate::pool::hot::spent::Spent;
use crate::pool::hot::thread::next_sequence;
use crate::pool::shared::{EntryId, Function, Shared};
use crate::pool::time::timekeeper::Timekeeper;
use crate::runtime::StackCheck;
use crate::state::{Group, Stamp, Usage};
use crate::sync::{AtomicBool, AtomicU64, Ordering};

/// Somebody waits: every acquire and release takes the lock.
const WAITED: u64 = 1;
/// Nothing may be leased any more.
const CLOSED: u64 = 2;
const FLAGS: u64 = WAITED | CLOSED;
const VERSION_SHIFT: u32 = 2;

/// The instances of one (function, group). The fields that every lease reads come first, and together: with a
/// thousand entries in use, each further cache line is fetched from memory.
#[repr(C)]
pub(crate) struct Entry<T: Send + 'static> {
    /// Version of the function, and flags. An instance passes while it is exactly the version that
    /// the instance was made for.
    control: AtomicU64,
    slots: SlotTable<T>,
    /// Finds it in each thread's table.
    pub hash: u64,
    /// Names the function among all functions of all pools.
    pub uid: u64,
    pub stack: StackCheck,
    pub timekeeper: Arc<Timekeeper>,
    /// Whether threads may come to own slots.
    lends: bool,
    /// Whether its leases are looked at each tick of the epoch, so that others can stop them.
    pub is_cancellable: bool,
    /// Whether its slots have meters, and the fuel of its leases is counted.
    pub bills_fuel: bool,
    /// Whether time in guest code is asked of the system.
    has_exact_times: bool,
    /// Whether a healthy instance may have to go when its lease ends, though it may be used again.
    pub needs_release_check: bool,
    /// Whether the last lease that had to make its instance was a task's: then spares have stacks.
    of_tasks: AtomicBool,
    /// Where instances that are leased once are left.
    pub spent: Arc<Spent<Box<PooledInstance<T>>>>,
    pub group: Group,
    pub id: EntryId<T>,
    /// The function's name, without its arguments.
    pub name: Arc<str>,
    pub target: Arc<Target>,
    /// Where its hits are kept when it is gone: the function's, and the pool's.
    past_hits: [Arc<AtomicU64>; 2],
    pub pool: Weak<Shared<T>>,
}

/// What an acquire finds in the slots.
pub(crate) enum Taken<T: Send + 'static> {
    Idle(Box<PooledInstance<T>>),
    /// Of another version than the control word says: for the slow path.
    Stale(Box<PooledInstance<T>>),
    Nothing,
}

impl<T: Send + 'static> Entry<T> {
    /// `signature` is the function's name with its arguments.
    pub fn new(
        id: EntryId<T>,
        of: &Function<T>,
        signature: Arc<str>,
        group: Group,
        pool: &Shared<T>,
    ) -> Self {
        let seats = pool.settings.max_instances_per_entry;
        let uid = of.definition.uid;
        let is_metered = pool.settings.billing.is_some();
        Self {
            id,
            uid,
            hash: entry_hash(FunctionKey::new(uid), group_hash(group.view())),
            stack: pool.stack,
            lends: pool.lends,
            is_cancellable: pool.settings.cancellable,
            bills_fuel: is_metered && pool.runtime.meters_fuel(),
            has_exact_times: pool.settings.billing.is_some_and(|b| b.has_exact_times()),
            needs_release_check: pool.needs_release_checks(),
            of_tasks: AtomicBool::new(false),
            spent: pool.recycler.spent.clone(),
            name: of.name.clone(),
            target: Arc::new(Target {
                signature,
                group: group.clone(),
            }),
            group,
            past_hits: [of.definition.past_hits.clone(), pool.past_hits.clone()],
            pool: pool.this.clone(),
            timekeeper: pool.timekeeper.clone(),
            control: AtomicU64::new(Self::control_of(of.version)),
            slots: SlotTable::new(seats, is_metered),
        }
    }

    /// An idle instance, if there is one and nobody has to be asked.
    #[inline(always)]
    pub fn take(&self) -> Taken<T> {
        self.take_and_lend(self.lends)
    }

    /// The same for a task, whose leases end on any thread: it never comes to own a slot.
    pub fn take_for_task(&self) -> Taken<T> {
        self.take_and_lend(false)
    }

    #[inline(always)]
    fn take_and_lend(&self, lends: bool) -> Taken<T> {
        let control = self.control.load(Ordering::Acquire);
        if control & FLAGS != 0 {
            return Taken::Nothing;
        }
        let preferred = self.preferred_seat();
        match self.take_from(preferred, self.slots.get(preferred), control, lends) {
            Taken::Nothing => self.take_elsewhere(control, preferred, lends),
            taken => taken,
        }
    }

    /// From the other slots, those behind the preferred one first.
    #[inline(never)]
    fn take_elsewhere(&self, control: u64, preferred: usize, lends: bool) -> Taken<T> {
        let behind = self.slots.iter_from(preferred + 1);
        for (seat, slot) in behind.chain(self.slots.iter_from(0).take(preferred)) {
            let taken = self.take_from(seat, slot, control, lends);
            if let Taken::Idle(_) = taken {
                preferred_seat::remember(self.hash, seat);
            }
            if !matches!(taken, Taken::Nothing) {
                return taken;
            }
        }
        Taken::Nothing
    }

    #[inline(always)]
    fn take_from(&self, seat: usize, slot: &Slot<T>, control: u64, lends: bool) -> Taken<T> {
        match slot.take() {
            Found::Nothing => Taken::Nothing,
            Found::Own(pooled) if pooled.control == control => {
                slot.begin_lease(&self.timekeeper);
                Taken::Idle(pooled)
            }
            Found::Shared(pooled) if pooled.control == control => {
                slot.begin_lease(&self.timekeeper);
                // A lease of what is leased once leaves nothing here to find again.
                if lends && !pooled.is_leased_once() && slot.is_worth_lending() {
                    self.lend(seat);
                }
                Taken::Idle(pooled)
            }
            Found::Own(stale) | Found::Shared(stale) => Taken::Stale(stale),
            Found::Revoked => {
                self.release_slowly(NotReturned::InSlot(seat));
                Taken::Nothing
            }
        }
    }

    /// This thread owns the slot from now on, whose instance it has leased.
    #[cold]
    fn lend(&self, seat: usize) {
        if let Some(pool) = self.pool.upgrade() {
            pool.lend(self.id, seat);
        }
    }

    /// A thread prefers the slot where it last found an instance, so that this stays in its cache,
    /// and two threads that met in one slot do not meet again.
    #[inline(always)]
    pub fn preferred_seat(&self) -> usize {
        preferred_seat::of(self.hash, self.slots.len())
    }

    /// A lease ends. Healthy, its instance goes back to its slot; anything else is decided under
    /// the lock.
    #[inline(never)]
    pub fn release(&self, pooled: Box<PooledInstance<T>>, healthy: bool) {
        // The holder may have panicked between two writes into the guest's memory.
        let healthy = healthy && !std::thread::panicking();
        if !healthy || self.needs_release_check || pooled.is_used_up() {
            return self.check_and_release(pooled, healthy);
        }
        if let Err(not_returned) = self.put(pooled) {
            self.release_slowly(not_returned);
        }
    }

    /// Puts an instance back into its slot; what could not be put back is for the slow path.
    #[inline(always)]
    pub fn put(&self, pooled: Box<PooledInstance<T>>) -> Result<(), NotReturned<T>> {
        if pooled.control != self.control.load(Ordering::Acquire) {
            return Err(NotReturned::InHand(pooled));
        }
        let seat = pooled.seat;
        match self.slots.get(seat).put(pooled, self.stamp()) {
            true => Ok(()),
            false => Err(NotReturned::InSlot(seat)),
        }
    }

    /// A use as of now, on this thread.
    #[inline(always)]
    pub fn stamp(&self) -> Stamp {
        Stamp {
            at: self.timekeeper.roughly_now(),
            sequence: next_sequence(),
        }
    }

    #[inline]
    pub fn slot(&self, seat: usize) -> &Slot<T> {
        self.slots.get(seat)
    }

    pub fn slots(&self) -> impl Iterator<Item = &Slot<T>> + Clone {
        self.slots.iter()
    }

    /// Makes the slots of further seats. Under the lock.
    pub fn add_seats(&self, count: usize) {
        self.slots.extend(count);
    }

    /// Whether acquires and releases take the lock.
    pub fn needs_lock(&self) -> bool {
        self.control.load(Ordering::Acquire) & FLAGS != 0
    }

    /// A lease makes its instance itself, as a task or on a thread.
    pub fn note_maker(&self, is_a_task: bool) {
        self.of_tasks.store(is_a_task, Ordering::Relaxed);
    }

    pub fn is_of_tasks(&self) -> bool {
        self.of_tasks.load(Ordering::Relaxed)
    }

    /// Leases that no thread is in a call of.
    pub fn leases_between_calls(&self) -> usize {
        let between = |slot: &&Slot<T>| slot.is_leased() && slot.calling() == 0;
        self.slots().filter(between).count()
    }

    pub fn set_flag(&self, waited: bool) {
        if waited {
            self.control.fetch_or(WAITED, Ordering::AcqRel);
        } else {
            self.control.fetch_and(!WAITED, Ordering::AcqRel);
        }
    }

    pub fn close(&self) {
        self.control.fetch_or(CLOSED, Ordering::AcqRel);
    }

    pub fn is_closed(&self) -> bool {
        self.control.load(Ordering::Relaxed) & CLOSED != 0
    }

    /// The core has no record of it any more, and nothing is leased from it. What its leases have left behind. Under
    /// the lock.
    pub fn forget(&self) -> Usage {
        self.close();
        let mut usage = Usage::default();
        for slot in self.slots() {
            usage.add(&slot.take_usage());
        }
        for past in &self.past_hits {
            past.fetch_add(usage.hits, Ordering::Relaxed);
        }
        usage
    }

    /// What its leases have left behind so far.
    pub fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        for slot in self.slots() {
            usage.add(&slot.usage());
        }
        usage
    }

    /// The coarse clock has been woken by a lease that began by it: it begins now.
    #[cold]
    pub fn begin_lease_anew(&self, seat: usize) {
        if let Some(meter) = self.slot(seat).meter() {
            meter.begin_lease(self.timekeeper.roughly_now());
        }
    }

    /// What time in its guests' code is measured by.
    #[inline(always)]
    pub fn guest_clock(&self) -> GuestClock<'_> {
        GuestClock {
            timekeeper: &self.timekeeper,
            is_exact: self.has_exact_times,
        }
    }

    /// Only under the lock, as every change of the control word.
    pub fn set_version(&self, version: u64) {
        let flags = self.control.load(Ordering::Acquire) & FLAGS;
        self.control
            .store(version << VERSION_SHIFT | flags, Ordering::Release);
    }

    pub fn control_of(version: u64) -> u64 {
        version << VERSION_SHIFT
    }

    pub fn hits(&self) -> u64 {
        self.slots().map(Slot::hits).sum()
    }
}

/// An instance whose lease ended, and that must be dealt with under the lock.
pub(crate) enum NotReturned<T: Send + 'static> {
    InHand(Box<PooledInstance<T>>),
    /// It lies in this slot, whose flag says that somebody is to be notified.
    InSlot(usize),
}

impl<T: Send + 'static> Drop for Entry<T> {
    fn drop(&mut self) {
        self.forget();
    }
}

impl<T: Send + 'static> fmt::Debug for Entry<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}
