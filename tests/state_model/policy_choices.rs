//! Who goes when room is needed: the policies' choices of modules, and the order of instances.

use std::cmp::Ordering;

use crate::fake::Instance;
use crate::pool::{Gone, Module, NONE, Pool, gone};
use crate::state::{Budget, History, PerBudget, Policy, ReserveOutcome, SeatOffer, Stamp};

// Whether code outlives its last instance: ────────────────────────────────────────────────────────

fn evict_the_last_instance(policy: Policy) -> (Instance, Gone) {
    let mut pool = Pool::new(policy, &[]);
    let last = pool.idle(Module::new(1, 10));
    let evicted = pool.state.evict(&[last], &mut pool.cx);
    assert_eq!(evicted, 1);
    (last, pool.destroy())
}

#[test]
fn lru_drops_code_with_its_last_instance() {
    let (last, all) = evict_the_last_instance(Policy::Lru);
    assert_eq!(all, gone(&[last], &[1]));
}

#[test]
fn module_lru_and_cost_aware_retain_code() {
    for policy in [Policy::ModuleLru, Policy::CostAware] {
        let (last, all) = evict_the_last_instance(policy);
        assert_eq!(all, gone(&[last], &[]), "{policy:?}");
    }
}

#[test]
fn lru_keeps_code_while_another_instance_lives() {
    let mut pool = Pool::new(Policy::Lru, &[]);
    let module = Module::new(1, 10);
    let (one, other) = (pool.lease_new(module), pool.lease_new(module));
    pool.park(one);
    pool.state.evict(&[one], &mut pool.cx);
    assert_eq!(pool.destroy(), gone(&[one], &[]));
    assert!(pool.state.instance(other).is_some());
}

// Which module goes: ──────────────────────────────────────────────────────────────────────────────

/// The modules that go, one after the other, when ever more code is asked for.
fn order(policy: Policy, modules: &[Module]) -> Vec<u32> {
    let total = modules.iter().map(|m| m.code).sum();
    let mut pool = Pool::new(policy, &[(Budget::Code, total)]);
    for (at, module) in (10..).zip(modules) {
        pool.pass_until(at);
        pool.idle(*module);
    }
    pool.pass_until(1000);
    let mut order = Vec::new();
    while order.len() < modules.len() {
        // What the ones before freed is free; one byte more takes the next.
        let charged = pool.state.ledger().charged().get(Budget::Code);
        let (room, all) = pool.ask(NONE.code(total - charged + 1));
        assert_eq!(room, ReserveOutcome::Evicting);
        order.extend(all.code);
    }
    order
}

#[test]
fn lru_and_module_lru_take_the_least_recently_used_module() {
    let modules = [Module::new(1, 10), Module::new(2, 40), Module::new(3, 5)];
    assert_eq!(order(Policy::Lru, &modules), [1, 2, 3]);
    assert_eq!(order(Policy::ModuleLru, &modules), [1, 2, 3]);
}

#[test]
fn cost_aware_takes_what_is_cheap_to_bring_back() {
    let costs = [(1, 1_000_000), (2, 1), (3, 1000)];
    let modules = costs.map(|(key, cost)| Module {
        cost,
        ..Module::new(key, 10)
    });
    assert_eq!(order(Policy::CostAware, &modules), [2, 3, 1]);
}

#[test]
fn cost_aware_takes_what_is_large_for_its_cost() {
    let modules = [
        Module::new(1, 10),
        Module::new(2, 1000),
        Module::new(3, 100),
    ];
    assert_eq!(order(Policy::CostAware, &modules), [2, 3, 1]);
}

/// A is used every 10, B every 40; when room is needed, B was used last.
fn often_or_lately(policy: Policy) -> Vec<u32> {
    let mut pool = Pool::new(policy, &[(Budget::Code, 20)]);
    pool.pass_until(1);
    let a = pool.idle(Module::new(1, 10));
    let b = pool.idle(Module::new(2, 10));
    for at in 1..=8 {
        pool.use_at(a, at * 10);
        if at % 4 == 0 {
            pool.use_at(b, at * 10 + 2);
        }
        pool.look();
    }
    pool.pass_until(85);
    let (room, all) = pool.ask(NONE.code(1));
    assert_eq!(room, ReserveOutcome::Evicting);
    all.code
}

