//! The slow path of a release: somebody waits, or the instance must not stay.

use std::sync::Arc;

use crate::pool::defined::Defined;
use crate::pool::hot::entry::{Entry, NotReturned};
use crate::pool::hot::pooled_instance::PooledInstance;
use crate::pool::hot::thread_cache;
use crate::pool::shared::{Context, Locked, Shared};
use crate::pool::time::clock::nanos;
use crate::pool::wakeup::{Waiter, Wakeup};
use crate::runtime::{CallFailure, guarded};
use crate::state::{Failure, RemovalReason, Returned, Stamp};

/// An instance, and who gets it.
type Handed<T> = (Arc<Waiter<T>>, Box<PooledInstance<T>>);

impl<T: Send + 'static> Shared<T> {
    /// Whether an instance may have to go when its lease ends, though it is healthy.
    pub fn needs_release_checks(&self) -> bool {
        let settings = &self.settings;
        settings.max_lifetime.is_some()
            || settings.max_idle_memory < settings.instance.memory
            || self.on_recycle.is_some()
    }
}

impl<T: Send + 'static> Shared<T> {
    /// Of each call or start function that has failed. What a guest has done counts against its function; what the host has done
    /// does not.
    #[cold]
    pub(crate) fn note_failure(&self, entry: &Entry<T>, defined: &Defined, failure: &CallFailure) {
        let is_of_the_guest = match failure {
            CallFailure::Fuel | CallFailure::Deadline | CallFailure::Trap(_) => true,
            CallFailure::Cancelled | CallFailure::Host(_) => false,
        };
        let is_judged = is_of_the_guest && self.settings.quarantine.is_some();
        if !is_judged && self.settings.billing.is_none() {
            return;
        }
        self.with_state(|locked, cx| {
            let state = &mut locked.state;
            state.bill_failure(entry.id, kind_of(failure));
            // Of code that has been replaced since, the new code is not guilty.
            let current = state.definition_of(entry.id);
            if is_judged && current.is_some_and(|current| std::ptr::eq(&**current, defined)) {
                state.note_failure(entry.id, cx);
            }
        });
    }
}

fn kind_of(failure: &CallFailure) -> Failure {
    match failure {
        CallFailure::Trap(_) => Failure::Trap,
        CallFailure::Fuel => Failure::Fuel,
        CallFailure::Deadline => Failure::Time,
        CallFailure::Cancelled => Failure::Cancelled,
        CallFailure::Host(_) => Failure::Host,
    }
}

