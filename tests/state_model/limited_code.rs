//! How much code a group may use: it gives up what it has not used for longest, and nobody else's use of it ends.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::fake::Instance;
use crate::pool::{Gone, Module, NONE, Pool, gone as went};
use crate::state::{Budget, Group, Policy, RemovalReason, ReserveOutcome, SeatOffer, ShareTerms};

const GROUPS: std::ops::Range<u64> = 1..3;
const MODULES: u8 = 5;

fn module(key: u8) -> Module {
    Module::new(key, 2 + u64::from(key))
}

impl Pool {
    fn limit_use(&mut self, group: u64, limits: &[(Budget, u64)]) {
        let mut terms = ShareTerms::default();
        for (budget, limit) in limits {
            terms.limits.set(*budget, *limit);
        }
        let set = (self.state).set_share(&Group::from(group), terms, &mut self.cx);
        assert_eq!(set, Ok(()));
        assert_eq!(self.state.recount(), Ok(()));
    }

    fn holds(&self, group: u64, budget: Budget) -> u64 {
        let of_it = |share: &crate::state::Share<_>| share.group == Group::from(group);
        let mut shares = self.state.shares().map(|(_, share)| share);
        shares
            .find(|share| of_it(share))
            .map_or(0, |share| share.holds().get(budget))
    }
}

#[test]
fn a_group_gives_up_the_code_that_it_has_not_used_for_longest() {
    let mut pool = Pool::new(Policy::CostAware, &[]);
    let modules = [0, 1, 2].map(module);
    let of_others = modules.map(|module| pool.idle_in(9, module));
    // Two and three of code; four more are too much.
    pool.limit_use(1, &[(Budget::Code, 5)]);
    let first = pool.idle_in(1, modules[0]);
    let second = pool.idle_in(1, modules[1]);
    pool.use_at(first, 5);
    assert_eq!(pool.holds(1, Budget::Code), 5);
    // The first was used later, but four fit with neither.
    let (third, gone) = pool
        .try_lease(1, modules[2])
        .expect("it has something to give up");
    assert_eq!(gone.instances.len(), 2);
    assert!(gone.code.is_empty(), "others use it");
    assert_eq!(pool.holds(1, Budget::Code), 4);
    let shortage = pool.try_lease(1, modules[0]).unwrap_err();
    assert_eq!(
        (
            shortage.budget,
            shortage.requested,
            shortage.charged,
            shortage.limit
        ),
        (Budget::Code, 2, 4, 5)
    );
    pool.park(third);
    pool.limit_use(1, &[(Budget::Code, 6)]);
    let (_, gone) = pool.try_lease(1, modules[0]).expect("both fit");
    assert_eq!(gone, Gone::default());
    assert!(of_others.iter().all(|id| pool.is_idle(*id)));
    let _ = second;
}

#[test]
fn groups_of_which_nothing_is_said_may_have_a_limit_of_code_too() {
    let mut all = ShareTerms::default();
    all.limits.set(Budget::Code, 5);
    let mut pool = Pool::with_group_terms(Policy::CostAware, &[], all);
    let modules = [0, 1, 2].map(module);
    // Two and three of code; four more are too much.
    let first = pool.idle_in(1, modules[0]);
    let second = pool.idle_in(1, modules[1]);
    let other = pool.idle_in(2, modules[2]);
    pool.use_at(second, 5);
    let (third, gone) = pool.try_lease(1, modules[2]).expect("something to give up");
    assert_eq!(gone.instances.len(), 2);
    assert!(gone.instances.contains(&first) && gone.instances.contains(&second));
    assert!(pool.is_idle(other), "others have their own");
    assert!(pool.try_lease(1, modules[0]).unwrap_err().of_group);
    // Another's use of what it has given up counts for the other.
    let refused = pool.try_lease(2, modules[0]).map(drop);
    assert_eq!(refused, Ok(()));
    pool.discard(third);
    assert_eq!(pool.state.recount(), Ok(()));
    // With its last pair it is forgotten, and uses nothing then.
    for group in 10..150 {
        pool.entry(modules[0], group);
    }
    assert_eq!(pool.state.recount(), Ok(()));
}

#[test]
fn code_that_only_the_group_uses_stays_as_the_policy_says() {
    for (policy, stays) in [(Policy::Lru, false), (Policy::CostAware, true)] {
        let mut pool = Pool::new(policy, &[]);
        pool.limit_use(1, &[(Budget::Code, 4)]);
        let first = pool.idle_in(1, module(0));
        let (_, gone) = {
            let other = pool.idle_in(9, module(1));
            assert!(pool.is_idle(other));
            pool.try_lease(1, module(1)).expect("in place of the first")
        };
        assert_eq!(gone.instances, [first]);
        assert_eq!(gone.code.is_empty(), stays, "{policy:?}");
        assert_eq!(pool.state.recount(), Ok(()));
    }
}

