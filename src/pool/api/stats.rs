//! `stats()`: what a pool holds and what has happened, in the host's terms.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::pool::api::bill::Bills;
use crate::pool::api::compiler_stats::{CompilationStats, CompilerKills};
use crate::pool::api::function_name::{FunctionName, name_of};
use crate::pool::api::holders::{Holder, IN_STATS};
use crate::pool::api::limits::Limits;
use crate::pool::api::share::GroupStats;
use crate::pool::shared::{Context, Locked, Shared, ShellTypes, State};
use crate::state::{Budget, Group, PerBudget, Snapshot, Stamp, signature};
use crate::sync::Ordering;

/// One budget, at one instant. Bytes, or mappings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct BudgetStats {
    /// `None` when there is none.
    pub limit: Option<u64>,
    /// What is charged now: idle, leased, in flight, and being destroyed.
    pub charged: u64,
    /// The most that ever was charged at once.
    pub peak: u64,
    /// How much more is charged than a limit that was lowered since.
    pub overdraft: u64,
}

impl BudgetStats {
    /// Whether so much in all is within the limit.
    pub fn allows(&self, amount: u64) -> bool {
        self.limit.is_none_or(|limit| amount <= limit)
    }
}

/// One function, since it was defined.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct FunctionStats {
    /// Its name.
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "crate::pool::api::serde_fields::text")
    )]
    pub name: Arc<str>,
    /// Its argument types, separated by a comma and a space each.
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "crate::pool::api::serde_fields::text")
    )]
    pub arguments: Arc<str>,
    /// Leases of an instance that was there: idle, or handed over by the lease before.
    pub hits: u64,
    /// Acquires that set out to make an instance, whether there was room for it or not.
    pub misses: u64,
    /// Acquires that queued for an instance.
    pub blocks: u64,
    /// Idle instances evicted: for room, for idleness, or by `retain`.
    pub evictions: u64,
    /// Instances retired for any other reason: see [`crate::RemovalReason`].
    pub retirements: u64,
    /// Times that growth of an instance was refused: the guest saw −1.
    pub growth_refusals: u64,
    /// Instances idle now.
    pub idle: usize,
    /// Instances leased now.
    pub leased: usize,
    /// Whether its code and one instance stay: see [`Definition::pinned`](crate::Definition::pinned).
    pub pinned: bool,
    /// Whether its module's code is mapped now.
    pub code_loaded: bool,
    /// Bytes of its module's code, now or when it was last mapped; shared with every function of
    /// the same module.
    pub code_bytes: u64,
}

