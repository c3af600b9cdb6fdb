//! Handles: a function, and a function in one group.

use std::fmt;
use std::marker::PhantomData;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;
use std::time::Duration;

use wasmtime::{WasmParams, WasmResults};

use crate::pool::api::acquire_options::AcquireOptions;
use crate::pool::api::definition::HandleTypes;
use crate::pool::api::dynamic::Dynamic;
use crate::pool::api::error::{AcquireError, CallError};
use crate::pool::api::function_name::{FunctionName, name_of};
use crate::pool::api::function_type::FunctionType;
use crate::pool::api::group_key::{AsGroup, GroupKey};
use crate::pool::api::lease::Lease;
use crate::pool::api::target::Target;
use crate::pool::defined::Defined;
use crate::pool::hot::entry::{Entry, Taken};
use crate::pool::hot::entry_hash::FunctionKey;
use crate::pool::hot::pooled_instance::PooledInstance;
use crate::pool::hot::thread_cache;
use crate::pool::shared::{FunctionId, Shared};
use crate::pool::wait::policy::WaitPolicy;
use crate::runtime::TypeText;
use crate::state::Group;

/// A function of a pool, to be called on behalf of any group. Clones are cheap and share it.
///
/// `P` and `R` are its parameter and result types, as wasmtime's `TypedFunc` has them; with
/// [`Dynamic`] for both it is called with wasmtime's `Val`s.
///
/// ```
/// # use wasm_pool::{Definition, Function, Pool};
/// # let pool = Pool::builder().build()?;
/// # let wasm = wat::parse_str(
/// #     r#"(module (func (export "add") (param i64 i64) (result i64)
/// #         local.get 0 local.get 1 i64.add))"#)?;
/// let add: Function<(i64, i64), i64> =
///     pool.define(Definition::new("math.add").args(["bigint", "bigint"]).wasm(wasm))?;
/// assert_eq!(add.call("tenant", (1, 2))?, 3);
///
/// let tenant = add.in_group("tenant");     // for many calls: resolved once
/// assert_eq!(tenant.call((3, 4))?, 7);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Function<P = Dynamic, R = Dynamic, T: Send + 'static = ()> {
    pub(crate) pool: Arc<Shared<T>>,
    pub(crate) identity: Identity<T>,
    /// Its name with its argument types.
    pub(crate) signature: Arc<str>,
    types: HandleTypes,
    /// As it was when the handle was made.
    defined: Arc<Defined>,
    _types: PhantomData<fn(P) -> R>,
}

/// Which function a handle is of.
pub(crate) struct Identity<T: Send + 'static> {
    pub(crate) id: FunctionId<T>,
    key: FunctionKey,
    origin: u64,
}

impl<T: Send + 'static> Identity<T> {
    pub fn of(id: FunctionId<T>, defined: &Defined) -> Self {
        Self {
            id,
            key: FunctionKey::new(defined.uid),
            origin: defined.origin,
        }
    }
}

impl<T: Send + 'static> Clone for Identity<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: Send + 'static> Copy for Identity<T> {}

