//! What every handle of a pool shares: the lock of its books, and the work that is done outside of it.
//!
//! Other mutexes keep one small thing each (DESIGN.md, "Locks"); under this lock, none is taken but a waiter's mailbox.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use hashbrown::HashSet;
use wasmtime::Store;

use crate::artifacts::Artifacts;
use crate::compiler::Compilers;
use crate::pool::api::build_error::LimitsError;
use crate::pool::api::compiler_stats::CompilerKills;
use crate::pool::api::error::ModuleError;
use crate::pool::claims::Claims;
use crate::pool::cold::compile_hooks::CompileHooks;
use crate::pool::deadlock::Blocked;
use crate::pool::defined::{Defined, Source};
use crate::pool::hot::entry::Entry;
use crate::pool::hot::pooled_instance::PooledInstance;
use crate::pool::hot::thread::agree_on_sequence;
use crate::pool::hot::thread_cache;
use crate::pool::lent::Lent;
use crate::pool::roll::{BATCH, Roll};
use crate::pool::service::group_series::GroupSeries;
use crate::pool::service::housekeeper::{Housekeeper, KeepHouse};
use crate::pool::service::in_flight::InFlight;
use crate::pool::service::observe::Observer;
use crate::pool::service::recycler::{Recycle, Recycler};
use crate::pool::service::suspended::Suspended;
use crate::pool::service::undelivered::Undelivered;
use crate::pool::service::workers::Workers;
use crate::pool::settings::Settings;
use crate::pool::time::deadline::Deadline;
use crate::pool::time::timekeeper::Timekeeper;
use crate::pool::wakeup::Waiter;
use crate::runtime::{Code, HostImports, Runtime, StackCheck, StoreData, guarded};
use crate::state::{self, Destroy, Group, ModuleId, Stamp, Types};
use crate::sync::{AtomicBool, AtomicU64, Mutex, MutexGuard, Ordering, has_heavy_fences};

/// What the core keeps for the shell.
pub(crate) struct ShellTypes<T>(std::marker::PhantomData<fn() -> T>);

impl<T: Send + 'static> Types for ShellTypes<T> {
    type Definition = Arc<Defined>;
    type Entry = Arc<Entry<T>>;
    type Source = Source<T>;
    type Code = Code<T>;
    type Failure = Arc<ModuleError>;
    type Waiter = Arc<Waiter<T>>;
}

pub(crate) type State<T> = state::State<ShellTypes<T>>;
pub(crate) type Effects<T> = state::Effects<ShellTypes<T>>;
pub(crate) type Context<T> = state::Context<ShellTypes<T>, Claims<T>>;
pub(crate) type Signal<T> = state::Signal<ShellTypes<T>>;
pub(crate) type EntryId<T> = state::EntryId<ShellTypes<T>>;
pub(crate) type FunctionId<T> = state::FunctionId<ShellTypes<T>>;
pub(crate) type InstanceId<T> = state::InstanceId<ShellTypes<T>>;
pub(crate) type Function<T> = state::Function<ShellTypes<T>>;
pub(crate) type RequestId<T> = state::RequestId<ShellTypes<T>>;
pub(crate) type DyingId<T> = state::DyingId<ShellTypes<T>>;

/// Makes the host's store data for an instance of (function, group).
pub(crate) type MakeData<T> = dyn Fn(&str, &Group) -> T + Send + Sync;
/// Looks at an instance when it is made, or comes back.
pub(crate) type Hook<T> =
    dyn Fn(&mut Store<StoreData<T>>, &wasmtime::Instance) -> wasmtime::Result<()> + Send + Sync;

pub(crate) struct Shared<T: Send + 'static> {
    pub this: Weak<Self>,
    pub settings: Settings,
    pub runtime: Runtime,
    pub imports: Arc<HostImports<T>>,
    pub artifacts: Option<Artifacts>,
    /// `None` if modules are compiled in this process.
    pub compilers: Option<Compilers>,
    pub make_data: Box<MakeData<T>>,
    pub on_create: Option<Box<Hook<T>>>,
    pub on_recycle: Option<Box<Hook<T>>>,
    pub compile_hooks: CompileHooks,
    pub timekeeper: Arc<Timekeeper>,
    pub stack: StackCheck,
    /// Whether threads may come to own slots.
    pub lends: bool,
    pub observer: Observer,
    pub housekeeper: Housekeeper,
    pub recycler: Recycler<Box<PooledInstance<T>>, Context<T>>,
    pub workers: Workers,
    pub in_flight: InFlight,
    pub suspended: Arc<Suspended>,
    pub undelivered: Undelivered<Self>,
    /// Hits of entries that are gone.
    pub past_hits: Arc<AtomicU64>,
    pub roll: Mutex<Roll<Entry<T>>>,
    pub group_series: Mutex<GroupSeries>,
    /// Whether the epoch has stood still for a whole round of the housekeeper's: no lease has slipped through its
    /// pause.
    rests: AtomicBool,
    locked: Mutex<Locked<T>>,
}

