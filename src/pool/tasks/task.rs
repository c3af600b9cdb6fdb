//! Leases and calls of tasks: nothing here blocks a thread.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use wasmtime::{Val, WasmParams, WasmResults};

use crate::pool::api::definition::Dynamic;
use crate::pool::api::error::{AcquireError, Asker, CallError};
use crate::pool::api::function::{Function, InGroup};
use crate::pool::api::lease::{
    Export, Home, Lease, UNTIL_DROPPED, broken, explain, failed, stack_too_small,
};
use crate::pool::cold::acquire::closed;
use crate::pool::cold::growth::Account;
use crate::pool::cold::request::Making;
use crate::pool::hot::entry::{Entry, Live, Taken};
use crate::pool::hot::thread_cache;
use crate::pool::shared::{InstanceId, Shared};
use crate::pool::tasks::watch::{Ended, Watch};
use crate::pool::wait::policy::Patience;
use crate::runtime::{CallFailure, Purse, set_yields};
use crate::state::{Group, Reason};

/// Why a guest can be called by a task alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AsyncReason {
    /// The lease is a task's (acquired as a task, or called as one), and a guest's allocator may take as
    /// long as any guest: it would keep the executor's thread.
    LeaseOfATask,
    /// Guests run only as tasks: they import async host functions, or the pool has a
    /// [`fuel_yield_interval`](crate::Builder::fuel_yield_interval).
    TasksOnly,
}

impl fmt::Display for AsyncReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LeaseOfATask => {
                "the lease is a task's, and the guest's allocator would keep the executor's thread"
            }
            Self::TasksOnly => {
                "its guests run only as tasks, because of async imports or the fuel_yield_interval"
            }
        })
    }
}

/// A guest's call, on its fiber.
type Running<'a, X> = Pin<Box<dyn Future<Output = wasmtime::Result<X>> + Send + 'a>>;

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
        group: impl Into<Group>,
    ) -> Result<Lease<'static, P, R, T>, AcquireError> {
        let patience = || self.pool.usual_patience();
        self.lease_async(group.into(), patience).await
    }

    /// As [`Self::acquire_timeout`], without blocking a thread.
    ///
    /// # Errors
    /// As [`Self::acquire_timeout`].
    pub async fn acquire_async_timeout(
        &self,
        group: impl Into<Group>,
        timeout: Duration,
    ) -> Result<Lease<'static, P, R, T>, AcquireError> {
        let patience = || Patience::Room(self.pool.deadline(timeout));
        self.lease_async(group.into(), patience).await
    }

    async fn lease_async(
        &self,
        group: Group,
        patience: impl Fn() -> Patience,
    ) -> Result<Lease<'static, P, R, T>, AcquireError> {
        let mut successor: Option<Self> = None;
        loop {
            let function = successor.as_ref().unwrap_or(self);
            let leased = match function.entry(&group) {
                Ok(entry) => {
                    let home = || Home::Carried(Some(entry.clone()));
                    let leased = self.pool.lease_for_task(home, &entry, &patience).await;
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
        let patience = || self.function.pool.usual_patience();
        self.lease_async(patience).await
    }

    /// As [`Function::acquire_async_timeout`].
    ///
    /// # Errors
    /// As [`Function::acquire_async_timeout`].
    pub async fn acquire_async_timeout(
        &self,
        timeout: Duration,
    ) -> Result<Lease<'_, P, R, T>, AcquireError> {
        let patience = || Patience::Room(self.function.pool.deadline(timeout));
        self.lease_async(patience).await
    }

    async fn lease_async(
        &self,
        patience: impl Fn() -> Patience,
    ) -> Result<Lease<'_, P, R, T>, AcquireError> {
        let (pool, entry) = (&self.function.pool, self.resolved()?);
        let home = || Home::Borrowed(entry);
        match pool.lease_for_task(home, entry, &patience).await {
            Ok(lease) => Ok(lease),
            Err(error) => {
                let successor = self.function.follow(error)?;
                let group = entry.asker.group.clone();
                successor.lease_async(group, patience).await
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
    pub async fn call_async(&self, group: impl Into<Group>, params: P) -> Result<R, CallError> {
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
        self.enter_async(|live| Box::pin(live.instance.call_async(params)))
            .await
    }
}

impl<A, B, T> Export<A, B, T>
where
    A: WasmParams + Sync + 'static,
    B: WasmResults + Sync + 'static,
    T: Send + 'static,
{
    /// As [`Self::call`], as a task.
    ///
    /// # Errors
    /// As [`Lease::call_async`]; [`CallError::Export`] if the lease is another one.
    pub async fn call_async<P, R>(
        &self,
        lease: &mut Lease<'_, P, R, T>,
        params: A,
    ) -> Result<B, CallError> {
        let func = self.of(lease)?.clone();
        lease
            .enter_async(move |live| {
                let store = &mut live.instance.store;
                Box::pin(async move { func.call_async(store, params).await })
            })
            .await
    }
}

impl<T: Send + 'static> Lease<'_, Dynamic, Dynamic, T> {
    /// As [`Self::call_values`], as a task; returns as many values as the function has results.
    ///
    /// # Errors
    /// As [`Self::call_values`].
    pub async fn call_values_async(&mut self, params: &[Val]) -> Result<Vec<Val>, CallError> {
        let params = params.to_vec();
        let mut results = vec![Val::I32(0); self.result_count()];
        self.enter_async(move |live| {
            let main = live.instance.main;
            let store = &mut live.instance.store;
            Box::pin(async move {
                main.call_async(store, &params, &mut results).await?;
                Ok(results)
            })
        })
        .await
    }
}

impl<P, R, T: Send + 'static> Lease<'_, P, R, T> {
    /// As `enter`, for a task.
    pub(crate) async fn enter_async<X>(
        &mut self,
        run: impl for<'x> FnOnce(&'x mut Live<T>) -> Running<'x, X> + Send,
    ) -> Result<X, CallError> {
        self.is_of_a_task = true;
        self.have_stack_at_last().await?;
        if let Err(source) = self.home.entry().stack.check_for_task() {
            return Err(stack_too_small(self.asker(), source));
        }
        let ends = self.end_of_time();
        let stop = self.watched().stop.clone();
        let live = self.live.as_deref_mut().expect(UNTIL_DROPPED);
        let entry = self.home.entry();
        let purse = live.instance.purse().filter(|_| self.healthy).cloned();
        let Some(purse) = purse else {
            return Err(broken(&entry.asker));
        };
        self.healthy = false;
        let watch = Watch {
            pulse: &entry.pulse,
            slot: Some(entry.slot(live.seat)),
            purse: &purse,
            stop: &stop,
            ends,
        };
        set_yields(&mut live.instance.store, true);
        let ended = watch.run(run(live)).await;
        set_yields(&mut live.instance.store, false);
        match ended {
            Ok(Ok(value)) => {
                self.healthy = true;
                Ok(value)
            }
            Ok(Err(error)) => Err(explain(entry, live, error)),
            Err(ended) => Err(interrupted(entry, live, &ended)),
        }
    }

    /// A lease that was acquired by a thread gets its stack at the first call of a task.
    async fn have_stack_at_last(&mut self) -> Result<(), CallError> {
        let entry = self.home.entry();
        let has_one = self.live().instance.purse().is_some();
        if has_one {
            return Ok(());
        }
        let Some(pool) = entry.pool.upgrade() else {
            return Err(closed(&entry.asker).into());
        };
        let patience = pool.usual_patience().of_a_task();
        Ok(self.have_stack(&pool, patience).await?)
    }

    /// When the time of this lease's tasks is over. It begins with the first call.
    fn end_of_time(&mut self) -> u64 {
        if let Some(ends) = self.watched().ends {
            return ends;
        }
        let ends = self.live().defined.end_of_time(&self.home.entry().pulse);
        *self.watched().ends.insert(ends)
    }

    /// Charges a stack, if the instance has none yet.
    async fn have_stack(
        &mut self,
        pool: &Arc<Shared<T>>,
        patience: Patience,
    ) -> Result<(), AcquireError> {
        let live = self.live.as_deref_mut().expect(UNTIL_DROPPED);
        if live.instance.purse().is_some() {
            return Ok(());
        }
        let entry = pool.with_state(|locked, _, _| locked.state.home_of(live.id));
        let entry = entry.ok_or_else(|| closed(&self.home.entry().asker))?;
        pool.charge_stack(&entry.asker, live.id, patience).await?;
        let account = Arc::new(Account::of_instance(&entry, live.id));
        let purse = Purse::new(pool.runtime.stack_amounts(), account);
        live.instance.set_purse(purse);
        Ok(())
    }
}

fn interrupted<T: Send + 'static>(entry: &Entry<T>, live: &Live<T>, ended: &Ended) -> CallError {
    let failure = match ended {
        Ended::Cancelled => CallFailure::Cancelled,
        Ended::Late => CallFailure::Deadline,
    };
    failed(entry, live, failure)
}