impl<P, R, T: Send + 'static> Function<P, R, T> {
    pub(crate) fn new(
        pool: Arc<Shared<T>>,
        identity: Identity<T>,
        signature: Arc<str>,
        types: HandleTypes,
        defined: Arc<Defined>,
    ) -> Self {
        Self {
            pool,
            identity,
            signature,
            types,
            defined,
            _types: PhantomData,
        }
    }

    /// The name, without the argument types: `math.add`.
    pub fn name(&self) -> &str {
        name_of(&self.signature)
    }

    /// The name with the argument types: `math.add(bigint, bigint)`.
    pub fn signature(&self) -> &str {
        &self.signature
    }

    /// What the function takes and returns, as its module declares it. Takes the pool's lock for a moment:
    /// it may have been replaced by one of another type.
    pub fn ty(&self) -> FunctionType {
        let now = self.pool.successor(&self.identity, &self.signature);
        let defined = now.as_ref().map_or(&self.defined, |(_, defined)| defined);
        FunctionType::declared(&defined.declared)
    }

    /// This function in one group: resolved once, so that a warm acquire hashes nothing.
    pub fn in_group(&self, group: impl AsGroup) -> InGroup<P, R, T> {
        let group = group.key().to_group();
        let mut function = self.clone();
        let entry = loop {
            match function
                .pool
                .entry(&function.identity, &function.signature, &group, true)
            {
                Ok(entry) => break Ok(entry),
                Err(error) => match function.follow(error) {
                    Ok(successor) => function = successor,
                    Err(error) => break Err(Box::new(Unresolved { group, error })),
                },
            }
        };
        InGroup { function, entry }
    }

    /// Leases an instance. If all are leased and as many exist as may, waits for one, first come
    /// first served, as long as the builder's `wait_timeout` (compiling does not count); if a budget has no room, evicts what
    /// is idle, or fails at once (or waits, as the builder's `wait_for_room` says).
    ///
    /// Within a host function, an acquire that could only wait for the very call that it is made in, directly
    /// or through other threads that wait, fails at once ([`AcquireError::Deadlock`]). A thread that
    /// holds all of the leases itself, between two calls, waits its whole time: they may be sent away
    /// and end elsewhere. [`AcquireError::Timeout`] says how many were held so.
    ///
    /// A warm acquire takes no lock. A cold one instantiates (microseconds) and perhaps compiles
    /// (milliseconds to seconds) on this thread.
    ///
    /// # Errors
    /// See [`AcquireError`]. Nothing is charged after an error that was not before.
    #[inline(always)]
    pub fn acquire(&self, group: impl AsGroup) -> Result<Lease<'static, P, R, T>, AcquireError> {
        self.lease(group.key(), |pool| pool.default_wait_policy())
    }

    /// As [`Self::acquire`], without ever waiting for another lease, for room, or for another
    /// thread's compilation; this thread's own compilation and instantiation take their time.
    ///
    /// # Errors
    /// [`AcquireError::WouldBlock`] instead of waiting, and as [`Self::acquire`].
    pub fn try_acquire(
        &self,
        group: impl AsGroup,
    ) -> Result<Lease<'static, P, R, T>, AcquireError> {
        self.lease(group.key(), |_| WaitPolicy::None)
    }

    /// As [`Self::acquire`], with a deadline of its own: instead of the builder's `wait_timeout`, and for all
    /// that [`AcquireOptions::timeout`] names.
    ///
    /// # Errors
    /// [`AcquireError::Timeout`] when the time is over, and as [`Self::acquire`].
    pub fn acquire_timeout(
        &self,
        group: impl AsGroup,
        timeout: Duration,
    ) -> Result<Lease<'static, P, R, T>, AcquireError> {
        self.acquire_with(group, AcquireOptions::new().timeout(timeout))
    }

    /// As [`Self::acquire`], but waits as `options` say: with a deadline of its own, or also for room.
    ///
    /// # Errors
    /// As [`Self::acquire`].
    pub fn acquire_with(
        &self,
        group: impl AsGroup,
        options: AcquireOptions,
    ) -> Result<Lease<'static, P, R, T>, AcquireError> {
        self.lease(group.key(), |pool| pool.wait_policy(options))
    }

    /// The entry, by this thread's table or under the lock.
    #[inline(always)]
    pub(crate) fn entry(&self, group: GroupKey<'_>) -> Result<Arc<Entry<T>>, AcquireError> {
        match thread_cache::take(self.identity.key, group) {
            Some(entry) => Ok(entry),
            None => self.look_up(group),
        }
    }

    /// The entry, under the lock. It may be forgotten before anything is leased from it.
    #[cold]
    fn look_up(&self, group: GroupKey<'_>) -> Result<Arc<Entry<T>>, AcquireError> {
        thread_cache::drop_closed();
        self.pool
            .entry(&self.identity, &self.signature, &group.to_group(), false)
    }

    #[inline(always)]
    fn lease(
        &self,
        group: GroupKey<'_>,
        wait_policy: impl FnOnce(&Shared<T>) -> WaitPolicy,
    ) -> Result<Lease<'static, P, R, T>, AcquireError> {
        let Some(entry) = thread_cache::take(self.identity.key, group) else {
            return self.lease_first(group, wait_policy(&self.pool));
        };
        match entry.take() {
            Taken::Idle(pooled) => Ok(Lease::carried(entry, pooled)),
            other => self.lease_slowly(group, Ok((entry, other)), wait_policy(&self.pool)),
        }
    }

    /// Of an entry that this thread does not know.
    #[cold]
    fn lease_first(
        &self,
        group: GroupKey<'_>,
        wait_policy: WaitPolicy,
    ) -> Result<Lease<'static, P, R, T>, AcquireError> {
        let found = self.look_up(group).map(|entry| {
            let taken = entry.take();
            (entry, taken)
        });
        self.lease_slowly(group, found, wait_policy)
    }

    /// Leases an instance, whatever it takes; of the function that replaced this one, if this one is
    /// gone; from a new entry, if the one that was found has been forgotten since.
    #[cold]
    fn lease_slowly(
        &self,
        group: GroupKey<'_>,
        mut found: Result<(Arc<Entry<T>>, Taken<T>), AcquireError>,
        wait_policy: WaitPolicy,
    ) -> Result<Lease<'static, P, R, T>, AcquireError> {
        let mut successor: Option<Self> = None;
        loop {
            let error = match found {
                Ok((entry, taken)) => match self.pool.lease_slowly(&entry, taken, wait_policy) {
                    Ok(pooled) => return Ok(Lease::carried(entry, pooled)),
                    Err(error) => {
                        thread_cache::put_back(entry);
                        error
                    }
                },
                Err(error) => error,
            };
            let function = successor.as_ref().unwrap_or(self).follow(error)?;
            found = function.entry(group).map(|entry| {
                let taken = entry.take();
                (entry, taken)
            });
            successor = Some(function);
        }
    }

    /// Where an acquire goes on that has failed: at the function that has replaced this one, if that
    /// is why, and if it has a type that this handle can call; or at this one, if only its entry is gone.
    pub(crate) fn follow(&self, error: AcquireError) -> Result<Self, AcquireError> {
        let AcquireError::Removed { target } = &error else {
            return Err(error);
        };
        let Some((identity, defined)) = self.pool.successor(&self.identity, &self.signature) else {
            return Err(error);
        };
        if !(self.types.matches)(self.pool.runtime.engine(), &defined.declared) {
            return Err(AcquireError::TypeChanged {
                target: target.clone(),
                found: TypeText(&defined.declared).to_string(),
                expected: (self.types.describe)(),
            });
        }
        let (pool, signature) = (self.pool.clone(), self.signature.clone());
        Ok(Self::new(pool, identity, signature, self.types, defined))
    }
}

