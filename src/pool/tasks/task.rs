//! Leases and calls of tasks: nothing here blocks a thread.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use wasmtime::{WasmParams, WasmResults};

use crate::pool::api::acquire_options::AcquireOptions;
use crate::pool::api::error::{AcquireError, CallError};
use crate::pool::api::function::{Function, InGroup};
use crate::pool::api::group_key::{AsGroup, GroupKey};
use crate::pool::api::lease::{
    Home, Lease, UNTIL_DROPPED, broken, explain, failed, stack_too_small,
};
use crate::pool::api::target::Target;
use crate::pool::cold::acquire::closed;
use crate::pool::cold::growth::Account;
use crate::pool::cold::guest_poll::{Ended, GuestPoll};
use crate::pool::cold::request_guard::RequestGuard;
use crate::pool::cold::reserve::Need;
use crate::pool::hot::entry::{Entry, Taken};
use crate::pool::hot::pooled_instance::PooledInstance;
use crate::pool::hot::thread_cache;
use crate::pool::shared::{InstanceId, Shared};
use crate::pool::wait::policy::WaitPolicy;
use crate::runtime::{CallFailure, set_yields};
use crate::state::RemovalReason;

/// A guest's call, on its fiber.
pub(crate) type Running<'a, X> = Pin<Box<dyn Future<Output = wasmtime::Result<X>> + Send + 'a>>;

impl<P, R, T: Send + 'static> Function<P, R, T> {
    /// As [`Self::acquire`], without blocking a thread: a task of any executor. Waits in one queue
    /// with the threads, first come first served. Compilation and loading happen on threads of the
    /// pool's own.
    ///
    /// The instance has a fiber stack, charged to the `stack` budget; idle instances are evicted for
    /// it, the least recently used first. Dropped before it is ready, the future leaves nothing
    /// behind.
    ///
    /// # Errors
    /// As [`Self::acquire`].
    pub async fn acquire_async(
        &self,
        group: impl AsGroup,
    ) -> Result<Lease<'static, P, R, T>, AcquireError> {
        let wait_policy = || self.pool.default_wait_policy();
        self.lease_async(group.key(), wait_policy).await
    }

    /// As [`Self::acquire_timeout`], without blocking a thread.
    ///
    /// # Errors
    /// As [`Self::acquire_timeout`].
    pub async fn acquire_async_timeout(
        &self,
        group: impl AsGroup,
        timeout: Duration,
    ) -> Result<Lease<'static, P, R, T>, AcquireError> {
        self.acquire_async_with(group, AcquireOptions::new().timeout(timeout))
            .await
    }

    /// As [`Self::acquire_with`], without blocking a thread.
    ///
    /// # Errors
    /// As [`Self::acquire_with`].
    pub async fn acquire_async_with(
        &self,
        group: impl AsGroup,
        options: AcquireOptions,
    ) -> Result<Lease<'static, P, R, T>, AcquireError> {
        let wait_policy = || self.pool.wait_policy(options);
        self.lease_async(group.key(), wait_policy).await
    }

    async fn lease_async(
        &self,
        group: GroupKey<'_>,
        wait_policy: impl Fn() -> WaitPolicy,
    ) -> Result<Lease<'static, P, R, T>, AcquireError> {
        let mut successor: Option<Self> = None;
        loop {
            let function = successor.as_ref().unwrap_or(self);
            let leased = match function.entry(group) {
                Ok(entry) => {
                    let home = || Home::Carried(Some(entry.clone()));
                    let leased = self.pool.lease_for_task(home, &entry, &wait_policy).await;
                    // For the thread's other tasks.
                    thread_cache::put_back(entry);
                    leased
                }
                Err(error) => Err(error),
            };
            match leased {
                Ok(lease) => return Ok(lease),
                Err(error) => successor = Some(function.follow(error)?),
            }
        }
    }
}

