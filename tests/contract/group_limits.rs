//! What a group may have at most: it gives up its own idle instances first, is refused beyond that, and nobody else notices.

use std::thread;

use crate::common::polling::{ByHand, MINUTE};
use crate::common::*;
use pollster::block_on;
use wasm_pool::{
    AcquireError, Budget, BudgetExceeded, BuildError, Function, Lease, Limits, Pool, Share,
    ShareError,
};

type F = Function<(), i32>;

fn memory(instances: u64) -> Share {
    Share::new().limit(Budget::Memory, instances * instance_bytes(1))
}

/// Functions that share nothing.
fn functions<const N: usize>(pool: &Pool) -> [F; N] {
    std::array::from_fn(|n| define(pool, &format!("f{n}"), memory_module(1, n as u32)))
}

#[track_caller]
fn is_beyond<X>(result: Result<X, AcquireError>) -> BudgetExceeded {
    match result.map(drop) {
        Err(AcquireError::BudgetExceeded(short)) if short.of_group => short,
        other => panic!("{other:?}"),
    }
}

#[test]
fn c_r8_a_group_has_no_more_than_its_limit_and_others_have_what_is_left() {
    let pool = quiet().build().unwrap();
    let f: [F; 4] = functions(&pool);
    pool.set_group("capped", memory(2)).unwrap();
    for f in &f {
        f.call("free", ()).unwrap();
        f.call("capped", ()).unwrap();
    }
    let stats = check(&pool);
    assert_eq!((stats.idle, stats.evictions), (4 + 2, 2));
    let group = &stats.groups[0];
    assert_eq!(
        group.limit(Budget::Memory),
        memory(2).limit_of(Budget::Memory)
    );
    assert_eq!(group.limit(Budget::Code), None);
    assert!(group.holds(Budget::Memory) <= group.limit(Budget::Memory).unwrap());
    // Those used last are there still.
    let uses = |f: &F| f.try_acquire("capped").unwrap().uses();
    assert_eq!([uses(&f[2]), uses(&f[3])], [2, 2]);
    let held = [&f[0], &f[1]].map(|f| f.acquire("capped").unwrap());
    let free: Vec<_> = f.iter().map(|f| f.acquire("free").unwrap()).collect();
    assert!(free.iter().all(|lease| lease.uses() == 2));
    let short = is_beyond(f[2].acquire("capped"));
    assert_eq!((short.evictable, short.limit), (0, 2 * instance_bytes(1)));
    assert_eq!(short.charged, short.limit);
    let of_it = |holder: &wasm_pool::Holder| holder.group == Some("capped".into());
    assert_eq!(short.holders.len(), 2);
    assert!(short.holders.iter().all(of_it), "{short}");
    let told = "bytes of the memory budget of its group, which has";
    assert!(short.to_string().contains(told), "{short}");
    drop(held);
    f[2].call("capped", ()).unwrap();
    check(&pool);
}

#[test]
fn c_r8_what_can_never_fit_says_so() {
    let pool = quiet().build().unwrap();
    let [f] = functions(&pool);
    pool.set_group(1, Share::new().limit(Budget::Memory, 100))
        .unwrap();
    let short = is_beyond(f.acquire(1));
    assert!(short.requested > short.limit && short.holders.is_empty());
    assert!(
        short
            .to_string()
            .contains("It can never fit: raise the memory limit of its group")
    );
    pool.set_group(1, Share::new()).unwrap();
    f.call(1, ()).unwrap();
    assert!(pool.stats().groups.is_empty());
}

