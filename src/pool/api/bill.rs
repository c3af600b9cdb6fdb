//! Who has used what: what `stats()` says of groups and functions in a pool that keeps bills.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::pool::api::group_key::AsGroup;
use crate::pool::shared::{Context, FunctionId, Locked, ShellTypes};
use crate::state::{self, AllBills, Budget, Group, PerBudget, Usage, signature, sum};

/// What a group, a function, or everybody has used since there is a pool.
///
/// Counts are of what has happened; what leases count themselves is there while they go on, but for fuel and bytes-times-time in
/// leases: fuel when a lease ends, the other as of now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Bill {
    /// Leases of an instance that was there: idle, or handed over by the lease before.
    pub hits: u64,
    /// Acquires that set out to make an instance, whether there was room for it or not.
    pub misses: u64,
    /// Acquires that queued for an instance.
    pub blocks: u64,
    /// Times that a request lined up for room.
    pub room_waits: u64,
    /// Requests that a budget refused, or a limit of their group.
    pub refusals: u64,
    /// Times that growth of an instance was refused: the guest saw −1.
    pub growth_refusals: u64,
    /// Calls of guests through leases; those of their allocators by the bytes API are among them, and not those that the host
    /// makes with the store itself.
    pub calls: u64,
    /// Calls and start functions that failed.
    pub failures: GuestFailures,
    /// Time in guest code, in calls through leases and what the host does for them; not while a task waits, nor of a call in which the host panics. See
    /// [`Billing::exact_times`](crate::Billing::exact_times).
    pub guest_time: Duration,
    /// Units of fuel that leases have burnt that have ended.
    pub fuel: u64,
    /// Bytes written into guests by the bytes API.
    pub bytes_in: u64,
    /// Bytes read from guests by the bytes API.
    pub bytes_out: u64,
    /// Modules compiled for it: whoever asks first pays, the others wait.
    pub compilations: u64,
    /// What compiling took, of modules that could not be compiled, too.
    pub compile_time: Duration,
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "crate::pool::api::serde_fields::seconds_by_budget")
    )]
    held: PerBudget<u128>,
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "crate::pool::api::serde_fields::seconds_by_budget")
    )]
    leased: PerBudget<u128>,
}

impl Bill {
    /// What was held of a budget, in its unit times nanoseconds: 1 MiB for a second is 2²⁰ · 10⁹. Instances count as
    /// long as they are charged, idle or leased. Of code, the entries (a function in a group) that have instances of a module
    /// bear equal parts at each moment.
    pub fn held(&self, budget: Budget) -> u128 {
        self.held[budget]
    }

    /// Of that, what instances held while they were leased, by the pool's coarse clock.
    pub fn leased(&self, budget: Budget) -> u128 {
        self.leased[budget]
    }

    /// The rest: idle instances, and code; of a whole pool, also what is on nobody's bill.
    pub fn idle(&self, budget: Budget) -> u128 {
        self.held[budget].saturating_sub(self.leased[budget])
    }

    pub(crate) fn of(bill: &state::Bill, usage: &Usage) -> Self {
        let mut all = bill.usage;
        all.add(usage);
        let [traps, fuel, time, cancelled, host] = bill.failures;
        Self {
            hits: all.hits,
            misses: bill.misses,
            blocks: bill.blocks,
            room_waits: bill.room_waits,
            refusals: bill.refusals,
            growth_refusals: bill.growth_refusals,
            calls: all.calls,
            failures: GuestFailures {
                traps,
                fuel,
                time,
                cancelled,
                host,
            },
            guest_time: Duration::from_nanos(all.guest_nanos),
            fuel: all.fuel,
            bytes_in: all.bytes_in,
            bytes_out: all.bytes_out,
            compilations: bill.compilations,
            compile_time: Duration::from_nanos(bill.compile_nanos),
            held: bill.held,
            leased: bill.leased,
        }
    }
}

/// How calls failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct GuestFailures {
    /// The guest trapped.
    pub traps: u64,
    /// It ran out of fuel.
    pub fuel: u64,
    /// It ran out of time.
    pub time: u64,
    /// The host has cancelled the call.
    pub cancelled: u64,
    /// A function of the host's failed.
    pub host: u64,
}

/// The bill of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct GroupBill {
    /// Whose it is.
    pub group: Group,
    /// What it has used.
    pub bill: Bill,
}

/// The bill of a function.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct FunctionBill {
    /// The function's name with its argument types.
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "crate::pool::api::serde_fields::text")
    )]
    pub signature: Arc<str>,
    /// What it has used.
    pub bill: Bill,
}

