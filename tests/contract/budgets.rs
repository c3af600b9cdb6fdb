//! B1, B2, B5 to B8: what is charged, when it is given back, which limits make sense, and what a
//! refusal says.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::common::*;
use wasm_pool::{
    AcquireError, Budget, BudgetExceeded, BuildError, CallError, Definition, Function,
    INSTANCE_OVERHEAD, Limits, LimitsError, ManualClock, Policy, Pool, PoolBuilder, StoreData,
    WaitingFor,
};
use wasmtime::Linker;

const MIB: u64 = 1 << 20;

fn builder(limits: Limits) -> PoolBuilder {
    Pool::builder()
        .limits(limits)
        .clock(ManualClock::new())
        .no_housekeeper()
}

fn pool(limits: Limits) -> Pool {
    builder(limits).build().unwrap()
}

/// A function with `pages` pages of memory that returns 1.
fn define(pool: &Pool, name: &str, pages: u32) -> Function<(), i32> {
    let salt = name
        .bytes()
        .fold(0, |hash, byte| hash * 31 + u32::from(byte));
    let definition = Definition::new(name)
        .wasm(memory_module(pages, salt))
        .export("f");
    pool.define(definition).unwrap()
}

fn define_wat(pool: &Pool, text: &str) -> Function<(), ()> {
    pool.define(Definition::new("f").wasm(wat(text))).unwrap()
}

#[track_caller]
fn refused(result: Result<impl Sized, AcquireError>) -> BudgetExceeded {
    match result {
        Err(AcquireError::BudgetExceeded(exceeded)) => exceeded,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("nothing refused it"),
    }
}

// B1 ─────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn b1_no_budget_is_overcharged_at_any_instant() {
    let limits = Limits::new()
        .memory(MIB)
        .code(128 << 10)
        .mappings(24)
        .total(12 * MIB);
    let pool = pool(limits);
    let functions: Vec<_> = (0..5)
        .map(|n| define(&pool, &format!("f{n}"), n + 1))
        .collect();
    let over = Arc::new(AtomicBool::new(false));
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..3u64)
            .map(|seed| {
                scope.spawn({
                    let functions = &functions;
                    move || churn(functions, seed)
                })
            })
            .collect();
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let stats = pool.stats();
                let exceeds = stats
                    .budgets()
                    .any(|(_, b)| b.charged > b.limit || b.overdraft > 0);
                over.fetch_or(exceeds, Ordering::Relaxed);
            }
        });
        let served: u32 = workers
            .into_iter()
            .map(|worker| worker.join().unwrap())
            .sum();
        done.store(true, Ordering::Relaxed);
        assert!(served > 100, "{served}");
    });
    assert!(!over.load(Ordering::Relaxed));
    let stats = check(&pool);
    assert!(
        stats.budget(Budget::Memory).peak > MIB / 2,
        "the limits were tried"
    );
    pool.close();
    check_empty(&pool);
}

/// Leases all kinds of things and grows some; returns how many it got.
fn churn(functions: &[Function<(), i32>], seed: u64) -> u32 {
    let mut served = 0;
    for step in 0..200 {
        let function = &functions[(step * 7 + seed as usize) % functions.len()];
        let Ok(mut lease) = function.acquire(seed + step as u64 % 2) else {
            continue;
        };
        served += 1;
        let grow = lease.export::<i32, i32>("grow").unwrap();
        let _ = grow.call(&mut lease, (step % 5) as i32).unwrap();
        if step % 11 == 0 {
            lease.discard();
        }
    }
    served
}

// B2 ─────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn b2_idle_and_leased_are_charged_alike() {
    let pool = pool(Limits::new());
    let f = define(&pool, "f", 3);
    let lease = f.acquire(1).unwrap();
    let leased = charges(&pool);
    assert_eq!(pool.stats().leased, 1);
    drop(lease);
    assert_eq!((pool.stats().idle, charges(&pool)), (1, leased.clone()));
    let again = f.acquire(1).unwrap();
    assert_eq!((pool.stats().leased, charges(&pool)), (1, leased));
    drop(again);
    check(&pool);
}

