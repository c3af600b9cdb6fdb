//! What a function's instances may have of their own: memory, uses, and how many there are.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pollster::block_on;
use wasm_pool::{
    AcquireError, DefineError, Definition, ErrorKind, Function, Lease, LimitsError, ManualClock,
    Pool, PoolBuilder,
};

use crate::common::*;

const PAGE: u64 = 65_536;
const MIB: u64 = 1 << 20;

/// Each call grows by so many pages, and says how many there were; or -1.
const GROWS: &str = r#"(module (memory 1)
    (func (export "f") (param i32) (result i32) (memory.grow (local.get 0))))"#;

/// Says how often it was called.
const COUNTS: &str = r#"(module (global $n (mut i32) (i32.const 0))
    (func (export "f") (result i32)
        (global.set $n (i32.add (global.get $n) (i32.const 1)))
        (global.get $n)))"#;

fn quiet() -> PoolBuilder {
    Pool::builder().no_housekeeper()
}

fn grows(name: &str) -> Definition {
    Definition::new(name).export("f").wasm(wat(GROWS))
}

fn counts(name: &str) -> Definition {
    Definition::new(name).export("f").wasm(wat(COUNTS))
}

fn growing(pool: &Pool, definition: Definition) -> Function<i32, i32> {
    pool.define(definition).unwrap()
}

fn counting(pool: &Pool, definition: Definition) -> Function<(), i32> {
    pool.define(definition).unwrap()
}

fn seven_calls(f: &Function<(), i32>) -> [i32; 7] {
    [(); 7].map(|()| f.call(1, ()).unwrap())
}

#[test]
fn an_instance_grows_to_its_function_s_limit_and_no_further() {
    let pool = quiet().max_instance_memory(MIB).build().unwrap();
    let small = growing(&pool, grows("small").max_memory(3 * PAGE));
    let large = growing(&pool, grows("large"));
    assert_eq!(small.call(1, 2).unwrap(), 1);
    let before = charges(&pool);
    assert_eq!(small.call(1, 1).unwrap(), -1);
    assert_eq!(
        charges(&pool),
        before,
        "nothing is charged for what is refused"
    );
    // The same module, by another name.
    assert_eq!(large.call(1, 15).unwrap(), 1);
    assert_eq!(large.call(1, 1).unwrap(), -1);
    // Not a whole page: what is asked for in pages stays below it.
    let odd = growing(&pool, grows("odd").max_memory(2 * PAGE - 1));
    assert_eq!(odd.call(1, 1).unwrap(), -1);
    check(&pool);
}

#[test]
fn what_a_module_declares_must_be_within_its_function_s_limit() {
    let pool = quiet().max_instance_memory(MIB).build().unwrap();
    assert!(
        pool.define::<i32, i32>(grows("fits").max_memory(PAGE))
            .is_ok()
    );
    let error = pool
        .define::<i32, i32>(grows("f").max_memory(PAGE - 1))
        .unwrap_err();
    let DefineError::MemoryTooLarge {
        requested, limit, ..
    } = error
    else {
        panic!("{error:?}");
    };
    assert_eq!((requested, limit), (PAGE, PAGE - 1));
}

#[test]
fn limits_that_make_no_sense_are_refused_and_nothing_is_defined() {
    let pool = quiet().max_instance_memory(MIB).build().unwrap();
    let refused = |definition| match pool.define::<i32, i32>(definition) {
        Err(DefineError::Limits { target, source }) => {
            assert_eq!(&*target, "f()");
            source
        }
        other => panic!("{other:?}"),
    };
    let zero = |field| LimitsError::Zero { field };
    assert_eq!(refused(grows("f").max_memory(0)), zero("max_memory"));
    assert_eq!(refused(grows("f").max_uses(0)), zero("max_uses"));
    assert_eq!(refused(grows("f").max_instances(0)), zero("max_instances"));
    for (value, max) in [(9, 8), (1 << 32, 8), (u64::MAX, 8)] {
        let field = "max_instances";
        let expected = LimitsError::TooLarge { field, value, max };
        assert_eq!(refused(grows("f").max_instances(value)), expected);
    }
    for (value, max) in [(MIB + 1, MIB), (u64::MAX, MIB)] {
        let field = "max_memory";
        let expected = LimitsError::TooLarge { field, value, max };
        assert_eq!(refused(grows("f").max_memory(value)), expected);
    }
    let error = refused(grows("f").max_uses(u64::MAX - 1));
    let field = "max_uses";
    assert!(matches!(error, LimitsError::TooLarge { field: it, .. } if it == field));
    assert!(pool.stats().functions.is_empty());
    // As much as any instance may have, and any number of uses, are no limits.
    let all = grows("f").max_memory(MIB).max_uses(u64::MAX);
    let all = all.max_instances(8);
    assert_eq!(growing(&pool, all).call(1, 15).unwrap(), 1);
    check(&pool);
}