/// All bills of a pool: [`Stats::bills`](crate::Stats::bills).
///
/// What somebody has used is on the bill of one group and on that of one function: the sums over groups (with
/// `other_groups`) and over functions (with `other_functions`) are the same, and those of `total`. Only what is *held* can be
/// nobody's: see [`Self::unassigned`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Bills {
    /// Everything that the pool has done and charged.
    pub total: Bill,
    /// Those who held most memory first.
    pub groups: Vec<GroupBill>,
    /// Of groups whose bills are not kept apart, and of what was done for no group.
    pub other_groups: Bill,
    /// Of the functions that are defined, those that held most memory first. What replaces a function goes on with its bill.
    pub functions: Vec<FunctionBill>,
    /// Of functions that were removed, and of what was done for none.
    pub other_functions: Bill,
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "crate::pool::api::serde_fields::seconds_by_budget")
    )]
    unassigned: PerBudget<u128>,
}

impl Bills {
    /// The bill of a group, if it is kept apart. Looks through all of them.
    pub fn group(&self, group: impl AsGroup) -> Option<&Bill> {
        let key = group.key();
        let found = self.groups.iter().find(|of| of.group.is(key.view));
        found.map(|of| &of.bill)
    }

    /// What is on nobody's bill of what was charged, in the budget's unit times nanoseconds: what is in the making or being destroyed,
    /// heap of compilers, standing processes, places of a pooling allocator, and code of which there are no instances.
    pub fn unassigned(&self, budget: Budget) -> u128 {
        self.unassigned[budget]
    }

    /// All of one instant; `None` if none are kept.
    pub(crate) fn take<T: Send + 'static>(
        locked: &mut Locked<T>,
        cx: &mut Context<T>,
    ) -> Option<Self> {
        let state = &mut locked.state;
        let all = state.bills(&mut cx.slots)?;
        let mut of_groups: HashMap<&Group, Usage> = HashMap::new();
        let mut of_functions: HashMap<FunctionId<T>, Usage> = HashMap::new();
        for (entry, function) in state.entry_handles() {
            let usage = entry.usage();
            of_groups.entry(&entry.group).or_default().add(&usage);
            of_functions.entry(function).or_default().add(&usage);
        }
        let mut bills = Self::default();
        let mut total = all.other_groups.clone();
        let mut used = Usage::default();
        for (group, bill) in &all.groups {
            let usage = of_groups.remove(group).unwrap_or_default();
            total.add(bill);
            used.add(&usage);
            bills.groups.push(GroupBill {
                group: group.clone(),
                bill: Bill::of(bill, &usage),
            });
        }
        bills.other_groups = Bill::of(&all.other_groups, &Usage::default());
        let charged = |budget| all.charged[budget];
        let left = |budget| charged(budget).saturating_sub(total.held[budget]);
        bills.unassigned = PerBudget::from_fn(left);
        total.held = sum(&total.held, &bills.unassigned);
        bills.total = Bill::of(&total, &used);
        bills.add_functions(state, &all, &mut of_functions);
        let by_memory = |a: &Bill, b: &Bill| b.held(Budget::Memory).cmp(&a.held(Budget::Memory));
        bills.groups.sort_by(|a, b| {
            let in_order = by_memory(&a.bill, &b.bill);
            in_order.then_with(|| a.group.cmp(&b.group))
        });
        bills.functions.sort_by(|a, b| {
            let in_order = by_memory(&a.bill, &b.bill);
            in_order.then_with(|| a.signature.cmp(&b.signature))
        });
        Some(bills)
    }

    fn add_functions<T: Send + 'static>(
        &mut self,
        state: &crate::pool::shared::State<T>,
        all: &AllBills<ShellTypes<T>>,
        usage: &mut HashMap<FunctionId<T>, Usage>,
    ) {
        let (mut others, mut used) = (all.other_functions.clone(), Usage::default());
        for (id, bill) in &all.functions {
            let usage = usage.remove(id).unwrap_or_default();
            match state.function(*id) {
                Some(function) => self.functions.push(FunctionBill {
                    signature: signature(&function.name, &function.arguments).into(),
                    bill: Bill::of(bill, &usage),
                }),
                // It was removed, and something is leased of it still.
                None => {
                    others.add(bill);
                    used.add(&usage);
                }
            }
        }
        self.other_functions = Bill::of(&others, &used);
    }
}