#[test]
fn b2_every_instance_is_charged_and_its_code_once() {
    let pool = pool(Limits::new());
    let f = define(&pool, "f", 2);
    let first = f.acquire(1).unwrap();
    assert_eq!(charged(&pool, Budget::Memory), instance_bytes(2));
    let fixed = INSTANCE_OVERHEAD..INSTANCE_OVERHEAD + 1024;
    assert!(fixed.contains(&(instance_bytes(2) - 2 * 65_536)));
    let code = charged(&pool, Budget::Code);
    assert_eq!(code, pool.stats().functions[0].code_bytes);
    let second = f.acquire(1).unwrap();
    drop(first);
    let other_group = f.acquire(2).unwrap();
    assert_eq!(charged(&pool, Budget::Memory), 3 * instance_bytes(2));
    assert_eq!(charged(&pool, Budget::Code), code);
    assert_eq!(charged(&pool, Budget::Total), 3 * instance_bytes(2) + code);
    assert_eq!(charged(&pool, Budget::Mappings), 3 + 3 * 3);
    assert_eq!(charged(&pool, Budget::Compile), 0);
    drop((second, other_group));
    check(&pool);
}

// B5 ─────────────────────────────────────────────────────────────────────────────────────────────

/// Whatever fails, in a pool that holds one idle instance of something else.
#[track_caller]
fn charges_stay(pool: &Pool, fails: impl FnOnce() -> AcquireError) -> AcquireError {
    let other = define(pool, "other", 2);
    other.call(9, ()).unwrap();
    let before = charges(pool);
    let error = fails();
    assert_eq!(charges(pool), before, "{error}");
    let stats = check(pool);
    assert_eq!(
        (stats.idle, stats.leased, stats.dying, stats.compiling),
        (1, 0, 0, 0),
        "{error}"
    );
    assert_eq!(other.acquire(9).unwrap().uses(), 2, "it was left alone");
    error
}

/// Code that was compiled for a failed instance may stay; everything else is as it was.
#[track_caller]
fn all_but_code_stays(text: &str, builder: PoolBuilder) -> AcquireError {
    let pool = builder.policy(Policy::Lru).build().unwrap();
    let f = define_wat(&pool, text);
    charges_stay(&pool, || f.acquire(1).unwrap_err())
}

#[test]
fn b5_a_module_that_does_not_compile() {
    let text = r#"(module (func (export "f") i32.const 1))"#;
    let error = all_but_code_stays(text, builder(Limits::new()));
    assert!(error.to_string().contains("does not compile"), "{error}");
}

#[test]
fn b5_an_import_whose_type_only_the_compiler_knows() {
    let log = |linker: &mut Linker<StoreData<()>>| linker.func_wrap("host", "log", || ()).map(drop);
    // Another type than the same one that stands alone.
    let text = r#"(module (rec (type $log (func)) (type (func)))
        (import "host" "log" (func (type $log))) (func (export "f")))"#;
    let error = all_but_code_stays(text, builder(Limits::new()).imports(log));
    assert!(error.to_string().contains("host::log"), "{error}");
}

#[test]
fn b5_a_start_function_that_traps() {
    let text = r#"(module (memory 5) (func $s unreachable) (start $s) (func (export "f")))"#;
    let error = all_but_code_stays(text, builder(Limits::new()));
    assert!(
        matches!(error, AcquireError::StartTrapped { .. }),
        "{error}"
    );
}

#[test]
fn b5_a_start_function_that_grows_and_then_traps() {
    let text = r#"(module (memory 5)
        (func $s (drop (memory.grow (i32.const 7))) unreachable) (start $s)
        (func (export "f")))"#;
    let error = all_but_code_stays(text, builder(Limits::new()));
    assert!(
        matches!(error, AcquireError::StartTrapped { .. }),
        "{error}"
    );
}

#[test]
fn b5_a_start_function_without_end() {
    let text = r#"(module (memory 5) (func $s (loop (br 0))) (start $s) (func (export "f")))"#;
    let error = all_but_code_stays(text, builder(Limits::new()).fuel(10_000));
    assert!(matches!(error, AcquireError::StartLimit { .. }), "{error}");
}

#[test]
fn b5_a_data_segment_outside_of_memory() {
    let text = r#"(module (memory 1) (data (i32.const 65536) "x") (func (export "f")))"#;
    let error = all_but_code_stays(text, builder(Limits::new()));
    assert!(
        matches!(error, AcquireError::StartTrapped { .. }),
        "{error}"
    );
}

#[test]
fn b5_memory_that_the_system_refuses() {
    // Nearly all that a process can address: there is no such hole in its address space.
    let text = r#"(module (memory i64 0x7fff_0000) (func (export "f")))"#;
    let pool = builder(Limits::new()).build().unwrap();
    let f = define_wat(&pool, text);
    let idle = define(&pool, "idle", 1);
    idle.call(1, ()).unwrap();
    let error = f.acquire(1).unwrap_err();
    assert!(matches!(error, AcquireError::System { .. }), "{error}");
    let stats = check(&pool);
    assert_eq!(stats.budget(Budget::Memory).charged, 0);
    assert_eq!(stats.idle, 0, "what was idle has been evicted for it");
    idle.call(1, ()).unwrap();
}

