//! What the instances of a group may have: never more, whatever it asks for; and nobody else pays for that.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::fake::Instance;
use crate::pool::{Gone, Module, NONE, Pool, gone as went};
use crate::state::{
    Budget, Group, PerBudget, Policy, RemovalReason, ReserveOutcome, ShareTerms, Shortage,
};

const MEMORY: Budget = Budget::Memory;
const STACK: Budget = Budget::Stack;

impl Pool {
    fn limit(&mut self, group: u64, budget: Budget, limit: u64) {
        let mut terms = ShareTerms::default();
        terms.limits.set(budget, limit);
        let set = (self.state).set_share(&Group::from(group), terms, &mut self.cx);
        assert_eq!(set, Ok(()));
        assert_eq!(self.state.recount(), Ok(()));
    }

    /// As `lease_in`, where there may be no room; and what has gone for it. Its code is there already.
    pub fn try_lease(&mut self, group: u64, module: Module) -> Result<(Instance, Gone), Shortage> {
        let entry = self.entry(module, group);
        let crate::state::SeatOffer::Seat(request) = self.state.try_seat(entry, &mut self.cx)
        else {
            panic!("no vacant seat");
        };
        self.state.prepare(request, &mut self.cx.out);
        let holds = NONE.memory(module.memory).stack(1).mappings(1);
        let mut gone = Gone::default();
        loop {
            match (self.state).reserve(request, holds, &mut self.cx) {
                ReserveOutcome::Granted => break,
                ReserveOutcome::Evicting => gone = self.destroy(),
                ReserveOutcome::Refused(shortage) | ReserveOutcome::AwaitFrees(shortage) => {
                    self.state.abandon(request, &mut self.cx.out);
                    assert_eq!(self.destroy(), Gone::default(), "nobody goes in vain");
                    return Err(shortage);
                }
            }
        }
        let stamp = self.cx.slots.next_stamp();
        let born = (self.state).install(request, holds, stamp, &mut self.cx);
        Ok((born.expect("nothing was replaced"), gone))
    }

    /// The lease of this instance grows it.
    fn try_grow(&mut self, id: Instance, more: u64) -> Result<Gone, Shortage> {
        let entry = self.state.instance(id).expect("a live instance").entry;
        let request = self.state.begin_growth(Some(entry));
        let mut gone = Gone::default();
        loop {
            match (self.state).reserve(request, NONE.memory(more), &mut self.cx) {
                ReserveOutcome::Granted => break,
                ReserveOutcome::Evicting => gone = self.destroy(),
                ReserveOutcome::Refused(shortage) | ReserveOutcome::AwaitFrees(shortage) => {
                    self.state.abandon(request, &mut self.cx.out);
                    return Err(shortage);
                }
            }
        }
        (self.state).grown(request, id, &mut self.cx);
        Ok(gone)
    }

    /// Has the code of so many modules, which all groups use.
    fn with_code(&mut self, modules: &[Module]) {
        for module in modules {
            let id = self.lease_in(99, *module);
            self.park(id);
        }
    }

    fn memory_of(&self, id: Instance) -> u64 {
        let instance = self.state.instance(id).expect("a live instance");
        instance.charge.amounts().get(MEMORY)
    }
}

fn of_memory(key: u8, memory: u64) -> Module {
    Module {
        memory,
        ..Module::new(key, 1)
    }
}

#[test]
fn a_group_at_its_limit_gives_up_what_it_has_longest_idle_and_nobody_else_does() {
    let mut pool = Pool::new(Policy::CostAware, &[]);
    let modules = [1, 2, 3, 4].map(|key| of_memory(key, 3));
    pool.with_code(&modules);
    let other = pool.idle_in(2, modules[0]);
    pool.limit(1, MEMORY, 10);
    let own = [0, 1, 2].map(|n| pool.idle_in(1, modules[n]));
    let (fourth, gone) = pool.try_lease(1, modules[3]).unwrap();
    assert_eq!(gone, went(&own[..1], &[]));
    // In its own entry, whose instance is idle: the other seat.
    assert!(pool.is_idle(other));
    let gone = pool.try_grow(fourth, 2).unwrap();
    assert_eq!(gone, went(&own[1..2], &[]));
    // Leased it has 5 and idle 3 of 10: 6 more are too many.
    let shortage = pool.try_grow(fourth, 6).unwrap_err();
    assert!(shortage.of_group);
    assert_eq!(
        (
            shortage.requested,
            shortage.limit,
            shortage.charged,
            shortage.evictable
        ),
        (6, 10, 8, 3)
    );
    assert!(pool.is_idle(own[2]), "and it is not evicted in vain");
    // Others may have what there is.
    assert!(pool.ask(NONE.memory(900_000)).0 != ReserveOutcome::Evicting);
}

