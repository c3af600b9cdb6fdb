//! Making an instance: code, room, instantiation, a seat.

use std::sync::Arc;

use crate::pool::api::error::AcquireError;
use crate::pool::cold::acquire::{closed, stack_too_small};
use crate::pool::cold::growth::Account;
use crate::pool::cold::guest_poll::{Ended, GuestPoll};
use crate::pool::cold::lead::Ready;
use crate::pool::cold::request_guard::RequestGuard;
use crate::pool::cold::reserve::{Need, Reservation};
use crate::pool::defined::Defined;
use crate::pool::hot::entry::Entry;
use crate::pool::hot::pooled_instance::PooledInstance;
use crate::pool::hot::slots::Slot;
use crate::pool::shared::{Locked, RequestId, Shared};
use crate::pool::wait::policy::WaitPolicy;
use crate::runtime::{
    CallFailure, CallLimits, Code, Instance, InstanceNeeds, InstantiateFailure, Meter, Relief,
    StackQuota, interrupt_each_tick, new_store, resolve_exports, runs_as_task_only, set_yields,
    share,
};
use crate::state::{Amounts, Stale, Stamp};
use crate::sync::unchecked::thread;

/// How often a pooling allocator is asked again that has no place: it takes some for a moment itself, where code goes, and
/// may miss one that comes free while it looks elsewhere.
const LOOKS: usize = 16;

/// An instance that has no seat yet.
pub(crate) struct Made<T: Send + 'static> {
    instance: Instance<T>,
    stack_quota: Option<Arc<StackQuota>>,
}