/// What a pool holds, and what has happened since it was built.
///
/// Of one instant is all that goes through the pool's lock: budgets, holders, `misses`, `blocks`, evictions and
/// all other counts but hits, and the number of instances (`idle + leased`, also of each function). Warm leases take
/// no lock: which instances are leased, and hits, are read one after the other, while leases begin and end. In a
/// pool at rest, everything is of one instant.
///
/// Metrics count the same under the same names: see the table in the [crate's documentation](crate#what-can-be-observed).
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Stats {
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "crate::pool::api::serde_fields::by_budget")
    )]
    budgets: PerBudget<BudgetStats>,
    /// In the order of `Budget::ALL`.
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "crate::pool::api::serde_fields::in_order")
    )]
    holders: Vec<Vec<Holder>>,
    /// Every function that is defined, in the order of definition as far as places are not reused.
    pub functions: Vec<FunctionStats>,
    /// Functions that are refused for what their guests have done: see [`Quarantine`](crate::Quarantine).
    pub quarantined: Vec<Quarantined>,
    /// How often a function was refused for that from then on.
    pub quarantines: u64,
    /// Instances that were made before anybody asked for them: see [`PoolBuilder::reuse`](crate::PoolBuilder::reuse).
    pub spares_made: u64,
    /// Groups that have something reserved or limited by name, in no particular order: see [`Pool::set_group`](crate::Pool::set_group).
    pub groups: Vec<GroupStats>,
    /// Who has used what, in a pool that keeps bills: see [`PoolBuilder::billing`](crate::PoolBuilder::billing). Looks at every
    /// instance and every bill.
    pub bills: Option<Box<Bills>>,
    /// Instances that are idle.
    pub idle: usize,
    /// Instances that are leased.
    pub leased: usize,
    /// Instances that are being destroyed, or code that is: still charged.
    pub dying: usize,
    /// Threads and tasks that wait for an instance, for room, or for a compilation.
    pub waiting: usize,
    /// Compilations in flight.
    pub compiling: usize,
    /// Modules whose code is mapped.
    pub modules_loaded: usize,
    /// Modules that functions name, and those of which something is still in use; loaded or not.
    pub modules_known: usize,
    /// Modules compiled, whether there was then room for them or not.
    pub compilations: u64,
    /// Times that compiled code was mapped and linked.
    pub loads: u64,
    /// Modules that could not be compiled, mapped or linked.
    pub module_failures: u64,
    /// Instances that were warmed up and snapshotted: see `Definition::warm_up`. What is compiled for them, and
    /// thrown away with them, is not among `compilations`.
    pub warm_ups: u64,
    /// Compilations that go on now, the longest first. Those that are thrown away (see `warm_ups`) are among them.
    pub compilations_in_flight: Vec<CompilationStats>,
    /// Compilations in processes of their own that were ended before they were done.
    pub compiler_kills: CompilerKills,
    /// Processes that died while they compiled, and that nobody of the pool's has ended.
    pub compiler_crashes: u64,
    /// Modules whose code was evicted or dropped out.
    pub code_dropped: u64,
    /// Acquires and preparations that a budget refused, or a limit of their group.
    pub refusals: u64,
    /// Times that growth of an instance was refused, over all functions that ever were: the guest saw −1.
    pub growth_refusals: u64,
    /// Leases of an instance that was there, over all functions that ever were.
    pub hits: u64,
    /// Acquires that set out to make an instance, over all functions that ever were.
    pub misses: u64,
    /// Acquires that queued for an instance, over all functions that ever were.
    pub blocks: u64,
    /// Idle instances evicted, over all functions that ever were.
    pub evictions: u64,
    /// Instances that left for any other reason, over all functions that ever were.
    pub retirements: u64,
    /// Whether the pool is closed.
    pub closed: bool,
}

impl Stats {
    /// One budget.
    pub fn budget(&self, budget: Budget) -> BudgetStats {
        self.budgets[budget]
    }

    /// Who holds most of a budget, the largest first: eight at the most. Instances count for their
    /// function and group, code for one of the functions that share it. With more than 16,384 seats or
    /// modules, the largest of so many.
    ///
    /// ```
    /// # use wasm_pool::{Budget, Definition, Function, Pool};
    /// # let pool = Pool::builder().build()?;
    /// # let wasm = wat::parse_str(r#"(module (memory 1) (func (export "f")))"#)?;
    /// let f: Function<(), ()> = pool.define(Definition::new("f").wasm(wasm))?;
    /// f.call("tenant", ())?;
    /// let stats = pool.stats();
    /// let largest = &stats.holders(Budget::Memory)[0];
    /// assert_eq!((largest.signature(), largest.leased), ("f()", 0));
    /// assert!(largest.idle >= 65_536);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn holders(&self, budget: Budget) -> &[Holder] {
        let mut all = Budget::ALL.iter().zip(&self.holders);
        all.find(|(of, _)| **of == budget)
            .map_or(&[], |(_, holders)| holders)
    }

    /// All budgets.
    pub fn budgets(&self) -> impl Iterator<Item = (Budget, BudgetStats)> + '_ {
        self.budgets.iter()
    }

    /// The function of this name, or of this name and these argument types; of several overloads, the
    /// first.
    pub fn function(&self, name: impl Into<FunctionName>) -> Option<&FunctionStats> {
        let wanted = name.into();
        let (name, arguments) = wanted.parts()?;
        let is_meant = |f: &&FunctionStats| {
            *f.name == *name && arguments.is_none_or(|arguments| *f.arguments == *arguments)
        };
        self.functions.iter().find(is_meant)
    }
}