#[test]
fn b5_a_create_hook_that_fails() {
    let failing = builder(Limits::new()).on_create(|store, _| match store.data().memory_bytes() {
        65_536 => Err(wasmtime::Error::msg("not this one")),
        _ => Ok(()),
    });
    let text = r#"(module (memory 1) (func (export "f")))"#;
    let error = all_but_code_stays(text, failing);
    assert_eq!(
        error.to_string(),
        "f() in group 1: the instance could not be made: not this one"
    );
}

#[test]
fn b5_store_data_that_cannot_be_made() {
    let pool = Pool::builder_with(|name, _| assert_ne!(name, "f"))
        .no_housekeeper()
        .build()
        .unwrap();
    let f = define_wat(&pool, r#"(module (memory 1) (func (export "f")))"#);
    let code = charged(&pool, Budget::Code);
    assert_eq!(code, 0);
    let panics = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(f.acquire(1))));
    assert!(panics.is_err());
    let stats = check(&pool);
    assert_eq!(stats.budget(Budget::Memory).charged, 0);
    assert_eq!((stats.leased, stats.idle, stats.waiting), (0, 0, 0));
    pool.close();
    check_empty(&pool);
}

#[test]
fn b5_a_refused_budget() {
    let pool = pool(Limits::new().memory(instance_bytes(3)));
    let (small, big) = (define(&pool, "small", 1), define(&pool, "big", 3));
    let lease = small.acquire(1).unwrap();
    small.call(2, ()).unwrap();
    let before = charges(&pool);
    refused(big.acquire(1));
    refused(big.try_acquire(1));
    assert_eq!(charges(&pool), before);
    let stats = check(&pool);
    assert_eq!((stats.idle, stats.leased, stats.refused), (1, 1, 2));
    drop(lease);
}

#[test]
fn b5_waiting_in_vain() {
    let pool = builder(Limits::new())
        .max_instances_per_entry(1)
        .build()
        .unwrap();
    let f = define(&pool, "f", 1);
    let lease = f.acquire(1).unwrap();
    let before = charges(&pool);
    assert!(matches!(
        f.try_acquire(1),
        Err(AcquireError::WouldBlock { .. })
    ));
    let error = f.acquire_timeout(1, Duration::ZERO).unwrap_err();
    let AcquireError::Timeout { waiting_for, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(waiting_for, WaitingFor::Instance);
    assert_eq!(charges(&pool), before);
    drop(lease);
    assert_eq!(charges(&pool), before);
    check(&pool);
}

#[test]
fn b5_a_call_that_fails_gives_back_what_its_instance_held() {
    let pool = pool(Limits::new());
    let trap: Function<i32, i32> = pool
        .define(Definition::new("trap_if").wasm(guest("rogue_trap")))
        .unwrap();
    trap.call(1, 0).unwrap();
    let one = charges(&pool);
    let lease = trap.acquire(1).unwrap();
    assert!(matches!(trap.call(1, 1), Err(CallError::Trap { .. })));
    drop(lease);
    assert_eq!(charges(&pool), one);
    check(&pool);
}

// B6 ─────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn b6_after_close_nothing_is_charged_for_what_was_idle() {
    let pool = pool(Limits::new());
    for group in 0..3 {
        define(&pool, &format!("f{group}"), 1)
            .call(group, ())
            .unwrap();
    }
    pool.close();
    check_empty(&pool);
    assert!(pool.is_closed());
    let stats = check(&pool);
    assert_eq!(
        (stats.idle, stats.modules_loaded, stats.closed),
        (0, 0, true)
    );
}

#[test]
fn b6_the_last_lease_takes_the_last_charge_with_it() {
    let pool = pool(Limits::new());
    let (f, g) = (define(&pool, "f", 1), define(&pool, "g", 2));
    let (mut first, second) = (f.acquire(1).unwrap(), g.acquire(1).unwrap());
    pool.close();
    pool.close();
    assert_eq!(
        charged(&pool, Budget::Memory),
        instance_bytes(1) + instance_bytes(2)
    );
    assert_eq!(first.call(()).unwrap(), 1, "leases end as they please");
    drop(second);
    assert_eq!(charged(&pool, Budget::Memory), instance_bytes(1));
    assert_eq!(pool.stats().modules_loaded, 1);
    drop(first);
    check_empty(&pool);
    check(&pool);
}