#[test]
fn c_r8_a_guest_grows_within_its_groups_limit() {
    let pool = quiet().build().unwrap();
    let grow =
        wat(r#"(module (memory 1) (func (export "f") (result i32) i32.const 1 memory.grow))"#);
    let (grow, other) = (
        define(&pool, "grow", grow),
        define(&pool, "other", memory_module(1, 1)),
    );
    let limit = 2 * instance_bytes(1) + (64 << 10);
    pool.set_group(1, Share::new().limit(Budget::Memory, limit))
        .unwrap();
    other.call(1, ()).unwrap();
    let mut lease = grow.acquire(1).unwrap();
    assert_eq!(lease.call(()).unwrap(), 1, "within the limit");
    assert_eq!(lease.call(()).unwrap(), 2, "in place of the other instance");
    assert_eq!(check(&pool).idle, 0);
    assert_eq!(lease.call(()).unwrap(), -1, "and no further");
    let mut free = grow.acquire(2).unwrap();
    assert_eq!(free.call(()).unwrap(), 1);
    drop((lease, free));
    check(&pool);
}

#[test]
fn c_r8_stacks_of_tasks_are_limited() {
    let pool = quiet().build().unwrap();
    let [f, g] = functions(&pool);
    pool.set_group(1, Share::new().limit(Budget::Stack, 0))
        .unwrap();
    is_beyond(block_on(f.acquire_async(1)));
    f.call(1, ()).unwrap();
    is_beyond(block_on(f.acquire_async(1)));
    block_on(g.call_async(2, ())).unwrap();
    let one = pool.stats().budget(Budget::Stack).charged;
    pool.set_group(1, Share::new().limit(Budget::Stack, one))
        .unwrap();
    let held = block_on(f.acquire_async(1)).unwrap();
    is_beyond(block_on(g.acquire_async(1)));
    drop(held);
    block_on(g.call_async(1, ())).unwrap();
    check(&pool);
}

/// Whoever is refused by its own limit does not stand before others in the line for room.
#[test]
fn c_r8_a_group_at_its_limit_waits_for_no_room() {
    let limits = Limits::new().memory(2 * instance_bytes(1));
    let pool = quiet().limits(limits).build().unwrap();
    let f: [F; 3] = functions(&pool);
    pool.set_group("capped", memory(1)).unwrap();
    let capped = f[0].acquire("capped").unwrap();
    let free = f[0].acquire("free").unwrap();
    is_beyond(f[1].acquire_with("capped", room_within(MINUTE)));
    thread::scope(|scope| {
        let waiting = scope.spawn(|| f[1].acquire_with("free", room_within(MINUTE)).map(drop));
        wait_for_waiters(&pool, 1);
        // Behind the one who waits already: refused when its turn comes, and the next is served.
        let behind = scope.spawn(|| f[2].acquire_with("capped", room_within(MINUTE)).map(drop));
        wait_for_waiters(&pool, 2);
        let last = scope.spawn(|| f[2].acquire_with("free", room_within(MINUTE)).map(drop));
        wait_for_waiters(&pool, 3);
        drop(free);
        waiting.join().unwrap().unwrap();
        is_beyond(behind.join().unwrap());
        last.join().unwrap().unwrap();
    });
    drop(capped);
    check(&pool);
}

#[test]
fn c_r8_code_that_a_group_uses_is_limited_and_others_keep_theirs() {
    let pool = quiet().build().unwrap();
    let f: [F; 3] = functions(&pool);
    f[0].call("free", ()).unwrap();
    let code = charged(&pool, Budget::Code);
    let share = Share::new().limit(Budget::Code, 2 * code);
    pool.set_group("capped", share).unwrap();
    for f in &f {
        f.call("capped", ()).unwrap();
        f.call("free", ()).unwrap();
    }
    let stats = check(&pool);
    // All code is there, and two of the three are the group's.
    assert_eq!((stats.modules_loaded, stats.compilations), (3, 3));
    assert_eq!(
        (stats.idle, stats.groups[0].holds(Budget::Code)),
        (3 + 2, 2 * code)
    );
    let uses = |f: &F| f.try_acquire("capped").unwrap().uses();
    assert_eq!([uses(&f[1]), uses(&f[2])], [2, 2]);
    let held = [&f[1], &f[2]].map(|f| f.acquire("capped").unwrap());
    let short = is_beyond(f[0].acquire("capped"));
    assert_eq!((short.budget, short.requested), (Budget::Code, code));
    assert_eq!(
        (short.charged, short.limit, short.evictable),
        (2 * code, 2 * code, 0)
    );
    assert_eq!(short.holders.len(), 2, "{short}");
    drop(held);
    f[0].call("capped", ()).unwrap();
    assert_eq!(check(&pool).compilations, 3);
}

#[test]
fn c_r8_every_budget_can_be_limited() {
    let pool = quiet().build().unwrap();
    let [f, g, h] = functions(&pool);
    g.call("free", ()).unwrap();
    h.prepare().unwrap();
    for budget in Budget::ALL {
        if budget == Budget::Instances {
            // The same as `max_instances`, which `group_counts` is about.
            let share = Share::new().limit(budget, 3);
            assert_eq!(share, Share::new().max_instances(3));
            assert_eq!(share.limit_of(budget), Some(3));
            pool.set_group("counted", share).unwrap();
            assert_eq!(pool.stats().groups[0].limit(budget), Some(3));
            pool.set_group("counted", Share::new().limit(budget, u64::MAX))
                .unwrap();
            assert!(pool.stats().groups.is_empty());
            continue;
        }
        let group = budget.name();
        pool.set_group(group, Share::new().limit(budget, 0))
            .unwrap();
        // Of these, threads' leases of what is loaded take nothing.
        let takes_none = [Budget::Compile, Budget::Stack].contains(&budget);
        match g.call(group, ()) {
            Ok(_) => assert!(takes_none, "{budget}"),
            Err(wasm_pool::CallError::Acquire(error)) => {
                assert!(!takes_none, "{budget}");
                assert_eq!(is_beyond::<()>(Err(error)).budget, budget);
            }
            Err(other) => panic!("{other}"),
        }
        if budget == Budget::Compile {
            assert_eq!(is_beyond(f.acquire(group)).budget, budget);
        }
        pool.set_group(group, Share::new()).unwrap();
        h.call(group, ()).unwrap();
    }
    assert!(check(&pool).groups.is_empty());
}

#[test]
fn c_r8_all_groups_have_a_limit_where_the_builder_says_so() {
    let one = instance_bytes(1);
    let pool = quiet().max_group_memory(one).build().unwrap();
    let f: [F; 3] = functions(&pool);
    for tenant in 0..20_u64 {
        f[0].call(tenant, ()).unwrap();
        f[1].call(tenant, ()).unwrap();
    }
    let stats = check(&pool);
    assert_eq!((stats.idle, stats.evictions), (20, 20));
    assert!(stats.groups.is_empty(), "nothing was said of any of them");
    pool.set_group("more", memory(2)).unwrap();
    pool.set_group("any", Share::new().reserve(Budget::Memory, one))
        .unwrap();
    for f in &f {
        f.call("more", ()).unwrap();
        f.call("any", ()).unwrap();
    }
    assert_eq!(check(&pool).idle, 20 + 2 + 3);
    pool.set_group("more", Share::new()).unwrap();
    let held = f[2].acquire("more").unwrap();
    is_beyond(f[0].acquire("more"));
    drop(held);
    f[0].call("more", ()).unwrap();
    assert_eq!(check(&pool).idle, 20 + 1 + 3);
    let none = quiet()
        .max_group_memory(0)
        .max_group_stack(0)
        .build()
        .unwrap();
    let [f] = functions(&none);
    is_beyond(f.acquire(1));
    let strangers = Pool::builder().strangers().build().unwrap();
    let [f] = functions(&strangers);
    f.call(1, ()).unwrap();
    block_on(f.call_async(1, ())).unwrap();
}

#[test]
fn c_r8_a_builder_gives_groups_their_shares() {
    let one = instance_bytes(1);
    let limits = Limits::new().memory(4 * one);
    let reserve = |instances: u64| Share::new().reserve(Budget::Memory, instances * one);
    let builder = || quiet().limits(limits).group("reports", reserve(9));
    let error = builder().build().map(drop).unwrap_err();
    let BuildError::Share(ShareError::Overcommitted { requested, .. }) = error else {
        panic!("{error}");
    };
    assert_eq!(requested, 9 * one);
    // What is said later counts.
    let pool = builder()
        .group("reports", reserve(2))
        .group("capped", memory(1));
    let pool = pool.build().unwrap();
    let f: [F; 3] = functions(&pool);
    for f in &f[..2] {
        f.call("reports", ()).unwrap();
    }
    for f in &f {
        f.call("capped", ()).unwrap();
    }
    for tenant in 0..9_u64 {
        f[0].call(tenant, ()).unwrap();
    }
    assert!(
        f[..2]
            .iter()
            .all(|f| f.acquire("reports").unwrap().uses() == 2)
    );
    let mut groups: Vec<_> = check(&pool)
        .groups
        .iter()
        .map(|g| g.group.to_string())
        .collect();
    groups.sort();
    assert_eq!(groups, ["capped", "reports"]);
}

/// A task that waits, and its group.
type Waiting = (
    &'static str,
    ByHand<Result<Lease<'static, (), i32>, AcquireError>>,
);

/// Those who wait for room, served one after the other as soon as each is woken: in which order.
fn order_of(mut waiting: Vec<Waiting>) -> Vec<&'static str> {
    let mut order = Vec::new();
    while !waiting.is_empty() {
        let woken = waiting.iter().position(|(_, task)| task.is_woken());
        let woken = woken.expect("somebody is next");
        if let Some(lease) = waiting[woken].1.poll() {
            let (group, _) = waiting.remove(woken);
            order.push(group);
            drop(lease.unwrap());
        }
    }
    order
}