impl<P, R, T> Function<P, R, T>
where
    P: WasmParams + 'static,
    R: WasmResults + 'static,
    T: Send + 'static,
{
    /// Acquires, calls, releases.
    ///
    /// # Errors
    /// See [`CallError`].
    #[inline(always)]
    pub fn call(&self, group: impl AsGroup, params: P) -> Result<R, CallError> {
        self.acquire(group)?.call(params)
    }
}

impl<P, R, T: Send + 'static> Clone for Function<P, R, T> {
    fn clone(&self) -> Self {
        let (pool, signature) = (self.pool.clone(), self.signature.clone());
        Self {
            pool,
            signature,
            defined: self.defined.clone(),
            ..*self
        }
    }
}

// As of the pool.
impl<P, R, T: Send + 'static> UnwindSafe for Function<P, R, T> {}
impl<P, R, T: Send + 'static> RefUnwindSafe for Function<P, R, T> {}

impl<P, R, T: Send + 'static> fmt::Debug for Function<P, R, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Function").field(&self.signature).finish()
    }
}

/// A function in one group: [`Function::in_group`]. It stays valid through `replace`, as far as the
/// function's type does; after `remove`, its acquires fail.
pub struct InGroup<P = Dynamic, R = Dynamic, T: Send + 'static = ()> {
    pub(crate) function: Function<P, R, T>,
    /// The entry, or why there is none.
    entry: Result<Arc<Entry<T>>, Box<Unresolved>>,
}

/// A group in which a function could not be resolved.
#[derive(Clone)]
struct Unresolved {
    group: Group,
    error: AcquireError,
}