pub(crate) struct Locked<T: Send + 'static> {
    pub state: State<T>,
    /// Which threads wait for an instance of which entry.
    pub blocked: Blocked<T>,
    /// Slots that belong to threads.
    pub lent: Lent<T>,
    /// The latest use that came through the lock.
    sequence: u64,
    /// Who waits until leases have ended.
    pub drains: Vec<Drain<T>>,
    /// Entries that were forgotten.
    forgotten: u64,
    /// How often the recorder's bills were taken.
    pub bills_taken: u64,
    /// Modules that a thread compiles or loads at this moment.
    pub compiling: BTreeSet<ModuleId<ShellTypes<T>>>,
    /// Threads that compile for the artifacts alone at this moment.
    pub precompiling: usize,
    /// Whether instances of any function may be leased but once.
    pub recycles: bool,
    pub compilations: u64,
    pub loads: u64,
    pub module_failures: u64,
    pub warm_ups: u64,
    pub compiler_kills: CompilerKills,
    pub compiler_crashes: u64,
    /// What threads are destroying now, and will report as freed.
    ///
    /// **D1** It names exactly what is dying in `state`: whatever were lost on the way would be charged for
    /// ever.
    destroying: HashSet<DyingId<T>>,
}

impl<T: Send + 'static> Locked<T> {
    /// Whether some thread compiles or loads code.
    pub fn is_compiling(&self) -> bool {
        self.precompiling > 0 || !self.compiling.is_empty()
    }

    pub fn new(state: State<T>) -> Self {
        Self {
            state,
            blocked: Blocked::new(),
            lent: Lent::new(),
            sequence: 0,
            drains: Vec::new(),
            forgotten: 0,
            bills_taken: 0,
            compiling: BTreeSet::new(),
            precompiling: 0,
            recycles: false,
            compilations: 0,
            loads: 0,
            module_failures: 0,
            warm_ups: 0,
            compiler_kills: CompilerKills::default(),
            compiler_crashes: 0,
            destroying: HashSet::new(),
        }
    }

    /// After each call of the core, before the lock is let go: this thread will destroy what is new in `out`, from
    /// there on.
    pub(crate) fn hand_out(&mut self, from: usize, out: &mut Effects<T>) {
        let new = out.destroy[from..].iter().map(Destroy::dying);
        self.destroying.extend(new);
        self.forget(out);
        self.tell_if_drained(out);
    }

    /// Entries that the core has no record of any more. Threads may still keep references to them: they
    /// look for such now and then.
    fn forget(&mut self, out: &mut Effects<T>) {
        for (entry, function) in out.forgotten.drain(..) {
            let usage = entry.forget();
            self.state.bill_usage(function, &entry.group, &usage);
            self.forgotten += 1;
            if self.forgotten.is_multiple_of(thread_cache::ANNOUNCE_EVERY) {
                thread_cache::announce_closed();
            }
        }
    }

    /// It has been destroyed.
    pub fn freed(&mut self, id: DyingId<T>, out: &mut Effects<T>) {
        self.destroying.remove(&id);
        let from = out.destroy.len();
        self.state.freed(id, out);
        self.hand_out(from, out);
    }

    /// Nobody destroys these any more, or would report them.
    pub fn lose<'a>(&mut self, ids: impl Iterator<Item = &'a DyingId<T>>) {
        for id in ids {
            self.destroying.remove(id);
        }
    }

    /// The first invariant that does not hold, by number.
    pub fn recount(&self) -> Result<(), String> {
        self.state.recount()?;
        let lost = self.state.dying().find(|id| !self.destroying.contains(id));
        let (destroying, dying) = (self.destroying.len(), self.state.dying().count());
        if lost.is_some() || destroying != dying {
            return Err(format!(
                "D1: {destroying} of {dying} dying are destroyed; not {lost:?}"
            ));
        }
        Ok(())
    }

    /// What somebody waited for has ended: that is to be told.
    fn tell_if_drained(&mut self, out: &mut Effects<T>) {
        let Self { state, drains, .. } = self;
        let over = drains.extract_if(.., |drain| drain.is_over(state));
        out.wake
            .extend(over.map(|drain| (drain.waiter, Signal::Closed)));
    }

    /// A use as of now, later than all that came through the lock before.
    pub fn stamp(&mut self, at: u64) -> Stamp {
        agree_on_sequence(&mut self.sequence);
        Stamp {
            at,
            sequence: self.sequence,
        }
    }
}