#[test]
fn c_r9_turns_for_room_go_by_weight() {
    for weighted in [false, true] {
        let limits = Limits::new().memory(instance_bytes(1));
        let pool = quiet().limits(limits).build().unwrap();
        let f: [F; 6] = functions(&pool);
        // Their code is there: only room for an instance is waited for.
        f.iter().for_each(|f| _ = f.call("first", ()).unwrap());
        if weighted {
            pool.set_group("many", Share::new().weight(1)).unwrap();
            assert_eq!(pool.stats().groups[0].weight, Some(1));
        }
        let held = f[0].acquire("first").unwrap();
        let mut waiting = Vec::new();
        let mut wait = |f: &F, group: &'static str| {
            let f = f.clone();
            let mut task =
                ByHand::new(async move { f.acquire_async_with(group, room_within(MINUTE)).await });
            assert!(task.poll().is_none());
            waiting.push((group, task));
        };
        f[1..5].iter().for_each(|f| wait(f, "many"));
        wait(&f[5], "one");
        drop(held);
        let order = order_of(waiting);
        let expected = match weighted {
            false => ["many", "many", "many", "many", "one"],
            true => ["many", "one", "many", "many", "many"],
        };
        assert_eq!(order, expected);
        check(&pool);
    }
}

#[test]
fn c_r9_a_queue_for_one_functions_instances_delays_another_group_by_one_turn() {
    for weighted in [false, true] {
        let limits = Limits::new().memory(instance_bytes(1));
        let builder = quiet().limits(limits).max_instances_per_entry(1);
        let pool = builder.build().unwrap();
        let [f] = functions(&pool);
        f.call("many", ()).unwrap();
        if weighted {
            pool.set_group("one", Share::new().weight(1)).unwrap();
        }
        let held = f.acquire("many").unwrap();
        let mut waiting = Vec::new();
        for group in ["many", "many", "many", "one"] {
            let f = f.clone();
            let mut task =
                ByHand::new(async move { f.acquire_async_with(group, room_within(MINUTE)).await });
            assert!(task.poll().is_none());
            waiting.push((group, task));
        }
        drop(held);
        let expected = match weighted {
            false => ["many", "many", "many", "one"],
            true => ["one", "many", "many", "many"],
        };
        assert_eq!(order_of(waiting), expected);
        check(&pool);
    }
}