impl<P, R, T: Send + 'static> InGroup<P, R, T> {
    /// The function.
    pub fn function(&self) -> &Function<P, R, T> {
        &self.function
    }

    /// The group.
    pub fn group(&self) -> &Group {
        match &self.entry {
            Ok(entry) => &entry.group,
            Err(unresolved) => &unresolved.group,
        }
    }

    /// The function's name, without its argument types.
    pub fn name(&self) -> &str {
        self.function.name()
    }

    /// The function's name with its argument types.
    pub fn signature(&self) -> &str {
        self.function.signature()
    }

    /// As [`Function::acquire`]. The lease borrows this handle, and so counts no reference;
    /// [`Self::acquire_owned`] gives one that borrows nothing.
    ///
    /// # Errors
    /// As [`Function::acquire`].
    #[inline(always)]
    pub fn acquire(&self) -> Result<Lease<'_, P, R, T>, AcquireError> {
        self.lease(|pool| pool.default_wait_policy())
    }

    /// As [`Self::acquire`], with a lease that borrows nothing: it may be kept and sent away, and outlive
    /// this handle. A reference is counted for it.
    ///
    /// # Errors
    /// As [`Function::acquire`].
    pub fn acquire_owned(&self) -> Result<Lease<'static, P, R, T>, AcquireError> {
        self.lease_owned(|pool| pool.default_wait_policy())
    }

    /// As [`Self::acquire_owned`], but waits as `options` say.
    ///
    /// # Errors
    /// As [`Function::acquire_with`].
    pub fn acquire_owned_with(
        &self,
        options: AcquireOptions,
    ) -> Result<Lease<'static, P, R, T>, AcquireError> {
        self.lease_owned(|pool| pool.wait_policy(options))
    }

    fn lease_owned(
        &self,
        wait_policy: impl FnOnce(&Shared<T>) -> WaitPolicy,
    ) -> Result<Lease<'static, P, R, T>, AcquireError> {
        let entry = self.resolved()?.clone();
        let function = &self.function;
        match entry.take() {
            Taken::Idle(pooled) => Ok(Lease::carried(entry, pooled)),
            other => {
                let wait_policy = wait_policy(&function.pool);
                function.lease_slowly(self.group().key(), Ok((entry, other)), wait_policy)
            }
        }
    }

    /// As [`Function::try_acquire`].
    ///
    /// # Errors
    /// As [`Function::try_acquire`].
    pub fn try_acquire(&self) -> Result<Lease<'_, P, R, T>, AcquireError> {
        self.lease(|_| WaitPolicy::None)
    }

    /// As [`Function::acquire_timeout`].
    ///
    /// # Errors
    /// As [`Function::acquire_timeout`].
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<Lease<'_, P, R, T>, AcquireError> {
        self.acquire_with(AcquireOptions::new().timeout(timeout))
    }

    /// As [`Function::acquire_with`].
    ///
    /// # Errors
    /// As [`Function::acquire_with`].
    pub fn acquire_with(
        &self,
        options: AcquireOptions,
    ) -> Result<Lease<'_, P, R, T>, AcquireError> {
        self.lease(|pool| pool.wait_policy(options))
    }

    /// What it was resolved to.
    #[inline(always)]
    pub(crate) fn resolved(&self) -> Result<&Arc<Entry<T>>, AcquireError> {
        #[cold]
        fn unresolved(unresolved: &Unresolved) -> AcquireError {
            unresolved.error.clone()
        }
        self.entry.as_ref().map_err(|error| unresolved(error))
    }

    #[inline(always)]
    fn lease(
        &self,
        wait_policy: impl FnOnce(&Shared<T>) -> WaitPolicy,
    ) -> Result<Lease<'_, P, R, T>, AcquireError> {
        let entry = self.resolved()?;
        match entry.take() {
            Taken::Idle(pooled) => Ok(Lease::borrowed(entry, pooled)),
            other => self.lease_slowly(entry, other, wait_policy(&self.function.pool)),
        }
    }

    #[cold]
    fn lease_slowly<'a>(
        &'a self,
        entry: &'a Arc<Entry<T>>,
        taken: Taken<T>,
        wait_policy: WaitPolicy,
    ) -> Result<Lease<'a, P, R, T>, AcquireError> {
        match self.function.pool.lease_slowly(entry, taken, wait_policy) {
            Ok(pooled) => Ok(Lease::borrowed(entry, pooled)),
            Err(error) => {
                let successor = self.function.follow(error)?;
                let group = entry.target.group.key();
                let found = successor.entry(group).map(|entry| (entry, Taken::Nothing));
                successor.lease_slowly(group, found, wait_policy)
            }
        }
    }
}

