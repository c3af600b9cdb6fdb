//! What is on whose bill, against plain lists: each nanosecond and each unit of it.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use crate::fake::Instance;
use crate::pool::{Module, NONE, Pool};
use crate::state::{
    Amounts, Bill, Budget, Failure, Group, PerBudget, Policy, ReserveOutcome, Usage,
};

/// Divisible by any number of users, as all times are: so that no part of code is rounded.
const UNIT: u64 = 60;
const MODULES: u8 = 3;
const GROUPS: u64 = 5;

fn module(key: u8) -> Module {
    Module {
        memory: u64::from(key) + 2,
        ..Module::new(key, UNIT * u64::from(key + 1))
    }
}

#[derive(Debug, Clone)]
enum Op {
    Lease(u64, u8),
    End(usize),
    Use(usize),
    Grow(usize, u64),
    Evict(usize),
    Fail(usize, usize),
    Refuse(usize),
    Remove(u8),
    Pass(u64),
    Look,
}

fn ops() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..GROUPS, 0..MODULES).prop_map(|(g, m)| Op::Lease(g, m)),
        4 => any::<usize>().prop_map(Op::End),
        3 => any::<usize>().prop_map(Op::Use),
        2 => (any::<usize>(), 1..9u64).prop_map(|(i, more)| Op::Grow(i, more)),
        4 => any::<usize>().prop_map(Op::Evict),
        1 => (any::<usize>(), 0..Failure::ALL.len()).prop_map(|(i, f)| Op::Fail(i, f)),
        1 => any::<usize>().prop_map(Op::Refuse),
        1 => (0..MODULES).prop_map(Op::Remove),
        6 => (1..5u64).prop_map(|n| Op::Pass(n * UNIT)),
        1 => Just(Op::Look),
    ]
}

struct Live {
    id: Instance,
    group: u64,
    key: u8,
    amounts: Amounts,
    leased: bool,
}

/// The group of those that have no bill of their own.
const NOBODY: u64 = u64::MAX;

/// By group and module, what a naive clerk writes down.
#[derive(Default)]
struct Clerk {
    live: Vec<Live>,
    bills: BTreeMap<(u64, u8), Bill>,
    /// All that was charged.
    charged: PerBudget<u128>,
}

fn add(to: &mut PerBudget<u128>, units: impl Fn(Budget) -> u64, nanos: u64) {
    *to = PerBudget::from_fn(|b| to[b] + u128::from(units(b)) * u128::from(nanos));
}

impl Clerk {
    fn bill(&mut self, at: usize) -> &mut Bill {
        let live = &self.live[at];
        self.bills.entry((live.group, live.key)).or_default()
    }

    fn pass(&mut self, nanos: u64, pool: &Pool) {
        let charged = *pool.state.ledger().charged();
        add(&mut self.charged, |b| charged.get(b), nanos);
        for live in &self.live {
            let bill = self.bills.entry((live.group, live.key)).or_default();
            add(&mut bill.held, |b| live.amounts.get(b), nanos);
            if live.leased {
                add(&mut bill.leased, |b| live.amounts.get(b), nanos);
            }
        }
        for key in 0..MODULES {
            let of_it = self.live.iter().filter(|live| live.key == key);
            let users: BTreeSet<_> = of_it.map(|live| live.group).collect();
            let code = NONE.code(module(key).code).mappings(1);
            for group in &users {
                let bill = self.bills.entry((*group, key)).or_default();
                let part = nanos / users.len() as u64;
                add(&mut bill.held, |b| code.get(b), part);
            }
        }
    }

    /// Groups whose bills were not kept apart any more, when they lost their last entry, begin anew should they come back.
    fn forget_groups(&mut self, pool: &mut Pool) {
        let all = pool.state.bills(&mut pool.cx.slots).expect("they are kept");
        let kept: BTreeSet<_> = all.groups.into_iter().map(|(group, _)| group).collect();
        for (group, key) in self.bills.keys().copied().collect::<Vec<_>>() {
            if !kept.contains(&Group::from(group)) {
                let bill = self.bills.remove(&(group, key)).unwrap_or_default();
                // As a group that never comes.
                self.bills.entry((NOBODY, key)).or_default().add(&bill);
            }
        }
    }

    fn sum(&self, of: impl Fn(&(u64, u8)) -> bool) -> Bill {
        let mut sum = Bill::default();
        let bills = self.bills.iter().filter(|(key, _)| of(key));
        bills.for_each(|(_, bill)| sum.add(bill));
        sum
    }
}

fn total<'a>(bills: impl Iterator<Item = &'a Bill>) -> Bill {
    let mut sum = Bill::default();
    bills.for_each(|bill| sum.add(bill));
    sum
}

