//! Many threads do everything at once: no charge is lost, no peak passes its limit, nobody waits in
//! vain, and no group ever sees another's instance.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::common::{Dice, check_empty, crowd, wat};
use wasm_pool::{AcquireError, CallError, Definition, Function, Limits, Policy, Pool};

const THREADS: u64 = 4;
const ROUNDS: u64 = 1500;
const FUNCTIONS: u64 = 4;
const GROUPS: u64 = 3;

/// `f` returns the number that its store was given; a negative argument traps, a large one grows
/// the memory by so many pages.
fn module(salt: u64, pages: u64) -> Vec<u8> {
    wat(&format!(
        r#"(module (import "host" "group" (func $group (result i64)))
            (memory (export "memory") {pages}) (global (export "salt") i64 (i64.const {salt}))
            (func (export "f") (param i32) (result i64)
                (if (i32.lt_s (local.get 0) (i32.const 0)) (then unreachable))
                (drop (memory.grow (local.get 0)))
                call $group))"#
    ))
}

fn definition(function: u64, salt: u64) -> Definition {
    let pages = 1 + function;
    Definition::new(format!("f{function}"))
        .wasm(module(salt, pages))
        .export("f")
}

fn pool(policy: Policy) -> Pool<u64> {
    let limits = Limits::new()
        .memory(20 << 16)
        .code(140 << 10)
        .total(64 << 20);
    Pool::builder_with(|_, group| group.to_string().parse().expect("groups are numbers here"))
        .limits(limits)
        .policy(policy)
        .max_instances_per_entry(2)
        .max_compilations(2)
        .idle_timeout(Duration::from_millis(20))
        .imports(|linker| {
            linker.func_wrap(
                "host",
                "group",
                |caller: wasmtime::Caller<'_, wasm_pool::StoreData<u64>>| **caller.data(),
            )?;
            Ok(())
        })
        .build()
        .unwrap()
}

/// One thing a host might do; whether it was served.
fn one_thing(pool: &Pool<u64>, dice: &mut Dice) -> bool {
    let function = dice.below(FUNCTIONS);
    let group = dice.below(GROUPS);
    let name = format!("f{function}");
    let Ok(handle): Result<Function<i32, i64, u64>, _> = pool.function(&name) else {
        return false;
    };
    let argument = match dice.below(12) {
        0 => -1,
        1 => 3,
        _ => 0,
    };
    let seen = match dice.below(100) {
        0 => {
            let _ = pool.replace::<i32, i64>(definition(function, dice.below(1000)));
            return true;
        }
        1 => {
            let _ = pool.remove(&name);
            let _ = pool.define::<i32, i64>(definition(function, dice.below(1000)));
            return true;
        }
        2 => {
            let memory = (12 + dice.below(8)) << 16;
            pool.set_limits(Limits::new().memory(memory).code(140 << 10))
                .unwrap();
            return true;
        }
        3 => {
            pool.sweep();
            pool.recount().unwrap();
            pool.retain(|instance| instance.memory_bytes % 3 != 0);
            return true;
        }
        4..20 => handle
            .acquire_with(group, crate::common::room_within(Duration::from_secs(60)))
            .map_err(CallError::from)
            .and_then(|mut lease| {
                thread::yield_now();
                lease.call(argument)
            }),
        20..30 => handle
            .try_acquire(group)
            .map_err(CallError::from)
            .and_then(|mut l| l.call(0)),
        30..50 => handle.in_group(group).call(argument),
        _ => handle.call(group, argument),
    };
    match seen {
        Ok(answer) => assert_eq!(answer as u64, group, "an instance of another group"),
        Err(CallError::Trap { .. }) => assert_eq!(argument, -1),
        Err(CallError::Acquire(
            AcquireError::BudgetExceeded(_)
            | AcquireError::WouldBlock { .. }
            | AcquireError::Removed { .. },
        )) => return false,
        Err(other) => panic!("{other}"),
    }
    true
}

fn everything_at_once(policy: Policy) {
    let _crowd = crowd();
    let pool = pool(policy);
    for function in 0..FUNCTIONS {
        pool.define::<i32, i64>(definition(function, 0)).unwrap();
    }
    let served = AtomicU64::new(0);
    thread::scope(|scope| {
        for seed in 1..=THREADS {
            let (pool, served) = (&pool, &served);
            scope.spawn(move || {
                let mut dice = Dice(seed * 0x9E37_79B9);
                for _ in 0..ROUNDS {
                    served.fetch_add(u64::from(one_thing(pool, &mut dice)), Ordering::Relaxed);
                }
            });
        }
    });
    pool.recount().unwrap();
    let stats = pool.stats();
    assert_eq!((stats.leased, stats.waiting, stats.compiling), (0, 0, 0));
    let served = served.into_inner();
    assert!(served > THREADS * ROUNDS / 4, "only {served} served");
    println!(
        "{policy:?}: {served} served, {} misses, {} hits, {} blocks, {} evictions, {} refused, \
              {} compilations",
        stats.misses, stats.hits, stats.blocks, stats.evictions, stats.refusals, stats.compilations
    );
    pool.close();
    pool.recount().unwrap();
    check_empty(&pool);
}

#[test]
fn everything_at_once_when_code_dies_with_its_instances() {
    everything_at_once(Policy::Lru);
}

#[test]
fn everything_at_once_when_code_is_retained() {
    everything_at_once(Policy::ModuleLru);
}

#[test]
fn everything_at_once_when_code_is_kept_by_worth() {
    everything_at_once(Policy::CostAware);
}