impl FunctionStats {
    /// Its name, without its argument types.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its name with its argument types, as errors spell them.
    pub fn signature(&self) -> String {
        signature(&self.name, &self.arguments)
    }
}

/// An idle instance, as `retain` shows it.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct IdleInstance {
    /// The function's name with its argument types, as errors spell them.
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "crate::pool::api::serde_fields::text")
    )]
    pub signature: Arc<str>,
    /// The group it was made for.
    pub group: Group,
    /// Bytes charged to the memory budget for it.
    pub memory_bytes: u64,
    /// Time since it was made.
    pub age: Duration,
    /// Time since its last lease ended; of a spare, since it was made.
    pub idle: Duration,
}

impl IdleInstance {
    /// The function's name, without its argument types.
    pub fn name(&self) -> &str {
        name_of(&self.signature)
    }

    /// The function's name with its argument types.
    pub fn signature(&self) -> &str {
        &self.signature
    }
}

/// Leases that found an instance idle, of one instant.
struct Hits {
    entries: Vec<u64>,
    /// Of entries that are gone, by function.
    functions: Vec<u64>,
    /// Of all entries that are gone.
    past: u64,
}

/// A function that is refused now, in [`Stats::quarantined`](crate::Stats::quarantined).
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Quarantined {
    /// The function's name with its argument types.
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "crate::pool::api::serde_fields::text")
    )]
    pub signature: Arc<str>,
    /// The group that it is refused in; `None` for all.
    pub group: Option<Group>,
    /// How long it will still be refused.
    pub time_left: Duration,
}

impl Quarantined {
    pub(crate) fn all<T: Send + 'static>(state: &State<T>) -> Vec<Self> {
        let now = state.now();
        let all = state.quarantined().into_iter();
        let listed = all.filter_map(|quarantined| {
            let function = state.function(quarantined.function)?;
            Some(Self {
                signature: signature(&function.name, &function.arguments).into(),
                group: quarantined.group,
                time_left: Duration::from_nanos(quarantined.until.saturating_sub(now)),
            })
        });
        listed.collect()
    }
}

/// What is copied under the lock.
struct Seen<T: Send + 'static> {
    snapshot: Snapshot<ShellTypes<T>>,
    hits: Hits,
    holders: Vec<Vec<Holder>>,
    groups: Vec<GroupStats>,
    quarantined: Vec<Quarantined>,
    quarantines: u64,
    spares_made: u64,
    bills: Option<Box<Bills>>,
    /// Compilations, loads, failures, warm-ups, crashes of compilers.
    of_modules: [u64; 5],
    compiler_kills: CompilerKills,
}

