//! Instances that are leased once: their end, and the spares that are made ahead of the next leases.

use std::sync::Arc;

use crate::pool::api::prepared::CodeOrigin;
use crate::pool::claims::Claims;
use crate::pool::cold::lead::Ready;
use crate::pool::cold::request_guard::RequestGuard;
use crate::pool::hot::entry::Entry;
use crate::pool::hot::pooled_instance::PooledInstance;
use crate::pool::hot::slots::Slot;
use crate::pool::hot::spent::Left;
use crate::pool::service::recycler::Recycle;
use crate::pool::shared::{Context, Locked, Shared};
use crate::pool::wait::block_on::block_on;
use crate::pool::wait::policy::WaitPolicy;
use crate::runtime::{Code, guarded};
use crate::state::{RemovalReason, SpareToMake, Stamp};

/// A spare to make, with all that it is made of.
struct Begun<T: Send + 'static> {
    guard: RequestGuard<T>,
    entry: Arc<Entry<T>>,
    ready: Ready,
    code: Code<T>,
}

impl<T: Send + 'static> Entry<T> {
    /// The lease of an instance has ended that is leased once, and well: it is left to the recycler, without a lock, unless
    /// somebody must hear of that.
    #[cold]
    pub(crate) fn spend(&self, pooled: Box<PooledInstance<T>>) {
        let slot = self.slot(pooled.seat);
        slot.end_metered_lease(self.timekeeper.roughly_now());
        if self.is_listened_to(slot) {
            return self.retire(pooled, RemovalReason::Uses);
        }
        match self.spent.leave(pooled) {
            Err(pooled) => return self.retire(pooled, RemovalReason::Uses),
            Ok(Left::ToRecycler) => {}
            Ok(Left::ToSleeper) => {
                if let Some(pool) = self.pool.upgrade() {
                    pool.recycler.ring();
                }
            }
        }
        // Should somebody have begun to listen meanwhile: see `spent.rs`.
        if self.is_listened_to(slot)
            && let Some(pool) = self.pool.upgrade()
        {
            pool.with_state(|_, _| {});
        }
    }

    fn is_listened_to(&self, slot: &Slot<T>) -> bool {
        self.needs_lock() || slot.notifies()
    }
}

impl<T: Send + 'static> Shared<T> {
    /// Under the lock: what was left for the recycler goes, each to be destroyed by itself.
    pub(crate) fn dismiss_spent(
        &self,
        locked: &mut Locked<T>,
        cx: &mut Context<T>,
        condemned: &mut Vec<Context<T>>,
    ) {
        if !locked.recycles {
            return;
        }
        for pooled in self.recycler.spent.take() {
            let Some(entry) = locked.state.home_of(pooled.id) else {
                continue;
            };
            let (id, mut of_it) = (pooled.id, Context::new(Claims::new()));
            entry.slot(pooled.seat).end_lease();
            of_it.slots.insert(&entry, pooled);
            (locked.state).dismiss(id, RemovalReason::Uses, None, &mut of_it);
            locked.hand_out(0, &mut of_it.out);
            // Nobody waits for the recycler to be told.
            cx.out.wake.append(&mut of_it.out.wake);
            condemned.push(of_it);
        }
    }

    /// What was condemned just now is the recycler's to destroy, unless somebody waits for its room, or the recycler has
    /// enough to do.
    pub(crate) fn help_recycler(&self) {
        // Whoever begins to wait later has looked at what is condemned before.
        let is_awaited = || self.lock().state.is_anything_awaited();
        while (self.recycler.needs_help() || is_awaited()) && self.destroy_condemned() {}
    }

    /// Destroys one of those that are the recycler's to destroy, which may be held up; whether there was any.
    pub(crate) fn destroy_condemned(&self) -> bool {
        let condemned = self.recycler.next_condemned();
        let is_any = condemned.is_some();
        if let Some(condemned) = condemned {
            self.carry_out(condemned);
        }
        is_any
    }

    /// Instances of this pool may be leased but once from now on: there is a thread that makes and ends them, unless
    /// the system has none, or the host sweeps by hand. Then leases end their instances, and sweeps make spares.
    pub(crate) fn start_recycler(&self) {
        let is_first = self.with_state(|locked, _| !std::mem::replace(&mut locked.recycles, true));
        if !is_first || !self.timekeeper.has_threads() {
            return;
        }
        let stack = self.runtime.max_wasm_stack();
        if let Err(error) = self.recycler.start(self.this.clone(), stack) {
            guarded("a subscriber", || {
                tracing::error!(%error, "no thread to make spares on");
            });
        }
    }

    fn make_spare(&self, begun: Begun<T>) {
        let Begun {
            guard,
            entry,
            ready,
            code,
        } = begun;
        let finish = || self.finish_spare(&guard, &entry, ready, code);
        if guarded("making a spare", finish) != Some(true) {
            self.with_state(|locked, cx| locked.state.give_up_spare(guard.id(), cx));
        }
    }

    /// The next spare to make, if one is wanted. It pins its code from here on.
    fn begin_spare(&self) -> Option<Begun<T>> {
        let pool = self.this.upgrade()?;
        // A sweep may be anywhere on its thread's stack.
        self.stack.check().ok()?;
        let (spare, code) = self.with_state(|locked, cx| {
            let spare = locked.state.begin_spare(cx)?;
            let code = locked.state.code_of(spare.request);
            Some((spare, code))
        })?;
        let SpareToMake {
            request,
            entry,
            definition: defined,
            ..
        } = spare;
        let guard = RequestGuard::new(&pool, request);
        let code = code?;
        let ready = Ready {
            defined,
            needs: code.instance_needs(),
            origin: CodeOrigin::Present,
        };
        Some(Begun {
            guard,
            entry,
            ready,
            code,
        })
    }

    /// False if there is no room for it, or it could not be made.
    fn finish_spare(
        &self,
        guard: &RequestGuard<T>,
        entry: &Arc<Entry<T>>,
        ready: Ready,
        code: Code<T>,
    ) -> bool {
        let wait_policy = match entry.is_of_tasks() {
            true => self.default_wait_policy().of_a_task(),
            false => WaitPolicy::None,
        };
        let amounts = self.needs(&ready.needs, wait_policy);
        let has_room =
            self.with_state(|locked, _| locked.state.reserve_for_spare(guard.id(), amounts));
        if !has_room {
            return false;
        }
        let making = self.instantiate(guard, entry, &ready, &code, wait_policy);
        let made = block_on(making, &self.timekeeper);
        // As `make` does.
        drop(code);
        let Ok(made) = made else {
            return false;
        };
        let stamp = |_: &mut Locked<T>| Stamp::NEVER;
        match self.install(guard, entry, made, ready.defined, ready.needs, stamp) {
            Ok(spare) => {
                entry.release_spare(self, spare);
                true
            }
            Err(_) => false,
        }
    }
}

impl<T: Send + 'static> Recycle for Shared<T> {
    /// What is spent goes before the next spare is made, which may need its room; but not before that has pinned its code,
    /// which may go with its last instance.
    fn recycle(&self) -> bool {
        let mut worked = false;
        loop {
            let begun = self.begin_spare();
            while self.destroy_condemned() {
                worked = true;
            }
            worked |= begun.is_some();
            match begun {
                Some(begun) => self.make_spare(begun),
                None => return worked,
            }
        }
    }

    fn has_work(&self) -> bool {
        self.recycler.has_condemned() || self.lock().state.wants_spares()
    }
}
