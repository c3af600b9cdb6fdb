//! How many instances, waiting requests and compilations a group may have at once.

use std::sync::{Arc, OnceLock};
use std::thread;

use crate::common::polling::ByHand;
use crate::common::*;
use wasm_pool::wasmtime::Caller;
use wasm_pool::{
    AcquireError, BuildError, DefineError, Definition, ErrorKind, Function, GroupLimit, Limits,
    Pool, Reuse, Share, ShareError, StoreData, WaitingFor,
};

type F = Function<(), i32>;

const SECOND: std::time::Duration = std::time::Duration::from_secs(1);

/// Functions that share nothing.
fn functions<const N: usize>(pool: &Pool) -> [F; N] {
    std::array::from_fn(|n| define(pool, &format!("f{n}"), memory_module(1, n as u32)))
}

fn of_instances(count: u32) -> Share {
    Share::new().max_instances(count)
}

#[track_caller]
fn would_wait(f: &F, group: &'static str) -> WaitingFor {
    match f.try_acquire(group).map(drop) {
        Err(AcquireError::WouldBlock { waiting_for, .. }) => waiting_for,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn beyond<X>(result: Result<X, AcquireError>) -> GroupLimit {
    match result.map(drop) {
        Err(AcquireError::GroupLimit { limit, .. }) => limit,
        other => panic!("{other:?}"),
    }
}

#[test]
fn c_r10_a_group_has_no_more_instances_than_it_may_and_gives_up_its_own() {
    let pool = quiet().build().unwrap();
    let f: [F; 4] = functions(&pool);
    pool.set_group("capped", of_instances(2)).unwrap();
    for f in &f {
        f.call("free", ()).unwrap();
        f.call("capped", ()).unwrap();
    }
    let stats = check(&pool);
    assert_eq!((stats.idle, stats.evictions), (4 + 2, 2));
    let group = &stats.groups[0];
    assert_eq!((group.instances, group.max_instances), (2, Some(2)));
    assert_eq!((group.max_waiting, group.max_compilations), (None, None));
    // Those used last are there still.
    let uses = |f: &F| f.try_acquire("capped").unwrap().uses();
    assert_eq!([uses(&f[2]), uses(&f[3])], [2, 2]);
    let held = [&f[0], &f[1]].map(|f| f.acquire("capped").unwrap());
    assert_eq!(would_wait(&f[2], "capped"), WaitingFor::GroupInstance);
    assert!(f.iter().all(|f| f.acquire("free").unwrap().uses() >= 2));
    drop(held);
    f[2].call("capped", ()).unwrap();
    check(&pool);
}

#[test]
fn c_r10_whoever_waits_for_its_group_gets_the_room_of_any_lease_in_turn() {
    in_time(|| {
        let (builder, clock) = quiet_with_clock();
        let pool = builder.build().unwrap();
        let [f, g, h] = functions(&pool);
        pool.set_group("g", of_instances(1)).unwrap();
        for f in [&f, &g, &h] {
            f.call("g", ()).unwrap();
        }
        let lease = f.acquire("g").unwrap();
        thread::scope(|scope| {
            let first = scope.spawn(|| g.acquire("g").unwrap());
            wait_for_waiters(&pool, 1);
            let second = scope.spawn(|| h.acquire("g").unwrap());
            wait_for_waiters(&pool, 2);
            let third = scope.spawn(|| f.acquire("g").unwrap());
            wait_for_waiters(&pool, 3);
            assert_eq!(pool.stats().groups[0].waiting, 3);
            drop(lease);
            let lease = first.join().unwrap();
            assert!(!second.is_finished() && !third.is_finished());
            drop(lease);
            let lease = second.join().unwrap();
            assert!(!third.is_finished());
            // A lease that fails makes room as well.
            lease.discard();
            drop(third.join().unwrap());
        });
        let lease = f.acquire("g").unwrap();
        thread::scope(|scope| {
            let late = scope.spawn(|| g.acquire_with("g", room_within(SECOND)).map(drop));
            wait_for_waiters(&pool, 1);
            clock.advance(SECOND);
            let error = late.join().unwrap().unwrap_err();
            let AcquireError::Timeout { waiting_for, .. } = &error else {
                panic!("{error:?}");
            };
            assert_eq!(*waiting_for, WaitingFor::GroupInstance);
            let told = "g waited 1s for one of its group's instances, as many as it may have";
            assert!(error.to_string().contains(told), "{error}");
        });
        drop(lease);
        g.call("g", ()).unwrap();
        assert_eq!(check(&pool).groups[0].waiting, 0);
    });
}

#[test]
fn c_r10_tasks_wait_for_their_group_and_may_be_dropped() {
    let pool = quiet().build().unwrap();
    let [f, g, h] = functions(&pool);
    pool.set_group(1, of_instances(1)).unwrap();
    let held = f.acquire(1).unwrap();
    let tasks = [g.clone(), h.clone(), g.clone()].map(|f| {
        let mut task = ByHand::new(async move { f.call_async(1, ()).await });
        assert!(task.poll().is_none());
        task
    });
    assert_eq!(check(&pool).groups[0].waiting, 3);
    drop(held);
    assert!(tasks[0].is_woken() && !tasks[1].is_woken());
    // Dropped when it was to be served: the next has its place.
    let [first, second, third] = tasks;
    drop(first);
    assert!(second.is_woken() && !third.is_woken());
    second.finish().unwrap();
    third.wait_until_woken();
    third.finish().unwrap();
    let stats = check(&pool);
    assert_eq!(
        (stats.groups[0].instances, stats.idle, stats.waiting),
        (1, 1, 0)
    );
}

#[test]
fn c_r10_a_limit_that_is_changed_holds_from_then_on() {
    in_time(|| {
        let pool = quiet().build().unwrap();
        let f: [F; 4] = functions(&pool);
        pool.set_group("g", of_instances(3)).unwrap();
        let held = [&f[0], &f[1]].map(|f| f.acquire("g").unwrap());
        f[2].call("g", ()).unwrap();
        // What is idle goes now, what is leased when it ends.
        pool.set_group("g", of_instances(1)).unwrap();
        let stats = check(&pool);
        assert_eq!((stats.idle, stats.groups[0].instances), (0, 2));
        let [first, second] = held;
        drop(first);
        assert_eq!(check(&pool).idle, 0, "beyond the limit");
        drop(second);
        assert_eq!(check(&pool).idle, 1, "within it");
        let held = f[3].acquire("g").unwrap();
        thread::scope(|scope| {
            let waits = [0, 1].map(|n| {
                let f = &f[n];
                let waits = scope.spawn(move || f.acquire("g").map(drop));
                wait_for_waiters(&pool, n + 1);
                waits
            });
            pool.set_group("g", of_instances(3)).unwrap();
            for waits in waits {
                waits.join().unwrap().unwrap();
            }
            let waits = [0, 1].map(|n| f[n].acquire("g").unwrap());
            let barred = scope.spawn(|| f[2].acquire("g").map(drop));
            wait_for_waiters(&pool, 1);
            pool.set_group("g", of_instances(0)).unwrap();
            assert_eq!(beyond(barred.join().unwrap()), GroupLimit::Instances);
            drop(waits);
        });
        drop(held);
        let stats = check(&pool);
        assert_eq!((stats.idle, stats.groups[0].instances), (0, 0));
        let error = f[0].acquire("g").map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        assert!(
            error
                .to_string()
                .ends_with("its group may have no instances")
        );
        assert_eq!(pool.stats().refusals, 2);
        pool.set_group("g", Share::new()).unwrap();
        let all: Vec<_> = f.iter().map(|f| f.acquire("g").unwrap()).collect();
        drop(all);
        check(&pool);
    });
}

#[test]
fn c_r10_every_group_may_have_a_limit_and_one_with_a_name_has_its_own() {
    let pool = quiet().max_group_instances(1).build().unwrap();
    let [f, g] = functions(&pool);
    pool.set_group("large", of_instances(2)).unwrap();
    for group in ["a", "b"] {
        let lease = f.acquire(group).unwrap();
        assert_eq!(would_wait(&g, group), WaitingFor::GroupInstance);
        drop(lease);
        g.call(group, ()).unwrap();
    }
    let large = [&f, &g].map(|f| f.acquire("large").unwrap());
    assert_eq!(would_wait(&f, "large"), WaitingFor::GroupInstance);
    drop(large);
    assert_eq!(check(&pool).idle, 1 + 1 + 2);
}

/// Calls the host, and returns what it says.
const NESTED: &str = r#"(module (import "host" "again" (func $again (result i32)))
    (func (export "f") (result i32) (call $again)))"#;

#[test]
fn c_r10_a_host_function_that_waits_for_its_own_group_is_told() {
    in_time(|| {
        let inner: Arc<OnceLock<F>> = Arc::default();
        let again = inner.clone();
        let host = move |_: Caller<'_, StoreData<()>>| -> i32 {
            match again.get().unwrap().acquire("g").map(drop) {
                Ok(()) => 1,
                Err(AcquireError::Deadlock { .. }) => -1,
                Err(other) => panic!("{other}"),
            }
        };
        let pool = quiet()
            .imports(move |linker| linker.func_wrap("host", "again", host).map(drop))
            .build()
            .unwrap();
        let outer = define(&pool, "outer", wat(NESTED));
        let other = define(&pool, "other", memory_module(1, 1));
        inner.set(other.clone()).ok().unwrap();
        pool.set_group("g", of_instances(1)).unwrap();
        assert_eq!(
            outer.call("g", ()).unwrap(),
            -1,
            "its own instance is the one"
        );
        pool.set_group("g", of_instances(2)).unwrap();
        assert_eq!(outer.call("g", ()).unwrap(), 1);
        // The other lease may end.
        let held = other.acquire("g").unwrap();
        thread::scope(|scope| {
            let call = scope.spawn(|| outer.call("g", ()).unwrap());
            wait_for_waiters(&pool, 1);
            drop(held);
            assert_eq!(call.join().unwrap(), 1);
        });
        check(&pool);
    });
}

