//! An instance that somebody has leased.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use wasmtime::{
    AsContext, AsContextMut, Memory, Store, StoreContext, StoreContextMut, WasmParams, WasmResults,
};

use crate::pool::api::async_reason::AsyncReason;
use crate::pool::api::canceller::Canceller;
use crate::pool::api::dynamic::Dynamic;
use crate::pool::api::error::CallError;
use crate::pool::api::target::Target;
use crate::pool::hot::entry::Entry;
use crate::pool::hot::pooled_instance::PooledInstance;
use crate::pool::hot::thread_cache;
use crate::runtime::{
    CallFailure, CancelFlag, StackTooSmall, StoreData, classify, interrupt_each_tick,
};
use crate::state::{Group, RemovalReason};

/// An instance of one function, leased for one group.
///
/// Dropping the lease gives the instance back; if a call failed, was interrupted by a panic, or
/// [`Lease::discard`] was called, the instance is retired instead, and nobody ever sees it again.
/// Fuel and deadline begin afresh with the lease and last for all of its calls.
///
/// A lease can be sent to another thread. One that is leaked (`mem::forget`) keeps its charge and
/// its place among the entry's instances (and the pool's clock thread, which moves the epoch for it);
/// nothing else is lost.
///
/// ```
/// # use wasm_pool::{Definition, Function, Pool};
/// # let pool = Pool::builder().build()?;
/// # let wasm = wat::parse_str(r#"(module (memory (export "memory") 1)
/// #     (func (export "peek") (param i32) (result i32) local.get 0 i32.load8_u))"#)?;
/// let peek: Function<i32, i32> = pool.define(Definition::new("peek").args(["int"]).wasm(wasm))?;
/// let mut lease = peek.acquire("tenant")?;
/// lease.write_bytes(100, b"A")?;
/// assert_eq!(lease.call(100)?, 65);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "dropping a lease gives the instance back at once"]
pub struct Lease<'a, P = Dynamic, R = Dynamic, T: Send + 'static = ()> {
    /// `None` only while the lease is being dropped.
    pub(crate) pooled: Option<Box<PooledInstance<T>>>,
    pub(crate) home: Home<'a, T>,
    /// Whether the instance is in a state that the next lease may see.
    pub(crate) healthy: bool,
    /// Whether it was acquired by a task, or called as one.
    pub(crate) is_of_a_task: bool,
    /// Set when the instance is looked at each tick of the epoch.
    pub(crate) interruptible: Option<Interruptible>,
    _types: PhantomData<fn(P) -> R>,
}

/// What few leases have: they can be stopped, or are a task's.
pub(crate) struct Interruptible {
    pub cancel: Arc<CancelFlag>,
    /// When the time of a task's calls is over, in nanoseconds on the pool's clock.
    pub ends: Option<u64>,
}

/// How a lease reaches its entry without counting references.
pub(crate) enum Home<'a, T: Send + 'static> {
    /// Through the handle that it was acquired with.
    Borrowed(&'a Entry<T>),
    /// Through the reference of its thread, which it carries; `None` only in `drop`.
    Carried(Option<Arc<Entry<T>>>),
}

impl<T: Send + 'static> Home<'_, T> {
    #[inline(always)]
    pub(crate) fn entry(&self) -> &Entry<T> {
        match self {
            Self::Borrowed(entry) => entry,
            Self::Carried(entry) => entry.as_deref().expect(UNTIL_DROPPED),
        }
    }
}

pub(crate) const UNTIL_DROPPED: &str = "a lease has its instance and its entry until it is dropped";

impl<'a, P, R, T: Send + 'static> Lease<'a, P, R, T> {
    #[inline(always)]
    pub(crate) fn borrowed(entry: &'a Entry<T>, pooled: Box<PooledInstance<T>>) -> Self {
        Self::begin(Home::Borrowed(entry), pooled)
    }

    #[inline(always)]
    pub(crate) fn carried(entry: Arc<Entry<T>>, pooled: Box<PooledInstance<T>>) -> Self {
        Self::begin(Home::Carried(Some(entry)), pooled)
    }

    #[inline(always)]
    pub(crate) fn begin(home: Home<'a, T>, mut pooled: Box<PooledInstance<T>>) -> Self {
        pooled.uses += 1;
        let limits = pooled.defined.limits;
        if limits.have_an_end() && home.entry().timekeeper.keep_ticking() {
            home.entry().begin_lease_anew(pooled.seat);
        }
        let healthy = pooled.instance.refresh(limits).is_ok();
        let mut lease = Self {
            pooled: Some(pooled),
            home,
            healthy,
            is_of_a_task: false,
            interruptible: None,
            _types: PhantomData,
        };
        let entry = lease.home.entry();
        if entry.is_cancellable {
            lease.look_each_tick();
        }
        lease
    }

    #[cold]
    fn look_each_tick(&mut self) {
        self.interruptible();
    }

    #[inline]
    pub(crate) fn pooled(&self) -> &PooledInstance<T> {
        self.pooled.as_deref().expect(UNTIL_DROPPED)
    }