#[test]
fn cost_aware_takes_what_is_used_seldom() {
    assert_eq!(often_or_lately(Policy::CostAware), [2]);
    assert_eq!(often_or_lately(Policy::ModuleLru), [1]);
}

#[test]
fn code_goes_with_all_its_instances_or_not_at_all() {
    let mut pool = Pool::new(Policy::ModuleLru, &[(Budget::Code, 30)]);
    let (busy, free) = (Module::new(1, 10), Module::new(2, 10));
    let beside_a_lease = pool.idle(busy);
    // The idle one is in its seat, so that this takes it out; it goes back when there are two.
    let entry = pool.entry(busy, 1);
    let entered = pool.state.try_seat(entry, &mut pool.cx);
    assert!(matches!(entered, SeatOffer::Idle(id) if id == beside_a_lease));
    let leased = pool.lease_new(busy);
    pool.park(beside_a_lease);
    let (one, other) = (pool.lease_new(free), pool.lease_new(free));
    pool.park(one);
    pool.park(other);

    let (room, all) = pool.ask(NONE.code(15));
    assert_eq!(room, ReserveOutcome::Evicting);
    assert_eq!(all, gone(&[one, other], &[2]));
    assert!(pool.is_idle(beside_a_lease), "evicting it frees no code");
    assert!(pool.state.instance(leased).is_some());
}

#[test]
fn a_refused_request_evicts_nothing() {
    let mut pool = Pool::new(Policy::ModuleLru, &[(Budget::Code, 30)]);
    let idle = pool.idle(Module::new(1, 10));
    let leased = pool.lease_new(Module::new(2, 10));
    let (room, all) = pool.ask(NONE.code(21));
    let ReserveOutcome::Refused(shortage) = room else {
        panic!("{room:?}");
    };
    assert_eq!((shortage.budget, shortage.requested), (Budget::Code, 21));
    assert_eq!((shortage.limit, shortage.charged), (30, 20));
    assert_eq!(shortage.evictable, 10);
    assert_eq!(all, Gone::default());
    assert!(pool.is_idle(idle) && !pool.is_idle(leased));
}

/// More modules than one choice looks at: loaded one after the other, each worth a little more than the one
/// before.
fn many(count: u8) -> (Pool, u64) {
    let total = u64::from(count) * 10;
    let mut pool = Pool::new(Policy::CostAware, &[(Budget::Code, total)]);
    for key in 0..count {
        pool.pass_until(10);
        pool.idle(Module {
            cost: 1000 + u64::from(key) * 1000,
            ..Module::new(key, 10)
        });
    }
    pool.pass_until(1000);
    (pool, total)
}

#[test]
#[cfg_attr(miri, ignore = "hundreds of modules take miri minutes")]
fn of_many_modules_one_of_the_least_worthy_goes() {
    let (mut pool, total) = many(200);
    let mut sum = 0;
    for _ in 0..50 {
        let charged = pool.state.ledger().charged().get(Budget::Code);
        let (room, all) = pool.ask(NONE.code(total - charged + 1));
        assert_eq!((room, all.code.len()), (ReserveOutcome::Evicting, 1));
        sum += all.code[0];
    }
    // The fifty least worthy come to 24.5 each; chosen blindly, they would come to a hundred.
    assert!(sum < 50 * 30, "{sum} in all");
}

#[test]
#[cfg_attr(miri, ignore = "hundreds of modules take miri minutes")]
fn the_same_pools_choose_the_same_modules() {
    let choose = || {
        let (mut pool, _) = many(200);
        pool.ask(NONE.code(300)).1
    };
    assert_eq!(choose(), choose());
}