/// Somebody waits until leases have ended.
pub(crate) struct Drain<T: Send + 'static> {
    /// `None`: until nothing is left of a closed pool.
    pub entries: Option<Vec<EntryId<T>>>,
    pub waiter: Arc<Waiter<T>>,
}

impl<T: Send + 'static> Drain<T> {
    fn is_over(&self, state: &State<T>) -> bool {
        let is_gone = |id: &EntryId<T>| state.entry_handle(*id).is_none();
        match &self.entries {
            None => state.is_drained(),
            Some(entries) => entries.iter().all(is_gone),
        }
    }
}

/// The fields of `Shared` that the builder fills in.
pub(crate) struct Parts<T: Send + 'static> {
    pub settings: Settings,
    pub runtime: Runtime,
    pub imports: Arc<HostImports<T>>,
    pub artifacts: Option<Artifacts>,
    pub compilers: Option<Compilers>,
    pub make_data: Box<MakeData<T>>,
    pub on_create: Option<Box<Hook<T>>>,
    pub on_recycle: Option<Box<Hook<T>>>,
    pub compile_hooks: CompileHooks,
    pub timekeeper: Arc<Timekeeper>,
    pub observer: Observer,
    pub housekeeper: Housekeeper,
}

impl<T: Send + 'static> Shared<T> {
    pub fn new(parts: Parts<T>) -> Arc<Self> {
        let state = State::new(parts.settings.core(), parts.settings.limits.per_budget());
        let stack = StackCheck::new(parts.runtime.max_wasm_stack());
        Arc::new_cyclic(|this| Self {
            this: this.clone(),
            runtime: parts.runtime,
            imports: parts.imports,
            artifacts: parts.artifacts,
            compilers: parts.compilers,
            make_data: parts.make_data,
            on_create: parts.on_create,
            on_recycle: parts.on_recycle,
            compile_hooks: parts.compile_hooks,
            timekeeper: parts.timekeeper,
            stack,
            lends: has_heavy_fences(),
            observer: parts.observer,
            housekeeper: parts.housekeeper,
            recycler: Recycler::none(),
            workers: Workers::new(parts.settings.max_compilations),
            in_flight: InFlight::default(),
            suspended: Arc::default(),
            undelivered: Undelivered::new(),
            past_hits: Arc::default(),
            roll: Mutex::new(Roll::default()),
            group_series: Mutex::new(GroupSeries::default()),
            rests: AtomicBool::new(false),
            settings: parts.settings,
            locked: Mutex::new(Locked::new(state)),
        })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Locked<T>> {
        self.locked.lock()
    }

    /// Asks the core something, under the lock; then does what it says, outside.
    pub fn with_state<R>(&self, ask: impl FnOnce(&mut Locked<T>, &mut Context<T>) -> R) -> R {
        let mut cx = Context::new(Claims::new());
        let now = self.timekeeper.now();
        let mut condemned = Vec::new();
        let (answer, wants_spares) = {
            let mut locked = self.locked.lock();
            locked.state.advance(now);
            self.dismiss_spent(&mut locked, &mut cx, &mut condemned);
            cx.slots.exchange_lent(&mut locked.lent);
            let answer = ask(&mut locked, &mut cx);
            cx.slots.exchange_lent(&mut locked.lent);
            self.dismiss_spent(&mut locked, &mut cx, &mut condemned);
            locked.hand_out(0, &mut cx.out);
            (answer, locked.state.wants_spares())
        };
        let has_condemned = !condemned.is_empty();
        if has_condemned || wants_spares {
            // Before any host code: that may need the room.
            self.recycler.condemn(condemned);
        }
        self.carry_out(cx);
        if has_condemned {
            self.help_recycler();
        }
        answer
    }

    /// New limits hold from now on; see `Pool::set_limits`.
    pub fn set_limits(&self, limits: crate::pool::Limits) -> Result<(), LimitsError> {
        limits.validate()?;
        let limits = self.settings.within_places(limits);
        if let Some(places) = self.runtime.places() {
            limits.validate_places(&places.amounts(), 0)?;
        }
        self.with_state(|locked, cx| {
            locked.state.set_limits(limits.per_budget(), cx);
        });
        Ok(())
    }

    /// The places for instances are charged for as long as the pool is.
    pub fn set_places_aside(&self) -> Result<(), LimitsError> {
        let Some(places) = self.runtime.places() else {
            return Ok(());
        };
        let amounts = places.amounts();
        self.settings.limits.validate_places(&amounts, 0)?;
        let fits = self.with_state(|locked, _| locked.state.set_aside(&amounts));
        debug_assert!(fits, "the limits have room for {amounts:?}");
        Ok(())
    }

    /// The system refuses what the budgets grant: evicts so many that are idle, and destroys them;
    /// whether there were any.
    pub fn relieve(&self, count: usize) -> bool {
        self.with_state(|locked, cx| locked.state.relieve(count, cx)) > 0
    }

    pub fn close(&self) {
        self.with_state(|locked, cx| {
            if !locked.state.is_closed() {
                locked.state.close(cx);
            }
        });
        while self.destroy_condemned() {}
        self.workers.stop();
        if let Some(compilers) = &self.compilers {
            compilers.close();
            self.with_state(|locked, cx| locked.state.end_standing(&mut cx.out));
        }
    }

    /// Closes, and waits until every lease has ended and everything is freed, as a task or on a thread; whether that
    /// was in time. Dropped before it is ready, it waits no more.
    pub async fn close_and_drain(&self, deadline: Deadline) -> bool {
        self.close();
        self.drain(None, deadline).await
    }

    /// The same, but leases that have not ended within the grace period are told to stop.
    pub async fn close_and_cancel(
        &self,
        deadline: impl Fn(Duration) -> Deadline,
        grace: Duration,
        timeout: Duration,
    ) -> bool {
        if self.close_and_drain(deadline(grace)).await {
            return true;
        }
        self.stop_leases(|_| true);
        self.drain(None, deadline(timeout)).await
    }

    pub fn sweep(&self) {
        self.timekeeper.beat();
        self.timekeeper.alarms.ring(self.timekeeper.now());
        self.evict_and_report();
    }

    /// What a sweep does but for alarms.
    pub fn evict_and_report(&self) {
        self.timekeeper.remember_now();
        self.expire();
        self.revoke_unused();
        let expiry = self.settings.expiry(self.timekeeper.is_coarse());
        // A few at a time: others need the lock too.
        while self.with_state(|locked, cx| {
            let more = locked.state.sweep(expiry, cx);
            locked.state.repay(cx);
            more
        }) {}
        if !self.recycler.spent.is_open() {
            self.recycle();
        }
        guarded("the metrics recorder", || self.publish_metrics());
    }

    /// Lets the epoch stand still while nothing is leased. A lease that began just now may have read that the
    /// epoch moves: so this checks once more after pausing it. (A lease marks its slot before it reads; should
    /// both checks miss it, the next lease resumes the epoch for both, or the housekeeper does.)
    pub fn rest_if_idle(&self) {
        if self.timekeeper.is_ticking() && !self.is_anything_leased() {
            self.timekeeper.pause();
            if self.is_anything_leased() {
                self.timekeeper.keep_ticking();
            }
        }
    }

    /// Whether an instance is leased, or being made, and so may need the epoch. Looks at a few at a time.
    pub fn is_anything_leased(&self) -> bool {
        // What is spent goes first: its slots are empty, as those of leases are.
        self.with_state(|_, _| {});
        let is_leased = |entry: &Arc<Entry<T>>, seat| entry.slot(seat).is_leased();
        let mut from = 0;
        loop {
            let locked = self.locked.lock();
            let (leased, next) = locked.state.count_leased(from, BATCH, is_leased);
            if leased > 0 || locked.state.is_anything_requested() {
                return true;
            }
            from = next;
            if from == 0 {
                return false;
            }
        }
    }
}

impl<T: Send + 'static> KeepHouse for Shared<T> {
    fn keep_house(&self) {
        // A lease that slipped through the pause is found here at the latest, a round after it.
        let ticks = self.timekeeper.is_ticking();
        let rested = self.rests.swap(!ticks, Ordering::Relaxed);
        if !ticks && !rested && self.is_anything_leased() {
            self.timekeeper.keep_ticking();
        }
        guarded("a sweep", || self.evict_and_report());
        self.rest_if_idle();
    }
}

impl<T: Send + 'static> Drop for Shared<T> {
    fn drop(&mut self) {
        self.close();
        self.workers.stop();
        self.workers.join();
        self.recycler.stop();
        self.with_state(|_, _| {});
        while self.destroy_condemned() {}
        let orphans = self.locked.get_mut().state.instance_count();
        self.housekeeper.stop();
        self.timekeeper.end(orphans as u64);
        thread_cache::announce_closed();
        thread_cache::drop_closed();
    }
}