#[test]
fn b6_a_closed_pool_refuses_everything_and_wakes_who_waits() {
    let pool = builder(Limits::new())
        .max_instances_per_entry(1)
        .build()
        .unwrap();
    let f = define(&pool, "f", 1);
    let lease = f.acquire(1).unwrap();
    let waiter = thread::spawn({
        let f = f.clone();
        move || f.acquire(1).map(drop)
    });
    wait_for_waiters(&pool, 1);
    pool.close();
    assert!(matches!(
        waiter.join().unwrap(),
        Err(AcquireError::Closed { .. })
    ));
    assert!(matches!(f.acquire(1), Err(AcquireError::Closed { .. })));
    assert!(matches!(f.try_acquire(2), Err(AcquireError::Closed { .. })));
    let late: Result<Function<(), i32>, _> = pool.define(
        Definition::new("too.late")
            .wasm(memory_module(1, 1))
            .export("f"),
    );
    assert_eq!(
        late.unwrap_err().to_string(),
        "too.late(): the pool is closed"
    );
    drop(lease);
    check_empty(&pool);
}

#[test]
fn b6_a_waiter_for_room_is_woken_by_close() {
    let pool = pool(Limits::new().memory(instance_bytes(1)));
    let f = define(&pool, "f", 1);
    let lease = f.acquire(1).unwrap();
    let waiter = thread::spawn(move || f.acquire_timeout(2, Duration::from_secs(1)).map(drop));
    wait_for_waiters(&pool, 1);
    pool.close();
    assert!(matches!(
        waiter.join().unwrap(),
        Err(AcquireError::Closed { .. })
    ));
    drop(lease);
    check_empty(&pool);
}

// B7 ─────────────────────────────────────────────────────────────────────────────────────────────

#[track_caller]
fn limits_error(builder: PoolBuilder) -> LimitsError {
    match builder.build() {
        Err(BuildError::Limits(error)) => error,
        other => panic!("{other:?}"),
    }
}

type Setter = fn(Limits, u64) -> Limits;

const BUDGETS: [(&str, Setter); 7] = [
    ("memory", Limits::memory),
    ("code", Limits::code),
    ("compile", Limits::compile),
    ("stack", Limits::stack),
    ("mappings", Limits::mappings),
    ("total", Limits::total),
    ("mapped", Limits::mapped),
];

#[test]
fn b7_a_budget_of_zero_is_named() {
    for (field, set) in BUDGETS {
        let error = limits_error(builder(set(Limits::new(), 0)));
        assert_eq!(error, LimitsError::Zero { field });
        assert_eq!(
            error.to_string(),
            format!("{field} is zero: nothing could ever be served")
        );
    }
}

#[test]
fn b7_a_budget_beyond_any_machine_is_named() {
    for (field, set) in BUDGETS {
        for value in [(1 << 56) + 1, u64::MAX - 1] {
            let error = limits_error(builder(set(Limits::new(), value)));
            let max = 1 << 56;
            assert_eq!(error, LimitsError::TooLarge { field, value, max });
        }
        assert!(
            builder(set(Limits::new(), 1 << 56)).build().is_ok(),
            "{field}"
        );
        assert!(
            builder(set(Limits::new(), u64::MAX)).build().is_ok(),
            "{field}"
        );
    }
}

#[test]
fn b7_a_budget_too_small_for_any_instance_is_named() {
    for (field, set) in [BUDGETS[0], BUDGETS[5]] {
        let value = INSTANCE_OVERHEAD - 1;
        let error = limits_error(builder(set(Limits::new(), value)));
        let (what, needed) = ("the smallest instance", INSTANCE_OVERHEAD);
        assert_eq!(
            error,
            LimitsError::NeverFits {
                field,
                value,
                what,
                needed
            }
        );
        assert!(
            builder(set(Limits::new(), INSTANCE_OVERHEAD))
                .build()
                .is_ok()
        );
    }
}

#[test]
fn b7_an_instance_that_can_never_fit_is_named() {
    for (field, set) in [BUDGETS[0], BUDGETS[5]] {
        let value = MIB + INSTANCE_OVERHEAD - 1;
        let error = limits_error(builder(set(Limits::new(), value)).max_instance_memory(MIB));
        assert_eq!(
            error.to_string(),
            format!(
                "{field} is 1056767 bytes, but an instance grown to max_instance_memory needs \
                 1056768: no instance could ever be made"
            )
        );
        let limits = set(Limits::new(), value + 1);
        assert!(builder(limits).max_instance_memory(MIB).build().is_ok());
    }
}