#[test]
fn c_r9_what_is_no_weight_is_refused() {
    let pool = quiet().build().unwrap();
    for weight in [0, 1001, u32::MAX] {
        let set = pool.set_group(1, Share::new().weight(weight));
        assert_eq!(set.unwrap_err(), ShareError::Weight { weight });
    }
    pool.set_group(1, Share::new().weight(1000)).unwrap();
    pool.set_group(1, Share::new()).unwrap();
    assert!(pool.stats().groups.is_empty());
}

#[test]
fn c_r8_groups_of_which_nothing_is_said_can_have_a_limit_of_code() {
    let probe = quiet().build().unwrap();
    let [f, _] = functions::<2>(&probe);
    f.call(1, ()).unwrap();
    let code = charged(&probe, Budget::Code);
    let pool = quiet().max_group_code(2 * code + code / 2).build().unwrap();
    let f: [F; 3] = functions(&pool);
    for group in ["one", "another"] {
        for f in &f {
            f.call(group, ()).unwrap();
        }
    }
    let stats = check(&pool);
    // The first of each went with its use of the code, which stays for the other, and then for anybody.
    assert_eq!((stats.idle, stats.evictions, stats.compilations), (4, 2, 3));
    let held = [&f[1], &f[2]].map(|f| f.acquire("one").unwrap());
    let short = is_beyond(f[0].acquire("one"));
    assert_eq!((short.budget, short.evictable), (Budget::Code, 0));
    drop(held);
    f[0].call("one", ()).unwrap();
    check(&pool);
}