    #[inline]
    pub(crate) fn pooled_mut(&mut self) -> &mut PooledInstance<T> {
        self.pooled.as_deref_mut().expect(UNTIL_DROPPED)
    }

    /// The group that it was leased for.
    pub fn group(&self) -> &Group {
        &self.target().group
    }

    /// The function's name, without its argument types.
    pub fn name(&self) -> &str {
        self.target().name()
    }

    /// The function's name with its argument types.
    pub fn signature(&self) -> &str {
        self.target().signature()
    }

    /// Leases that this instance has served, this one included.
    pub fn uses(&self) -> u64 {
        self.pooled().uses
    }

    /// The host's data in the instance's store.
    pub fn data(&self) -> &T {
        self.pooled().instance.store.data()
    }

    /// The host's data in the instance's store.
    pub fn data_mut(&mut self) -> &mut T {
        self.pooled_mut().instance.store.data_mut()
    }

    /// The instance's store, to look at. The lease itself does as well: it is wasmtime's `AsContext`.
    pub fn store(&self) -> &Store<StoreData<T>> {
        &self.pooled().instance.store
    }

    /// The instance's store, for anything that wasmtime offers and this type does not. The lease itself does
    /// as well: it is wasmtime's `AsContextMut`.
    ///
    /// A guest function called through it that fails leaves the instance in an undefined state,
    /// and the pool cannot see that: call [`Self::discard`] then. Nor does it look at the stack for such
    /// a call. [`Self::export`] needs no such care. The store stays in the pool: do not swap it for another's, replace its limiter, or set an
    /// epoch callback.
    pub fn store_mut(&mut self) -> &mut Store<StoreData<T>> {
        &mut self.pooled_mut().instance.store
    }

    /// The instance itself, to be used with its store: the lease, or [`Self::store_mut`].
    pub fn instance(&self) -> wasmtime::Instance {
        self.pooled().instance.exports
    }

    /// The memory that the module exports as `memory`, or else the first that was made for it to import:
    /// see [`ImportsBuilder::memory`](crate::ImportsBuilder::memory).
    pub fn memory(&self) -> Option<Memory> {
        self.pooled().instance.memory
    }

    /// Bytes of linear memory that the instance has now.
    pub fn memory_bytes(&self) -> u64 {
        self.pooled().instance.store.data().memory_bytes()
    }

    /// Never lease this instance again, whatever its calls returned.
    pub fn discard(self) {
        self.retire(RemovalReason::Discarded);
    }

    pub(crate) fn retire(mut self, reason: RemovalReason) {
        if let Some(pooled) = self.pooled.take() {
            let entry = self.home.entry();
            entry.count_fuel(&pooled);
            entry.retire(pooled, reason);
        }
    }

    /// A handle that stops this lease's calls from any thread. From now on the guest is looked at
    /// once a tick of the epoch, which costs it a microsecond or less each, and its time begins
    /// afresh. An engine of the host's own without epoch interruption can only be stopped between
    /// calls, and while a task waits for a host function.
    pub fn canceller(&mut self) -> Canceller {
        Canceller(self.interruptible().cancel.clone())
    }

    /// Makes sure that the instance is looked at each tick.
    pub(crate) fn interruptible(&mut self) -> &mut Interruptible {
        let Self {
            pooled,
            home,
            interruptible,
            ..
        } = self;
        interruptible.get_or_insert_with(|| {
            let pooled = pooled.as_deref_mut().expect(UNTIL_DROPPED);
            let limits = pooled.defined.limits;
            let cancel = interrupt_each_tick(&mut pooled.instance.store, limits);
            home.entry().timekeeper.keep_ticking();
            Interruptible { cancel, ends: None }
        })
    }

    /// Whether a call of this lease has failed, so that no other can be made.
    pub fn is_broken(&self) -> bool {
        !self.healthy
    }

    /// Runs guest code: with enough stack, not after a failure, and remembered as broken until it
    /// has returned well.
    #[inline(always)]
    pub(crate) fn run_guest<X>(
        &mut self,
        run: impl FnOnce(&mut PooledInstance<T>) -> wasmtime::Result<X>,
    ) -> Result<X, CallError> {
        let entry = self.home.entry();
        let pooled = self.pooled.as_deref_mut().expect(UNTIL_DROPPED);
        if !self.healthy {
            return Err(broken(&entry.target));
        }
        let slot = entry.slot(pooled.seat);
        let interruptible = self.interruptible.as_ref();
        if slot.is_stopped() || interruptible.is_some_and(|w| w.cancel.is_cancelled()) {
            self.healthy = false;
            return Err(failed(entry, pooled, CallFailure::Cancelled));
        }
        if let Err(source) = entry.stack.check() {
            return Err(stack_too_small(&entry.target, source));
        }
        self.healthy = false;
        let calling = slot.begin_call();
        let result = match slot.meter() {
            None => run(pooled),
            Some(meter) => {
                let clock = entry.guest_clock();
                let began = meter.begin_call(clock);
                let result = run(pooled);
                meter.add_time(began, clock);
                result
            }
        };
        drop(calling);
        match result {
            Ok(value) => {
                self.healthy = true;
                Ok(value)
            }
            Err(error) => {
                let error = explain_sync(entry, pooled, error);
                self.healthy = matches!(error, CallError::AsyncRequired { .. });
                Err(error)
            }
        }
    }

