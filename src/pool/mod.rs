//! The shell: the lock of the pool's books, slots, waiters, the pool's own threads. What else has a mutex, and why, is
//! in DESIGN.md under "Locks".

mod api;
mod cold;
mod hot;
mod service;
mod tasks;
mod time;
mod wait;

mod claims;
mod deadlock;
mod defined;
mod effects;
mod function_settings;
mod holdings;
mod lent;
mod report;
mod roll;
mod settings;
mod shared;
mod wakeup;

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;
use std::time::Duration;

use wasmtime::Engine;

use crate::state::Group;
#[cfg(test)]
use service::recycler::Recycle;
use shared::Shared;
use wait::block_on::block_on;

pub use api::acquire_options::AcquireOptions;
pub use api::async_reason::AsyncReason;
pub use api::bill::{Bill, Bills, FunctionBill, GroupBill, GuestFailures};
pub use api::billing::Billing;
pub use api::budget_exceeded::BudgetExceeded;
pub use api::build_error::{BuildError, LimitsError};
pub use api::builder::PoolBuilder;
pub use api::canceller::Canceller;
pub use api::compiled::Compiled;
pub use api::compiler_stats::{CompilationStats, CompilerKills};
#[cfg(feature = "config")]
pub use api::config::{ArtifactSettings, Config, ConfigError, ConfigPlace};
pub use api::define_error::{DefineError, LookupError, UnknownFunction};
pub use api::definition::{CallTypes, Definition};
pub use api::dynamic::Dynamic;
pub use api::error::{AcquireError, CallError, CallLimit, ModuleError, WaitingFor, WarmUpError};
pub use api::error_kind::ErrorKind;
pub use api::exported_func::ExportedFunc;
pub use api::function::{Function, InGroup};
pub use api::function_name::{FunctionName, NameError, TextError};
pub use api::function_type::{ArgumentsError, FunctionType, ValueType};
pub use api::group_key::{AsGroup, GroupKey};
pub use api::group_limit::GroupLimit;
pub use api::guest_bytes::GuestBytes;
pub use api::holders::Holder;
pub use api::imports::{Imports, ImportsBuilder, ImportsError};
pub use api::lease::Lease;
pub use api::limits::Limits;
pub use api::memory_error::MemoryError;
pub use api::names::UnknownName;
pub use api::precompile::{Precompile, PrecompileError, PrecompileOutcome, Precompiled};
pub use api::prepared::{CodeOrigin, Prepared};
pub use api::quarantine::Quarantine;
pub use api::share::{GroupStats, Share, ShareError};
pub use api::stats::{BudgetStats, FunctionStats, IdleInstance, Quarantined, Stats};
pub use api::target::Target;
pub use service::observe::Removal;
pub use time::clock::{Clock, ManualClock, SystemClock};

/// A pool of WebAssembly instances and of the compiled modules behind them, under budgets.
///
/// `T` is the host's data in each instance's store. Clones share the pool. It closes when its last
/// handle is dropped: pools, [`Function`]s and [`InGroup`]s are handles, leases are not.
///
/// ```
/// use wasm_pool::{Budget, Definition, Function, Limits, Pool};
///
/// let pool = Pool::builder()
///     .limits(Limits::new().memory(64 << 20).code(16 << 20))
///     .build()?;
/// # let wasm = wat::parse_str(
/// #     r#"(module (memory 1) (func (export "add") (param i64 i64) (result i64)
/// #         local.get 0 local.get 1 i64.add))"#)?;
/// let add: Function<(i64, i64), i64> = pool.define(Definition::new("add").wasm(wasm))?;
/// assert_eq!(add.call(7, (1, 2))?, 3);
///
/// let memory = pool.stats().budget(Budget::Memory);
/// assert!(memory.charged >= 65_536 && memory.limit == Some(64 << 20));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Pool<T: Send + 'static = ()> {
    shared: Arc<Shared<T>>,
}

impl Pool<()> {
    /// A builder of a pool whose stores hold no data of the host's.
    pub fn builder() -> PoolBuilder<()> {
        PoolBuilder::new(|_, _| ())
    }
}

