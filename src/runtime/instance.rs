//! One store with one instance, its exports resolved once.

use std::any::Any;
use std::fmt;
use std::io;
use std::num::NonZeroU64;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use wasmtime::{
    Engine, Extern, Func, Memory, Store, TypedFunc, UpdateDeadline, WasmParams, WasmResults,
};

use super::cancel_flag::{CancelFlag, Cancelled};
use super::engine::Runtime;
use super::epoch::Epoch;
use super::epoch_state::EpochState;
use super::failure::{CallFailure, SharedError, classify, share};
use super::host_code::guarded;
use super::link::{Imported, Instantiated};
use super::meter::{Meter, Refusal};
use super::stack_quota::StackQuota;
use super::system::{is_scarce, refused_by_system};

/// The data of every store that the pool makes: the host's `T`, and the pool's own meter.
///
/// Host functions get at `T` through it: `caller.data().field` works by `Deref`, and interfaces
/// that want a projection (WASI, bindgen) take `|data| &mut data.field`.
pub struct StoreData<T> {
    /// `None` while it is being dropped, and in stores that no code runs in.
    host: Option<T>,
    meter: Meter,
    /// Boxed: few stores have any of it.
    rare: Option<Box<Rare>>,
    epoch: Arc<Epoch>,
    /// The epoch's count when the lease's time began.
    began: u64,
}

/// What some stores have.
#[derive(Default)]
struct Rare {
    /// `None`, or at rest: interrupted when its time is over. Otherwise it is looked at each tick.
    epoch_state: Option<EpochState>,
    imported: Option<Imported>,
}

impl<T> Drop for StoreData<T> {
    /// A store drops its data first: should that panic, it would never free its memories, which are
    /// charged no more by then.
    fn drop(&mut self) {
        let host = self.host.take();
        guarded("dropping the host's store data", || drop(host));
    }
}

impl<T> StoreData<T> {
    fn new(host: T, meter: Meter, epoch: Arc<Epoch>) -> Self {
        Self {
            host: Some(host),
            meter,
            rare: None,
            epoch,
            began: 0,
        }
    }

    /// The deadline of the store's epoch has come.
    fn at_deadline(&mut self) -> wasmtime::Result<UpdateDeadline> {
        if let Some(epoch_state) = self.epoch_state() {
            let going_on = epoch_state.over()?;
            if self.meter.is_stopped() {
                return Err(Cancelled.into());
            }
            return Ok(going_on);
        }
        // Asked once: what comes later is all the lease's own time.
        let began = std::mem::replace(&mut self.began, u64::MAX);
        match self.epoch.overdue(began) {
            0 => Ok(UpdateDeadline::Interrupt),
            ticks => Ok(UpdateDeadline::Continue(ticks)),
        }
    }

    /// For a store that is only asked about types: no code runs in it, and nothing is made in it.
    pub(super) fn vacant(engine: &Engine) -> Self {
        Self {
            host: None,
            meter: Meter::closed(),
            rare: None,
            epoch: Arc::new(Epoch::new(engine.clone())),
            began: 0,
        }
    }

    pub(crate) fn meter(&mut self) -> &mut Meter {
        &mut self.meter
    }

    fn epoch_state(&mut self) -> Option<&mut EpochState> {
        let epoch_state = self.rare.as_mut()?.epoch_state.as_mut();
        epoch_state.filter(|epoch_state| !epoch_state.rests())
    }

    pub(super) fn set_imported(&mut self, imported: Imported) {
        self.rare.get_or_insert_default().imported = Some(imported);
    }

    /// The memory, table or global that was made for this instance to import under these names: see
    /// [`Pool::imports`](crate::Pool::imports). For host functions, since few modules export what they
    /// import: `caller.data().imported("env", "memory")`.
    pub fn imported(&self, module: &str, name: &str) -> Option<Extern> {
        self.rare.as_ref()?.imported.as_ref()?.find(module, name)
    }

    /// Bytes of linear memory that the instance has now, all of its memories together.
    pub fn memory_bytes(&self) -> u64 {
        self.meter.memory()
    }
}

impl<T: fmt::Debug> fmt::Debug for StoreData<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreData")
            .field("host", &**self)
            .field("memory_bytes", &self.memory_bytes())
            .finish()
    }
}

impl<T> Deref for StoreData<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.host
            .as_ref()
            .expect("the host's data is there until it is dropped")
    }
}

impl<T> DerefMut for StoreData<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.host
            .as_mut()
            .expect("the host's data is there until it is dropped")
    }
}

