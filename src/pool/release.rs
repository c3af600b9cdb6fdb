//! The slow path of a release: somebody waits, or the instance must not stay.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::entry::{Entry, Live, Parked, Unparked};
use super::hands::Hands;
use super::shared::{Effects, Locked, Shared};
use super::waiter::{Mail, Waiter};
use crate::state::{Reason, Returned};

/// An instance, and who gets it.
type Handed<T> = (Arc<Waiter<T>>, Box<Parked<T>>);

impl<T: Send + 'static> Entry<T> {
    /// A lease ends. Healthy, its instance goes back to its slot; anything else is decided under
    /// the lock.
    #[inline]
    pub fn release(&self, parked: Box<Parked<T>>, healthy: bool) {
        if !healthy {
            return self.retire(parked, Reason::Failed);
        }
        let unparked = if self.keep.looks {
            self.look_and_put(parked)
        } else {
            self.put(parked)
        };
        if let Err(unparked) = unparked {
            self.release_slowly(unparked);
        }
    }

    #[cold]
    fn look_and_put(&self, mut parked: Box<Parked<T>>) -> Result<(), Unparked<T>> {
        let reason = parked
            .live_mut()
            .and_then(|live| self.reason_to_retire(live));
        match reason {
            Some(reason) => {
                self.retire(parked, reason);
                Ok(())
            }
            None => self.put(parked),
        }
    }

    fn reason_to_retire(&self, live: &mut Live<T>) -> Option<Reason> {
        let keep = &self.keep;
        let age = self.pulse.roughly_now().saturating_sub(live.born);
        if live.uses >= keep.max_uses {
            return Some(Reason::Uses);
        }
        if age >= keep.max_lifetime {
            return Some(Reason::Lifetime);
        }
        if live.instance.store.data().memory_bytes() > keep.max_idle_memory {
            return Some(Reason::Oversize);
        }
        let pool = self.pool.upgrade()?;
        let hook = pool.on_recycle.as_ref()?;
        let instance = &mut live.instance;
        // Should the hook lease from this entry, it would wait for itself. And its panic must not lose
        // the instance with its charge.
        let calling = self.slot(live.seat).begin_call();
        let look = AssertUnwindSafe(|| hook(&mut instance.store, &instance.exports));
        let kept = catch_unwind(look);
        drop(calling);
        match kept {
            Ok(Ok(())) => None,
            Ok(Err(_)) | Err(_) => Some(Reason::Discarded),
        }
    }

    /// Ends an instance that its lease holds.
    #[cold]
    pub fn retire(&self, parked: Box<Parked<T>>, reason: Reason) {
        let Some(pool) = self.pool.upgrade() else {
            return self.orphan(parked);
        };
        let Some((id, seat)) = parked.live().map(|live| (live.id, live.seat)) else {
            return;
        };
        pool.with_state(|locked, hands, out| {
            self.slot(seat).forget_notice();
            hands.hold(id, parked);
            locked.state.dismiss(id, reason, None, out);
        });
    }

    #[cold]
    fn release_slowly(&self, unparked: Unparked<T>) {
        let Some(pool) = self.pool.upgrade() else {
            let parked = match unparked {
                Unparked::InHand(parked) => Some(parked),
                Unparked::InSlot(seat) => self.slot(seat).answer(),
            };
            return parked.into_iter().for_each(|parked| self.orphan(parked));
        };
        let handed = pool.with_state(|locked, hands, out| {
            let parked = match unparked {
                Unparked::InHand(parked) => {
                    if let Some(live) = parked.live() {
                        self.slot(live.seat).forget_notice();
                    }
                    Some(parked)
                }
                Unparked::InSlot(seat) => self.slot(seat).answer(),
            };
            match parked {
                Some(parked) => self.settle(parked, locked, hands, out),
                // Another lease has it already, and answers for it when it ends.
                None => {
                    locked.state.wake_room(out);
                    None
                }
            }
        });
        if let Some((waiter, parked)) = handed {
            waiter.deliver(Mail::Instance(parked));
        }
    }

    /// An acquire found what it could not lease: a notice, or an instance of an old version.
    #[cold]
    pub fn settle_odd(&self, pool: &Shared<T>, seat: usize, odd: Box<Parked<T>>) {
        let handed = pool.with_state(|locked, hands, out| {
            let parked = match *odd {
                Parked::Notice => self.slot(seat).return_notice(odd)?,
                Parked::Idle(_) => {
                    self.slot(seat).forget_notice();
                    odd
                }
            };
            self.settle(parked, locked, hands, out)
        });
        if let Some((waiter, parked)) = handed {
            waiter.deliver(Mail::Instance(parked));
        }
    }

    /// Under the lock, with the instance in hand: back to its slot, on to a waiter, or out.
    fn settle(
        &self,
        parked: Box<Parked<T>>,
        locked: &mut Locked<T>,
        hands: &mut Hands<T>,
        out: &mut Effects<T>,
    ) -> Option<Handed<T>> {
        let live = parked.live()?;
        let (id, slot) = (live.id, self.slot(live.seat));
        let now = locked.state.now();
        slot.stamp(locked.stamp(now));
        match locked.state.returned(id, hands, out) {
            Returned::Park => {
                slot.restore(parked);
                locked.state.repay(hands, out);
            }
            Returned::Hand(waiter) => return Some((waiter, parked)),
            Returned::Retire(reason) => {
                hands.hold(id, parked);
                locked.state.dismiss(id, reason, None, out);
            }
        }
        None
    }

    /// The pool is gone, its accounts with it: all that is left to do is to free the memory.
    fn orphan(&self, parked: Box<Parked<T>>) {
        drop(parked);
        self.pulse.orphan_ended();
    }
}