#[test]
fn a_sum_is_met_by_instances_first_and_then_by_code() {
    // Each takes one of memory, one of stack, and its code: 4 and 5, and 6 for one more.
    for (limit, left) in [(11, 2 + 3), (9, 3), (6, 0)] {
        let mut pool = Pool::new(Policy::CostAware, &[]);
        for key in 0..3 {
            pool.idle_in(9, module(key));
        }
        pool.limit_use(1, &[(Budget::Total, 9)]);
        let first = pool.idle_in(1, module(0));
        let second = pool.idle_in(1, module(1));
        assert_eq!(pool.holds(1, Budget::Total), 4 + 5);
        pool.limit_use(1, &[(Budget::Total, limit)]);
        let used = pool.try_lease(1, module(2));
        let (_, gone) = used.expect("it has something to give up");
        assert_eq!(gone.instances, [first, second]);
        assert_eq!(pool.holds(1, Budget::Total), left + 6, "{limit}");
        assert_eq!(pool.state.recount(), Ok(()));
    }
}

#[test]
fn who_waits_for_room_hears_of_code_that_is_given_up() {
    let limits = [(Budget::Code, 7), (Budget::Memory, 1)];
    let mut pool = Pool::new(Policy::CostAware, &limits);
    let kept = pool.idle_in(1, module(1));
    let mut terms = ShareTerms::default();
    terms.reserved.set(Budget::Code, 3);
    terms.limits.set(Budget::Code, 4);
    let set = (pool.state).set_share(&Group::from(1), terms, &mut pool.cx);
    assert_eq!(set, Ok(()));
    assert_eq!(pool.state.evict(&[kept], &mut pool.cx), 1);
    pool.destroy();
    let _leased = pool.lease_in(9, module(2));
    let _waiting = pool.wait(NONE.code(3));
    // Another module, in place of the code that was kept for it; that there is no room for its instance is another thing.
    let shortage = pool.try_lease(1, module(2)).unwrap_err();
    assert_eq!(
        (shortage.budget, shortage.of_group),
        (Budget::Memory, false)
    );
    assert_eq!(pool.holds(1, Budget::Code), 0);
    assert!(pool.is_woken(), "nobody protects it any more");
}

#[test]
fn what_a_group_compiles_counts() {
    let mut pool = Pool::new(Policy::CostAware, &[]);
    pool.limit_use(1, &[(Budget::Compile, 5)]);
    let entry = pool.entry(module(0), 1);
    let SeatOffer::Seat(first) = pool.state.try_seat(entry, &mut pool.cx) else {
        panic!("a vacant seat");
    };
    let compile = NONE.compile(3).code(1);
    let room = pool.state.reserve(first, compile, &mut pool.cx);
    assert_eq!(room, ReserveOutcome::Granted);
    let entry = pool.entry(module(1), 1);
    let SeatOffer::Seat(second) = pool.state.try_seat(entry, &mut pool.cx) else {
        panic!("a vacant seat");
    };
    let ReserveOutcome::Refused(shortage) = pool.state.reserve(second, compile, &mut pool.cx)
    else {
        panic!("it has three already");
    };
    assert_eq!((shortage.budget, shortage.charged), (Budget::Compile, 3));
    let of_another = pool.entry(module(1), 2);
    let SeatOffer::Seat(third) = pool.state.try_seat(of_another, &mut pool.cx) else {
        panic!("a vacant seat");
    };
    let room = pool.state.reserve(third, compile, &mut pool.cx);
    assert_eq!(room, ReserveOutcome::Granted);
}

#[test]
fn code_that_requests_are_about_to_use_counts_once() {
    let mut pool = Pool::new(Policy::CostAware, &[]);
    for key in 0..3 {
        pool.idle_in(9, module(key));
    }
    pool.limit_use(1, &[(Budget::Code, 6)]);
    let mut ask = |key| {
        let entry = pool.entry(module(key), 1);
        let SeatOffer::Seat(request) = pool.state.try_seat(entry, &mut pool.cx) else {
            panic!("a vacant seat");
        };
        pool.state.prepare(request, &mut pool.cx.out);
        pool.state.reserve(request, NONE.memory(1), &mut pool.cx)
    };
    // Four of code; the same again; three more are too much.
    assert_eq!(ask(2), ReserveOutcome::Granted);
    assert_eq!(ask(2), ReserveOutcome::Granted);
    let ReserveOutcome::Refused(shortage) = ask(1) else {
        panic!("too much");
    };
    assert_eq!(
        (shortage.requested, shortage.charged, shortage.limit),
        (3, 4, 6)
    );
    assert_eq!(ask(0), ReserveOutcome::Granted);
    assert_eq!(pool.state.recount(), Ok(()));
}

#[derive(Clone, Debug)]
enum Op {
    Lease { group: u64, key: u8 },
    Park { nth: usize },
    Discard { nth: usize },
    Limit { group: u64, limit: u64 },
}

fn op() -> impl Strategy<Value = Op> {
    let nth = 0..8_usize;
    prop_oneof![
        6 => (GROUPS, 0..MODULES).prop_map(|(group, key)| Op::Lease { group, key }),
        5 => nth.clone().prop_map(|nth| Op::Park { nth }),
        1 => nth.prop_map(|nth| Op::Discard { nth }),
        1 => (GROUPS, 0..20_u64).prop_map(|(group, limit)| Op::Limit { group, limit }),
    ]
}

