//! The pure core: who holds what, who waits, who must go.
//!
//! No locks, no clock, no I/O, no wasmtime: time is a parameter, foreign things are opaque
//! [`Types`], and every method returns at once with what the shell must now do ([`Effects`]).
//! The same calls give the same answers, so a test can replay anything.
//!
//! The data flow, one method per arrow:
//!
//! ```text
//! define → entry → try_seat → prepare → reserve → loaded → install → (lease) → returned
//!                     │         │         │                                      │
//!                   queue    follow     evict ──────→ freed ←───── dismiss ←─────┴─ sweep, remove, close
//! ```
//!
//! Each invariant has a code, which stands on the record or field that it governs; [`State::recount`] counts
//! them all again from the records.

mod flow;
mod holders;
mod records;
mod recount;
mod snapshot;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use hashbrown::HashMap;

pub use flow::bills::AllBills;
pub use flow::code::{FlightUse, Prepare, PreparedCode};
pub use flow::define::{DefineRefused, NewFunction};
pub use flow::group_waits::TooManyWait;
pub use flow::quarantine::Quarantined;
pub use flow::release::Returned;
pub use flow::requests::Stale;
pub use flow::room::ReserveOutcome;
pub use flow::seats::{SeatOffer, SeatWait};
pub use flow::shares::Overcommitted;
pub use flow::spares::SpareToMake;
pub use flow::upkeep::Expiry;
pub use holders::{Holder, Holding};
pub(crate) use records::amounts::OF_CODE;
pub use records::amounts::{Amounts, Budget, PerBudget};
pub use records::arena::{Arena, Id};
pub use records::bill::{Account, Bill, Failure, Usage, over_time, sum};
pub use records::bills::Bills;
pub use records::compile_turns::{CompilePlace, CompileTurns, InLine};
pub use records::conduct::{Conduct, Judged, QuarantineRule};
pub use records::entries::{Entry, EntryId, Seat, Unused};
pub use records::fair::{FairTags, MAX_WEIGHT};
pub use records::function_terms::{FunctionTerms, IdleTime, Reuse};
pub use records::functions::{Function, FunctionCounts, FunctionId, signature};
pub use records::group::{Group, GroupView};
pub use records::instances::{Dying, DyingId, Instance, InstanceId, RemovalReason};
pub use records::ledger::{Charge, Ledger, Shortage};
pub use records::module_table::{Candidate, ModuleTable};
pub use records::modules::{CompileNeed, Module, ModuleId, ModuleKey, Phase};
pub use records::policy::{History, Policy, Worth};
pub use records::queue::{Queue, Sleeper, Ticket};
pub use records::recency::{Recency, Stamp};
pub use records::requests::{Request, RequestId};
pub use records::shares::{CountLimits, Share, ShareId, ShareTerms, Shares};
pub use records::spares::{SpareTable, Spares};
pub use snapshot::{EntrySnapshot, FunctionSnapshot, Snapshot};

use flow::choice::Chance;
use flow::upkeep::Swept;
use records::functions::Names;
pub use records::owners::Owner;
use records::owners::Owners;

/// What the shell keeps with the records; the core only stores and returns it.
pub trait Types: Sized {
    /// What a function is to the shell: its export, its signature.
    type Definition: Clone;
    /// The slots of an entry.
    type Entry: Clone;
    /// The bytes that a module is compiled from.
    type Source: Clone;
    /// Loaded code.
    type Code: Clone;
    /// Why a module could not be compiled or linked.
    type Failure: Clone;
    /// Somebody who sleeps until signalled.
    type Waiter;
}

