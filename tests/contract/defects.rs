//! The defects found in this project's ancestors, by their numbers in their list: each shown to be
//! impossible here. (2 and 15 are about futures, which come later. 8 is about pristine instances,
//! which a pool has, at the price of instantiation, when each instance serves one lease.)

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use crate::common::*;
use wasm_pool::{
    AcquireError, Budget, CallError, CallLimit, DefineError, Definition, Function,
    INSTANCE_OVERHEAD, Limits, ManualClock, Pool, Stats, StoreData, WaitingFor,
};
use wasmtime::{Caller, Linker, Val};

const PAGE: u64 = 65_536;

/// As `check`, for a pool whose limits were lowered below what it once held.
#[track_caller]
fn recounted(pool: &Pool) -> Stats {
    pool.recount().unwrap();
    pool.stats()
}

/// An acquire fails as it should, and gives everything back; once `mended`, the only place of the
/// same key is there for the next one.
#[track_caller]
fn check_step(
    pool: &Pool,
    name: &str,
    wasm: Vec<u8>,
    is_expected: impl Fn(&AcquireError) -> bool,
    mend: impl FnOnce(),
) {
    let function = define(pool, name, wasm);
    let fail = || {
        let error = function.acquire(1).unwrap_err();
        assert!(is_expected(&error), "{name}: {error:?}");
        let error = function.try_acquire(1).unwrap_err();
        assert!(is_expected(&error), "{name}: {error:?}");
    };
    fail();
    let after = charges(pool);
    fail();
    assert_eq!(charges(pool), after, "{name}");
    let stats = check(pool);
    assert_eq!(stats.budget(Budget::Memory).charged, 0, "{name}");
    assert_eq!(stats.budget(Budget::Compile).charged, 0, "{name}");
    mend();
    assert_eq!(
        function.try_acquire(1).unwrap().call(()).unwrap(),
        1,
        "{name}"
    );
    pool.remove(name).unwrap();
    check_empty(pool);
}

#[test]
fn defect_01_after_a_failed_acquire_the_key_is_usable_and_nothing_is_charged() {
    static FAILS: AtomicBool = AtomicBool::new(false);
    let fails_for_now = |linker: &mut Linker<StoreData<()>>| {
        linker.func_wrap("env", "start", || match FAILS.load(Ordering::Relaxed) {
            true => Err(wasmtime::Error::from(
                wasmtime::Trap::UnreachableCodeReached,
            )),
            false => Ok(()),
        })?;
        Ok(())
    };
    let hook = || match FAILS.load(Ordering::Relaxed) {
        true => Err(wasmtime::Error::msg("not yet")),
        false => Ok(()),
    };
    let builder = || quiet().max_instances_per_entry(1).imports(fails_for_now);
    let refused = |error: &AcquireError| matches!(error, AcquireError::BudgetExceeded(_));
    let module = |error: &AcquireError| matches!(error, AcquireError::Module { .. });

    for (name, limits) in [
        ("memory", Limits::new().memory(INSTANCE_OVERHEAD)),
        ("code", Limits::new().code(4096)),
        ("compile", Limits::new().compile(4096)),
        ("mappings", Limits::new().mappings(1)),
        ("total", Limits::new().total(INSTANCE_OVERHEAD)),
    ] {
        let pool = builder().build().unwrap();
        pool.set_limits(limits).unwrap();
        let unlimited = || pool.set_limits(Limits::new()).unwrap();
        check_step(&pool, name, memory_module(1, 1), refused, unlimited);
    }
    let pool = builder().build().unwrap();
    let replace = |name: &'static str| {
        let pool = &pool;
        move || {
            let good = definition(name, answering(1));
            pool.replace::<(), i32>(good).unwrap();
        }
    };
    let compile = wat(r#"(module (func (export "f") (result i32) i64.const 1))"#);
    check_step(&pool, "invalid", compile, module, replace("invalid"));
    // A function type of a group is another than the same one that stands alone.
    let link = r#"(module (rec (type $start (func)) (type (func)))
        (import "env" "start" (func (type $start))) (func (export "f") (result i32) i32.const 1))"#;
    check_step(&pool, "link", wat(link), module, replace("link"));

    FAILS.store(true, Ordering::Relaxed);
    let good = || FAILS.store(false, Ordering::Relaxed);
    let start = r#"(module (import "env" "start" (func $s)) (start $s) (memory 2)
        (func (export "f") (result i32) i32.const 1))"#;
    let trapped = |error: &AcquireError| matches!(error, AcquireError::StartTrapped { .. });
    check_step(&pool, "start", wat(start), trapped, good);

    FAILS.store(true, Ordering::Relaxed);
    let hooked = builder().on_create(move |_, _| hook()).build().unwrap();
    let not_made = |error: &AcquireError| matches!(error, AcquireError::Instantiate { .. });
    check_step(&hooked, "hook", memory_module(1, 1), not_made, good);
}

