//! Functions that are pinned: their code and one instance stay, whoever else needs the room.

use std::thread;
use std::time::Duration;

use crate::common::*;
use wasm_pool::{
    AcquireError, Budget, BudgetExceeded, Definition, Function, Limits, ManualClock, Policy, Pool,
    PoolBuilder, Reuse, Share,
};

type F = Function<(), i32>;

const HOUR: Duration = Duration::from_secs(3600);

fn define_pinned(pool: &Pool, name: &str, salt: u32) -> F {
    let definition = definition(name, memory_module(1, salt)).pinned(true);
    pool.define(definition).unwrap()
}

fn with_room_for(instances: u64) -> PoolBuilder {
    quiet().limits(Limits::new().memory(instances * instance_bytes(1)))
}

#[track_caller]
fn refused<X>(result: Result<X, AcquireError>) -> BudgetExceeded {
    match result.map(drop) {
        Err(AcquireError::BudgetExceeded(short)) => short,
        other => panic!("{other:?}"),
    }
}

fn uses(f: &F, group: &'static str) -> u64 {
    f.acquire(group).unwrap().uses()
}

#[test]
fn c_r13_one_instance_stays_whoever_else_needs_the_room() {
    for policy in [Policy::Lru, Policy::ModuleLru, Policy::CostAware] {
        let pool = with_room_for(2).policy(policy).build().unwrap();
        let vital = define_pinned(&pool, "vital", 0);
        let other = define(&pool, "other", memory_module(1, 1));
        vital.call("ops", ()).unwrap();
        for tenant in 0..20_u64 {
            other.call(tenant, ()).unwrap();
        }
        assert_eq!(uses(&vital, "ops"), 2);
        // Another group's is there in its place.
        let lease = vital.acquire("b").unwrap();
        let _other = other.acquire("a").unwrap();
        drop(lease);
        assert_eq!(uses(&vital, "b"), 2);
        let short = refused(other.acquire("c"));
        assert_eq!((short.evictable, short.reserved), (0, instance_bytes(1)));
        let told = "are idle, and reserved for other groups or pinned";
        assert!(short.to_string().contains(told), "{short}");
        let stats = check(&pool);
        let pinned = |name: &str| {
            stats
                .functions
                .iter()
                .find(|f| &*f.name == name)
                .unwrap()
                .pinned
        };
        assert!(pinned("vital") && !pinned("other"));
    }
}

#[test]
fn c_r13_its_code_stays_from_its_preparation_on() {
    let code = {
        let pool = quiet().build().unwrap();
        define(&pool, "f", memory_module(1, 0)).prepare().unwrap();
        charged(&pool, Budget::Code)
    };
    for policy in [Policy::Lru, Policy::ModuleLru, Policy::CostAware] {
        let limits = Limits::new().code(2 * code);
        let pool = quiet().policy(policy).limits(limits).build().unwrap();
        let vital = define_pinned(&pool, "vital", 0);
        vital.prepare().unwrap();
        for salt in 1..8 {
            let other = define(&pool, &format!("f{salt}"), memory_module(1, salt));
            other.call("g", ()).unwrap();
        }
        assert_eq!(pool.stats().compilations, 8);
        vital.call("ops", ()).unwrap();
        assert_eq!(check(&pool).compilations, 8, "{policy:?}: it was there");
    }
}

#[test]
fn c_r13_neither_sweeps_nor_idle_times_end_it() {
    let clock = ManualClock::new();
    let pool = quiet()
        .clock(clock.clone())
        .idle_timeout(HOUR)
        .code_idle_timeout(HOUR)
        .build()
        .unwrap();
    let wasm = memory_module(1, 0);
    let all: [F; 2] = ["f", "own"].map(|name| {
        let definition = definition(name, wasm.clone()).pinned(true);
        let definition = match name {
            "own" => definition.idle_timeout(HOUR / 2),
            _ => definition,
        };
        pool.define(definition).unwrap()
    });
    for f in &all {
        for group in ["a", "b", "c"] {
            f.call(group, ()).unwrap();
        }
    }
    for _ in 0..3 {
        clock.advance(2 * HOUR);
        pool.sweep();
        let stats = check(&pool);
        assert_eq!((stats.idle, stats.modules_loaded), (2, 1));
    }
    // The host may, and a definition that says nothing.
    assert_eq!(pool.retain(|_| false), 2);
    clock.advance(2 * HOUR);
    pool.sweep();
    assert_eq!(check(&pool).modules_loaded, 1);
    for f in &all {
        f.call("a", ()).unwrap();
        let name = f.name().to_owned();
        pool.replace::<(), i32>(definition(&name, wasm.clone()))
            .unwrap();
    }
    clock.advance(2 * HOUR);
    pool.sweep();
    let stats = check(&pool);
    assert_eq!((stats.idle, stats.modules_loaded), (0, 0));
}

#[test]
fn c_r13_a_group_within_its_reservation_takes_it() {
    let pool = with_room_for(2).build().unwrap();
    let vital = define_pinned(&pool, "vital", 0);
    let other = define(&pool, "other", memory_module(1, 1));
    let reserved = Share::new().reserve(Budget::Memory, 2 * instance_bytes(1));
    vital.call("ops", ()).unwrap();
    let lease = other.acquire("quiet").unwrap();
    refused(other.acquire("quiet"));
    pool.set_group("quiet", reserved).unwrap();
    drop(other.acquire("quiet").unwrap());
    drop(lease);
    assert_eq!(check(&pool).idle, 2);
    assert_eq!(charged(&pool, Budget::Memory), 2 * instance_bytes(1));
    refused(vital.acquire("ops"));
}