/// The slots, where idle instances are. An instance that is not in its slot is leased.
pub trait Slots<H: Types> {
    /// Takes the instance out of its slot, for the shell to keep; false when it is leased.
    fn claim(&mut self, entry: &H::Entry, seat: usize, instance: InstanceId<H>) -> bool;
    /// Puts a claimed instance back.
    fn restore(&mut self, entry: &H::Entry, seat: usize, instance: InstanceId<H>);
    /// When its last lease ended.
    fn last_used(&self, entry: &H::Entry, seat: usize) -> Stamp;
    /// Leases so far of instances that were idle here. Only what it has grown by counts.
    fn uses(&self, entry: &H::Entry, seat: usize) -> u64;
    /// Whether an idle instance seems to lie here, by a look that takes nothing out: a lease that begins or ends
    /// at this moment may be seen or not.
    fn seems_idle(&self, entry: &H::Entry, seat: usize) -> bool;
    /// Whether what cannot be claimed is asked to report when its lease ends: then everything must be tried, and a
    /// look is not enough.
    fn asks_leased(&self) -> bool;
    /// Asks the lease in this seat to report when it ends, instead of just returning to its slot.
    /// False when it had ended: then the instance is idle, and nothing was asked.
    fn notify_on_release(&mut self, entry: &H::Entry, seat: usize) -> bool;
    /// Sends every acquire and release of this entry through the lock, or lets them pass again.
    fn set_waited(&mut self, entry: &H::Entry, waited: bool);
    /// No instance older than `version` may be leased from this entry any more.
    fn set_version(&mut self, entry: &H::Entry, version: u64);
    /// Nothing may be leased from this entry any more.
    fn set_closed(&mut self, entry: &H::Entry);
    /// Nanoseconds for which the instance of this seat was leased since this was asked last, a lease that goes on now included.
    fn leased_nanos(&mut self, entry: &H::Entry, seat: usize, now: u64) -> u64;
    /// The entry has `count` seats from now on, more than before.
    fn add_seats(&mut self, entry: &H::Entry, count: usize);
}

/// What a sleeper is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal<H: Types> {
    /// Things have changed: look again.
    Retry,
    /// A seat of the entry is yours, through this request.
    Seat(RequestId<H>),
    /// The function was removed.
    Gone,
    /// The pool was closed.
    Closed,
    /// Its deadline has come, and it gets nothing.
    Late,
}

/// What the shell must destroy, outside the lock, and then report as freed.
pub enum Destroy<H: Types> {
    /// An instance that it holds: claimed from its slot, or brought back by its lease.
    Instance {
        dying: DyingId<H>,
        instance: InstanceId<H>,
        reason: RemovalReason,
    },
    /// Code that no instance runs any more.
    Code { dying: DyingId<H>, code: H::Code },
}

impl<H: Types> Destroy<H> {
    pub fn dying(&self) -> DyingId<H> {
        match self {
            Self::Instance { dying, .. } | Self::Code { dying, .. } => *dying,
        }
    }
}

/// What the shell must do once it has let go of the lock. Victims are destroyed in order.
pub struct Effects<H: Types> {
    pub wake: Vec<(H::Waiter, Signal<H>)>,
    pub destroy: Vec<Destroy<H>>,
    /// Entries whose records are gone, and their functions: nothing will be leased from them again.
    pub forgotten: Vec<(H::Entry, FunctionId<H>)>,
    /// Of modules whose records are gone: to be dropped outside of the lock, with the host's imports in them.
    pub sources: Vec<H::Source>,
}

impl<H: Types> Effects<H> {
    pub const fn new() -> Self {
        Self {
            wake: Vec::new(),
            destroy: Vec::new(),
            forgotten: Vec::new(),
            sources: Vec::new(),
        }
    }
}

/// What one step of the core works with: the slots, and what it leaves for the shell to do.
pub struct Context<H: Types, S> {
    pub slots: S,
    pub out: Effects<H>,
}

impl<H: Types, S> Context<H, S> {
    pub const fn new(slots: S) -> Self {
        Self {
            slots,
            out: Effects::new(),
        }
    }
}