    #[inline]
    pub(crate) fn target(&self) -> &Arc<Target> {
        &self.home.entry().target
    }

    #[inline]
    pub(crate) fn guest(&mut self) -> &mut crate::runtime::Instance<T> {
        &mut self.pooled_mut().instance
    }
}

impl<P, R, T> Lease<'_, P, R, T>
where
    P: WasmParams + 'static,
    R: WasmResults + 'static,
    T: Send + 'static,
{
    /// Calls the function, and keeps this thread until the guest returns or its time is over. So it does
    /// in the lease of a task: there, [`Self::call_async`] lets others go on.
    ///
    /// # Errors
    /// [`CallError::Trap`], [`CallError::Limit`] (out of fuel or time) and [`CallError::Host`]
    /// break the lease: its instance is retired when it is dropped, and further calls return
    /// [`CallError::Broken`]. [`CallError::StackTooSmall`], and [`CallError::AsyncRequired`] for guests that
    /// run only as tasks, leave everything as it was.
    #[inline(always)]
    pub fn call(&mut self, params: P) -> Result<R, CallError> {
        self.run_guest(|pooled| pooled.instance.call(params))
    }
}

impl<P, R, T: Send + 'static> Drop for Lease<'_, P, R, T> {
    #[inline(always)]
    fn drop(&mut self) {
        if let Some(mut pooled) = self.pooled.take() {
            if let Some(interruptible) = self.interruptible.take() {
                // It is kept with the instance, if nobody else has it.
                drop(interruptible);
                pooled.instance.stop_interrupts();
            }
            let entry = self.home.entry();
            if entry.bills_fuel {
                entry.count_fuel(&pooled);
            }
            entry.release(pooled, self.healthy);
        }
    }
}

impl<T: Send + 'static> Drop for Home<'_, T> {
    /// The reference stays with the thread that the lease ends on.
    #[inline(always)]
    fn drop(&mut self) {
        if let Self::Carried(entry) = self
            && let Some(entry) = entry.take()
        {
            thread_cache::put(entry);
        }
    }
}

#[cold]
pub(crate) fn broken(target: &Arc<Target>) -> CallError {
    let target = target.clone();
    CallError::Broken { target }
}

#[cold]
pub(crate) fn stack_too_small(target: &Arc<Target>, source: StackTooSmall) -> CallError {
    let target = target.clone();
    CallError::StackTooSmall { target, source }
}

#[cold]
pub(crate) fn explain<T: Send + 'static>(
    entry: &Entry<T>,
    pooled: &PooledInstance<T>,
    error: wasmtime::Error,
) -> CallError {
    failed(entry, pooled, classify(error))
}

/// As `explain`, of a call that no task has made: it may be that only a task can.
#[cold]
fn explain_sync<T: Send + 'static>(
    entry: &Entry<T>,
    pooled: &mut PooledInstance<T>,
    error: wasmtime::Error,
) -> CallError {
    match classify(error) {
        CallFailure::Host(_) if pooled.instance.runs_as_task_only() => CallError::AsyncRequired {
            target: entry.target.clone(),
            reason: AsyncReason::TasksOnly,
            instead: "call_async",
        },
        failure => failed(entry, pooled, failure),
    }
}

/// Counts a failed call, and says what happened.
#[cold]
pub(crate) fn failed<T: Send + 'static>(
    entry: &Entry<T>,
    pooled: &PooledInstance<T>,
    failure: CallFailure,
) -> CallError {
    let target = entry.target.clone();
    if let Some(pool) = entry.pool.upgrade() {
        pool.observer.guest_failed(failure.kind());
        pool.note_failure(entry, &pooled.defined, &failure);
    }
    match failure {
        CallFailure::Fuel => {
            let limit = pooled.defined.fuel_limit();
            CallError::Limit { target, limit }
        }
        CallFailure::Deadline => {
            let limit = pooled.defined.time_limit();
            CallError::Limit { target, limit }
        }
        CallFailure::Trap(trap) => CallError::Trap { target, trap },
        CallFailure::Cancelled => CallError::Cancelled { target },
        CallFailure::Host(source) => CallError::Host { target, source },
    }
}

impl<P, R, T: Send + 'static> fmt::Debug for Lease<'_, P, R, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("function", &self.signature())
            .field("group", self.group())
            .field("broken", &self.is_broken())
            .finish_non_exhaustive()
    }
}

impl<P, R, T: Send + 'static> AsContext for Lease<'_, P, R, T> {
    type Data = StoreData<T>;

    fn as_context(&self) -> StoreContext<'_, StoreData<T>> {
        self.store().as_context()
    }
}

/// As [`Lease::store_mut`], with the same duties.
impl<P, R, T: Send + 'static> AsContextMut for Lease<'_, P, R, T> {
    fn as_context_mut(&mut self) -> StoreContextMut<'_, StoreData<T>> {
        self.store_mut().as_context_mut()
    }
}