/// All bills are as the clerk has them, and add up.
fn compare(pool: &mut Pool, clerk: &Clerk) {
    assert_eq!(pool.state.recount(), Ok(()));
    let all = pool
        .state
        .bills(&mut pool.cx.slots)
        .expect("bills are kept");
    let kept: BTreeSet<_> = all.groups.iter().map(|(group, _)| group.clone()).collect();
    for (group, bill) in &all.groups {
        let expected = clerk.sum(|(g, _)| Group::from(*g) == *group);
        assert_eq!(*bill, expected, "group {group}");
    }
    let others = clerk.sum(|(g, _)| !kept.contains(&Group::from(*g)));
    assert_eq!(all.other_groups, others, "groups that are gone");
    for (function, bill) in &all.functions {
        let name = pool.state.function(*function).map(|f| f.name.clone());
        // Of one that is removed but still has leases, only the sum is known here.
        if let Some(name) = name {
            let expected = clerk.sum(|(_, key)| format!("f{key}") == *name);
            assert_eq!(*bill, expected, "{name}");
        }
    }
    let groups = all.groups.iter().map(|(_, bill)| bill);
    let groups = total(groups.chain([&all.other_groups]));
    let functions = all.functions.iter().map(|(_, bill)| bill);
    let functions = total(functions.chain([&all.other_functions]));
    assert_eq!(groups, functions, "everything is on two bills");
    assert_eq!(groups, clerk.sum(|_| true));
    assert_eq!(all.charged, clerk.charged, "what the pool was charged");
    for (budget, held) in groups.held.iter() {
        assert!(held <= all.charged[budget], "{budget}");
        assert!(groups.leased[budget] <= held, "{budget}");
    }
}

impl Pool {
    fn mark_leased(&mut self, id: Instance) {
        let (door, seat) = self.place(id);
        let now = self.cx.slots.now;
        self.cx.slots.slot(door, seat).leased_since = Some(now);
    }

    fn place(&self, id: Instance) -> (usize, usize) {
        let instance = self.state.instance(id).expect("a live instance");
        let door = self.state.entry_handle(instance.entry);
        (*door.expect("its entry"), instance.seat())
    }
}

/// One step in both.
fn step(pool: &mut Pool, clerk: &mut Clerk, op: &Op) {
    let pick = |at: usize, clerk: &Clerk| (!clerk.live.is_empty()).then(|| at % clerk.live.len());
    match *op {
        Op::Lease(group, key) => {
            let held = |live: &&Live| (live.group, live.key) == (group, key);
            if clerk.live.iter().filter(held).count() == 2
                || clerk.live.iter().any(|l| held(&l) && !l.leased)
            {
                return;
            }
            let id = pool.lease_in(group, module(key));
            pool.mark_leased(id);
            clerk.live.push(Live {
                id,
                group,
                key,
                amounts: NONE.memory(module(key).memory).stack(1).mappings(1),
                leased: true,
            });
            clerk.bill(clerk.live.len() - 1).misses += 1;
        }
        Op::End(at) => {
            if let Some(at) = pick(at, clerk).filter(|at| clerk.live[*at].leased) {
                pool.park(clerk.live[at].id);
                clerk.live[at].leased = false;
            }
        }
        Op::Use(at) => {
            if let Some(at) = pick(at, clerk).filter(|at| !clerk.live[*at].leased) {
                let id = clerk.live[at].id;
                let (door, seat) = pool.place(id);
                assert_eq!(pool.cx.slots.slot(door, seat).take_idle(), Some(id));
                pool.mark_leased(id);
                clerk.live[at].leased = true;
            }
        }
        Op::Grow(at, more) => {
            if let Some(at) = pick(at, clerk).filter(|at| clerk.live[*at].leased) {
                let id = clerk.live[at].id;
                let entry = pool.state.instance(id).expect("a live instance").entry;
                let request = pool.state.begin_growth(Some(entry));
                let more = NONE.memory(more);
                let room = pool.state.reserve(request, more, &mut pool.cx);
                assert_eq!(room, ReserveOutcome::Granted);
                pool.state.grown(request, id, &mut pool.cx);
                let amounts = clerk.live[at].amounts.saturating_add(&more);
                clerk.live[at].amounts = amounts;
            }
        }
        Op::Evict(at) => {
            if let Some(at) = pick(at, clerk).filter(|at| !clerk.live[*at].leased) {
                let id = clerk.live[at].id;
                assert_eq!(pool.state.evict(&[id], &mut pool.cx), 1);
                clerk.live.remove(at);
                pool.destroy();
            }
        }
        Op::Fail(at, failure) => {
            if let Some(at) = pick(at, clerk) {
                let instance = pool.state.instance(clerk.live[at].id);
                let entry = instance.expect("a live instance").entry;
                pool.state.bill_failure(entry, Failure::ALL[failure]);
                clerk.bill(at).failures[failure] += 1;
            }
        }
        Op::Refuse(at) => {
            if let Some(at) = pick(at, clerk) {
                let instance = pool.state.instance(clerk.live[at].id);
                let entry = instance.expect("a live instance").entry;
                let request = pool.state.begin_growth(Some(entry));
                pool.state.count_refusal(request);
                pool.state.bill_compilation(request, 7, true);
                pool.state.abandon(request, &mut pool.cx.out);
                let bill = clerk.bill(at);
                bill.refusals += 1;
                bill.compilations += 1;
                bill.compile_nanos += 7;
            }
        }
        Op::Remove(key) => {
            remove(pool, clerk, key);
        }
        Op::Pass(nanos) => {
            clerk.pass(nanos, pool);
            pool.pass_until(pool.cx.slots.now + nanos);
        }
        Op::Look => compare(pool, clerk),
    }
}