#[test]
fn b7_other_settings_of_zero_are_named() {
    let with = |set: fn(PoolBuilder) -> PoolBuilder| limits_error(set(builder(Limits::new())));
    let zero = |field| LimitsError::Zero { field };
    assert_eq!(
        with(|b| b.max_instance_memory(0)),
        zero("max_instance_memory")
    );
    assert_eq!(with(|b| b.max_idle_memory(0)), zero("max_idle_memory"));
    assert_eq!(
        with(|b| b.max_instances_per_entry(0)),
        zero("max_instances_per_entry")
    );
    assert_eq!(with(|b| b.max_compilations(0)), zero("max_compilations"));
    assert_eq!(with(|b| b.max_uses(0)), zero("max_uses"));
    assert_eq!(
        with(|b| b.max_table_elements(0)),
        zero("max_table_elements")
    );
    assert_eq!(with(|b| b.max_wasm_stack(0)), zero("max_wasm_stack"));
    assert_eq!(with(|b| b.epoch_tick(Duration::ZERO)), zero("epoch_tick"));
}

#[test]
fn b7_bad_limits_set_later_change_nothing() {
    let pool = pool(Limits::new().memory(MIB).code(MIB));
    let f = define(&pool, "f", 1);
    f.call(1, ()).unwrap();
    let before = pool.stats();
    for (field, set) in BUDGETS {
        let zero = pool.set_limits(set(Limits::new().memory(MIB), 0));
        assert_eq!(zero, Err(LimitsError::Zero { field }));
    }
    let tiny = pool.set_limits(Limits::new().memory(1).code(1));
    assert!(matches!(
        tiny,
        Err(LimitsError::NeverFits {
            field: "memory",
            ..
        })
    ));
    let after = pool.stats();
    assert!(before.budgets().eq(after.budgets()));
    assert_eq!((after.idle, after.modules_loaded), (1, 1));
    check(&pool);
}

// B8 ─────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn b8_a_raised_limit_serves_who_waits_for_room_at_once() {
    let pool = pool(Limits::new().memory(instance_bytes(1)));
    let f = define(&pool, "f", 1);
    let lease = f.acquire(1).unwrap();
    let waiter = thread::spawn({
        let f = f.clone();
        move || f.acquire_timeout(2, Duration::from_secs(1)).map(drop)
    });
    wait_for_waiters(&pool, 1);
    pool.set_limits(Limits::new().memory(2 * instance_bytes(1)))
        .unwrap();
    // The clock stands still: nothing but the new limit can have woken it.
    waiter.join().unwrap().unwrap();
    assert_eq!(lease.uses(), 1);
    check(&pool);
}

#[test]
fn b8_a_raised_limit_serves_all_who_wait_for_room() {
    let pool = pool(Limits::new().memory(instance_bytes(1)));
    let f = define(&pool, "f", 1);
    let lease = f.acquire(0).unwrap();
    let (hold, held) = (Arc::new(std::sync::Barrier::new(4)), &pool);
    thread::scope(|scope| {
        for group in 1..4 {
            let (f, hold) = (f.clone(), hold.clone());
            scope.spawn(move || {
                let lease = f.acquire_timeout(group, Duration::from_secs(1)).unwrap();
                hold.wait();
                drop(lease);
            });
        }
        wait_for_waiters(held, 3);
        held.set_limits(Limits::new().memory(4 * instance_bytes(1)))
            .unwrap();
        hold.wait();
    });
    drop(lease);
    check(&pool);
}

#[test]
fn b8_a_raised_limit_lets_an_instance_grow_further() {
    let pool = pool(Limits::new().memory(MIB));
    let grow: Function<i32, i32> = pool
        .define(Definition::new("grow").wasm(memory_module(1, 0)))
        .unwrap();
    let mut lease = grow.acquire(1).unwrap();
    assert_eq!(lease.call(32).unwrap(), -1);
    pool.set_limits(Limits::new().memory(8 * MIB)).unwrap();
    assert_eq!(
        lease.call(32).unwrap(),
        1,
        "the limit that refused it is raised"
    );
    check(&pool);
}

#[test]
fn b8_a_raised_limit_admits_a_larger_module() {
    let pool = pool(Limits::new().memory(MIB));
    pool.set_limits(Limits::new().memory(8 * MIB)).unwrap();
    let definition = Definition::new("big")
        .wasm(memory_module(32, 0))
        .export("f");
    let big = pool.define::<(), i32>(definition).unwrap();
    assert_eq!(big.call(1, ()).unwrap(), 1);
    check(&pool);
}