#[test]
fn an_instance_serves_as_often_as_its_function_says_instead_of_the_pool() {
    let pool = quiet().max_uses(2).build().unwrap();
    let [once, thrice] = [1, 3].map(|uses| {
        let name = format!("f{uses}");
        counting(&pool, counts(&name).max_uses(uses))
    });
    let ever = counting(&pool, counts("ever").max_uses(u64::MAX));
    let other = counting(&pool, counts("other"));
    assert_eq!(seven_calls(&once), [1; 7]);
    assert_eq!(seven_calls(&thrice), [1, 2, 3, 1, 2, 3, 1]);
    assert_eq!(seven_calls(&ever), [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(seven_calls(&other), [1, 2, 1, 2, 1, 2, 1]);
    let stats = check(&pool);
    let retired = stats.functions.iter().map(|f| f.retirements);
    assert_eq!(retired.collect::<Vec<_>>(), [7, 2, 0, 3]);
    assert_eq!(stats.idle, 3, "the last use of `f1` has ended");
}

#[test]
fn a_task_s_lease_is_a_use_like_any_other() {
    let pool = quiet().build().unwrap();
    let f = counting(&pool, counts("f").max_uses(2));
    let calls = [(); 5].map(|()| block_on(f.call_async(1, ())).unwrap());
    assert_eq!(calls, [1, 2, 1, 2, 1]);
    // By whatever thread it ends on.
    let lease = f.in_group(1).acquire_owned().unwrap();
    std::thread::spawn(move || drop(lease)).join().unwrap();
    assert_eq!(f.call(1, ()).unwrap(), 1);
    check(&pool);
}

#[test]
fn who_waits_gets_a_new_instance_when_the_last_use_of_the_old_one_ends() {
    let pool = quiet().max_instances_per_entry(1).build().unwrap();
    let f = counting(&pool, counts("f").max_uses(1));
    let lease = f.acquire(1).unwrap();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| f.call(1, ()).unwrap());
        wait_for_waiters(&pool, 1);
        drop(lease);
        assert_eq!(waits.join().unwrap(), 1);
    });
    assert_eq!(check(&pool).functions[0].retirements, 2);
}

#[test]
fn what_replaces_a_function_has_its_own_limits_and_old_leases_keep_theirs() {
    let pool = quiet().max_instance_memory(MIB).build().unwrap();
    let f = growing(&pool, grows("f").max_memory(2 * PAGE).max_uses(1));
    let mut old: Lease<'_, i32, i32> = f.acquire(1).unwrap();
    let new: Function<i32, i32> = pool.replace(grows("f")).unwrap();
    assert_eq!(old.call(2).unwrap(), -1);
    assert_eq!(old.call(1).unwrap(), 1);
    drop(old);
    assert_eq!(new.call(1, 2).unwrap(), 1);
    assert_eq!(new.call(1, 1).unwrap(), 3, "it is used again");
    // The other way round: entries that were made without a limit have one now.
    let _: Function<i32, i32> = pool.replace(grows("f").max_uses(1)).unwrap();
    assert_eq!(f.call(1, 1).unwrap(), 1);
    assert_eq!(f.call(1, 1).unwrap(), 1);
    check(&pool);
}

#[test]
fn a_group_has_no_more_instances_of_a_function_than_it_may() {
    let pool = quiet().build().unwrap();
    let two = counting(&pool, counts("two").max_instances(2));
    let eight = counting(&pool, counts("eight"));
    let leases = [(); 2].map(|()| two.acquire("a").unwrap());
    let full = two.try_acquire("a").map(drop).unwrap_err();
    assert!(matches!(full, AcquireError::WouldBlock { .. }), "{full:?}");
    let late = two.acquire_timeout("a", Duration::ZERO).map(drop);
    assert_eq!(late.unwrap_err().kind(), ErrorKind::Timeout);
    // Other groups have as many, and other functions of the module what the pool lets them have.
    let _others = [(); 2].map(|()| two.try_acquire("b").unwrap());
    let all = [(); 8].map(|()| eight.try_acquire("a").unwrap());
    assert!(eight.try_acquire("a").is_err());
    let stats = check(&pool);
    assert_eq!((stats.idle, stats.leased), (0, 12));
    drop((leases, all));
    // What is idle counts, and is what a lease gets.
    let _lease = two.try_acquire("a").unwrap();
    let stats = check(&pool);
    assert_eq!((stats.idle, stats.leased), (9, 3));
    check(&pool);
}