impl<T: Send + 'static> Shared<T> {
    /// Makes an instance for the seat that was promised to `request`, and leases it.
    pub(crate) async fn make(
        self: &Arc<Self>,
        entry: &Arc<Entry<T>>,
        request: RequestId<T>,
        mut wait_policy: WaitPolicy,
    ) -> Result<Box<PooledInstance<T>>, AcquireError> {
        entry.note_maker(wait_policy.is_of_a_task());
        let mut guard = RequestGuard::new(self, request);
        let (mut relief, mut looks) = (Relief::default(), LOOKS);
        loop {
            let ready;
            (guard, ready, wait_policy) = self.code_for(guard, &entry.target, wait_policy).await?;
            let amounts = self.needs(&ready.needs, wait_policy);
            let need = Need::of(&guard, &entry.target, amounts);
            // Whoever has compiled the code holds this already, and is granted it at once.
            match self.look_for_room(&need, wait_policy) {
                Reservation::Granted => {}
                Reservation::Evicted => continue,
                Reservation::Queued(queued) => {
                    self.wait_for_room(&need, wait_policy, queued).await?;
                    // The code may have been evicted meanwhile.
                    continue;
                }
                Reservation::Refused(error) => return Err(error),
            }
            // The request pins it; it is not held in any other way while somebody may wait for its room.
            let Some(code) = self.with_state(|locked, _| locked.state.code_of(guard.id())) else {
                continue;
            };
            let made = match self
                .instantiate(&guard, entry, &ready, &code, wait_policy)
                .await
            {
                Err(AcquireError::System { source, .. })
                    if looks > 0 && source.is_of_allocator() =>
                {
                    looks -= 1;
                    thread::yield_now();
                    continue;
                }
                Err(AcquireError::System { .. })
                    if relief.next().is_some_and(|n| self.relieve(n)) =>
                {
                    continue;
                }
                made => made?,
            };
            // The pin ends when the instance is installed; nothing else may hold the code then.
            drop(code);
            let now = self.timekeeper.now();
            let stamp = |locked: &mut Locked<T>| locked.stamp(now);
            match self.install(&guard, entry, made, ready.defined, ready.needs, stamp) {
                Ok(pooled) => return Ok(pooled),
                // The function was replaced meanwhile: what was made is destroyed, and this begins again.
                Err(Stale) => continue,
            }
        }
    }

    /// What an instance takes when it is made: for a task, a stack as well.
    pub(crate) fn needs(&self, needs: &InstanceNeeds, wait_policy: WaitPolicy) -> Amounts {
        let stack = match wait_policy.is_of_a_task() {
            true => self.runtime.stack_amounts(),
            false => Amounts::ZERO,
        };
        needs.declared().saturating_add(&stack)
    }

    pub(crate) async fn instantiate(
        &self,
        guard: &RequestGuard<T>,
        entry: &Arc<Entry<T>>,
        ready: &Ready,
        code: &Code<T>,
        wait_policy: WaitPolicy,
    ) -> Result<Made<T>, AcquireError> {
        let limits = ready.defined.limits;
        if limits.have_an_end() || wait_policy.is_of_a_task() {
            self.timekeeper.keep_ticking();
        }
        let account = || Account::of_request(entry, guard.id());
        let stack_quota =
            (wait_policy.is_of_a_task()).then(|| self.runtime.stack_quota(Arc::new(account())));
        let meter = Meter::new(
            Box::new(account()),
            ready.defined.max_memory,
            self.settings.instance.table_elements,
            ready.needs.metered,
        );
        // Host code runs from here on; should it lease from this entry, it would wait for itself.
        if wait_policy.is_of_a_task() {
            // This may be polled on another stack than before.
            self.stack
                .check_for_task()
                .map_err(|source| stack_too_small(&entry.target, source))?;
        }
        // (Nobody waits for a spare, and its seat may be taken over meanwhile.)
        let seat = self.with_state(|locked, _| {
            let state = &locked.state;
            state
                .seat_of(guard.id())
                .filter(|_| !state.is_for_spare(guard.id()))
        });
        let slot = seat.map(|seat| entry.slot(seat));
        let explain = |failure| self.explain(entry, &ready.defined, failure);
        let span = self.instantiate_span(entry);
        let mut store = {
            let _calling = slot.map(|slot| slot.begin_call());
            let data = span.in_scope(|| (self.make_data)(&entry.name, &entry.target.group));
            let fuel_yield = self.settings.fuel_yield;
            new_store(&self.runtime, data, meter, limits, fuel_yield).map_err(explain)?
        };
        let instantiated = match &stack_quota {
            None => {
                let _calling = slot.map(|slot| slot.begin_call());
                let made = span.in_scope(|| code.linked().instantiate(&mut store));
                if made.is_err() && runs_as_task_only(&mut store) {
                    let target = entry.target.clone();
                    return Err(AcquireError::AsyncRequired { target });
                }
                made
            }
            Some(stack_quota) => {
                let cancel = interrupt_each_tick(&mut store, limits);
                set_yields(&mut store, true);
                let guest_poll = GuestPoll {
                    entry,
                    slot,
                    meter: None,
                    stack_quota: stack_quota.clone(),
                    cancel: &cancel,
                    ends: ready.defined.end_of_time(&self.timekeeper),
                };
                let started = guest_poll.run(|| code.linked().instantiate_async(&mut store));
                match started.await {
                    Ok(instantiated) => instantiated,
                    Err(Ended::Cancelled | Ended::Late) => {
                        let failure = InstantiateFailure::Start(CallFailure::Deadline);
                        return Err(explain(failure));
                    }
                }
            }
        };
        let export = &ready.defined.export;
        let mut instance = resolve_exports(store, instantiated, export).map_err(explain)?;
        instance.stop_interrupts();
        self.created(entry, slot, &mut instance, limits)?;
        Ok(Made {
            instance,
            stack_quota,
        })
    }

    fn instantiate_span(&self, entry: &Entry<T>) -> tracing::Span {
        tracing::debug_span!(
            "instantiate",
            function = %entry.target.signature,
            group = %entry.target.group,
        )
    }

    /// Runs the host's `on_create` hook. What that calls has fuel and time of its own: the start function has
    /// used some, and a task's store is interrupted at the next tick.
    fn created(
        &self,
        entry: &Entry<T>,
        slot: Option<&Slot<T>>,
        instance: &mut Instance<T>,
        limits: CallLimits,
    ) -> Result<(), AcquireError> {
        let Some(hook) = &self.on_create else {
            return Ok(());
        };
        // A task's acquire is polled on any stack, and a hook may call the guest.
        self.stack
            .check()
            .map_err(|source| stack_too_small(&entry.target, source))?;
        let _calling = slot.map(|slot| slot.begin_call());
        let hooked = instance.refresh(limits);
        let hooked = hooked.and_then(|()| hook(&mut instance.store, &instance.exports));
        hooked.map_err(|error| AcquireError::Instantiate {
            target: entry.target.clone(),
            source: share(error),
        })
    }

    fn explain(
        &self,
        entry: &Entry<T>,
        defined: &Defined,
        failure: InstantiateFailure,
    ) -> AcquireError {
        let target = entry.target.clone();
        let failure = match failure {
            InstantiateFailure::Start(failure) => failure,
            InstantiateFailure::Other(source) => {
                return AcquireError::Instantiate { target, source };
            }
            InstantiateFailure::System(refused) => {
                let source = refused.into();
                return AcquireError::System { target, source };
            }
            InstantiateFailure::Refused(refusal) => {
                let source = Arc::new(refusal);
                return AcquireError::Instantiate { target, source };
            }
        };
        self.observer.guest_failed(failure.kind());
        self.note_failure(entry, defined, &failure);
        match failure {
            CallFailure::Fuel => {
                let limit = defined.fuel_limit();
                AcquireError::StartLimit { target, limit }
            }
            CallFailure::Deadline => {
                let limit = defined.time_limit();
                AcquireError::StartLimit { target, limit }
            }
            CallFailure::Trap(trap) => AcquireError::StartTrapped { target, trap },
            CallFailure::Host(source) => AcquireError::Instantiate { target, source },
            CallFailure::Cancelled => closed(&target),
        }
    }

    /// The instance is there: it takes its charge and its seat. If its function was replaced while
    /// it was made, it is destroyed here, and its charge stays with the request.
    pub(crate) fn install(
        &self,
        guard: &RequestGuard<T>,
        entry: &Arc<Entry<T>>,
        made: Made<T>,
        defined: Arc<Defined>,
        needs: InstanceNeeds,
        stamp: impl FnOnce(&mut Locked<T>) -> Stamp,
    ) -> Result<Box<PooledInstance<T>>, Stale> {
        let Made {
            mut instance,
            stack_quota,
        } = made;
        let mut held = needs.with_metered(instance.store.data_mut().meter().held());
        if stack_quota.is_some() {
            held = held.saturating_add(&self.runtime.stack_amounts());
        }
        let (id, seat, version, created_at) = self.with_state(|locked, cx| {
            let stamp = stamp(locked);
            let id = locked.state.install(guard.id(), held, stamp, cx)?;
            let born = locked.state.instance(id).ok_or(Stale)?;
            let (seat, version) = (born.seat(), born.version);
            let now = locked.state.now();
            entry.slot(seat).begin_instance(stamp, now);
            Ok((id, seat, version, now))
        })?;
        let account = || Account::of_instance(entry, id, seat);
        if let Some(stack_quota) = stack_quota {
            stack_quota.rebind(Arc::new(account()));
            instance.set_stack_quota(stack_quota);
        }
        instance
            .store
            .data_mut()
            .meter()
            .rebind(Box::new(account()));
        Ok(Box::new(PooledInstance {
            instance,
            id,
            seat,
            control: Entry::<T>::control_of(version),
            defined,
            uses: 0,
            created_at,
        }))
    }
}