/// What does not change while a pool lives.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    pub policy: Policy,
    /// Leases that an entry may hold at once.
    pub seats_per_entry: usize,
    /// Seats that an entry begins with, if it may have as many.
    pub first_seats: usize,
    /// Entries that are kept although nothing uses them.
    pub max_unused_entries: usize,
    /// Compilations that may run at once.
    pub max_compilations: usize,
    /// How many pass whoever waits for room before it collects.
    pub max_overtakes: u64,
    /// Whether instances may have a lifetime: then they are kept in the order of age.
    pub keeps_ages: bool,
    /// When functions are refused for what their guests do.
    pub quarantine: Option<QuarantineRule>,
    /// The limits of groups of which nothing else is said; no more than that is said of them.
    pub group_terms: ShareTerms,
    /// Spares that an entry may have, of a function whose instances are leased once.
    pub max_spares: usize,
    /// Whether there are bills; and of how many groups that nothing uses any more they are kept apart.
    pub bills: Option<usize>,
}

/// Everything that the pool knows. See the module's documentation.
///
/// Invariants:
/// - **S1** an id kept in a record names a record that is alive, but for four that may outlive what they name: the
///   function of an entry, that of a request, the entry that a request makes grow, and the heir of what is being
///   destroyed.
pub struct State<H: Types> {
    config: Config,
    /// Nanoseconds since the clock's origin; moved by `advance` alone.
    now: u64,
    ledger: Ledger,
    names: Names<H>,
    functions: Arena<Function<H>>,
    owners: Owners<H>,
    modules: ModuleTable<H>,
    /// **S2** Names every module by its key, once.
    module_index: HashMap<ModuleKey, ModuleId<H>>,
    entries: Arena<Entry<H>>,
    /// How often an entry has come or gone.
    entry_changes: u64,
    /// How often somebody has begun to wait for an instance.
    arrivals: u64,
    /// **E5** Holds every unused entry, and no more than may be kept.
    unused: Unused<H>,
    /// Groups that have something reserved.
    shares: Shares<H>,
    /// Where the sweep goes on.
    swept: Swept<H>,
    /// **F4** The functions whose instances may be idle for a time of their own.
    own_idle_times: BTreeSet<FunctionId<H>>,
    /// **F5** The functions that are pinned, each with its module and the number of its instances.
    pinned: BTreeMap<FunctionId<H>, (ModuleId<H>, usize)>,
    /// Instances made ahead of their leases.
    spares: SpareTable<H>,
    instances: Arena<Instance<H>>,
    /// The order of last use.
    recency: Recency<H>,
    /// The order of age.
    ages: Recency<H>,
    /// Which modules a choice looks at.
    chance: Chance,
    requests: Arena<Request<H>>,
    dying: Arena<Dying<H>>,
    /// What is held for as long as the pool is open, by nobody's request: see [`Self::keep_standing`].
    standing: Charge,
    /// What is held until the pool is gone: see [`Self::set_aside`].
    set_aside: Charge,
    /// Who waits until there is room in the budgets.
    room_queue: Queue<H>,
    /// Their places, where groups have weights.
    fair: FairTags,
    /// Who would not wait for room, but for what is being destroyed already.
    awaiting_frees: Queue<H>,
    /// **T1** Whose turn it is: one of them has been woken, and has neither been served nor queued again. All
    /// others sleep meanwhile, or the later would overtake it (or have been told that they are late).
    turn: Option<Ticket>,
    /// How often somebody got what those who wait for room might have had.
    overtakes: u64,
    /// **T2** For whom room is collected: it is the first of those who wait.
    collecting: Option<RequestId<H>>,
    /// **C1** As many turns are taken as requests have one.
    compile_turns: CompileTurns<H>,
    closed: bool,
    /// Requests that a budget refused, or another limit of their group.
    refused: u64,
    /// How functions have behaved, or functions in groups; few have ever failed.
    ///
    /// **F3** Each is of a function, or of an entry, that is alive.
    conducts: HashMap<Judged<H>, Conduct>,
    /// How often a quarantine has begun.
    quarantines: u64,
    totals: FunctionCounts,
    bills: Option<Bills<H>>,
    /// Modules whose code was evicted or dropped out.
    code_dropped: u64,
    /// **M6** The number of modules that are loaded.
    loaded: usize,
}