/// The guest runs as long as its thread likes: here, until another one has tried.
#[test]
fn with_one_instance_a_guest_never_runs_twice_at_once() {
    let inside = Arc::new(AtomicU64::new(0));
    let (entered, most) = (inside.clone(), Arc::new(AtomicU64::new(0)));
    let seen = most.clone();
    let pool = quiet()
        .imports(move |linker| {
            linker.func_wrap("host", "at_once", move || {
                let now = entered.fetch_add(1, Ordering::SeqCst) + 1;
                seen.fetch_max(now, Ordering::SeqCst);
                std::thread::yield_now();
                entered.fetch_sub(1, Ordering::SeqCst);
            })?;
            Ok(())
        })
        .build()
        .unwrap();
    let guest = wat(
        r#"(module (import "host" "at_once" (func $f)) (export "f" (func $f))
        (func (export "g") (call $f)))"#,
    );
    let one = Definition::new("one")
        .export("g")
        .wasm(guest)
        .max_instances(1);
    let one: Function<(), ()> = pool.define(one).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..500).for_each(|_| one.call("tenant", ()).unwrap()));
        }
    });
    assert_eq!(most.load(Ordering::SeqCst), 1);
    assert_eq!(check(&pool).functions[0].misses, 1);
}

#[test]
fn what_replaces_a_function_may_have_fewer_instances_or_more() {
    let pool = quiet().build().unwrap();
    let f = counting(&pool, counts("f").max_instances(4));
    let mut leases: Vec<_> = (0..4).map(|_| f.acquire(1).unwrap()).collect();
    let _: Function<(), i32> = pool.replace(counts("f").max_instances(2)).unwrap();
    // Those that are out stay, and nobody gets another until they are fewer than two.
    for left in [3, 2] {
        drop(leases.pop());
        assert_eq!(check(&pool).leased, left);
        assert!(f.try_acquire(1).is_err(), "{left} are out");
    }
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| f.acquire(1).map(drop));
        wait_for_waiters(&pool, 1);
        drop(leases.pop());
        waits.join().unwrap().unwrap();
    });
    let other = f.try_acquire(1).unwrap();
    assert!(f.try_acquire(1).is_err());
    // Who waits for one is served as soon as there may be more.
    std::thread::scope(|scope| {
        let wait = |_| scope.spawn(|| f.acquire(1).map(drop).unwrap());
        let waits: [_; 2] = [0, 1].map(wait);
        wait_for_waiters(&pool, 2);
        let _: Function<(), i32> = pool.replace(counts("f").max_instances(3)).unwrap();
        waits.into_iter().for_each(|waits| waits.join().unwrap());
    });
    drop((leases, other));
    check(&pool);
}