#[test]
fn c_r10_spares_count_and_give_way() {
    let pool = quiet().reuse(Reuse::Pristine).build().unwrap();
    let [f, g] = functions(&pool);
    pool.set_group("g", of_instances(2)).unwrap();
    for _ in 0..4 {
        f.call("g", ()).unwrap();
        pool.sweep();
        let stats = check(&pool);
        assert!(stats.groups[0].instances <= 2);
    }
    assert!(pool.stats().spares_made > 0);
    let held = [(); 2].map(|()| g.acquire("g").unwrap());
    assert_eq!(check(&pool).groups[0].instances, 2);
    assert_eq!(would_wait(&f, "g"), WaitingFor::GroupInstance);
    drop(held);
    pool.sweep();
    f.call("g", ()).unwrap();
    assert!(check(&pool).groups[0].instances <= 2);
}

#[test]
fn c_r11_no_more_of_a_group_wait_than_may() {
    in_time(|| {
        let room = Limits::new().memory(2 * instance_bytes(1));
        let pool = quiet()
            .limits(room)
            .max_instances_per_entry(1)
            .wait_for_room(true)
            .build()
            .unwrap();
        let [f, g, h] = functions(&pool);
        pool.set_group("g", Share::new().max_waiting(2)).unwrap();
        let held = f.acquire("g").unwrap();
        let other = g.acquire("other").unwrap();
        thread::scope(|scope| {
            // One waits for an instance, and one for room.
            let first = scope.spawn(|| f.call("g", ()));
            wait_for_waiters(&pool, 1);
            let second = scope.spawn(|| h.call("g", ()));
            wait_for_waiters(&pool, 2);
            let stats = pool.stats();
            let group = &stats.groups[0];
            assert_eq!((group.waiting, group.max_waiting), (2, Some(2)));
            for f in [&f, &h, &g] {
                let error = f.acquire("g").map(drop).unwrap_err();
                assert!(error.is_retryable(), "{error}");
                let told = "no more than 2 requests of its group may at once";
                assert!(error.to_string().ends_with(told), "{error}");
                assert_eq!(beyond::<()>(Err(error)), GroupLimit::Waiting(2));
            }
            assert_eq!(pool.stats().refusals, 3);
            // Who need not wait is not asked, nor are others.
            let third = scope.spawn(|| h.call("other", ()));
            wait_for_waiters(&pool, 3);
            drop(other);
            drop(held);
            for call in [first, second, third] {
                call.join().unwrap().unwrap();
            }
        });
        f.call("g", ()).unwrap();
        assert_eq!(check(&pool).groups[0].waiting, 0);
    });
}