fn remove(pool: &mut Pool, clerk: &mut Clerk, key: u8) {
    // Its leases would go on under a name that the clerk gives to the next function.
    let is_leased = |live: &Live| live.key == key;
    if let Some(function) = pool.state.find(&format!("f{key}"), "")
        && !clerk.live.iter().any(is_leased)
    {
        assert!(pool.state.remove(function, &mut pool.cx));
        pool.destroy();
        forget_usage(pool);
        let removed: Vec<_> = clerk
            .bills
            .keys()
            .filter(|(_, k)| *k == key)
            .copied()
            .collect();
        for (group, key) in removed {
            // Under a name that no function has.
            let bill = clerk.bills.remove(&(group, key)).unwrap_or_default();
            clerk
                .bills
                .entry((group, key + 100))
                .or_default()
                .add(&bill);
        }
        clerk.forget_groups(pool);
    }
}

/// What the shell does with entries that are forgotten; here they have counted nothing.
fn forget_usage(pool: &mut Pool) {
    let forgotten = std::mem::take(&mut pool.cx.out.forgotten);
    for (_, function) in forgotten {
        pool.state
            .bill_usage(function, &Group::from(0), &Usage::default());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn each_unit_is_on_the_bill_of_who_holds_it_and_on_no_other(
        ops in prop::collection::vec(ops(), 1..80),
    ) {
        let mut pool = Pool::new(Policy::CostAware, &[]);
        let mut clerk = Clerk::default();
        for op in &ops {
            step(&mut pool, &mut clerk, op);
        }
        compare(&mut pool, &clerk);
    }
}

#[test]
fn code_is_divided_among_those_that_have_instances_of_it() {
    let mut pool = Pool::new(Policy::CostAware, &[]);
    let of_code = |bill: &Bill| bill.held[Budget::Code];
    let shared = module(0);
    let first = pool.idle_in(1, shared);
    pool.pass_until(10);
    // Leased at once, or the second lease would find what the first has left.
    let of_two = [(); 2].map(|()| pool.lease_in(2, shared));
    of_two.iter().for_each(|id| pool.park(*id));
    pool.pass_until(30);
    assert_eq!(pool.state.evict(&[first], &mut pool.cx), 1);
    pool.destroy();
    pool.pass_until(35);
    let bills = |pool: &mut Pool| {
        let all = pool.state.bills(&mut pool.cx.slots).unwrap();
        let of = |group| {
            let found = all.groups.iter().find(|(g, _)| *g == Group::from(group));
            found.map_or(0, |(_, bill)| of_code(bill))
        };
        (of(1), of(2), all.charged[Budget::Code])
    };
    let bytes = u128::from(shared.code);
    assert_eq!(bills(&mut pool), (20 * bytes, 15 * bytes, 35 * bytes));
    // Whoever has two instances of it bears no more than one part; and what nobody uses is nobody's.
    assert_eq!(pool.state.evict(&of_two, &mut pool.cx), 2);
    pool.destroy();
    pool.pass_until(45);
    let (one, two, all) = bills(&mut pool);
    assert_eq!((one, two), (20 * bytes, 15 * bytes));
    assert_eq!(all, 45 * bytes, "its function keeps it");
}

#[test]
fn groups_that_are_gone_are_kept_apart_as_long_as_there_are_few() {
    let mut pool = Pool::new(Policy::CostAware, &[]);
    // As many entries may be unused; the first ones are forgotten for the last ones.
    for group in 0..110 {
        let id = pool.idle_in(group, module(0));
        assert_eq!(pool.state.evict(&[id], &mut pool.cx), 1);
        pool.destroy();
    }
    let all = pool.state.bills(&mut pool.cx.slots).unwrap();
    assert_eq!(
        all.groups.len(),
        100 + 3,
        "those with entries, and three more"
    );
    assert_eq!(all.other_groups.misses, 7, "of those that went first");
    assert!(all.groups.iter().any(|(group, _)| *group == Group::from(9)));
    assert!(!all.groups.iter().any(|(group, _)| *group == Group::from(6)));
    // One that comes back and goes again is the last to be forgotten.
    let id = pool.idle_in(7, module(0));
    assert_eq!(pool.state.evict(&[id], &mut pool.cx), 1);
    for group in 200..202 {
        pool.idle_in(group, module(0));
    }
    let all = pool.state.bills(&mut pool.cx.slots).unwrap();
    let back = all
        .groups
        .iter()
        .find(|(group, _)| *group == Group::from(7));
    assert_eq!(back.map(|(_, bill)| bill.misses), Some(2));
    assert_eq!(pool.state.recount(), Ok(()));
}