impl<P, R, T: Send + 'static> InGroup<P, R, T> {
    /// As [`Function::acquire_async`].
    ///
    /// # Errors
    /// As [`Function::acquire_async`].
    pub async fn acquire_async(&self) -> Result<Lease<'_, P, R, T>, AcquireError> {
        let wait_policy = || self.function.pool.default_wait_policy();
        self.lease_async(wait_policy).await
    }

    /// As [`Self::acquire_async`], with a lease that borrows nothing: see [`Self::acquire_owned`].
    ///
    /// # Errors
    /// As [`Function::acquire_async`].
    pub async fn acquire_owned_async(&self) -> Result<Lease<'static, P, R, T>, AcquireError> {
        self.acquire_owned_async_with(AcquireOptions::new()).await
    }

    /// As [`Self::acquire_owned_async`], but waits as `options` say.
    ///
    /// # Errors
    /// As [`Function::acquire_async_with`].
    pub async fn acquire_owned_async_with(
        &self,
        options: AcquireOptions,
    ) -> Result<Lease<'static, P, R, T>, AcquireError> {
        self.resolved()?;
        self.function
            .acquire_async_with(self.group(), options)
            .await
    }

    /// As [`Function::acquire_async_timeout`].
    ///
    /// # Errors
    /// As [`Function::acquire_async_timeout`].
    pub async fn acquire_async_timeout(
        &self,
        timeout: Duration,
    ) -> Result<Lease<'_, P, R, T>, AcquireError> {
        self.acquire_async_with(AcquireOptions::new().timeout(timeout))
            .await
    }

    /// As [`Function::acquire_async_with`].
    ///
    /// # Errors
    /// As [`Function::acquire_async_with`].
    pub async fn acquire_async_with(
        &self,
        options: AcquireOptions,
    ) -> Result<Lease<'_, P, R, T>, AcquireError> {
        let wait_policy = || self.function.pool.wait_policy(options);
        self.lease_async(wait_policy).await
    }

    async fn lease_async(
        &self,
        wait_policy: impl Fn() -> WaitPolicy,
    ) -> Result<Lease<'_, P, R, T>, AcquireError> {
        let (pool, entry) = (&self.function.pool, self.resolved()?);
        let home = || Home::Borrowed(entry);
        match pool.lease_for_task(home, entry, &wait_policy).await {
            Ok(lease) => Ok(lease),
            Err(error) => {
                let successor = self.function.follow(error)?;
                let group = entry.target.group.key();
                successor.lease_async(group, wait_policy).await
            }
        }
    }
}

impl<P, R, T> Function<P, R, T>
where
    P: WasmParams + Sync + 'static,
    R: WasmResults + Sync + 'static,
    T: Send + 'static,
{
    /// Acquires, calls, releases, as a task. Dropping the future stops the call, wherever it is.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call_async(&self, group: impl AsGroup, params: P) -> Result<R, CallError> {
        let mut lease = self.acquire_async(group).await?;
        lease.call_async(params).await
    }
}

impl<P, R, T> InGroup<P, R, T>
where
    P: WasmParams + Sync + 'static,
    R: WasmResults + Sync + 'static,
    T: Send + 'static,
{
    /// Acquires, calls, releases, as a task.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call_async(&self, params: P) -> Result<R, CallError> {
        let mut lease = self.acquire_async().await?;
        lease.call_async(params).await
    }
}

impl<P, R, T> Lease<'_, P, R, T>
where
    P: WasmParams + Sync + 'static,
    R: WasmResults + Sync + 'static,
    T: Send + 'static,
{
    /// Calls the function as a task, on a fiber of its own: the guest lets others go on at each tick
    /// of the epoch, and while it waits for host functions that are async. Dropping the future stops
    /// the call, and the instance is retired with the lease.
    ///
    /// # Errors
    /// As [`Self::call`]; [`CallError::Acquire`] when the stack budget has no room (only for a lease
    /// that was not acquired as a task).
    pub async fn call_async(&mut self, params: P) -> Result<R, CallError> {
        self.ready_for_task().await?;
        let (guest_poll, pooled) = self.begin_task()?;
        let ended = guest_poll.run(|| pooled.instance.call_async(params)).await;
        self.end_task(ended)
    }
}