impl<T: Send + 'static> Shared<T> {
    /// Leases an instance that has a stack. A warm one takes no look at the clock.
    async fn lease_for_task<'a, P, R>(
        self: &Arc<Self>,
        home: impl Fn() -> Home<'a, T>,
        entry: &Arc<Entry<T>>,
        patience: impl Fn() -> Patience,
    ) -> Result<Lease<'a, P, R, T>, AcquireError> {
        let begin = |live| {
            let mut lease = Lease::begin(home(), live);
            lease.is_of_a_task = true;
            lease
        };
        let mut warm = match entry.take() {
            Taken::Idle(live) => Some(begin(live)),
            Taken::Odd(odd) => {
                entry.settle_odd(self, odd);
                None
            }
            Taken::Nothing => None,
        };
        if let Some(lease) = warm.take_if(|lease| lease.live().instance.purse().is_some()) {
            return Ok(lease);
        }
        let patience = patience().of_a_task();
        loop {
            let mut lease = match warm.take() {
                Some(lease) => lease,
                None => begin(self.obtain(entry, patience).await?),
            };
            match lease.have_stack(self, patience).await {
                Ok(()) => return Ok(lease),
                // Whoever waits for room holds nothing. Made anew, it waits for all that it needs.
                Err(AcquireError::BudgetExceeded(short))
                    if patience.waits_for_room() && short.requested <= short.limit =>
                {
                    lease.retire(Reason::Room);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Charges a stack to an instance, evicting what is idle; never waits for a lease.
    async fn charge_stack(
        self: &Arc<Self>,
        asker: &Arc<Asker>,
        instance: InstanceId<T>,
        patience: Patience,
    ) -> Result<(), AcquireError> {
        let request = self.with_state(|locked, _, _| locked.state.begin_growth());
        let growth = Making::new(self, request);
        let stack = self.runtime.stack_amounts();
        let patience = patience.without_room();
        self.reserve(growth.id(), asker, stack, patience).await?;
        self.with_state(|locked, _, out| locked.state.grown(growth.id(), instance, out));
        Ok(())
    }
}