impl<P, R, T> InGroup<P, R, T>
where
    P: WasmParams + 'static,
    R: WasmResults + 'static,
    T: Send + 'static,
{
    /// Acquires, calls, releases.
    ///
    /// # Errors
    /// See [`CallError`].
    #[inline(always)]
    pub fn call(&self, params: P) -> Result<R, CallError> {
        self.acquire()?.call(params)
    }
}

/// Takes the pool's lock for a moment: what a handle stands for is not forgotten while it exists.
impl<P, R, T: Send + 'static> Clone for InGroup<P, R, T> {
    fn clone(&self) -> Self {
        if let Ok(entry) = &self.entry {
            let id = entry.id;
            let pool = &self.function.pool;
            pool.with_state(|locked, _| locked.state.keep_entry(id));
        }
        Self {
            function: self.function.clone(),
            entry: self.entry.clone(),
        }
    }
}

// As of the pool.
impl<P, R, T: Send + 'static> UnwindSafe for InGroup<P, R, T> {}
impl<P, R, T: Send + 'static> RefUnwindSafe for InGroup<P, R, T> {}

impl<P, R, T: Send + 'static> Drop for InGroup<P, R, T> {
    fn drop(&mut self) {
        if let Ok(entry) = &self.entry {
            let id = entry.id;
            let pool = &self.function.pool;
            pool.with_state(|locked, cx| locked.state.let_go_of_entry(id, &mut cx.out));
        }
    }
}

impl<P, R, T: Send + 'static> fmt::Debug for InGroup<P, R, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InGroup")
            .field("function", &self.signature())
            .field("group", self.group())
            .finish()
    }
}

impl<T: Send + 'static> Shared<T> {
    fn lease_slowly(
        self: &Arc<Self>,
        entry: &Arc<Entry<T>>,
        taken: Taken<T>,
        wait_policy: WaitPolicy,
    ) -> Result<Box<PooledInstance<T>>, AcquireError> {
        match taken {
            Taken::Idle(pooled) => return Ok(pooled),
            Taken::Stale(stale) => entry.release_stale(self, stale),
            Taken::Nothing => {}
        }
        self.acquire(entry, wait_policy)
    }

    /// The entry of (function, group), made if it is new. If it is not kept by a handle, it may be
    /// forgotten at any time, until something is leased from it.
    fn entry(
        &self,
        of: &Identity<T>,
        signature: &Arc<str>,
        group: &Group,
        kept: bool,
    ) -> Result<Arc<Entry<T>>, AcquireError> {
        debug_assert!(of.key.uid > 0);
        self.with_state(|locked, cx| {
            let state = &mut locked.state;
            let make = |entry, function: &_| {
                let (signature, group) = (signature.clone(), group.clone());
                Arc::new(Entry::new(entry, function, signature, group, self))
            };
            let found = state.entry(of.id, group, make, &mut cx.out);
            if let Some(entry) = found.filter(|_| kept) {
                state.keep_entry(entry);
            }
            let handle = found.and_then(|entry| state.entry_handle(entry));
            handle.cloned().ok_or_else(|| AcquireError::Removed {
                target: Arc::new(Target {
                    signature: signature.clone(),
                    group: group.clone(),
                }),
            })
        })
    }

    /// The function that has replaced this one, with another type; or this one, if it is still there.
    fn successor(&self, of: &Identity<T>, signature: &str) -> Option<(Identity<T>, Arc<Defined>)> {
        let name = FunctionName::from(signature);
        let (name, arguments) = name.parts()?;
        self.with_state(|locked, _| {
            if let Some(function) = locked.state.function(of.id) {
                return Some((*of, function.definition.clone()));
            }
            let id = locked.state.find(name, arguments?)?;
            let defined = &locked.state.function(id)?.definition;
            let replaced = defined.origin == of.origin && defined.uid != of.key.uid;
            replaced.then(|| (Identity::of(id, defined), defined.clone()))
        })
    }
}
