//! C-B1, C-B2, C-B5 to C-B9: what is charged, when it is given back, which limits make sense, and what a
//! refusal says.

mod instances;
mod limits;
mod refusals;

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

// C-B1 ─────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn c_b1_no_budget_is_overcharged_at_any_instant() {
    let limits = Limits::new()
        .memory(MIB)
        .code(128 << 10)
        .mappings(24)
        .total(12 * MIB);
    let pool = pool(limits);
    let functions: Vec<_> = (0..5)
        .map(|n| define_with_pages(&pool, &format!("f{n}"), n + 1))
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
                    .any(|(_, b)| !b.allows(b.charged) || b.overdraft > 0);
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

// C-B2 ─────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn c_b2_idle_and_leased_are_charged_alike() {
    let pool = pool(Limits::new());
    let f = define_with_pages(&pool, "f", 3);
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
fn c_b2_every_instance_is_charged_and_its_code_once() {
    let pool = pool(Limits::new());
    let f = define_with_pages(&pool, "f", 2);
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

// C-B5 ─────────────────────────────────────────────────────────────────────────────────────────────

/// Whatever fails, in a pool that holds one idle instance of something else.
#[track_caller]
fn charges_stay(pool: &Pool, fails: impl FnOnce() -> AcquireError) -> AcquireError {
    let other = define_with_pages(pool, "other", 2);
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
fn c_b5_a_module_that_does_not_compile() {
    let text = r#"(module (func (export "f") i32.const 1))"#;
    let error = all_but_code_stays(text, builder(Limits::new()));
    assert!(
        wasm_pool::Report(&error)
            .to_string()
            .contains("does not compile"),
        "{error}"
    );
}

#[test]
fn c_b5_an_import_whose_type_only_the_compiler_knows() {
    let log = |linker: &mut Linker<StoreData<()>>| linker.func_wrap("host", "log", || ()).map(drop);
    // Another type than the same one that stands alone.
    let text = r#"(module (rec (type $log (func)) (type (func)))
        (import "host" "log" (func (type $log))) (func (export "f")))"#;
    let error = all_but_code_stays(text, builder(Limits::new()).imports(log));
    assert!(
        wasm_pool::Report(&error).to_string().contains("host::log"),
        "{error}"
    );
}

#[test]
fn c_b5_a_start_function_that_traps() {
    let text = r#"(module (memory 5) (func $s unreachable) (start $s) (func (export "f")))"#;
    let error = all_but_code_stays(text, builder(Limits::new()));
    assert!(
        matches!(error, AcquireError::StartTrapped { .. }),
        "{error}"
    );
}

#[test]
fn c_b5_a_start_function_that_grows_and_then_traps() {
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
fn c_b5_a_start_function_without_end() {
    let text = r#"(module (memory 5) (func $s (loop (br 0))) (start $s) (func (export "f")))"#;
    let error = all_but_code_stays(text, builder(Limits::new()).fuel(10_000));
    assert!(matches!(error, AcquireError::StartLimit { .. }), "{error}");
}

#[test]
fn c_b5_a_data_segment_outside_of_memory() {
    let text = r#"(module (memory 1) (data (i32.const 65536) "x") (func (export "f")))"#;
    let error = all_but_code_stays(text, builder(Limits::new()));
    assert!(
        matches!(error, AcquireError::StartTrapped { .. }),
        "{error}"
    );
}

#[test]
fn c_b5_memory_that_the_system_refuses() {
    // Nearly all that a process can address: there is no such hole in its address space.
    let text = r#"(module (memory i64 0x7fff_0000) (func (export "f")))"#;
    let pool = builder(Limits::new()).build().unwrap();
    let f = define_wat(&pool, text);
    let idle = define_with_pages(&pool, "idle", 1);
    idle.call(1, ()).unwrap();
    let error = f.acquire(1).unwrap_err();
    assert!(matches!(error, AcquireError::System { .. }), "{error}");
    let stats = check(&pool);
    assert_eq!(stats.budget(Budget::Memory).charged, 0);
    assert_eq!(stats.idle, 0, "what was idle has been evicted for it");
    idle.call(1, ()).unwrap();
}

#[test]
fn c_b5_a_create_hook_that_fails() {
    let failing = builder(Limits::new()).on_create(|store, _| match store.data().memory_bytes() {
        65_536 => Err(wasmtime::Error::msg("not this one")),
        _ => Ok(()),
    });
    let text = r#"(module (memory 1) (func (export "f")))"#;
    let error = all_but_code_stays(text, failing);
    assert_eq!(
        wasm_pool::Report(&error).to_string(),
        "f() in group 1: the instance could not be made: not this one"
    );
}

#[test]
fn c_b5_store_data_that_cannot_be_made() {
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
fn c_b5_a_refused_budget() {
    let pool = pool(Limits::new().memory(instance_bytes(3)));
    let (small, big) = (
        define_with_pages(&pool, "small", 1),
        define_with_pages(&pool, "big", 3),
    );
    let lease = small.acquire(1).unwrap();
    small.call(2, ()).unwrap();
    let before = charges(&pool);
    refused(big.acquire(1));
    refused(big.try_acquire(1));
    assert_eq!(charges(&pool), before);
    let stats = check(&pool);
    assert_eq!((stats.idle, stats.leased, stats.refusals), (1, 1, 2));
    drop(lease);
}

#[test]
fn c_b5_waiting_in_vain() {
    let pool = builder(Limits::new())
        .max_instances_per_entry(1)
        .build()
        .unwrap();
    let f = define_with_pages(&pool, "f", 1);
    let lease = f.acquire(1).unwrap();
    let before = charges(&pool);
    assert!(matches!(
        f.try_acquire(1),
        Err(AcquireError::WouldBlock { .. })
    ));
    let error = f.acquire_with(1, room_within(Duration::ZERO)).unwrap_err();
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
fn c_b5_a_call_that_fails_gives_back_what_its_instance_held() {
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

// C-B6 ─────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn c_b6_after_close_nothing_is_charged_for_what_was_idle() {
    let pool = pool(Limits::new());
    for group in 0..3 {
        define_with_pages(&pool, &format!("f{group}"), 1)
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
fn c_b6_the_last_lease_takes_the_last_charge_with_it() {
    let pool = pool(Limits::new());
    let (f, g) = (
        define_with_pages(&pool, "f", 1),
        define_with_pages(&pool, "g", 2),
    );
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
fn c_b6_a_closed_pool_refuses_everything_and_wakes_who_waits() {
    let pool = builder(Limits::new())
        .max_instances_per_entry(1)
        .build()
        .unwrap();
    let f = define_with_pages(&pool, "f", 1);
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
fn c_b6_a_waiter_for_room_is_woken_by_close() {
    let pool = pool(Limits::new().memory(instance_bytes(1)));
    let f = define_with_pages(&pool, "f", 1);
    let lease = f.acquire(1).unwrap();
    let waiter = thread::spawn(move || {
        f.acquire_with(2, room_within(Duration::from_secs(1)))
            .map(drop)
    });
    wait_for_waiters(&pool, 1);
    pool.close();
    assert!(matches!(
        waiter.join().unwrap(),
        Err(AcquireError::Closed { .. })
    ));
    drop(lease);
    check_empty(&pool);
}