impl<T: Send + 'static> Shared<T> {
    fn see(&self, locked: &mut Locked<T>, cx: &mut Context<T>) -> Seen<T> {
        let bills = Bills::take(locked, cx).map(Box::new);
        let state = &locked.state;
        let snapshot = state.snapshot();
        // An entry that is forgotten passes its hits on, under the lock.
        let hits = Hits {
            entries: snapshot.entries.iter().map(|e| e.handle.hits()).collect(),
            functions: (snapshot.functions.iter())
                .map(|f| f.definition.past_hits.load(Ordering::Relaxed))
                .collect(),
            past: self.past_hits.load(Ordering::Relaxed),
        };
        Seen {
            snapshot,
            hits,
            holders: Self::holders(state, &Budget::ALL, IN_STATS, None),
            groups: GroupStats::all(state),
            quarantined: Quarantined::all(state),
            quarantines: state.quarantines(),
            spares_made: state.spares_made(),
            bills,
            of_modules: [
                locked.compilations,
                locked.loads,
                locked.module_failures,
                locked.warm_ups,
                locked.compiler_crashes,
            ],
            compiler_kills: locked.compiler_kills,
        }
    }

    pub fn stats(&self) -> Stats {
        let Seen {
            snapshot,
            hits,
            holders,
            groups,
            quarantined,
            quarantines,
            spares_made,
            bills,
            of_modules,
            compiler_kills,
        } = self.with_state(|locked, cx| self.see(locked, cx));
        let [
            compilations,
            loads,
            module_failures,
            warm_ups,
            compiler_crashes,
        ] = of_modules;
        let mut uses: HashMap<_, (u64, usize, usize)> = HashMap::new();
        for (entry, entry_hits) in snapshot.entries.iter().zip(&hits.entries) {
            let (hits, idle, leased) = uses.entry(entry.function).or_default();
            *hits += entry_hits;
            for (seat, ..) in &entry.instances {
                let slot = entry.handle.slot(*seat);
                *if slot.is_leased() {
                    &mut *leased
                } else {
                    &mut *idle
                } += 1;
            }
        }
        let functions: Vec<_> = snapshot
            .functions
            .into_iter()
            .zip(&hits.functions)
            .map(|(f, past)| {
                let (hits, idle, leased) = uses.get(&f.id).copied().unwrap_or_default();
                FunctionStats {
                    name: f.name,
                    arguments: f.arguments,
                    hits: hits + past,
                    misses: f.counts.misses,
                    blocks: f.counts.blocks,
                    evictions: f.counts.evictions,
                    retirements: f.counts.retirements,
                    growth_refusals: f.counts.growth_refusals,
                    idle,
                    leased,
                    pinned: f.pinned,
                    code_loaded: f.code_loaded,
                    code_bytes: f.code_bytes,
                }
            })
            .collect();
        let leased = uses.values().map(|(_, _, leased)| leased).sum();
        let limits = Limits::of_core(&snapshot.limits);
        Stats {
            budgets: PerBudget::from_fn(|b| BudgetStats {
                limit: limits.get(b),
                charged: snapshot.charged[b],
                peak: snapshot.peak[b],
                overdraft: snapshot.overdraft[b],
            }),
            holders,
            groups,
            quarantined,
            quarantines,
            spares_made,
            bills,
            idle: snapshot.instances - leased,
            leased,
            dying: snapshot.dying,
            waiting: snapshot.waiting,
            compiling: snapshot.compiling,
            modules_loaded: snapshot.modules_loaded,
            modules_known: snapshot.modules_known,
            compilations,
            loads,
            module_failures,
            warm_ups,
            compilations_in_flight: self.in_flight.list(),
            compiler_kills,
            compiler_crashes,
            code_dropped: snapshot.code_dropped,
            refusals: snapshot.refusals,
            growth_refusals: snapshot.totals.growth_refusals,
            hits: hits.past + hits.entries.iter().sum::<u64>(),
            misses: snapshot.totals.misses,
            blocks: snapshot.totals.blocks,
            evictions: snapshot.totals.evictions,
            retirements: snapshot.totals.retirements,
            closed: snapshot.closed,
            functions,
        }
    }

    /// Evicts the idle instances that `keep` does not want; it is called outside the lock.
    pub fn retain(&self, mut keep: impl FnMut(&IdleInstance) -> bool) -> usize {
        let (snapshot, now) =
            self.with_state(|locked, _| (locked.state.snapshot(), locked.state.now()));
        let mut unwanted = Vec::new();
        for entry in &snapshot.entries {
            for &(seat, id, memory_bytes, born) in &entry.instances {
                let slot = entry.handle.slot(seat);
                if slot.is_leased() {
                    continue;
                }
                let since = match slot.last_used() {
                    Stamp::NEVER => born,
                    used => used.at,
                };
                let idle = IdleInstance {
                    signature: entry.handle.target.signature.clone(),
                    group: entry.group.clone(),
                    memory_bytes,
                    age: Duration::from_nanos(now.saturating_sub(born)),
                    idle: Duration::from_nanos(now.saturating_sub(since)),
                };
                if !keep(&idle) {
                    unwanted.push(id);
                }
            }
        }
        self.with_state(|locked, cx| locked.state.evict(&unwanted, cx))
    }
}