/// In this order: what a call needs comes first.
#[repr(C)]
pub(crate) struct Instance<T: 'static> {
    pub store: Store<StoreData<T>>,
    /// `main` with its types, as the last caller wanted it: a `TypedFunc<P, R>`.
    typed: Option<Box<dyn Any + Send + Sync>>,
    pub exports: wasmtime::Instance,
    pub main: Func,
    pub memory: Option<Memory>,
    /// Boxed: many instances have none of it.
    extras: Option<Box<Extras>>,
}

/// What an instance has when it was needed once.
#[derive(Default)]
struct Extras {
    allocator: Option<Allocator>,
    /// What it may spend on fiber stacks, once a task has had it.
    stack_quota: Option<Arc<StackQuota>>,
    /// Whether wasmtime has refused a synchronous call of it.
    tasks_only: bool,
}

/// Why an instance could not be made.
pub(crate) enum InstantiateFailure {
    /// The start function failed.
    Start(CallFailure),
    /// A limit of the instance, or the budget, refused what the module declares.
    Refused(Refusal),
    /// The operating system has no more of something.
    System(io::Error),
    Other(SharedError),
}

/// The limits of one lease.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallLimits {
    pub fuel: Option<NonZeroU64>,
    /// Of the epoch.
    pub ticks: Option<NonZeroU64>,
}

impl CallLimits {
    /// Ticks that never end, and that can still be added to the epoch's count.
    pub const EVER: NonZeroU64 = NonZeroU64::MIN.saturating_add(1 << 60);

    /// Whether the epoch has to move for them.
    #[inline]
    pub fn have_an_end(&self) -> bool {
        self.ticks.is_some_and(|ticks| ticks < Self::EVER)
    }
}

/// A guest's own allocator.
#[derive(Clone)]
pub(crate) struct Allocator {
    pub alloc: TypedFunc<i32, i32>,
    pub dealloc: TypedFunc<(i32, i32), ()>,
}

/// A store with its limits, and nothing in it.
pub(crate) fn new_store<T: Send + 'static>(
    runtime: &Runtime,
    host: T,
    meter: Meter,
    limits: CallLimits,
    fuel_yield: Option<u64>,
) -> Result<Store<StoreData<T>>, InstantiateFailure> {
    let data = StoreData::new(host, meter, runtime.epoch().clone());
    let mut store = Store::new(runtime.engine(), data);
    store.limiter(|data| &mut data.meter);
    if runtime.interrupts() {
        store.epoch_deadline_callback(|mut store| store.data_mut().at_deadline());
    }
    let other = |error| InstantiateFailure::Other(share(error));
    refresh(&mut store, limits).map_err(other)?;
    if fuel_yield.is_some() {
        store.fuel_async_yield_interval(fuel_yield).map_err(other)?;
    }
    Ok(store)
}

/// Looks up what every instance needs of its exports.
pub(crate) fn resolve_exports<T: Send + 'static>(
    mut store: Store<StoreData<T>>,
    made: wasmtime::Result<Instantiated>,
    export: &str,
) -> Result<Instance<T>, InstantiateFailure> {
    let Instantiated {
        instance: exports,
        memory: imported,
    } = match made {
        Ok(made) => made,
        Err(error) => return Err(explain(&store, error)),
    };
    let Some(main) = exports.get_func(&mut store, export) else {
        let error = wasmtime::Error::msg(format!("the module exports no function {export:?}"));
        return Err(InstantiateFailure::Other(share(error)));
    };
    let exported = exports.get_memory(&mut store, "memory");
    Ok(Instance {
        store,
        exports,
        main,
        memory: exported.or(imported),
        typed: None,
        extras: None,
    })
}

/// From now on the store is looked at each tick of the epoch: it can be stopped, and may have to
/// let others go on. Its time begins afresh. What stops it is returned.
pub(crate) fn interrupt_each_tick<T>(
    store: &mut Store<StoreData<T>>,
    limits: CallLimits,
) -> Arc<CancelFlag> {
    let Some(ticks) = limits.ticks else {
        return Arc::default();
    };
    let data = store.data_mut();
    let rare = data.rare.get_or_insert_default();
    let epoch_state = match &mut rare.epoch_state {
        Some(kept) => {
            kept.restart(ticks.get());
            kept
        }
        none => none.insert(EpochState::new(ticks.get(), data.epoch.clone())),
    };
    let cancel = epoch_state.cancel().clone();
    store.set_epoch_deadline(1);
    cancel
}

/// Whether the store's guest lets others go on at each tick. Only within a task.
pub(crate) fn set_yields<T>(store: &mut Store<StoreData<T>>, yields: bool) {
    if let Some(epoch_state) = store.data_mut().epoch_state() {
        epoch_state.yields = yields;
    }
}

/// Whether the store's guests can only be called as tasks: wasmtime does not say, so a function that does
/// nothing is called.
pub(crate) fn runs_as_task_only<T: 'static>(store: &mut Store<T>) -> bool {
    let nothing = Func::wrap(&mut *store, || {});
    nothing.call(store, &[], &mut []).is_err()
}