impl<T: Send + 'static> Entry<T> {
    /// What the lease has burnt of its fuel, before it gives its instance away.
    #[cold]
    pub(crate) fn count_fuel(&self, pooled: &PooledInstance<T>) {
        if let Some(meter) = self.slot(pooled.seat).meter()
            && let Some(limit) = pooled.defined.limits.fuel
            && let Ok(left) = pooled.instance.store.get_fuel()
        {
            meter.add_fuel(limit.get().saturating_sub(left));
        }
    }

    #[cold]
    pub(crate) fn check_and_release(&self, mut pooled: Box<PooledInstance<T>>, healthy: bool) {
        if healthy && pooled.defined.is_pristine() {
            return self.spend(pooled);
        }
        let reason = if healthy {
            self.reason_to_retire(&mut pooled)
        } else {
            Some(RemovalReason::Failed)
        };
        match reason {
            Some(reason) => self.retire(pooled, reason),
            None => {
                if let Err(not_returned) = self.put(pooled) {
                    self.release_slowly(not_returned);
                }
            }
        }
    }

    fn reason_to_retire(&self, pooled: &mut PooledInstance<T>) -> Option<RemovalReason> {
        // Without a pool, there is nothing to stay in.
        let pool = self.pool.upgrade()?;
        let settings = &pool.settings;
        let age = self
            .timekeeper
            .roughly_now()
            .saturating_sub(pooled.created_at);
        if pooled.is_used_up() {
            return Some(RemovalReason::Uses);
        }
        if settings.max_lifetime.is_some_and(|most| age >= nanos(most)) {
            return Some(RemovalReason::Lifetime);
        }
        if pooled.instance.store.data().memory_bytes() > settings.max_idle_memory {
            return Some(RemovalReason::Oversize);
        }
        let hook = pool.on_recycle.as_ref()?;
        // A lease may end anywhere, and a hook may call the guest.
        if self.stack.check().is_err() {
            return Some(RemovalReason::Discarded);
        }
        let instance = &mut pooled.instance;
        // What the hook calls has fuel and time of its own, whatever the lease has left of them.
        if instance.refresh(pooled.defined.limits).is_err() {
            return Some(RemovalReason::Discarded);
        }
        // Should the hook lease from this entry, it would wait for itself. And its panic must not lose
        // the instance with its charge.
        let calling = self.slot(pooled.seat).begin_call();
        let kept = guarded("the recycle hook", || {
            hook(&mut instance.store, &instance.exports).is_ok()
        });
        drop(calling);
        match kept {
            Some(true) => None,
            Some(false) | None => Some(RemovalReason::Discarded),
        }
    }

    /// Ends an instance that its lease holds.
    #[cold]
    pub fn retire(&self, pooled: Box<PooledInstance<T>>, reason: RemovalReason) {
        let Some(pool) = self.pool.upgrade() else {
            return self.orphan(pooled);
        };
        let id = pooled.id;
        pool.with_state(|locked, cx| {
            let slot = self.slot(pooled.seat);
            slot.end_lease();
            slot.end_metered_lease(locked.state.now());
            cx.slots.insert(self, pooled);
            locked.state.dismiss(id, reason, None, cx);
        });
    }

    #[cold]
    pub(crate) fn release_slowly(&self, not_returned: NotReturned<T>) {
        let Some(pool) = self.pool.upgrade() else {
            return self
                .pick_up(not_returned)
                .into_iter()
                .for_each(|pooled| self.orphan(pooled));
        };
        let handed = pool.with_state(|locked, cx| match self.pick_up(not_returned) {
            Some(pooled) => self.finish_release(pooled, locked, cx),
            // Another lease has it already, and reports when it ends.
            None => {
                locked.state.wake_room(&mut cx.out);
                None
            }
        });
        deliver(&pool, handed);
    }

    /// Under the lock: the instance of a lease that has ended, if it is still this one's.
    fn pick_up(&self, not_returned: NotReturned<T>) -> Option<Box<PooledInstance<T>>> {
        match not_returned {
            NotReturned::InHand(pooled) => {
                self.slot(pooled.seat).end_lease();
                Some(pooled)
            }
            NotReturned::InSlot(seat) => self.slot(seat).take_released(),
        }
    }

    /// An acquire took an instance that it may not lease: of an old version.
    #[cold]
    pub fn release_stale(&self, pool: &Shared<T>, stale: Box<PooledInstance<T>>) {
        let handed = pool.with_state(|locked, cx| {
            self.slot(stale.seat).end_lease();
            self.finish_release(stale, locked, cx)
        });
        deliver(pool, handed);
    }

    /// A spare has been made: it is as an instance whose lease has ended, but that nobody has used it.
    pub(crate) fn release_spare(&self, pool: &Shared<T>, spare: Box<PooledInstance<T>>) {
        let handed = pool.with_state(|locked, cx| {
            let slot = self.slot(spare.seat);
            slot.end_lease();
            slot.set_last_used(Stamp::NEVER);
            self.hand_on(spare, locked, cx)
        });
        deliver(pool, handed);
    }

    /// Under the lock: a lease has ended, and the caller holds its instance.
    fn finish_release(
        &self,
        pooled: Box<PooledInstance<T>>,
        locked: &mut Locked<T>,
        cx: &mut Context<T>,
    ) -> Option<Handed<T>> {
        let now = locked.state.now();
        (self.slot(pooled.seat)).set_last_used(locked.stamp(now));
        self.hand_on(pooled, locked, cx)
    }

    /// Under the lock: the instance goes into its slot, on to a waiter, or out.
    fn hand_on(
        &self,
        pooled: Box<PooledInstance<T>>,
        locked: &mut Locked<T>,
        cx: &mut Context<T>,
    ) -> Option<Handed<T>> {
        let (id, slot) = (pooled.id, self.slot(pooled.seat));
        match locked.state.returned(id, cx) {
            Returned::Park => {
                slot.restore(pooled);
                locked.state.repay(cx);
            }
            Returned::Hand(waiter) => return Some((waiter, pooled)),
            Returned::Retire(reason) => {
                cx.slots.insert(self, pooled);
                locked.state.dismiss(id, reason, None, cx);
            }
        }
        None
    }

    /// The pool is gone, and its accounts with it: the memory is freed, and nothing else is left to do.
    fn orphan(&self, pooled: Box<PooledInstance<T>>) {
        drop(pooled);
        self.timekeeper.orphan_ended();
        thread_cache::announce_closed();
    }
}

/// Outside the lock.
fn deliver<T: Send + 'static>(pool: &Shared<T>, handed: Option<Handed<T>>) {
    if let Some((waiter, pooled)) = handed {
        pool.deliver(&waiter, Wakeup::Instance(pooled));
    }
}