#[test]
fn a_limit_of_nothing_and_one_that_is_lowered_and_taken_away() {
    let mut pool = Pool::new(Policy::Lru, &[]);
    let modules = [1, 2, 3].map(|key| of_memory(key, 3));
    pool.with_code(&modules);
    pool.limit(1, STACK, 0);
    let shortage = pool.try_lease(1, modules[0]).unwrap_err();
    assert_eq!(
        (shortage.budget, shortage.requested, shortage.limit),
        (STACK, 1, 0)
    );
    pool.limit(1, STACK, u64::MAX);
    assert_eq!(pool.state.shares().count(), 0, "nothing is said of it");
    let leased = pool.lease_in(1, modules[0]);
    pool.limit(1, MEMORY, 2);
    assert_eq!(pool.memory_of(leased), 3, "what it has stays");
    assert!(pool.try_grow(leased, 1).is_err());
    assert_eq!(pool.try_grow(leased, 0), Ok(Gone::default()));
    pool.park(leased);
    let shortage = pool.try_lease(1, modules[1]).unwrap_err();
    assert_eq!((shortage.evictable, shortage.requested), (3, 3));
    pool.limit(1, MEMORY, 3);
    let (_, gone) = pool.try_lease(1, modules[1]).unwrap();
    assert_eq!(gone, went(&[leased], &[]));
}

/// Requests that make instances count as well.
#[test]
fn what_is_being_made_counts() {
    let mut pool = Pool::new(Policy::Lru, &[]);
    let module = of_memory(1, 3);
    pool.with_code(&[module]);
    pool.limit(1, MEMORY, 5);
    let entry = pool.entry(module, 1);
    let request = pool.state.begin_growth(Some(entry));
    let room = (pool.state).reserve(request, NONE.memory(3), &mut pool.cx);
    assert_eq!(room, ReserveOutcome::Granted);
    assert!(pool.try_lease(1, module).unwrap_err().of_group);
    pool.state.abandon(request, &mut pool.cx.out);
    assert!(pool.try_lease(1, module).is_ok());
}

/// Groups of which nothing is said, and of which nothing is said any more.
#[test]
fn all_groups_may_have_a_limit() {
    let mut all = PerBudget::of(u64::MAX);
    all.set(MEMORY, 4);
    let all = ShareTerms {
        limits: all,
        ..ShareTerms::default()
    };
    let mut pool = Pool::with_group_terms(Policy::Lru, &[], all);
    let modules = [1, 2].map(|key| of_memory(key, 3));
    pool.with_code(&modules[..1]);
    pool.limit(99, MEMORY, 6);
    pool.with_code(&modules[1..]);
    assert_eq!(
        pool.state.shares().count(),
        1,
        "what is said of no group is not told"
    );
    for group in [1, 2] {
        let first = pool.idle_in(group, modules[0]);
        let (second, gone) = pool.try_lease(group, modules[1]).unwrap();
        assert_eq!(gone, went(&[first], &[]));
        assert!(pool.try_lease(group, modules[0]).unwrap_err().of_group);
        pool.park(second);
        // One of its own, and then that of all again.
        pool.limit(group, MEMORY, 6);
        let (third, gone) = pool.try_lease(group, modules[0]).unwrap();
        assert_eq!(gone, Gone::default());
        pool.limit(group, MEMORY, u64::MAX);
        assert_eq!(pool.try_grow(third, 1).unwrap(), went(&[second], &[]));
        assert!(pool.try_grow(third, 1).unwrap_err().of_group);
        pool.park(third);
    }
    assert_eq!(pool.state.recount(), Ok(()));
    // With the last entry of a group goes what was limited of it.
    for key in [1, 2] {
        let function = pool
            .state
            .find(&format!("f{key}"), "")
            .expect("it is defined");
        pool.state.remove(function, &mut pool.cx);
        pool.destroy();
        assert_eq!(pool.state.recount(), Ok(()));
    }
}

#[derive(Clone, Debug)]
enum Op {
    Lease { group: u64, key: u8 },
    Park { nth: usize },
    Discard { nth: usize },
    Grow { nth: usize, more: u64 },
    Limit { group: u64, limit: u64 },
}