impl<H: Types> State<H> {
    pub fn new(config: Config, limits: PerBudget<u64>) -> Self {
        Self {
            config,
            now: 0,
            ledger: Ledger::new(limits),
            names: Names::new(),
            functions: Arena::new(),
            owners: Owners::new(),
            modules: ModuleTable::new(),
            module_index: HashMap::new(),
            entries: Arena::new(),
            entry_changes: 0,
            arrivals: 0,
            unused: Unused::new(),
            shares: Shares::new(),
            swept: Swept::default(),
            own_idle_times: BTreeSet::new(),
            pinned: BTreeMap::new(),
            spares: SpareTable::new(),
            instances: Arena::new(),
            recency: Recency::new(),
            ages: Recency::new(),
            chance: Chance::new(),
            requests: Arena::new(),
            dying: Arena::new(),
            standing: Charge::NONE,
            set_aside: Charge::NONE,
            room_queue: Queue::new(),
            fair: FairTags::new(),
            awaiting_frees: Queue::new(),
            turn: None,
            overtakes: 0,
            collecting: None,
            compile_turns: CompileTurns::new(
                config.max_compilations,
                config.group_terms.counts.most_compilations(),
            ),
            closed: false,
            refused: 0,
            conducts: HashMap::new(),
            quarantines: 0,
            totals: FunctionCounts::default(),
            bills: config.bills.map(Bills::new),
            code_dropped: 0,
            loaded: 0,
        }
    }

    /// Time passes. Never backwards: an earlier `now` changes nothing.
    pub fn advance(&mut self, now: u64) {
        let passed = now.saturating_sub(self.now);
        self.now += passed;
        self.ledger.pass(passed);
        self.modules.settle();
    }

    pub fn now(&self) -> u64 {
        self.now
    }

    pub fn is_closed(&self) -> bool {
        self.closed
    }

    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    pub fn instance(&self, id: InstanceId<H>) -> Option<&Instance<H>> {
        self.instances.get(id)
    }

    pub fn function(&self, id: FunctionId<H>) -> Option<&Function<H>> {
        self.functions.get(id)
    }

    pub fn instance_count(&self) -> usize {
        self.instances.len()
    }

    /// What is being destroyed.
    pub fn dying(&self) -> impl Iterator<Item = DyingId<H>> {
        self.dying.iter().map(|(id, _)| id)
    }

    /// Whether it is closed, and nothing is charged but what is set aside, and nothing promised or asked for any more.
    pub fn is_drained(&self) -> bool {
        self.closed
            && self.instances.is_empty()
            && self.dying.is_empty()
            && self.requests.is_empty()
            && self.standing == Charge::NONE
    }

    /// The entry of an instance.
    pub fn home_of(&self, id: InstanceId<H>) -> Option<H::Entry> {
        let instance = self.instances.get(id)?;
        Some(self.entries.get(instance.entry)?.handle.clone())
    }