#[test]
fn a_function_s_instances_are_idle_for_as_long_as_it_says() {
    let clock = ManualClock::new();
    let builder = quiet().clock(clock.clone());
    let second = Duration::from_secs(1);
    let pool = builder.idle_timeout(5 * second).build().unwrap();
    let define = |name: &str, time: Option<Option<Duration>>| {
        let definition = counts(name);
        counting(
            &pool,
            match time {
                None => definition,
                Some(time) => definition.idle_timeout(time),
            },
        )
    };
    let all = [
        define("short", Some(Some(second))),
        define("zero", Some(Some(Duration::ZERO))),
        define("usual", None),
        define("long", Some(Some(60 * second))),
        define("ever", Some(None)),
        define("centuries", Some(Some(Duration::MAX))),
    ];
    for f in &all {
        for group in ["a", "b"] {
            f.call(group, ()).unwrap();
        }
    }
    // One of them is in use.
    let lease = all[0].acquire("b").unwrap();
    let idle_after = |time: Duration| {
        clock.advance(time);
        pool.sweep();
        let stats = check(&pool);
        let idle = stats.functions.iter().map(|f| f.idle);
        idle.collect::<Vec<_>>()
    };
    let milli = Duration::from_millis(1);
    assert_eq!(idle_after(milli), [1, 0, 2, 2, 2, 2]);
    assert_eq!(idle_after(second - 2 * milli), [1, 0, 2, 2, 2, 2]);
    assert_eq!(idle_after(milli), [0, 0, 2, 2, 2, 2]);
    assert_eq!(idle_after(4 * second), [0, 0, 0, 2, 2, 2]);
    drop(lease);
    assert_eq!(idle_after(Duration::ZERO), [1, 0, 0, 2, 2, 2]);
    assert_eq!(idle_after(55 * second), [0, 0, 0, 0, 2, 2]);
    assert_eq!(idle_after(400 * 86_400 * second), [0, 0, 0, 0, 2, 2]);
    // What replaces it has no time of its own, or another.
    let _: Function<(), i32> = pool.replace(counts("ever")).unwrap();
    let _: Function<(), i32> = pool.replace(counts("usual").idle_timeout(None)).unwrap();
    all[2].call("a", ()).unwrap();
    all[4].call("a", ()).unwrap();
    assert_eq!(idle_after(5 * second), [0, 0, 1, 0, 0, 2]);
    // Room is made of whatever there is.
    assert_eq!(pool.retain(|_| false), 3);
    pool.remove("usual").unwrap();
    check(&pool);
}

#[test]
#[cfg(feature = "config")]
fn a_configuration_says_it_of_names_and_definitions_count_before_it() {
    let text = "max_instance_memory = '1Mi'\n[functions.f]\nmax_memory = '128Ki'\nmax_uses = 2\n\
        max_instances = 3\nidle_timeout = 'never'";
    let config = wasm_pool::Config::from_toml(text).unwrap();
    let clock = ManualClock::new();
    let pool = quiet().clock(clock.clone()).config(&config);
    let pool = pool.build().unwrap();
    let f = growing(&pool, grows("f"));
    assert_eq!([1, 1, 1].map(|pages| f.call(1, pages).unwrap()), [1, -1, 1]);
    let all = [(); 3].map(|()| f.try_acquire(1).unwrap());
    assert!(f.try_acquire(1).is_err());
    drop(all);
    clock.advance(Duration::from_secs(3600));
    pool.sweep();
    assert_eq!(check(&pool).idle, 2, "one was used twice");
    let g = growing(&pool, grows("g"));
    assert_eq!([1, 1, 1].map(|pages| g.call(1, pages).unwrap()), [1, 2, 3]);
    pool.remove("f").unwrap();
    let own = grows("f").max_memory(4 * PAGE).max_uses(9);
    let f = growing(&pool, own);
    assert_eq!(
        [1, 1, 1, 1].map(|pages| f.call(1, pages).unwrap()),
        [1, 2, 3, -1]
    );

    // What the pool does not let any instance have is refused where the function is defined.
    let text = "max_instance_memory = '1Mi'\nfunctions.f.max_memory = '2Mi'";
    let config = wasm_pool::Config::from_toml(text).unwrap();
    let pool = quiet().config(&config).build().unwrap();
    let error = pool.define::<i32, i32>(grows("f")).unwrap_err();
    assert!(matches!(error, DefineError::Limits { .. }), "{error:?}");
}

/// A warm-up belongs to the module, which functions share: so it has what any instance may have, and a function
/// with less does not make it fail for the others.
#[test]
#[cfg(feature = "warm-up")]
fn a_module_that_warms_up_beyond_its_function_s_limit_is_refused_to_that_function_alone() {
    let module = wat(r#"(module (memory 1)
        (func (export "warm")
            (if (i32.lt_s (memory.grow (i32.const 3)) (i32.const 0)) (then unreachable)))
        (func (export "f") (result i32) (memory.size)))"#);
    let pool = quiet().max_instance_memory(MIB).build().unwrap();
    let define = |name: &str| {
        let definition = Definition::new(name).export("f").wasm(module.clone());
        definition.warm_up("warm")
    };
    let small = counting(&pool, define("small").max_memory(2 * PAGE));
    let large = counting(&pool, define("large").max_memory(4 * PAGE));
    for _ in 0..2 {
        let error: AcquireError = small.acquire(1).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge, "{error:?}");
        assert_eq!(large.call(1, ()).unwrap(), 4);
    }
    assert_eq!(check(&pool).warm_ups, 1);
}
