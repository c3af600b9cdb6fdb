//! What the core has decided is carried out here, outside of the lock: wake, destroy, report. Much of it is
//! host code, so each effect is guarded by itself: whatever one does, the next is carried out.

use std::sync::Arc;

use crate::pool::claims::{Claimed, Claims};
use crate::pool::service::observe::Removal;
use crate::pool::shared::{Context, DyingId, Shared, ShellTypes, Signal};
use crate::pool::wakeup::{Waiter, Wakeup};
use crate::runtime::guarded;
use crate::state::{Budget, Destroy, RemovalReason};

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
    pub(crate) fn carry_out(&self, cx: Context<T>) {
        let Context {
            slots: mut claims,
            out: mut effects,
        } = cx;
        let mut destroying = Destroying {
            pool: self,
            ids: Vec::new(),
        };
        let mut removals = Vec::new();
        loop {
            for (waiter, signal) in effects.wake.drain(..) {
                self.deliver(&waiter, Wakeup::Signal(signal));
            }
            for source in effects.sources.drain(..) {
                guarded("dropping imports", || drop(source));
            }
            if effects.destroy.is_empty() {
                break;
            }
            let victims = std::mem::take(&mut effects.destroy);
            destroying.ids.extend(victims.iter().map(Destroy::dying));
            for victim in victims {
                let dying = victim.dying();
                let destroyed =
                    guarded("destroying something", || self.destroy(victim, &mut claims));
                removals.extend(destroyed.flatten());
                self.lock().freed(dying, &mut effects);
                for (waiter, signal) in effects.wake.drain(..) {
                    self.deliver(&waiter, Wakeup::Signal(signal));
                }
            }
        }
        drop(destroying);
        for removal in &removals {
            self.observer.tell(removal);
        }
    }

    /// Tells a waiter, or hands it an instance. Outside of the lock: it wakes.
    pub(crate) fn deliver(&self, waiter: &Arc<Waiter<T>>, wakeup: Wakeup<T>) {
        let is_worth_something = match &wakeup {
            Wakeup::Instance(_) | Wakeup::Signal(Signal::Seat(_) | Signal::Retry) => true,
            Wakeup::Signal(Signal::Gone | Signal::Closed | Signal::Late) => false,
        };
        match waiter.deliver(wakeup) {
            Some(undelivered) => self.redirect(undelivered),
            None if is_worth_something && waiter.is_of_a_task() => {
                let expires = waiter.expires(self.timekeeper.now());
                self.undelivered.add(expires, waiter.clone());
            }
            None => {}
        }
    }

    /// What tasks have not taken by their deadlines is for the next; requests whose deadlines have come while
    /// they slept end.
    pub(crate) fn expire(&self) {
        self.with_state(|locked, cx| locked.state.expire(&mut cx.out));
        for delivery in self.undelivered.due(self.timekeeper.now()) {
            let later = guarded("taking back what nobody has read", || {
                delivery.take_back(self)
            });
            if let Some(delay) = later.flatten() {
                let at = self.timekeeper.now().saturating_add(delay);
                self.undelivered.add(at, delivery);
            }
        }
    }

    /// Whoever waited for this has gone: what it was handed is for the next.
    pub(crate) fn redirect(&self, undelivered: Wakeup<T>) {
        match undelivered {
            Wakeup::Instance(pooled) => {
                let entry = self.with_state(|locked, _| locked.state.home_of(pooled.id));
                match entry {
                    // Nobody has used it.
                    Some(entry) if pooled.defined.is_pristine() && pooled.uses == 0 => {
                        entry.release_spare(self, pooled);
                    }
                    Some(entry) => entry.release(pooled, true),
                    None => drop(pooled),
                }
            }
            Wakeup::Signal(Signal::Seat(request)) => {
                self.with_state(|locked, cx| locked.state.abandon(request, &mut cx.out));
            }
            Wakeup::Signal(Signal::Retry | Signal::Gone | Signal::Closed | Signal::Late) => {}
        }
    }

    /// Frees the memory; what there is to report about it.
    fn destroy(&self, victim: Destroy<ShellTypes<T>>, claims: &mut Claims<T>) -> Option<Removal> {
        match victim {
            Destroy::Instance {
                instance, reason, ..
            } => {
                self.observer.removed(reason);
                let claimed = claims.take(instance)?;
                Some(free_instance(claimed, reason))
            }
            Destroy::Code { code, .. } => {
                self.observer.code_dropped();
                let bytes = code.amounts().get(Budget::Code);
                drop(code);
                guarded("a subscriber", || {
                    tracing::debug!(bytes, "code dropped");
                });
                None
            }
        }
    }
}

/// Frees an instance's memory.
fn free_instance<T: Send + 'static>(claimed: Claimed<T>, reason: RemovalReason) -> Removal {
    let Claimed { target, pooled } = claimed;
    let removal = Removal {
        signature: target.signature.clone(),
        group: target.group.clone(),
        reason,
        memory_bytes: pooled.instance.store.data().memory_bytes(),
        uses: pooled.uses,
    };
    let enter = || {
        tracing::debug_span!(
            "destroy",
            function = %removal.signature,
            group = %removal.group,
            reason = reason.name(),
        )
        .entered()
    };
    let span = guarded("a subscriber", enter);
    drop(pooled);
    guarded("a subscriber", || drop(span));
    removal
}
