//! The slow path of a release: somebody waits, or the instance must not stay.

use std::sync::Arc;

use crate::pool::hands::Hands;
use crate::pool::hot::entry::{Entry, Live, Unparked};
use crate::pool::hot::thread_cache;
use crate::pool::shared::{Effects, Locked, Shared};
use crate::pool::time::clock::nanos;
use crate::pool::wait::waiter::{Mail, Waiter};
use crate::runtime::guarded;
use crate::state::{Reason, Returned};

/// An instance, and who gets it.
type Handed<T> = (Arc<Waiter<T>>, Box<Live<T>>);

impl<T: Send + 'static> Shared<T> {
    /// Whether an instance may have to go when its lease ends, though it is healthy.
    pub fn looks_at_releases(&self) -> bool {
        let settings = &self.settings;
        settings.max_uses != u64::MAX
            || settings.max_lifetime.is_some()
            || settings.max_idle_memory < settings.instance.memory
            || self.on_recycle.is_some()
    }
}

impl<T: Send + 'static> Entry<T> {
    /// A lease ends. Healthy, its instance goes back to its slot; anything else is decided under
    /// the lock.
    #[inline(never)]
    pub fn release(&self, live: Box<Live<T>>, healthy: bool) {
        // The holder may have panicked between two writes into the guest's memory.
        let healthy = healthy && !std::thread::panicking();
        if !healthy || self.looks {
            return self.look_and_release(live, healthy);
        }
        if let Err(unparked) = self.put(live) {
            self.release_slowly(unparked);
        }
    }

    #[cold]
    fn look_and_release(&self, mut live: Box<Live<T>>, healthy: bool) {
        let reason = if healthy {
            self.reason_to_retire(&mut live)
        } else {
            Some(Reason::Failed)
        };
        match reason {
            Some(reason) => self.retire(live, reason),
            None => {
                if let Err(unparked) = self.put(live) {
                    self.release_slowly(unparked);
                }
            }
        }
    }

    fn reason_to_retire(&self, live: &mut Live<T>) -> Option<Reason> {
        // Without a pool, there is nothing to stay in.
        let pool = self.pool.upgrade()?;
        let settings = &pool.settings;
        let age = self.pulse.roughly_now().saturating_sub(live.born);
        if live.uses >= settings.max_uses {
            return Some(Reason::Uses);
        }
        if settings.max_lifetime.is_some_and(|most| age >= nanos(most)) {
            return Some(Reason::Lifetime);
        }
        if live.instance.store.data().memory_bytes() > settings.max_idle_memory {
            return Some(Reason::Oversize);
        }
        let hook = pool.on_recycle.as_ref()?;
        // A lease may end anywhere, and a hook may call the guest.
        if self.stack.check().is_err() {
            return Some(Reason::Discarded);
        }
        let instance = &mut live.instance;
        // What the hook calls has fuel and time of its own, whatever the lease has left of them.
        if instance.refresh(live.defined.limits).is_err() {
            return Some(Reason::Discarded);
        }
        // Should the hook lease from this entry, it would wait for itself. And its panic must not lose
        // the instance with its charge.
        let calling = self.slot(live.seat).begin_call();
        let kept = guarded("the recycle hook", || {
            hook(&mut instance.store, &instance.exports).is_ok()
        });
        drop(calling);
        match kept {
            Some(true) => None,
            Some(false) | None => Some(Reason::Discarded),
        }
    }

    /// Ends an instance that its lease holds.
    #[cold]
    pub fn retire(&self, live: Box<Live<T>>, reason: Reason) {
        let Some(pool) = self.pool.upgrade() else {
            return self.orphan(live);
        };
        let id = live.id;
        pool.with_state(|locked, hands, out| {
            self.slot(live.seat).unwatch();
            hands.hold(self, live);
            locked.state.dismiss(id, reason, None, out);
        });
    }

    #[cold]
    fn release_slowly(&self, unparked: Unparked<T>) {
        let Some(pool) = self.pool.upgrade() else {
            return self
                .pick_up(unparked)
                .into_iter()
                .for_each(|live| self.orphan(live));
        };
        let handed = pool.with_state(|locked, hands, out| match self.pick_up(unparked) {
            Some(live) => self.settle(live, locked, hands, out),
            // Another lease has it already, and answers for it when it ends.
            None => {
                locked.state.wake_room(out);
                None
            }
        });
        deliver(&pool, handed);
    }

    /// Under the lock: the instance of a lease that has ended, if it is still this one's.
    fn pick_up(&self, unparked: Unparked<T>) -> Option<Box<Live<T>>> {
        match unparked {
            Unparked::InHand(live) => {
                self.slot(live.seat).unwatch();
                Some(live)
            }
            Unparked::InSlot(seat) => self.slot(seat).answer(),
        }
    }

    /// An acquire took an instance that it may not lease: of an old version.
    #[cold]
    pub fn settle_odd(&self, pool: &Shared<T>, odd: Box<Live<T>>) {
        let handed = pool.with_state(|locked, hands, out| {
            self.slot(odd.seat).unwatch();
            self.settle(odd, locked, hands, out)
        });
        deliver(pool, handed);
    }

    /// Under the lock, with the instance in hand: back to its slot, on to a waiter, or out.
    fn settle(
        &self,
        live: Box<Live<T>>,
        locked: &mut Locked<T>,
        hands: &mut Hands<T>,
        out: &mut Effects<T>,
    ) -> Option<Handed<T>> {
        let (id, slot) = (live.id, self.slot(live.seat));
        let now = locked.state.now();
        slot.stamp(locked.stamp(now));
        match locked.state.returned(id, hands, out) {
            Returned::Park => {
                slot.restore(live);
                locked.state.repay(hands, out);
            }
            Returned::Hand(waiter) => return Some((waiter, live)),
            Returned::Retire(reason) => {
                hands.hold(self, live);
                locked.state.dismiss(id, reason, None, out);
            }
        }
        None
    }

    /// The pool is gone, its accounts with it: all that is left to do is to free the memory.
    fn orphan(&self, live: Box<Live<T>>) {
        drop(live);
        self.pulse.orphan_ended();
        thread_cache::announce_closed();
    }
}

/// Outside the lock.
fn deliver<T: Send + 'static>(pool: &Shared<T>, handed: Option<Handed<T>>) {
    if let Some((waiter, live)) = handed {
        pool.deliver(&waiter, Mail::Instance(live));
    }
}