fn op() -> impl Strategy<Value = Op> {
    let nth = 0..8_usize;
    prop_oneof![
        5 => (1..3_u64, 0..6_u8).prop_map(|(group, key)| Op::Lease { group, key }),
        4 => nth.clone().prop_map(|nth| Op::Park { nth }),
        1 => nth.clone().prop_map(|nth| Op::Discard { nth }),
        2 => (nth, 0..4_u64).prop_map(|(nth, more)| Op::Grow { nth, more }),
        1 => (1..3_u64, 0..14_u64).prop_map(|(group, limit)| Op::Limit { group, limit }),
    ]
}

/// What there is, in plain lists.
#[derive(Default)]
struct Naive {
    leased: Vec<(u64, Instance)>,
    /// The longest idle first.
    idle: Vec<(u64, Instance)>,
    limits: BTreeMap<u64, u64>,
}

impl Naive {
    fn sum(&self, pool: &Pool, group: u64, of: &[(u64, Instance)]) -> u64 {
        let own = of.iter().filter(|(owner, _)| *owner == group);
        own.map(|(_, id)| pool.memory_of(*id)).sum()
    }

    /// Who has to go before the group may have so much more; `None` if that is not enough.
    fn victims(&self, pool: &Pool, group: u64, more: u64) -> Option<Vec<Instance>> {
        let limit = self.limits.get(&group).copied().unwrap_or(u64::MAX);
        let mut has = self.sum(pool, group, &self.leased) + self.sum(pool, group, &self.idle);
        let mut own = self.idle.iter().filter(|(owner, _)| *owner == group);
        let mut victims = Vec::new();
        while more > 0 && has + more > limit {
            let (_, id) = own.next()?;
            has -= pool.memory_of(*id);
            victims.push(*id);
        }
        Some(victims)
    }

    /// What came of it must be what the list says.
    fn settle(&mut self, expected: Option<Vec<Instance>>, got: Result<&Gone, &Shortage>) -> bool {
        match (expected, got) {
            (Some(victims), Ok(gone)) => {
                assert_eq!(gone.instances, victims);
                self.idle.retain(|(_, id)| !victims.contains(id));
                true
            }
            (None, Err(shortage)) => {
                assert!(shortage.of_group, "{shortage:?}");
                false
            }
            (expected, got) => panic!("{expected:?}, {got:?}"),
        }
    }
}

fn run(ops: Vec<Op>) {
    let mut pool = Pool::new(Policy::Lru, &[]);
    let modules: Vec<_> = (0..6)
        .map(|key| of_memory(key, 1 + u64::from(key) % 3))
        .collect();
    pool.with_code(&modules);
    let mut naive = Naive::default();
    for op in ops {
        match op {
            Op::Lease { group, key } => {
                let module = modules[usize::from(key)];
                let entry = pool.entry(module, group);
                let is_free = pool.state.taken_seats(entry).count() < 2;
                let has_idle = (naive.idle.iter())
                    .any(|(_, id)| pool.state.instance(*id).is_some_and(|i| i.entry == entry));
                if !is_free || has_idle {
                    continue;
                }
                let expected = naive.victims(&pool, group, module.memory);
                let got = pool.try_lease(group, module);
                let came = naive.settle(expected, got.as_ref().map(|(_, gone)| gone));
                if let (true, Ok((id, _))) = (came, got) {
                    naive.leased.push((group, id));
                }
            }
            Op::Park { nth } if nth < naive.leased.len() => {
                let (group, id) = naive.leased.remove(nth);
                pool.park(id);
                naive.idle.push((group, id));
            }
            Op::Discard { nth } if nth < naive.leased.len() => {
                let (_, id) = naive.leased.remove(nth);
                let reason = RemovalReason::Discarded;
                pool.state.dismiss(id, reason, None, &mut pool.cx);
                pool.destroy();
            }
            Op::Grow { nth, more } if nth < naive.leased.len() => {
                let (group, id) = naive.leased[nth];
                let expected = naive.victims(&pool, group, more);
                let got = pool.try_grow(id, more);
                naive.settle(expected, got.as_ref());
            }
            Op::Limit { group, limit } => {
                pool.limit(group, MEMORY, limit);
                naive.limits.insert(group, limit);
            }
            Op::Park { .. } | Op::Discard { .. } | Op::Grow { .. } => {}
        }
        assert_eq!(pool.state.recount(), Ok(()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn limits_hold_as_a_naive_list_says(ops in prop::collection::vec(op(), 1..60)) {
        run(ops);
    }
}