#[test]
fn b8_a_lowered_limit_evicts_the_least_recently_used_and_no_more() {
    let pool = pool(Limits::new().memory(MIB));
    let f = define(&pool, "f", 1);
    for group in [1, 2, 3, 1] {
        f.call(group, ()).unwrap();
    }
    pool.set_limits(Limits::new().memory(2 * instance_bytes(1)))
        .unwrap();
    let stats = pool.stats();
    assert_eq!((stats.idle, stats.functions[0].evictions), (2, 1));
    assert_eq!(stats.budget(Budget::Memory).overdraft, 0);
    let uses = |group| f.acquire(group).unwrap().uses();
    assert_eq!((uses(1), uses(3)), (3, 2));
    pool.recount().unwrap();
}

#[test]
fn b8_a_lowered_code_limit_drops_modules() {
    let pool = builder(Limits::new())
        .policy(Policy::ModuleLru)
        .build()
        .unwrap();
    for name in ["f", "g"] {
        define(&pool, name, 1).call(1, ()).unwrap();
    }
    let one = pool.stats().functions[1].code_bytes;
    pool.set_limits(Limits::new().code(one)).unwrap();
    let stats = pool.stats();
    assert_eq!(
        (stats.modules_loaded, stats.code_dropped, stats.idle),
        (1, 1, 1)
    );
    assert!(stats.function("g").unwrap().code_loaded);
    pool.recount().unwrap();
}

#[test]
fn b8_what_leases_still_hold_is_an_overdraft_and_new_needs_are_refused() {
    let pool = pool(Limits::new().memory(MIB));
    let f = define(&pool, "f", 1);
    let (one, two) = (f.acquire(1).unwrap(), f.acquire(2).unwrap());
    f.call(3, ()).unwrap();
    pool.set_limits(Limits::new().memory(instance_bytes(1) + 1))
        .unwrap();
    let memory = pool.stats().budget(Budget::Memory);
    assert_eq!(pool.stats().idle, 0);
    assert_eq!(memory.overdraft, instance_bytes(1) - 1);
    assert_eq!(memory.charged, 2 * instance_bytes(1));
    let exceeded = refused(f.acquire(3));
    assert_eq!((exceeded.charged, exceeded.evictable), (memory.charged, 0));
    drop((one, two));
    pool.recount().unwrap();
}

#[test]
fn b8_the_overdraft_is_gone_when_leases_end() {
    let pool = pool(Limits::new().memory(MIB));
    let f = define(&pool, "f", 1);
    let (one, two) = (f.acquire(1).unwrap(), f.acquire(2).unwrap());
    pool.set_limits(Limits::new().memory(instance_bytes(1)))
        .unwrap();
    drop(one);
    let memory = pool.stats().budget(Budget::Memory);
    assert_eq!((memory.charged, memory.overdraft), (instance_bytes(1), 0));
    drop(two);
    assert_eq!(pool.stats().idle, 1, "what fits stays");
    pool.recount().unwrap();
}

#[test]
fn b8_who_waits_for_what_can_no_longer_fit_is_refused_at_once() {
    let pool = pool(Limits::new().memory(instance_bytes(4)));
    let (small, big) = (define(&pool, "small", 1), define(&pool, "big", 4));
    let lease = small.acquire(1).unwrap();
    let waiter = thread::spawn(move || big.acquire_timeout(1, Duration::from_secs(1)).map(drop));
    wait_for_waiters(&pool, 1);
    pool.set_limits(Limits::new().memory(instance_bytes(2)))
        .unwrap();
    let exceeded = refused(waiter.join().unwrap());
    assert_eq!(
        (exceeded.requested, exceeded.limit),
        (instance_bytes(4), instance_bytes(2))
    );
    drop(lease);
    pool.recount().unwrap();
}

// Every budget refuses, and says so in words ─────────────────────────────────────────────────────

#[test]
fn b1_the_memory_budget_refuses() {
    let pool = pool(Limits::new().memory(instance_bytes(1) + instance_bytes(2)));
    let (small, big) = (define(&pool, "small", 1), define(&pool, "big", 2));
    let lease = small.acquire(1).unwrap();
    small.call(2, ()).unwrap();
    let held = big.acquire("reports").unwrap();
    let exceeded = refused(big.acquire("nightly"));
    assert_eq!(exceeded.budget, Budget::Memory);
    assert_eq!(exceeded.requested, instance_bytes(2));
    assert_eq!(exceeded.limit, instance_bytes(1) + instance_bytes(2));
    assert_eq!(exceeded.charged, instance_bytes(1) + instance_bytes(2));
    assert_eq!(exceeded.evictable, 0);
    assert_eq!(&*exceeded.target.signature, "big()");
    assert_eq!(exceeded.target.group, "nightly".into());
    assert_eq!(
        exceeded.to_string(),
        format!(
            "big() in group nightly needs {0} bytes of the memory budget, which has {1}: {1} are \
             charged, and evicting everything idle would free 0. The other {1} are in use: try \
             again later, or raise the limit. Held by big() in group reports: {0} in use; small() \
             in group 1: {2} in use",
            exceeded.requested,
            exceeded.limit,
            instance_bytes(1)
        )
    );
    drop((lease, held));
    check(&pool);
}