/// What is refused before any guest code has run is refused by the meter; the rest is the start
/// function's doing.
fn explain<T>(store: &Store<StoreData<T>>, error: wasmtime::Error) -> InstantiateFailure {
    let refusal = store.data().meter.refusal();
    if let Some(refused) = refused_by_system(&error).filter(is_scarce) {
        return InstantiateFailure::System(refused);
    }
    match (classify(error), refusal) {
        (CallFailure::Host(_), Some(refusal)) => InstantiateFailure::Refused(refusal),
        (CallFailure::Host(error), None) => InstantiateFailure::Other(error),
        (failure, _) => InstantiateFailure::Start(failure),
    }
}

/// Fresh fuel and a fresh deadline. Both start at zero in a new store: it would trap at once.
#[inline]
fn refresh<T>(store: &mut Store<StoreData<T>>, limits: CallLimits) -> wasmtime::Result<()> {
    if let Some(fuel) = limits.fuel {
        store.set_fuel(fuel.get())?;
    }
    if let Some(ticks) = limits.ticks {
        let data = store.data_mut();
        data.began = data.epoch.ticks();
        store.set_epoch_deadline(ticks.get());
    }
    Ok(())
}

impl<T: 'static> Instance<T> {
    /// Fresh fuel and a fresh deadline for a lease; an error only if the engine has no fuel.
    #[inline]
    pub fn refresh(&mut self, limits: CallLimits) -> wasmtime::Result<()> {
        refresh(&mut self.store, limits)
    }

    /// The lease is over, and nobody but cancellers has its flag: the next one is interrupted at the end of its time,
    /// and not looked at.
    pub fn stop_interrupts(&mut self) {
        if let Some(rare) = &mut self.store.data_mut().rare {
            rare.epoch_state.take_if(|epoch_state| !epoch_state.rest());
        }
    }

    /// As `call`, on a fiber.
    pub async fn call_async<P, R>(&mut self, params: P) -> wasmtime::Result<R>
    where
        P: WasmParams + Sync + 'static,
        R: WasmResults + Sync + 'static,
        T: Send,
    {
        loop {
            let known = self.typed.as_ref().and_then(|any| any.downcast_ref());
            let typed: &TypedFunc<P, R> = match known {
                Some(typed) => typed,
                None => {
                    self.learn::<P, R>()?;
                    continue;
                }
            };
            return typed.call_async(&mut self.store, params).await;
        }
    }

    /// Calls the function's export. The types are checked once per instance, not per call.
    #[inline(always)]
    pub fn call<P, R>(&mut self, params: P) -> wasmtime::Result<R>
    where
        P: WasmParams + 'static,
        R: WasmResults + 'static,
    {
        loop {
            let known = self.typed.as_ref().and_then(|any| any.downcast_ref());
            let typed: &TypedFunc<P, R> = match known {
                Some(typed) => typed,
                None => {
                    self.learn::<P, R>()?;
                    continue;
                }
            };
            return typed.call(&mut self.store, params);
        }
    }

    #[cold]
    fn learn<P, R>(&mut self) -> wasmtime::Result<()>
    where
        P: WasmParams + 'static,
        R: WasmResults + 'static,
    {
        self.typed = Some(Box::new(self.main.typed::<P, R>(&self.store)?));
        Ok(())
    }

    /// The exports `alloc` and `dealloc`, looked up at their first use.
    pub fn allocator(&mut self) -> wasmtime::Result<Allocator> {
        let known = self
            .extras
            .as_ref()
            .and_then(|extras| extras.allocator.clone());
        if let Some(known) = known {
            return Ok(known);
        }
        let store = &mut self.store;
        let found = Allocator {
            alloc: self.exports.get_typed_func(&mut *store, "alloc")?,
            dealloc: self.exports.get_typed_func(&mut *store, "dealloc")?,
        };
        self.extras.get_or_insert_default().allocator = Some(found.clone());
        Ok(found)
    }

    pub fn stack_quota(&self) -> Option<&Arc<StackQuota>> {
        self.extras.as_ref()?.stack_quota.as_ref()
    }

    pub fn set_stack_quota(&mut self, stack_quota: Arc<StackQuota>) {
        self.extras.get_or_insert_default().stack_quota = Some(stack_quota);
    }

    /// Whether its guest can only be called as a task. For a call that has failed.
    pub fn runs_as_task_only(&mut self) -> bool {
        let known = self.extras.as_ref().is_some_and(|extras| extras.tasks_only);
        if !known && runs_as_task_only(&mut self.store) {
            self.extras.get_or_insert_default().tasks_only = true;
            return true;
        }
        known
    }
}