/// What there is, in plain lists.
#[derive(Default)]
struct Naive {
    leased: Vec<(u64, u8, Instance)>,
    /// The longest idle first.
    idle: Vec<(u64, u8, Instance)>,
    /// Modules that a group answers for.
    used: BTreeMap<u64, Vec<u8>>,
    limits: BTreeMap<u64, u64>,
}

impl Naive {
    /// The modules that the group gives up, and the instances that go with them; `None` if they are not enough.
    fn victims(&self, group: u64, key: u8) -> Option<(Vec<u8>, Vec<Instance>)> {
        let used = self.used.get(&group).cloned().unwrap_or_default();
        let new = if used.contains(&key) {
            0
        } else {
            module(key).code
        };
        let mut has: u64 = used.iter().map(|key| module(*key).code).sum();
        let limit = self.limits.get(&group).copied().unwrap_or(u64::MAX);
        let is_leased = |key: u8| self.leased.iter().any(|(g, k, _)| (*g, *k) == (group, key));
        let last = |key: u8| {
            self.idle
                .iter()
                .rposition(|(g, k, _)| (*g, *k) == (group, key))
        };
        let mut candidates: Vec<u8> = used.into_iter().filter(|k| *k != key).collect();
        candidates.sort_by_key(|key| (last(*key), *key));
        let (mut keys, mut gone) = (Vec::new(), Vec::new());
        for candidate in candidates {
            if new == 0 || has + new <= limit {
                break;
            }
            if !is_leased(candidate) {
                has -= module(candidate).code;
                let own = self
                    .idle
                    .iter()
                    .filter(|(g, k, _)| (*g, *k) == (group, candidate));
                gone.extend(own.map(|(.., id)| *id));
                keys.push(candidate);
            }
        }
        (new == 0 || has + new <= limit).then_some((keys, gone))
    }
}

fn run(ops: Vec<Op>) -> (u32, u32) {
    let mut pool = Pool::new(Policy::CostAware, &[]);
    for key in 0..MODULES {
        pool.idle_in(99, module(key));
    }
    for group in GROUPS {
        pool.limit_use(group, &[(Budget::Code, 1_000)]);
    }
    let mut naive = Naive::default();
    let mut seen = (0, 0);
    for op in ops {
        match op {
            Op::Lease { group, key } => {
                let entry = pool.entry(module(key), group);
                let is_full = pool.state.taken_seats(entry).count() >= 2;
                let has_idle = naive.idle.iter().any(|(g, k, _)| (*g, *k) == (group, key));
                if is_full || has_idle {
                    continue;
                }
                let expected = naive.victims(group, key);
                match (expected, pool.try_lease(group, module(key))) {
                    (Some((keys, mut victims)), Ok((id, mut gone))) => {
                        victims.sort_unstable();
                        gone.instances.sort_unstable();
                        assert_eq!(gone, went(&victims, &[]));
                        naive.idle.retain(|(.., id)| !victims.contains(id));
                        let used = naive.used.entry(group).or_default();
                        used.retain(|key| !keys.contains(key));
                        if !used.contains(&key) {
                            used.push(key);
                        }
                        seen.0 += u32::from(!keys.is_empty());
                        naive.leased.push((group, key, id));
                    }
                    (None, Err(shortage)) => {
                        assert!(shortage.of_group && shortage.budget == Budget::Code);
                        seen.1 += 1;
                    }
                    (expected, got) => panic!("{expected:?}, {got:?}"),
                }
            }
            Op::Park { nth } if nth < naive.leased.len() => {
                let parked = naive.leased.remove(nth);
                pool.park(parked.2);
                naive.idle.push(parked);
            }
            Op::Discard { nth } if nth < naive.leased.len() => {
                let (.., id) = naive.leased.remove(nth);
                let reason = RemovalReason::Discarded;
                pool.state.dismiss(id, reason, None, &mut pool.cx);
                pool.destroy();
            }
            Op::Limit { group, limit } => {
                pool.limit_use(group, &[(Budget::Code, limit)]);
                naive.limits.insert(group, limit);
            }
            Op::Park { .. } | Op::Discard { .. } => {}
        }
        assert_eq!(pool.state.recount(), Ok(()));
        for group in GROUPS {
            let used = naive.used.get(&group).cloned().unwrap_or_default();
            let code: u64 = used.iter().map(|key| module(*key).code).sum();
            assert_eq!(pool.holds(group, Budget::Code), code);
        }
    }
    seen
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn code_is_given_up_as_a_naive_list_says(ops in prop::collection::vec(op(), 1..80)) {
        run(ops);
    }
}

#[test]
fn these_operations_reach_both_ends() {
    use proptest::strategy::ValueTree;

    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut seen = (0, 0);
    for _ in 0..200 {
        let ops = prop::collection::vec(op(), 80).new_tree(&mut runner);
        let (gave_up, refused) = run(ops.expect("operations").current());
        seen = (seen.0 + gave_up, seen.1 + refused);
    }
    assert!(seen.0 > 50 && seen.1 > 50, "{seen:?}");
}