#[test]
fn defect_03_charges_stay_within_the_budgets_at_every_instant() {
    let limits = Limits::new()
        .memory(1 << 20)
        .code(100_000)
        .compile(10 << 20)
        .total(12 << 20)
        .mappings(60);
    let pool = quiet()
        .max_instances_per_entry(2)
        .limits(limits)
        .build()
        .unwrap();
    let functions: Vec<_> = (0..8)
        .map(|n| define(&pool, &format!("f{n}"), memory_module(1 + n, n)))
        .collect();
    let (served, refused) = (AtomicU32::new(0), AtomicU32::new(0));
    thread::scope(|scope| {
        for thread in 0..3u32 {
            let (pool, functions) = (&pool, &functions);
            let (served, refused) = (&served, &refused);
            scope.spawn(move || {
                for turn in 0..150u32 {
                    let which = (turn * 7 + thread * 3 + turn / 8) as usize % functions.len();
                    match functions[which].acquire(u64::from(turn % 3)) {
                        Ok(mut lease) => {
                            let grow = lease.export::<i32, i32>("grow").unwrap();
                            grow.call(&mut lease, 1).unwrap();
                            check(pool);
                            served.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(AcquireError::BudgetExceeded(_)) => {
                            refused.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(other) => panic!("{other:?}"),
                    }
                    check(pool);
                }
            });
        }
    });
    assert!(served.into_inner() > 100);
    let stats = check(&pool);
    assert!(stats.code_dropped > 0 && stats.budget(Budget::Memory).peak > 1 << 19);
    pool.close();
    check_empty(&pool);
}

#[test]
fn defect_04_growth_is_charged_before_it_succeeds_and_refused_with_minus_one() {
    let limits = Limits::new().memory(4 * PAGE + 2 * INSTANCE_OVERHEAD);
    let pool = quiet().limits(limits).build().unwrap();
    let function = define(&pool, "growing", memory_module(1, 1));
    let charged = || pool.stats().budget(Budget::Memory).charged;
    let mut lease = function.acquire(1).unwrap();
    let grow = lease.export::<i32, i32>("grow").unwrap();
    let before = charged();
    assert_eq!(grow.call(&mut lease, 2).unwrap(), 1);
    assert_eq!(charged(), before + 2 * PAGE);
    assert_eq!(grow.call(&mut lease, 2).unwrap(), -1);
    assert_eq!(grow.call(&mut lease, 1000).unwrap(), -1);
    assert_eq!(
        charged(),
        before + 2 * PAGE,
        "what was refused is not charged"
    );
    assert_eq!(lease.call(()).unwrap(), 1, "a refusal is no trap");
    assert_eq!(lease.memory_bytes(), 3 * PAGE);
    assert_eq!(check(&pool).function("growing").unwrap().growth_refusals, 2);
}

#[test]
fn defect_05_a_declared_minimum_over_the_limit_is_refused_in_bytes() {
    let pool = quiet().max_instance_memory(2 * PAGE).build().unwrap();
    let error = pool
        .define::<(), i32>(definition("large", memory_module(3, 1)))
        .unwrap_err();
    let DefineError::MemoryTooLarge {
        requested, limit, ..
    } = error
    else {
        panic!("{error:?}")
    };
    assert_eq!((requested, limit), (3 * PAGE, 2 * PAGE));
    assert_eq!(
        define(&pool, "large", memory_module(2, 1))
            .call(1, ())
            .unwrap(),
        1
    );
}

#[test]
fn defect_06_every_call_has_fuel_of_its_own() {
    const FUEL: u64 = 10_000;
    let pool = quiet().fuel(FUEL).build().unwrap();
    let spin: Function<i64, i64> = pool
        .define(Definition::new("spin").wasm(guest("rogue_spin")))
        .unwrap();
    let left = |rounds| {
        let mut lease = spin.acquire(1).unwrap();
        lease.call(rounds).unwrap();
        lease.store().get_fuel().unwrap()
    };
    let per_round = (left(100) - left(200)) / 100;
    let rounds = (FUEL * 9 / 10 / per_round) as i64;
    assert!(left(rounds) < FUEL * 12 / 100, "it uses about 90 %");
    for _ in 0..10_000 {
        spin.call(1, rounds).unwrap();
    }
    let stats = check(&pool);
    assert_eq!((stats.misses, stats.hits), (1, 10_002));
    let error = spin.call(1, rounds * 2).unwrap_err();
    let limit = CallLimit::Fuel(FUEL);
    assert!(
        matches!(error, CallError::Limit { limit: l, .. } if l == limit),
        "{error:?}"
    );
}

#[test]
fn defect_06_every_call_has_time_of_its_own() {
    let (limit, tick) = (Duration::from_millis(100), Duration::from_millis(10));
    let pass_time = |linker: &mut Linker<StoreData<()>>| {
        let tick = |caller: Caller<'_, StoreData<()>>| caller.engine().increment_epoch();
        linker.func_wrap("env", "tick", tick)?;
        Ok(())
    };
    let builder = quiet().call_timeout(limit).epoch_tick(tick);
    let pool = builder.imports(pass_time).build().unwrap();
    let wasm = wat(r#"(module (import "env" "tick" (func $tick))
        (func (export "f") (param $n i32)
            (loop call $tick
                (br_if 0 (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))))"#);
    let function: Function<i32, ()> = pool.define(definition("slow", wasm)).unwrap();
    for _ in 0..10_000 {
        function.call(1, 9).unwrap();
    }
    let stats = check(&pool);
    assert_eq!((stats.misses, stats.hits), (1, 9_999));
    let error = function.call(1, 20).unwrap_err();
    let limit = CallLimit::Time(limit);
    assert!(
        matches!(error, CallError::Limit { limit: l, .. } if l == limit),
        "{error:?}"
    );
}

#[test]
fn defect_07_after_a_trap_in_any_entry_the_instance_is_never_handed_out_again() {
    let pool = quiet().max_instances_per_entry(1).build().unwrap();
    let wasm = wat(r#"(module (memory (export "memory") 1)
        (global $dirty (mut i32) (i32.const 0))
        (func (export "f") (param i32) (result i32)
            (if (local.get 0) (then (global.set $dirty (i32.const 1)) unreachable))
            global.get $dirty)
        (func (export "alloc") (param i32) (result i32)
            (global.set $dirty (i32.const 2)) unreachable)
        (func (export "dealloc") (param i32 i32)
            (global.set $dirty (i32.const 3)) unreachable)
        (func (export "other") (global.set $dirty (i32.const 4)) unreachable))"#);
    let function: Function<i32, i32> = pool.define(definition("f", wasm)).unwrap();
    let traps: [&dyn Fn() -> CallError; 6] = [
        &|| function.call(1, 1).unwrap_err(),
        &|| function.acquire(1).unwrap().pass_bytes(b"x").unwrap_err(),
        &|| function.acquire(1).unwrap().pass_bytes(b"").unwrap_err(),
        &|| function.acquire(1).unwrap().take_bytes(1).unwrap_err(),
        &|| {
            let mut lease = function.acquire(1).unwrap();
            let other = lease.export::<(), ()>("other").unwrap();
            other.call(&mut lease, ()).unwrap_err()
        },
        &|| {
            let mut lease = function.acquire(1).unwrap();
            lease.call_values(&[Val::I32(1)]).unwrap_err()
        },
    ];
    for (n, trap) in traps.iter().enumerate() {
        let error = trap();
        assert!(matches!(error, CallError::Trap { .. }), "{n}: {error:?}");
        let stats = check(&pool);
        assert_eq!((stats.idle, stats.leased), (0, 0), "{n}");
        assert_eq!(
            function.call(1, 0).unwrap(),
            0,
            "{n}: a new, clean instance"
        );
        let f = stats.function("f").unwrap();
        assert_eq!(f.retirements, n as u64 + 1);
    }
}

#[test]
fn defect_08_a_pristine_lease_sees_only_zeros_and_initial_data() {
    // `f` adds up all that an earlier lease may have left: the initial byte is 7, a dropped segment
    // cannot be copied from, and fresh pages are zero. Then it leaves something everywhere.
    let wasm = wat(
        r#"(module (memory (export "memory") 1 4) (data (i32.const 100) "\07")
            (data $passive "\05") (table $t 2 funcref) (elem $e func $f)
            (global $g (mut i32) (i32.const 0))
            (func $f (export "f") (result i32) (local $seen i32)
                (local.set $seen (i32.add (global.get $g) (i32.load8_u (i32.const 100))))
                (local.set $seen (i32.add (local.get $seen) (i32.load8_u (i32.const 101))))
                (local.set $seen (i32.add (local.get $seen)
                    (i32.mul (i32.const 10) (memory.grow (i32.const 1)))))
                (local.set $seen (i32.add (local.get $seen) (i32.load8_u (i32.const 65600))))
                (local.set $seen (i32.add (local.get $seen)
                    (i32.eqz (ref.is_null (table.get $t (i32.const 1))))))
                (memory.init $passive (i32.const 200) (i32.const 0) (i32.const 1))
                (data.drop $passive)
                (global.set $g (i32.const 1000))
                (i32.store8 (i32.const 100) (i32.const 99))
                (i32.store8 (i32.const 101) (i32.const 99))
                (i32.store8 (i32.const 65600) (i32.const 99))
                (table.set $t (i32.const 1) (ref.func $f))
                local.get $seen))"#,
    );
    let reused = quiet().build().unwrap();
    let dirty = define(&reused, "dirty", wasm.clone());
    assert_eq!(dirty.call(1, ()).unwrap(), 7 + 10);
    let left = dirty.call(1, ());
    assert!(
        left.is_err(),
        "the segment was dropped, and stays dropped: {left:?}"
    );

    let pool = quiet().max_uses(1).build().unwrap();
    let pristine = define(&pool, "pristine", wasm);
    for _ in 0..5 {
        assert_eq!(pristine.call(1, ()).unwrap(), 7 + 10);
    }
    let stats = check(&pool);
    assert_eq!((stats.misses, stats.hits, stats.compilations), (5, 0, 1));
}

#[test]
fn defect_09_removing_during_a_call_lets_it_finish_and_frees_the_code_at_last() {
    let (builder, stop) = stopping(quiet());
    let pool = builder.build().unwrap();
    let function = define(&pool, "going", stopping_module(4));
    thread::scope(|scope| {
        let call = scope.spawn(|| function.call(1, ()));
        stop.wait_until_stopped();
        pool.remove("going").unwrap();
        assert!(
            check(&pool).budget(Budget::Code).charged > 0,
            "it runs still"
        );
        stop.go();
        assert_eq!(call.join().unwrap().unwrap(), 4);
    });
    let stats = check(&pool);
    assert_eq!((stats.idle, stats.leased, stats.dying), (0, 0, 0));
    assert_eq!((stats.modules_loaded, stats.code_dropped), (0, 1));
    check_empty(&pool);
}

#[test]
fn defect_10_once_a_replace_returns_no_later_call_runs_old_code() {
    let pool = quiet().build().unwrap();
    let function = define(&pool, "changing", answering(1));
    let compiling = spans::hold("compile", "changing()");
    thread::scope(|scope| {
        let racing = scope.spawn(|| function.call(1, ()));
        compiling.wait_until_reached();
        let new = definition("changing", answering(2));
        pool.replace::<(), i32>(new).unwrap();
        drop(compiling);
        assert_eq!(racing.join().unwrap().unwrap(), 2);
    });
    for group in 0..3 {
        assert_eq!(function.call(group, ()).unwrap(), 2);
    }
    assert_eq!(check(&pool).modules_known, 1);
}

#[test]
fn defect_11_concurrent_first_uses_compile_once_and_share_a_failure() {
    let pool = quiet().build().unwrap();
    let bad = wat(r#"(module (func (export "f") (result i32) i64.const 1))"#);
    let (good, bad) = (
        define(&pool, "good", answering(1)),
        define(&pool, "bad", bad),
    );
    for (function, works) in [(&good, true), (&bad, false)] {
        let compiling = spans::hold("compile", function.signature());
        thread::scope(|scope| {
            let threads = [1, 2, 3, 4].map(|group| scope.spawn(move || function.call(group, ())));
            until(|| pool.stats().waiting == 3);
            drop(compiling);
            for thread in threads {
                assert_eq!(thread.join().unwrap().is_ok(), works);
            }
        });
        assert_eq!(spans::begun("compile", function.signature()), 1);
    }
    assert!(
        bad.call(1, ()).is_err(),
        "a failure is not taken for success"
    );
    assert_eq!(check(&pool).modules_loaded, 1);
}

#[test]
fn defect_12_an_instance_larger_than_the_budget_evicts_nobody() {
    let limits = Limits::new().memory(16 * PAGE);
    let pool = quiet().build().unwrap();
    let small = define(&pool, "small", memory_module(1, 1));
    let large = define(&pool, "large", memory_module(17, 2));
    pool.set_limits(limits).unwrap();
    for group in 0..4 {
        small.call(group, ()).unwrap();
    }
    let error = large.acquire(1).unwrap_err();
    let AcquireError::BudgetExceeded(exceeded) = &error else {
        panic!("{error:?}")
    };
    assert_eq!(
        (exceeded.budget, exceeded.limit),
        (Budget::Memory, 16 * PAGE)
    );
    assert!(exceeded.requested > 17 * PAGE, "{exceeded:?}");
    assert!(
        wasm_pool::Report(&error)
            .to_string()
            .contains("It can never fit"),
        "{error}"
    );
    // Nor does one that would grow beyond it.
    let mut lease = small.acquire(0).unwrap();
    let grow = lease.export::<i32, i32>("grow").unwrap();
    assert_eq!(grow.call(&mut lease, 16).unwrap(), -1);
    let stats = check(&pool);
    assert_eq!((stats.idle, stats.leased), (3, 1));
    assert_eq!(stats.function("small").unwrap().evictions, 0);
}

#[test]
fn defect_13_for_code_only_instances_whose_module_goes_are_evicted() {
    let pool = quiet().build().unwrap();
    let pinned = define(&pool, "pinned", answering(1));
    let extract: Function = pool
        .define(Definition::new("extract").wasm(guest("json_extract")))
        .unwrap();
    // The oldest instance is idle, but a lease pins its module.
    let oldest = pinned.acquire(1).unwrap();
    let held = pinned.acquire(2).unwrap();
    drop(oldest);
    drop(extract.acquire(1).unwrap());
    let charged = check(&pool).budget(Budget::Code).charged;
    pool.set_limits(Limits::new().code(charged)).unwrap();

    let next = define(&pool, "next", answering(2));
    assert_eq!(next.call(1, ()).unwrap(), 2);
    let stats = recounted(&pool);
    let evictions = |name| stats.function(name).unwrap().evictions;
    assert_eq!((evictions("pinned"), evictions("extract")), (0, 1));
    assert_eq!((stats.idle, stats.leased, stats.code_dropped), (2, 1, 1));
    drop(held);

    // When no module can go, the error says so, and nothing is evicted.
    let held = [pinned.acquire(2).unwrap(), next.acquire(1).unwrap()];
    let stats = recounted(&pool);
    let error = extract.acquire(1).unwrap_err();
    let AcquireError::BudgetExceeded(exceeded) = &error else {
        panic!("{error:?}")
    };
    assert_eq!((exceeded.budget, exceeded.evictable), (Budget::Code, 0));
    assert_eq!(recounted(&pool).idle, stats.idle);
    drop(held);
}

#[test]
fn defect_14_waiters_are_served_in_turn_and_at_their_deadline() {
    const SECOND: Duration = Duration::from_secs(1);
    let clock = ManualClock::new();
    let pool = quiet()
        .clock(clock.clone())
        .max_instances_per_entry(1)
        .build()
        .unwrap();
    let function = define(&pool, "busy", answering(1));
    let lease = function.acquire(1).unwrap();
    let served = Mutex::new(Vec::new());
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for n in 0..6usize {
            let (function, served) = (&function, &served);
            threads.push(scope.spawn(move || {
                // The third gives up before its turn comes.
                let patience = if n == 2 { SECOND } else { 60 * SECOND };
                let lease = function.acquire_with(1, room_within(patience))?;
                served.lock().unwrap().push(n);
                drop(lease);
                Ok::<_, AcquireError>(())
            }));
            until(|| pool.stats().waiting == n + 1);
        }
        clock.advance(SECOND);
        let error = threads.remove(2).join().unwrap().unwrap_err();
        let AcquireError::Timeout {
            waited,
            waiting_for,
            ..
        } = error
        else {
            panic!("{error:?}")
        };
        assert_eq!((waited, waiting_for), (SECOND, WaitingFor::Instance));
        assert_eq!(check(&pool).waiting, 5);
        drop(lease);
        for thread in threads {
            thread.join().unwrap().unwrap();
        }
    });
    assert_eq!(served.into_inner().unwrap(), [0, 1, 3, 4, 5]);
    let stats = check(&pool);
    assert_eq!((stats.blocks, stats.misses, stats.waiting), (6, 1, 0));
}