#[test]
fn b1_a_refusal_says_what_is_evictable_and_what_can_never_fit() {
    let pool = pool(Limits::new().memory(instance_bytes(3)));
    let (small, big) = (define(&pool, "small", 1), define(&pool, "big", 3));
    let lease = small.acquire(1).unwrap();
    small.call(2, ()).unwrap();
    let exceeded = refused(big.acquire(7));
    assert_eq!(exceeded.evictable, instance_bytes(1));
    assert_eq!(
        exceeded.to_string(),
        format!(
            "big() in group 7 needs {0} bytes of the memory budget, which has {0}: {1} are \
             charged, and evicting everything idle would free {2}. The other {2} are in use: try \
             again later, or raise the limit. Held by small() in group 1: {2} in use; small() in \
             group 2: {2} idle",
            instance_bytes(3),
            2 * instance_bytes(1),
            instance_bytes(1)
        )
    );
    assert_eq!(pool.stats().idle, 1, "and was not evicted");
    drop(lease);
    pool.set_limits(Limits::new().memory(instance_bytes(2)))
        .unwrap();
    assert_eq!(
        refused(big.acquire(7)).to_string(),
        format!(
            "big() in group 7 needs {0} bytes of the memory budget, which has {1}: {2} are \
             charged, and evicting everything idle would free {2}. It can never fit: raise the \
             memory limit to at least {0}",
            instance_bytes(3),
            instance_bytes(2),
            instance_bytes(1)
        )
    );
}

/// Bytes of code of a function of [`define`].
fn code_of_one() -> u64 {
    let pool = pool(Limits::new());
    define(&pool, "f", 1).call(1, ()).unwrap();
    charged(&pool, Budget::Code)
}

#[test]
fn b1_the_code_budget_refuses() {
    let code = code_of_one();
    let limit = 2 * code - 1;
    let pool = pool(Limits::new().code(limit));
    let (f, g) = (define(&pool, "f", 1), define(&pool, "g", 1));
    let lease = f.acquire(1).unwrap();
    let exceeded = refused(g.acquire(1));
    assert_eq!(exceeded.budget, Budget::Code);
    assert!(exceeded.requested >= code, "{exceeded:?}");
    assert_eq!(
        (exceeded.limit, exceeded.charged, exceeded.evictable),
        (limit, code, 0)
    );
    assert_eq!(&*exceeded.target.signature, "g()");
    drop(lease);
    g.call(1, ()).unwrap();
    assert!(!pool.stats().function("f").unwrap().code_loaded);
    check(&pool);
}

#[test]
fn b1_the_compile_budget_refuses() {
    let pool = pool(Limits::new().compile(4 * MIB));
    let f = define(&pool, "f", 1);
    let wasm = memory_module(1, u32::from(b'f')).len() as u64;
    let exceeded = refused(f.acquire(1));
    assert_eq!(exceeded.budget, Budget::Compile);
    assert_eq!(exceeded.requested, 4 * MIB + 96 * wasm);
    assert_eq!(
        (exceeded.limit, exceeded.charged, exceeded.evictable),
        (4 * MIB, 0, 0)
    );
    assert_eq!(
        exceeded.to_string(),
        format!(
            "f() in group 1 needs {0} bytes of the compile budget, which has 4194304: 0 are \
             charged, and evicting everything idle would free 0. It can never fit: raise the \
             compile limit to at least {0}",
            exceeded.requested
        )
    );
    assert_eq!(pool.stats().compilations, 0);
    check(&pool);
}

#[test]
fn b1_the_mappings_budget_refuses() {
    let pool = pool(Limits::new().mappings(8));
    let f = define(&pool, "f", 1);
    let lease = f.acquire(1).unwrap();
    let exceeded = refused(f.acquire(2));
    assert_eq!(exceeded.budget, Budget::Mappings);
    assert_eq!(
        (exceeded.requested, exceeded.limit, exceeded.charged),
        (3, 8, 6)
    );
    assert_eq!(
        exceeded.to_string(),
        "f() in group 2 needs 3 mappings of the mappings budget, which has 8: 6 are charged, and \
         evicting everything idle would free 0. The other 6 are in use: try again later, or raise \
         the limit. Held by f() in group 1: 3 in use; code of f(): 3 in use"
    );
    drop(lease);
    check(&pool);
}