#[test]
fn c_r13_its_own_group_at_a_limit_takes_it() {
    let pool = quiet().build().unwrap();
    let vital = define_pinned(&pool, "vital", 0);
    let other = define(&pool, "other", memory_module(1, 1));
    for share in [
        Share::new().limit(Budget::Memory, instance_bytes(1)),
        Share::new().max_instances(1),
    ] {
        pool.set_group("ops", share).unwrap();
        vital.call("ops", ()).unwrap();
        other.call("ops", ()).unwrap();
        assert_eq!(check(&pool).idle, 1);
        assert_eq!(uses(&other, "ops"), 2);
    }
    // Limits that are lowered take it, too.
    pool.set_group("ops", Share::new()).unwrap();
    vital.call("ops", ()).unwrap();
    pool.set_limits(Limits::new().memory(instance_bytes(0)))
        .unwrap();
    assert_eq!(pool.stats().idle, 0);
    pool.recount().unwrap();
}

#[test]
fn c_r13_a_spare_stays_of_a_function_whose_instances_are_leased_once() {
    let pool = with_room_for(2).build().unwrap();
    let vital = definition("vital", memory_module(1, 0)).reuse(Reuse::Pristine);
    let vital: F = pool.define(vital.pinned(true)).unwrap();
    let other = define(&pool, "other", memory_module(1, 1));
    vital.call("ops", ()).unwrap();
    pool.sweep();
    assert_eq!(pool.stats().spares_made, 1);
    for tenant in 0..5_u64 {
        other.call(tenant, ()).unwrap();
    }
    let lease = vital.try_acquire("ops").unwrap();
    assert_eq!(check(&pool).spares_made, 1, "it was ready");
    drop(lease);
}

/// Those who wait for room are served beside what is pinned, and that is never in their way for longer than it must.
#[test]
fn c_r13_who_waits_for_room_is_served_with_what_is_left() {
    in_time(|| {
        let pool = with_room_for(3).wait_for_room(true).build().unwrap();
        let vital = define_pinned(&pool, "vital", 0);
        let other = define(&pool, "other", memory_module(1, 1));
        thread::scope(|scope| {
            for group in 0..4_u64 {
                let (vital, other) = (&vital, &other);
                scope.spawn(move || {
                    for _ in 0..200 {
                        vital.call(group, ()).unwrap();
                        other.call(group, ()).unwrap();
                    }
                });
            }
        });
        let stats = check(&pool);
        assert_eq!(stats.waiting, 0);
        assert!(stats.functions.iter().any(|f| f.pinned && f.idle > 0));
    });
}

#[test]
#[cfg(feature = "config")]
fn c_r13_a_configuration_pins_a_function() {
    let config: wasm_pool::Config =
        wasm_pool::Config::from_toml("functions.vital.pinned = true").unwrap();
    let pool = with_room_for(1).config(&config).build().unwrap();
    let vital = define(&pool, "vital", memory_module(1, 0));
    vital.call("ops", ()).unwrap();
    let other = define(&pool, "other", memory_module(1, 1));
    assert_eq!(refused(other.acquire("g")).reserved, instance_bytes(1));
    // What the definition says holds.
    let loose = Definition::new("vital")
        .export("f")
        .wasm(memory_module(1, 0));
    pool.replace::<(), i32>(loose.pinned(false)).unwrap();
    other.call("g", ()).unwrap();
}

#[test]
fn c_r13_who_would_wait_for_what_is_pinned_is_refused_at_once() {
    let code = {
        let pool = quiet().build().unwrap();
        define(&pool, "f", memory_module(1, 0)).prepare().unwrap();
        charged(&pool, Budget::Code)
    };
    let limits = Limits::new().code(2 * code);
    let pool = quiet().limits(limits).wait_for_room(true).build().unwrap();
    for salt in 0..2 {
        define_pinned(&pool, &format!("vital{salt}"), salt)
            .prepare()
            .unwrap();
    }
    let other = define(&pool, "other", memory_module(1, 2));
    assert_eq!(refused(other.acquire("g")).budget, Budget::Code);
    // Whose code is pinned has it.
    let vital: F = pool.function("vital0").unwrap();
    vital.call("g", ()).unwrap();
    pool.remove("vital1").unwrap();
    other.call("g", ()).unwrap();
    check(&pool);
}

#[test]
fn c_r13_its_own_function_takes_it_for_another_group() {
    let pool = with_room_for(2).build().unwrap();
    let [vital, more] = [0, 1].map(|salt| define_pinned(&pool, &format!("f{salt}"), salt));
    for f in [&vital, &more] {
        f.call("a", ()).unwrap();
    }
    vital.call("b", ()).unwrap();
    assert_eq!(uses(&vital, "b"), 2);
    assert_eq!(uses(&more, "a"), 2, "the other's is not touched");
    refused(define(&pool, "other", memory_module(1, 2)).acquire("a"));
}
