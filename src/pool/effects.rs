//! What the core has decided is carried out here, outside of the lock: wake, destroy, report. Much of it is
//! host code, so each effect is guarded by itself: whatever one does, the next is carried out.

use std::sync::Arc;

use crate::pool::hands::{Hands, Held};
use crate::pool::service::observe::Eviction;
use crate::pool::shared::{DyingId, Effects, Kept, Shared, Signal};
use crate::pool::wait::waiter::{Mail, Waiter};
use crate::runtime::guarded;
use crate::state::{Budget, Destroy, Reason};

/// What a thread has been told to destroy. When it is done, or torn out of its work, whatever it has not reported
/// as freed is nobody's any more, and the books say so: see **D1**.
struct Destroying<'a, T: Send + 'static> {
    pool: &'a Shared<T>,
    ids: Vec<DyingId<T>>,
}

impl<T: Send + 'static> Drop for Destroying<'_, T> {
    fn drop(&mut self) {
        if !self.ids.is_empty() {
            self.pool.lock().lose(self.ids.iter());
        }
    }
}

impl<T: Send + 'static> Shared<T> {
    /// Wakes who is to be woken and destroys what is to be destroyed; what the core says to that is carried
    /// out as well, until there is nothing left. Each charge is given back as soon as its memory is. Listeners
    /// are told at the end: one that waits for the room of something evicted with it finds it freed.
    pub(crate) fn carry_out(&self, mut effects: Effects<T>, mut hands: Hands<T>) {
        let mut destroying = Destroying {
            pool: self,
            ids: Vec::new(),
        };
        let mut evictions = Vec::new();
        loop {
            for (waiter, signal) in effects.wake.drain(..) {
                self.deliver(&waiter, Mail::Signal(signal));
            }
            if effects.destroy.is_empty() {
                break;
            }
            let victims = std::mem::take(&mut effects.destroy);
            destroying.ids.extend(victims.iter().map(Destroy::dying));
            for victim in victims {
                let dying = victim.dying();
                let destroyed =
                    guarded("destroying something", || self.destroy(victim, &mut hands));
                evictions.extend(destroyed.flatten());
                self.lock().freed(dying, &mut effects);
                for (waiter, signal) in effects.wake.drain(..) {
                    self.deliver(&waiter, Mail::Signal(signal));
                }
            }
        }
        drop(destroying);
        for eviction in &evictions {
            self.observer.evicted(eviction);
        }
    }

    /// Tells a waiter, or hands it an instance. Outside of the lock: it wakes.
    pub(crate) fn deliver(&self, waiter: &Arc<Waiter<T>>, mail: Mail<T>) {
        let is_worth_something = match &mail {
            Mail::Instance(_) | Mail::Signal(Signal::Seat(_) | Signal::Retry) => true,
            Mail::Signal(Signal::Gone | Signal::Closed | Signal::Late) => false,
        };
        match waiter.deliver(mail) {
            Some(unread) => self.return_to_sender(unread),
            None if is_worth_something && waiter.is_of_a_task() => {
                let expires = waiter.expires(self.pulse.now());
                self.unread.add(expires, waiter.clone());
            }
            None => {}
        }
    }

    /// What tasks have not taken by their deadlines is for the next; requests whose deadlines have come while
    /// they slept end.
    pub(crate) fn expire(&self) {
        self.with_state(|locked, _, out| locked.state.expire(out));
        for parcel in self.unread.due(self.pulse.now()) {
            guarded("taking back what nobody has read", || {
                parcel.take_back(self);
            });
        }
    }

    /// Whoever waited for this mail has gone: what it brings is for the next.
    pub(crate) fn return_to_sender(&self, unread: Mail<T>) {
        match unread {
            Mail::Instance(live) => {
                let entry = self.with_state(|locked, _, _| locked.state.home_of(live.id));
                match entry {
                    Some(entry) => entry.release(live, true),
                    None => drop(live),
                }
            }
            Mail::Signal(Signal::Seat(request)) => {
                self.with_state(|locked, _, out| locked.state.abandon(request, out));
            }
            Mail::Signal(Signal::Retry | Signal::Gone | Signal::Closed | Signal::Late) => {}
        }
    }

    /// Frees the memory; what there is to report about it.
    fn destroy(&self, victim: Destroy<Kept<T>>, hands: &mut Hands<T>) -> Option<Eviction> {
        match victim {
            Destroy::Instance {
                instance, reason, ..
            } => hands.take(instance).map(|held| bury(held, reason)),
            Destroy::Code { code, .. } => {
                let bytes = code.amounts().get(Budget::Code);
                drop(code);
                guarded("a subscriber", || {
                    tracing::debug!(bytes, "code dropped");
                });
                self.observer.code_dropped();
                None
            }
        }
    }
}

/// Frees an instance's memory.
fn bury<T: Send + 'static>(held: Held<T>, reason: Reason) -> Eviction {
    let Held { asker, live } = held;
    let eviction = Eviction {
        function: asker.function.clone(),
        group: asker.group.clone(),
        reason,
        memory_bytes: live.instance.store.data().memory_bytes(),
        uses: live.uses,
    };
    let enter = || {
        tracing::debug_span!(
            "evict",
            function = %eviction.function,
            group = %eviction.group,
            reason = reason.name(),
        )
        .entered()
    };
    let span = guarded("a subscriber", enter);
    drop(live);
    guarded("a subscriber", || drop(span));
    eviction
}