#[test]
fn b1_the_total_budget_refuses() {
    let pool = pool(Limits::new());
    let f = define(&pool, "f", 2);
    let lease = f.acquire(1).unwrap();
    let charged = charged(&pool, Budget::Total);
    let limit = charged + instance_bytes(2) - 1;
    pool.set_limits(Limits::new().total(limit)).unwrap();
    let exceeded = refused(f.acquire(2));
    assert_eq!(exceeded.budget, Budget::Total);
    assert_eq!(exceeded.requested, instance_bytes(2));
    assert_eq!(
        (exceeded.limit, exceeded.charged, exceeded.evictable),
        (limit, charged, 0)
    );
    pool.set_limits(Limits::new().total(limit + 1)).unwrap();
    drop(f.acquire(2).unwrap());
    drop(lease);
    pool.recount().unwrap();
}

#[test]
fn b1_the_total_budget_takes_unused_code_when_instances_are_not_enough() {
    let pool = pool(Limits::new());
    let (f, g) = (define(&pool, "f", 1), define(&pool, "g", 1));
    g.call(1, ()).unwrap();
    let lease = f.acquire(1).unwrap();
    let code = pool.stats().function("g").unwrap().code_bytes;
    // Room for one more instance is to be had from all that `g` has, and from nothing less.
    let limit = charged(&pool, Budget::Total) - code;
    pool.set_limits(Limits::new().total(limit + instance_bytes(1)))
        .unwrap();
    assert_eq!((pool.stats().idle, pool.stats().modules_loaded), (1, 2));
    pool.set_limits(Limits::new().total(limit)).unwrap();
    drop(f.acquire(2).unwrap());
    assert!(!pool.stats().function("g").unwrap().code_loaded);
    drop(lease);
    pool.recount().unwrap();
}

#[test]
fn b1_a_guess_at_the_size_of_code_refuses_nothing_that_fits() {
    let pool = pool(Limits::new().code(2 * code_of_one()));
    let (f, g) = (define(&pool, "f", 1), define(&pool, "g", 1));
    let lease = f.acquire(1).unwrap();
    assert_eq!(g.call(1, ()).unwrap(), 1, "two modules of this size fit");
    drop(lease);
    check(&pool);
}

#[test]
fn b1_other_waits_speak_for_themselves() {
    let clock = ManualClock::new();
    let pool = Pool::builder()
        .max_instances_per_entry(1)
        .clock(clock.clone())
        .no_housekeeper()
        .build()
        .unwrap();
    let f = define(&pool, "f", 1);
    let lease = f.acquire(1).unwrap();
    assert_eq!(
        f.try_acquire(1).unwrap_err().to_string(),
        "f() in group 1 would have to wait for one of its instances, all leased"
    );
    let waiter = thread::spawn({
        let f = f.clone();
        move || f.acquire_timeout(1, Duration::from_secs(3)).map(drop)
    });
    wait_for_waiters(&pool, 1);
    clock.advance(Duration::from_secs(3));
    assert_eq!(
        waiter.join().unwrap().unwrap_err().to_string(),
        "f() in group 1 waited 3s for one of its instances, all leased (1 of them between two calls, \
         perhaps by this very thread)"
    );
    drop(lease);
}

// Stacks, and what is mapped ──────────────────────────────────────────────────────────────────────

#[test]
fn b7_stacks_that_can_never_fit_are_named() {
    let small = Pool::builder().async_stack_size(1).build();
    let Err(BuildError::Limits(LimitsError::NeverFits { field, needed, .. })) = small else {
        panic!("{small:?}");
    };
    assert_eq!((field, needed), ("async_stack_size", (512 + 128) << 10));
    let few = builder(Limits::new().stack(3 << 20)).max_instances_per_entry(4);
    let error = limits_error(few);
    let expected = LimitsError::NeverFits {
        field: "stack",
        value: 3 << 20,
        what: "a fiber stack for each of max_instances_per_entry",
        needed: 4 << 20,
    };
    assert_eq!(error, expected);
    let enough = builder(Limits::new().stack(4 << 20)).max_instances_per_entry(4);
    assert!(enough.build().is_ok());
}

#[test]
fn the_preset_has_the_ancestors_figures() {
    let pool = Pool::builder().scylla().build().unwrap();
    let stats = pool.stats();
    assert_eq!(stats.budget(Budget::Mapped).limit, 40 << 20);
    assert_eq!(stats.budget(Budget::Memory).limit, 100_000_000);
}