    /// Seats of the entry that have an instance.
    pub fn taken_seats(&self, id: EntryId<H>) -> impl Iterator<Item = usize> + '_ {
        let entry = self.entries.get(id).into_iter();
        entry.flat_map(|entry| entry.taken().map(|(seat, _)| seat))
    }

    /// Instances among up to `count` places from `from` on whose slot is leased, as `is_leased` says;
    /// and the place to go on from, 0 at the end.
    pub fn count_leased(
        &self,
        from: usize,
        count: usize,
        is_leased: impl Fn(&H::Entry, usize) -> bool,
    ) -> (usize, usize) {
        let leased = |id: &InstanceId<H>| {
            let instance = &self.instances[*id];
            is_leased(&self.entries[instance.entry].handle, instance.seat())
        };
        let (ids, next) = self.instances.some_ids(from, count);
        (ids.iter().filter(|id| leased(id)).count(), next)
    }

    /// Whether a request is under way: an instance is being made, or grows.
    pub fn is_anything_requested(&self) -> bool {
        !self.requests.is_empty()
    }

    /// What no eviction frees.
    pub(crate) fn always_held(&self) -> Amounts {
        (self.standing.amounts()).saturating_add(&self.set_aside.amounts())
    }

    /// Whether this could be reserved if nothing else were charged but what stands.
    pub fn can_ever_hold(&self, amounts: &Amounts) -> bool {
        let amounts = amounts.saturating_add(&self.always_held());
        let fits = |b: Budget| amounts.get(b) <= self.ledger.limits()[b];
        Budget::ALL.into_iter().all(fits)
    }

    /// The most of `compile` that could be reserved beside this if nothing else were charged but what stands.
    pub fn most_to_compile(&self, beside: &Amounts) -> u64 {
        let held = beside.saturating_add(&self.always_held());
        let left = |b: Budget| self.ledger.limits()[b].saturating_sub(held.get(b));
        left(Budget::Compile).min(left(Budget::Total))
    }

    /// Whether somebody waits for room.
    pub fn is_room_awaited(&self) -> bool {
        !self.room_queue.is_empty() || self.turn.is_some()
    }

    /// Whether somebody waits for what is being destroyed: for room, or for the end.
    pub fn is_anything_awaited(&self) -> bool {
        self.closed || self.is_room_awaited() || !self.awaiting_frees.is_empty()
    }

    /// Whether the request may hold so much at once, without anything being destroyed first.
    pub fn has_room_for(&self, id: RequestId<H>, target: &Amounts) -> bool {
        let held = self.requests.get(id).map(|request| request.held.amounts());
        let need = target.beyond(&held.unwrap_or(Amounts::ZERO));
        let (earmarked, _) = self.awaited();
        let missing = self.ledger.missing(&need, &earmarked);
        missing.iter().all(|(_, lacks)| lacks == 0)
    }

    /// Sums over all functions that ever were.
    pub fn totals(&self) -> FunctionCounts {
        self.totals
    }

    /// A number that stays as long as no entry comes or goes.
    pub fn entry_changes(&self) -> u64 {
        self.entry_changes
    }

    /// The handles of the entries at up to `count` places from `from` on, and the place to go on from,
    /// 0 at the end.
    pub fn some_entries(&self, from: usize, count: usize) -> (Vec<H::Entry>, usize) {
        let (ids, next) = self.entries.some_ids(from, count);
        let handle = |id: &EntryId<H>| self.entries[*id].handle.clone();
        (ids.iter().map(handle).collect(), next)
    }

    /// Spares that were made so far.
    pub fn spares_made(&self) -> u64 {
        self.spares.made
    }

    pub fn loaded_modules(&self) -> usize {
        self.loaded
    }

    pub fn refusals(&self) -> u64 {
        self.refused
    }

    fn count(&mut self, function: FunctionId<H>, add: impl Fn(&mut FunctionCounts)) {
        add(&mut self.totals);
        if let Some(function) = self.functions.get_mut(function) {
            add(&mut function.counts);
        }
    }

    /// Counts a request that a budget refused, or another limit of its group.
    pub fn count_refusal(&mut self, id: RequestId<H>) {
        self.refused += 1;
        self.bill_refusal(id);
    }

    /// The same, of somebody who has no request yet.
    pub fn count_refusal_of(&mut self, entry: EntryId<H>) {
        self.refused += 1;
        self.bill_refusal_of(entry);
    }

    fn claim(&self, id: InstanceId<H>, slots: &mut impl Slots<H>) -> bool {
        let instance = &self.instances[id];
        slots.claim(&self.entries[instance.entry].handle, instance.seat(), id)
    }

    fn restore(&self, id: InstanceId<H>, slots: &mut impl Slots<H>) {
        let instance = &self.instances[id];
        slots.restore(&self.entries[instance.entry].handle, instance.seat(), id);
    }

    fn notify_on_release(&self, id: InstanceId<H>, slots: &mut impl Slots<H>) -> bool {
        let instance = &self.instances[id];
        slots.notify_on_release(&self.entries[instance.entry].handle, instance.seat())
    }

    fn last_used(&self, id: InstanceId<H>, slots: &impl Slots<H>) -> Stamp {
        let instance = &self.instances[id];
        slots.last_used(&self.entries[instance.entry].handle, instance.seat())
    }
}