#[test]
fn c_r11_nobody_need_wait_at_all() {
    let pool = quiet()
        .max_group_waiting(0)
        .max_instances_per_entry(1)
        .build()
        .unwrap();
    let [f, g] = functions(&pool);
    let held = f.acquire(1).unwrap();
    assert_eq!(beyond(f.acquire(1)), GroupLimit::Waiting(0));
    g.call(1, ()).unwrap();
    drop(held);
    f.call(1, ()).unwrap();
    // A compilation that goes on is waited for, too.
    let slow = define(&pool, "counts.slow", answering(1));
    let compiling = spans::hold("compile", "counts.slow()");
    thread::scope(|scope| {
        let leads = scope.spawn(|| slow.call(1, ()).unwrap());
        compiling.wait_until_reached();
        assert_eq!(beyond(slow.acquire(2)), GroupLimit::Waiting(0));
        drop(compiling);
        assert_eq!(leads.join().unwrap(), 1);
    });
    assert_eq!(check(&pool).refusals, 2);
}

#[test]
fn c_r12_a_group_compiles_no_more_at_once_than_it_may_and_others_do_meanwhile() {
    let pool = quiet().max_compilations(3).build().unwrap();
    pool.set_group("g", Share::new().max_compilations(1))
        .unwrap();
    assert_eq!(pool.stats().groups[0].max_compilations, Some(1));
    let name = |n: usize| format!("counts.f{n}");
    let f: [F; 3] = std::array::from_fn(|n| define(&pool, &name(n), answering(n as i32)));
    let held = [0, 1, 2].map(|n| spans::hold("compile", &format!("{}()", name(n))));
    let [of_first, of_second, of_third] = held;
    thread::scope(|scope| {
        let first = scope.spawn(|| f[0].call("g", ()).unwrap());
        of_first.wait_until_reached();
        let second = scope.spawn(|| f[1].call("g", ()).unwrap());
        wait_for_waiters(&pool, 1);
        let other = scope.spawn(|| f[2].call("other", ()).unwrap());
        of_third.wait_until_reached();
        assert_eq!(check(&pool).compiling, 2);
        assert_eq!(spans::begun("compile", "counts.f1()"), 0);
        drop(of_first);
        of_second.wait_until_reached();
        drop((of_second, of_third));
        assert_eq!(first.join().unwrap(), 0);
        assert_eq!(second.join().unwrap(), 1);
        assert_eq!(other.join().unwrap(), 2);
    });
    assert_eq!(check(&pool).compilations, 3);
}