#[test]
#[cfg_attr(miri, ignore = "hundreds of modules take miri minutes")]
fn who_needs_all_modules_gets_each_of_them_once() {
    for count in [1, 2, 63, 64, 65, 97, 200] {
        let (mut pool, total) = many(count);
        let (room, all) = pool.ask(NONE.code(total));
        assert_eq!(room, ReserveOutcome::Evicting);
        let mut code = all.code;
        code.sort_unstable();
        let each: Vec<_> = (0..u32::from(count)).collect();
        assert_eq!(code, each, "of {count}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "hundreds of modules take miri minutes")]
fn a_refusal_counts_all_that_is_idle_though_it_tried_few() {
    let (mut pool, total) = many(200);
    let leased = pool.lease_new(Module {
        code: 0,
        ..Module::new(250, 0)
    });
    let (room, all) = pool.ask(NONE.code(total + 1));
    let ReserveOutcome::Refused(shortage) = room else {
        panic!("{room:?}");
    };
    assert_eq!(shortage.evictable, total);
    assert_eq!(all, Gone::default());
    let (room, _) = pool.ask(NONE.memory(1_000_000));
    let ReserveOutcome::Refused(shortage) = room else {
        panic!("{room:?}");
    };
    assert_eq!((shortage.charged, shortage.evictable), (201, 200));
    assert!(!pool.is_idle(leased));
}

// Who is spared: ──────────────────────────────────────────────────────────────────────────────────

#[test]
fn a_small_module_is_spared_when_a_large_one_must_go_anyway() {
    let mut pool = Pool::new(Policy::ModuleLru, &[(Budget::Code, 30)]);
    let small = pool.idle(Module::new(1, 5));
    let large = pool.idle(Module::new(2, 20));
    // 5 are free. The small one is the first victim, but only the large one frees 10.
    let (room, all) = pool.ask(NONE.code(15));
    assert_eq!(room, ReserveOutcome::Evicting);
    assert_eq!(all, gone(&[large], &[2]));
    assert!(pool.is_idle(small));
}

#[test]
fn a_small_instance_is_spared_when_a_large_one_must_go_anyway() {
    let mut pool = Pool::new(Policy::CostAware, &[(Budget::Memory, 30)]);
    let of = |key, memory| Module {
        memory,
        ..Module::new(key, 1)
    };
    let small = pool.idle(of(1, 5));
    let large = pool.idle(of(2, 20));
    let (_, all) = pool.ask(NONE.memory(15));
    assert_eq!(all, gone(&[large], &[]));
    assert!(pool.is_idle(small));
}

#[test]
fn both_go_when_both_are_needed() {
    let mut pool = Pool::new(Policy::ModuleLru, &[(Budget::Code, 30)]);
    let small = pool.idle(Module::new(1, 5));
    let large = pool.idle(Module::new(2, 20));
    let (_, all) = pool.ask(NONE.code(27));
    assert_eq!(all, gone(&[small, large], &[1, 2]));
}

// What is under way counts: ───────────────────────────────────────────────────────────────────────

#[test]
fn what_one_request_waits_for_is_not_given_to_another() {
    let mut pool = Pool::new(
        Policy::CostAware,
        &[(Budget::Stack, 1), (Budget::Total, 10)],
    );
    let last = pool.idle(Module::new(1, 5));
    pool.state.evict(&[last], &mut pool.cx);
    pool.destroy();
    let [filler, first, second] = [(); 3].map(|()| pool.state.begin_growth(None));
    let (state, cx) = (&mut pool.state, &mut pool.cx);
    let full = state.reserve(filler, NONE.compile(5), cx);
    assert_eq!(full, ReserveOutcome::Granted);

    // The stack is there, the total is not: the code must go, and until then the stack waits.
    assert_eq!(
        state.reserve(first, NONE.stack(1), cx),
        ReserveOutcome::Evicting
    );
    state.abandon(filler, &mut cx.out);
    let stolen = state.reserve(second, NONE.stack(1), cx);
    assert!(matches!(stolen, ReserveOutcome::Refused(_)), "{stolen:?}");
    assert_eq!(pool.destroy(), gone(&[], &[1]));
    let (state, cx) = (&mut pool.state, &mut pool.cx);
    assert_eq!(
        state.reserve(first, NONE.stack(1), cx),
        ReserveOutcome::Granted
    );
}

#[test]
fn lowered_limits_count_what_is_dying_already() {
    let mut pool = Pool::new(Policy::CostAware, &[]);
    let [_, kept] = two_of_ten(&mut pool);
    let mut limits = PerBudget::from_fn(|_| 1_000_000);
    limits.set(Budget::Memory, 10);
    for _ in 0..2 {
        // The second time, the victim of the first is still charged.
        (pool.state).set_limits(limits, &mut pool.cx);
        assert_eq!(pool.cx.out.destroy.len(), 1);
    }
    assert!(pool.is_idle(kept));
}

fn two_of_ten(pool: &mut Pool) -> [Instance; 2] {
    [1, 2].map(|key| {
        pool.idle(Module {
            memory: 10,
            ..Module::new(key, 5)
        })
    })
}

#[test]
fn an_overdraft_that_leases_hold_costs_nobody_in_vain() {
    let mut pool = Pool::new(Policy::ModuleLru, &[]);
    let small = pool.idle(Module {
        memory: 0,
        ..Module::new(1, 5)
    });
    let large = pool.idle(Module::new(2, 20));
    let leased = pool.lease_new(Module {
        memory: 50,
        ..Module::new(3, 5)
    });
    // Memory stays overdrawn whoever goes; the code can be repaid by the large module alone.
    let mut limits = PerBudget::from_fn(|_| 1_000_000);
    limits.set(Budget::Memory, 40);
    limits.set(Budget::Code, 20);
    (pool.state).set_limits(limits, &mut pool.cx);
    let all = pool.destroy();
    assert_eq!(all, gone(&[large], &[2]));
    assert!(pool.is_idle(small));
    assert!(pool.state.instance(leased).is_some());
    assert!(pool.state.is_overdrawn());
}

#[test]
fn what_no_number_can_count_is_refused() {
    let mut pool = Pool::new(Policy::CostAware, &[]);
    let no_limit = PerBudget::from_fn(|_| u64::MAX);
    (pool.state).set_limits(no_limit, &mut pool.cx);
    pool.idle(Module::new(1, 5));
    let (room, all) = pool.ask(NONE.memory(u64::MAX));
    assert!(matches!(room, ReserveOutcome::Refused(_)), "{room:?}");
    assert_eq!(all, Gone::default());
}

// Instances first, code last: ─────────────────────────────────────────────────────────────────────

#[test]
fn memory_and_stacks_come_from_the_least_recently_used() {
    for budget in [Budget::Memory, Budget::Stack] {
        let mut pool = Pool::new(Policy::CostAware, &[(budget, 3)]);
        let [a, b, c] = [1, 2, 3].map(|key| pool.idle(Module::new(key, 10)));
        pool.use_at(a, 5);
        let one = match budget {
            Budget::Memory => NONE.memory(1),
            _ => NONE.stack(1),
        };
        for oldest in [b, c, a] {
            // Each gives one, so it takes one more to need the next.
            let held = 3 - pool.state.ledger().charged().get(budget);
            let need = match budget {
                Budget::Memory => one.memory(held + 1),
                _ => one.stack(held + 1),
            };
            assert_eq!(pool.ask(need).1, gone(&[oldest], &[]), "{budget}");
        }
    }
}

/// Two idle instances of 6 bytes, each with 4 bytes of code; in mappings, one each.
fn two(limit: (Budget, u64)) -> (Pool, [Instance; 2]) {
    let mut pool = Pool::new(Policy::CostAware, &[limit]);
    let of = |key| Module {
        memory: 5,
        ..Module::new(key, 4)
    };
    let both = [1, 2].map(|key| pool.idle(of(key)));
    (pool, both)
}

#[test]
fn the_total_comes_from_instances_first_and_from_code_last() {
    let (mut pool, [a, _]) = two((Budget::Total, 20));
    assert_eq!(pool.ask(NONE.memory(6)).1, gone(&[a], &[]));

    let (mut pool, [a, b]) = two((Budget::Total, 20));
    assert_eq!(pool.ask(NONE.memory(12)).1, gone(&[a, b], &[]));

    let (mut pool, [a, b]) = two((Budget::Total, 20));
    let (_, all) = pool.ask(NONE.memory(13));
    assert_eq!(all.instances, [a, b]);
    assert_eq!(all.code.len(), 1, "one module's code is enough");
}

#[test]
fn mappings_come_from_instances_first_and_from_code_last() {
    let (mut pool, [a, b]) = two((Budget::Mappings, 4));
    assert_eq!(pool.ask(NONE.mappings(2)).1, gone(&[a, b], &[]));

    let (mut pool, [a, b]) = two((Budget::Mappings, 4));
    let (_, all) = pool.ask(NONE.mappings(3));
    assert_eq!(all.instances, [a, b]);
    assert_eq!(all.code.len(), 1);
}

#[test]
fn what_compilations_hold_comes_from_nobody() {
    let mut pool = Pool::new(Policy::CostAware, &[(Budget::Compile, 10)]);
    let idle = pool.idle(Module::new(1, 10));
    assert!(matches!(
        pool.ask(NONE.compile(11)).0,
        ReserveOutcome::Refused(_)
    ));
    assert!(pool.is_idle(idle));
}

// The history of a module: ────────────────────────────────────────────────────────────────────────

fn at(at: u64) -> Stamp {
    Stamp { at, sequence: 1 }
}

fn history(uses: &[u64], cost: u64) -> History {
    let mut history = History::default();
    history.cost = cost;
    uses.iter().for_each(|u| history.used(at(*u)));
    history
}

fn compare(a: History, b: History, bytes: [u64; 2]) -> Ordering {
    let worth = |h: History, bytes| h.worth(Policy::CostAware, bytes, 100);
    worth(a, bytes[0]).total_cmp(&worth(b, bytes[1]))
}

#[test]
fn a_use_that_is_seen_late_does_not_turn_time_back() {
    let mut history = history(&[10, 50], 1);
    let before = history;
    history.used(at(20));
    assert_eq!(history, before);
    assert_eq!(history.last_used, at(50));
}

#[test]
fn uses_that_are_seen_at_once_are_worth_as_much_as_those_seen_one_by_one() {
    let seen = history(&[10, 20, 30, 40, 50, 60, 70, 80, 90], 1);
    let mut at_once = history(&[10], 1);
    at_once.used_often(at(90), 8);
    assert_eq!(at_once, seen);
    let mut once = history(&[10], 1);
    once.used(at(90));
    assert_eq!(compare(once, seen, [10, 10]), Ordering::Less);
}

#[test]
fn worth_is_cost_over_bytes_over_the_wait() {
    let usual = history(&[80, 90, 100], 1000);
    let cheap = history(&[80, 90, 100], 10);
    let seldom = history(&[20, 60, 100], 1000);
    let stale = history(&[10, 20, 30], 1000);
    assert_eq!(compare(cheap, usual, [10, 10]), Ordering::Less);
    assert_eq!(compare(seldom, usual, [10, 10]), Ordering::Less);
    assert_eq!(compare(stale, usual, [10, 10]), Ordering::Less);
    assert_eq!(compare(usual, usual, [20, 10]), Ordering::Less);
    assert_eq!(compare(usual, usual, [10, 10]), Ordering::Equal);
}

#[test]
fn equal_worth_falls_back_to_the_last_use() {
    let early = history(&[10], 0);
    let late = history(&[20], 0);
    assert_eq!(compare(early, late, [10, 10]), Ordering::Less);
}

#[test]
fn nothing_known_is_worth_something_finite() {
    let unknown = History::default();
    assert_eq!(compare(unknown, unknown, [0, 0]), Ordering::Equal);
    let far = unknown.worth(Policy::CostAware, 0, u64::MAX);
    assert_eq!(far.total_cmp(&far), Ordering::Equal);
}