impl<T: Send + 'static> Pool<T> {
    /// A builder of a pool whose stores hold a `T` each, made by `make` for (function, group)
    /// whenever an instance is made. It runs outside of the pool's lock.
    pub fn builder_with(
        make: impl Fn(&str, &Group) -> T + Send + Sync + 'static,
    ) -> PoolBuilder<T> {
        PoolBuilder::new(make)
    }

    /// Sets other limits, at once. Raised ones serve who waits for room; under lowered ones idle
    /// instances and unused code are evicted, and what leases still hold is reported as
    /// [`BudgetStats::overdraft`] while new needs are refused. With a pooling allocator of the pool's own, instances are limited to
    /// its places all the same.
    ///
    /// # Errors
    /// [`LimitsError`] if they make no sense; then nothing changes.
    pub fn set_limits(&self, limits: Limits) -> Result<(), LimitsError> {
        self.shared.set_limits(limits)
    }

    /// The limits, as they are now.
    pub fn limits(&self) -> Limits {
        self.shared
            .with_state(|locked, _| Limits::of_core(locked.state.ledger().limits()))
    }

    /// One look at everything: budgets and counts are of the same instant. Hits, and which
    /// instances are leased, are read a moment later: leases pass without a lock.
    ///
    /// Costs about as much as copying what it returns; holds the lock for most of that.
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// Evicts the idle instances that `keep` does not want to keep; returns how many.
    pub fn retain(&self, keep: impl FnMut(&IdleInstance) -> bool) -> usize {
        self.shared.retain(keep)
    }

    /// Evicts what has been idle, or alive, for too long, and brings the metrics up to date. The
    /// housekeeper does this by itself; without one, the host calls it now and then, and it makes spares as well where
    /// instances are leased once ([`PoolBuilder::reuse`]): that runs start functions, and host code.
    pub fn sweep(&self) {
        self.shared.sweep();
    }

    /// Moves the epoch by one tick, as the pool's clock thread does while something is leased. Without a
    /// housekeeper the host calls this once per `epoch_tick`, or calls never end for lack of time.
    pub fn tick(&self) {
        self.shared.runtime.epoch().advance(1);
    }

    /// Refuses everything from now on, wakes all who wait, evicts what is idle. Leases end as they
    /// please; with the last of them, every charge is zero. Closing twice changes nothing.
    pub fn close(&self) {
        self.shared.close();
    }

    /// Closes, and waits until every lease has ended and every instance is freed. False if that has not
    /// happened by the timeout: the pool is closed all the same.
    ///
    /// On a thread that holds a lease, it waits for that lease in vain.
    pub fn close_and_drain(&self, timeout: Duration) -> bool {
        let shared = &self.shared;
        let deadline = shared.deadline(timeout);
        block_on(shared.close_and_drain(deadline), &shared.timekeeper)
    }

    /// The same for a task: lets others of its executor go on while it waits. Its first poll closes the pool, on the thread
    /// that polls it, and frees what is idle there, as [`Self::close`] does. Dropped before it is ready, it waits no
    /// more, and the pool stays closed.
    ///
    /// In a task that holds a lease, it waits for that lease in vain.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use wasm_pool::Pool;
    /// # async fn shut_down(pool: Pool) {
    /// if !pool.close_and_drain_async(Duration::from_secs(10)).await {
    ///     eprintln!("{} calls go on still", pool.stats().leased);
    /// }
    /// # }
    /// # pollster::block_on(shut_down(Pool::builder().build()?));
    /// # Ok::<(), wasm_pool::BuildError>(())
    /// ```
    pub async fn close_and_drain_async(&self, timeout: Duration) -> bool {
        let deadline = self.deadline_of_task(timeout);
        self.shared.close_and_drain(deadline).await
    }

    /// Whether the pool is closed.
    pub fn is_closed(&self) -> bool {
        self.shared.with_state(|locked, _| locked.state.is_closed())
    }

    /// The engine that runs the code.
    pub fn engine(&self) -> &Engine {
        self.shared.runtime.engine()
    }

    /// From now on whoever calls [`Self::recycle`] is the recycler, and nobody else: for the model checker.
    #[cfg(test)]
    pub fn recycle_by_hand(&self) {
        self.shared.recycler.spent.open();
    }

    /// What the recycler does.
    #[cfg(test)]
    pub fn recycle(&self) {
        self.shared.recycle();
    }

    /// Counts every invariant of the pool's books again, from the records.
    ///
    /// # Errors
    /// The first invariant that does not hold, by its number in DESIGN.md. For tests: it takes
    /// time in the square of what there is, under the lock.
    #[doc(hidden)]
    pub fn recount(&self) -> Result<(), String> {
        self.shared.with_state(|locked, _| locked.recount())
    }
}

impl<T: Send + 'static> Clone for Pool<T> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
        }
    }
}

// No foreign code runs under the lock, and what a panic of host code leaves half made undoes itself: so nothing
// behind a handle is ever seen in a broken state. What a panic may have broken, an instance, is never
// leased again.
impl<T: Send + 'static> UnwindSafe for Pool<T> {}
impl<T: Send + 'static> RefUnwindSafe for Pool<T> {}

impl<T: Send + 'static> fmt::Debug for Pool<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}