#[test]
fn c_r10_what_makes_no_sense_is_refused() {
    let none = Share::new().max_compilations(0);
    let pool = quiet().build().unwrap();
    assert_eq!(pool.set_group(1, none), Err(ShareError::NoCompilations));
    assert!(pool.stats().groups.is_empty());
    for builder in [quiet().group(1, none), quiet().max_group_compilations(0)] {
        let refused = builder.build().map(drop);
        assert!(matches!(
            refused,
            Err(BuildError::Share(ShareError::NoCompilations))
        ));
    }
}

#[test]
fn c_r14_no_more_functions_are_defined_on_a_groups_behalf_than_may_be() {
    let pool = quiet().max_group_definitions(2).build().unwrap();
    pool.set_group("large", Share::new().max_definitions(3))
        .unwrap();
    let wasm = answering(1);
    let of = |name: &str, owner: &'static str| definition(name, wasm.clone()).owner(owner);
    let define = |definition: Definition| pool.define::<(), i32>(definition).map(drop);
    for name in ["a", "b"] {
        define(of(name, "small")).unwrap();
    }
    let error = define(of("c", "small")).unwrap_err();
    let DefineError::TooMany { owner, limit, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!((owner.to_string().as_str(), *limit), ("small", 2));
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    let told = "c(): 2 functions are defined on behalf of group small, as many as may be";
    assert_eq!(error.to_string(), told);
    assert!(pool.function::<(), i32>("c").is_err());
    // Others have their own, and nobody's are not counted.
    for name in ["c", "d", "e"] {
        define(of(name, "large")).unwrap();
    }
    define(definition("f", wasm.clone())).unwrap();
    let stats = check(&pool);
    let group = &stats.groups[0];
    assert_eq!((group.definitions, group.max_definitions), (3, Some(3)));
    assert!(matches!(
        define(of("g", "large")),
        Err(DefineError::TooMany { limit: 3, .. })
    ));
    // New code for what it has is no more, and keeps its owner.
    pool.replace::<(), i32>(of("a", "small")).unwrap();
    pool.replace::<(), i32>(definition("a", answering(2)))
        .unwrap();
    assert!(matches!(
        define(of("g", "small")),
        Err(DefineError::TooMany { .. })
    ));
    let taken = pool.replace::<(), i32>(of("f", "small")).map(drop);
    assert!(matches!(taken, Err(DefineError::TooMany { .. })));
    // A type may change, and the owner with it.
    let changed = definition("b", memory_module(1, 0)).owner("other");
    pool.replace::<(), i32>(changed.allow_type_change())
        .unwrap();
    define(of("g", "small")).unwrap();
    pool.remove("g").unwrap();
    define(of("h", "small")).unwrap();
    assert_eq!(
        pool.function::<(), i32>("a")
            .unwrap()
            .call("anybody", ())
            .unwrap(),
        2
    );
    check(&pool);
}