impl<P, R, T: Send + 'static> Lease<'_, P, R, T> {
    /// As `run_guest`, for a task.
    pub(crate) async fn run_guest_async<X>(
        &mut self,
        run: impl for<'x> FnOnce(&'x mut PooledInstance<T>) -> Running<'x, X> + Send,
    ) -> Result<X, CallError> {
        self.ready_for_task().await?;
        let (guest_poll, pooled) = self.begin_task()?;
        let ended = guest_poll.run(|| run(pooled)).await;
        self.end_task(ended)
    }

    /// Sees to it that there is a stack for a call.
    async fn ready_for_task(&mut self) -> Result<(), CallError> {
        self.is_of_a_task = true;
        if self.pooled().instance.stack_quota().is_none() {
            self.ensure_stack_for_call().await?;
        }
        if let Err(source) = self.home.entry().stack.check_for_task() {
            return Err(stack_too_small(self.target(), source));
        }
        Ok(())
    }

    /// A guest's call begins: how it is polled, and in which instance. The lease is broken until
    /// [`Self::end_task`].
    fn begin_task(&mut self) -> Result<(GuestPoll<'_, T>, &mut PooledInstance<T>), CallError> {
        let ends = self.end_of_time();
        let Self {
            pooled,
            home,
            healthy,
            interruptible,
            ..
        } = self;
        let entry = home.entry();
        let pooled = pooled.as_deref_mut().expect(UNTIL_DROPPED);
        let stack_quota = pooled.instance.stack_quota().filter(|_| *healthy).cloned();
        let (Some(stack_quota), Some(interruptible)) = (stack_quota, interruptible) else {
            return Err(broken(&entry.target));
        };
        *healthy = false;
        set_yields(&mut pooled.instance.store, true);
        let slot = entry.slot(pooled.seat);
        let meter = slot.meter();
        meter.inspect(|meter| meter.count_call());
        let guest_poll = GuestPoll {
            entry,
            slot: Some(slot),
            meter,
            stack_quota,
            cancel: &interruptible.cancel,
            ends,
        };
        Ok((guest_poll, pooled))
    }

    fn end_task<X>(&mut self, ended: Result<wasmtime::Result<X>, Ended>) -> Result<X, CallError> {
        let entry = self.home.entry();
        let pooled = self.pooled.as_deref_mut().expect(UNTIL_DROPPED);
        set_yields(&mut pooled.instance.store, false);
        match ended {
            Ok(Ok(value)) => {
                self.healthy = true;
                Ok(value)
            }
            Ok(Err(error)) => Err(explain(entry, pooled, error)),
            Err(ended) => Err(interrupted(entry, pooled, &ended)),
        }
    }

    /// A lease that was acquired by a thread gets its stack at the first call of a task.
    async fn ensure_stack_for_call(&mut self) -> Result<(), CallError> {
        let entry = self.home.entry();
        let Some(pool) = entry.pool.upgrade() else {
            return Err(closed(&entry.target).into());
        };
        let wait_policy = pool.default_wait_policy().of_a_task();
        Ok(self.ensure_stack(&pool, wait_policy).await?)
    }

    /// When the time of this lease's tasks is over. It begins with the first call.
    fn end_of_time(&mut self) -> u64 {
        if let Some(ends) = self.interruptible().ends {
            return ends;
        }
        let ends = self
            .pooled()
            .defined
            .end_of_time(&self.home.entry().timekeeper);
        *self.interruptible().ends.insert(ends)
    }

    /// Charges a stack, if the instance has none yet.
    async fn ensure_stack(
        &mut self,
        pool: &Arc<Shared<T>>,
        wait_policy: WaitPolicy,
    ) -> Result<(), AcquireError> {
        let pooled = self.pooled.as_deref_mut().expect(UNTIL_DROPPED);
        if pooled.instance.stack_quota().is_some() {
            return Ok(());
        }
        let entry = pool.with_state(|locked, _| locked.state.home_of(pooled.id));
        let entry = entry.ok_or_else(|| closed(&self.home.entry().target))?;
        pool.charge_stack(&entry.target, pooled.id, wait_policy)
            .await?;
        let account = Arc::new(Account::of_instance(&entry, pooled.id, pooled.seat));
        let stack_quota = pool.runtime.stack_quota(account);
        pooled.instance.set_stack_quota(stack_quota);
        Ok(())
    }
}

fn interrupted<T: Send + 'static>(
    entry: &Entry<T>,
    pooled: &PooledInstance<T>,
    ended: &Ended,
) -> CallError {
    let failure = match ended {
        Ended::Cancelled => CallFailure::Cancelled,
        Ended::Late => CallFailure::Deadline,
    };
    failed(entry, pooled, failure)
}

impl<T: Send + 'static> Shared<T> {
    /// Leases an instance that has a stack. A warm one does not read the clock.
    async fn lease_for_task<'a, P, R>(
        self: &Arc<Self>,
        home: impl Fn() -> Home<'a, T>,
        entry: &Arc<Entry<T>>,
        wait_policy: impl Fn() -> WaitPolicy,
    ) -> Result<Lease<'a, P, R, T>, AcquireError> {
        let begin = |pooled| {
            let mut lease = Lease::begin(home(), pooled);
            lease.is_of_a_task = true;
            lease
        };
        let mut warm = match entry.take_for_task() {
            Taken::Idle(pooled) => Some(begin(pooled)),
            Taken::Stale(stale) => {
                entry.release_stale(self, stale);
                None
            }
            Taken::Nothing => None,
        };
        if let Some(lease) = warm.take_if(|lease| lease.pooled().instance.stack_quota().is_some()) {
            return Ok(lease);
        }
        let wait_policy = wait_policy().of_a_task();
        loop {
            let mut lease = match warm.take() {
                Some(lease) => lease,
                None => begin(self.obtain(entry, wait_policy).await?),
            };
            match lease.ensure_stack(self, wait_policy).await {
                Ok(()) => return Ok(lease),
                // Whoever waits for room holds nothing. Made anew, it waits for all that it needs.
                Err(AcquireError::BudgetExceeded(short))
                    if wait_policy.waits_for_room() && short.requested <= short.limit =>
                {
                    lease.retire(RemovalReason::Room);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Charges a stack to an instance, evicting what is idle; never waits for a lease.
    async fn charge_stack(
        self: &Arc<Self>,
        target: &Arc<Target>,
        instance: InstanceId<T>,
        wait_policy: WaitPolicy,
    ) -> Result<(), AcquireError> {
        let request = self.with_state(|locked, _| {
            let entry = locked.state.instance(instance).map(|i| i.entry);
            locked.state.begin_growth(entry)
        });
        let growth = RequestGuard::new(self, request);
        let stack = self.runtime.stack_amounts();
        let wait_policy = wait_policy.without_room();
        let need = Need::of(&growth, target, stack);
        self.reserve(&need, wait_policy).await?;
        self.with_state(|locked, cx| locked.state.grown(growth.id(), instance, cx));
        Ok(())
    }
}
