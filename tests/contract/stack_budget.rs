//! Fiber stacks are charged while they are there, and to the byte; the budget holds.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::polling::{ByHand, MINUTE, waiting_host};
use crate::common::*;
use pollster::block_on;
use wasm_pool::{
    AcquireError, Budget, CallError, CallLimit, Definition, Function, Limits, ManualClock, Pool,
    PoolBuilder, WaitingFor,
};
use wasmtime::{Config, Engine};

const STACK: u64 = 1 << 20;
const SECOND: Duration = Duration::from_secs(1);

/// One instance for each group, and room for so many stacks.
fn stacks(count: u64) -> PoolBuilder {
    Pool::builder()
        .no_housekeeper()
        .idle_timeout(None)
        .max_instances_per_entry(1)
        .limits(Limits::new().stack(count * STACK))
}

fn define<T: Send + 'static>(pool: &Pool<T>, wasm: Vec<u8>) -> Function<(), i32, T> {
    let definition = Definition::new("f").wasm(wasm).export("f");
    pool.define(definition).unwrap()
}

/// Charged for stacks, in stacks.
fn charged_stacks(pool: &Pool) -> u64 {
    let stats = check(pool);
    assert_eq!(stats.budget(Budget::Stack).charged % STACK, 0);
    stats.budget(Budget::Stack).charged / STACK
}

/// The groups that have an idle instance.
fn idle_groups(pool: &Pool) -> Vec<String> {
    let mut groups = Vec::new();
    pool.retain(|idle| {
        groups.push(idle.group.to_string());
        true
    });
    groups.sort();
    groups
}

// When it is charged ─────────────────────────────────────────────────────────────────────────────

#[test]
fn synchronous_use_charges_no_stack() {
    let pool = stacks(1).build().unwrap();
    let f = define(&pool, memory_module(1, 0));
    for group in 0..5_u64 {
        assert_eq!(f.call(group, ()).unwrap(), 1);
    }
    assert_eq!(check(&pool).budget(Budget::Stack).peak, 0);
}

#[test]
fn a_stack_is_charged_from_the_first_use_by_a_task_until_its_instance_is_gone() {
    let pool = stacks(4).build().unwrap();
    let f = define(&pool, memory_module(1, 0));
    f.call(1, ()).unwrap();
    let mappings = || charged(&pool, Budget::Mappings);
    let (memory, without) = (charged(&pool, Budget::Memory), mappings());
    for _ in 0..3 {
        assert_eq!(block_on(f.call_async(1, ())).unwrap(), 1);
        assert_eq!((charged_stacks(&pool), mappings()), (1, without + 2));
        f.call(1, ()).unwrap();
    }
    assert_eq!(charged(&pool, Budget::Memory), memory, "the same instance");
    let made_for_a_task = lease_of_a_task(&f, 2);
    assert_eq!(charged_stacks(&pool), 2);
    drop(made_for_a_task);
    assert_eq!(pool.retain(|idle| idle.group != 1_u64.into()), 1);
    assert_eq!(charged_stacks(&pool), 1);
    pool.close();
    check_empty(&pool);
}

#[test]
fn a_lease_of_a_thread_gets_its_stack_when_it_calls_as_a_task() {
    let pool = stacks(1).build().unwrap();
    let f = define(&pool, memory_module(1, 0));
    let mut first = f.acquire(1).unwrap();
    assert_eq!(first.call(()).unwrap(), 1);
    assert_eq!(charged_stacks(&pool), 0);
    assert_eq!(block_on(first.call_async(())).unwrap(), 1);
    assert_eq!(charged_stacks(&pool), 1);
    let mut second = f.acquire(2).unwrap();
    let error = block_on(second.call_async(())).unwrap_err();
    let CallError::Acquire(AcquireError::BudgetExceeded(short)) = error else {
        panic!("{error}");
    };
    assert_eq!(short.budget, Budget::Stack);
    assert_eq!(second.call(()).unwrap(), 1, "it is as it was");
    drop(first);
    assert_eq!(block_on(second.call_async(())).unwrap(), 1);
    drop(second);
    assert_eq!((check(&pool).idle, charged_stacks(&pool)), (1, 1));
}

// The limit ──────────────────────────────────────────────────────────────────────────────────────

#[test]
fn c_b1_a_new_task_evicts_the_least_recently_used_stack() {
    let clock = ManualClock::new();
    let pool = stacks(3).clock(clock.clone()).build().unwrap();
    let f = define(&pool, memory_module(1, 0));
    f.call(9, ()).unwrap();
    for group in [1_u64, 2, 3, 1] {
        clock.advance(SECOND);
        block_on(f.call_async(group, ())).unwrap();
    }
    clock.advance(SECOND);
    let fourth = lease_of_a_task(&f, 4);
    assert_eq!(
        idle_groups(&pool),
        ["1", "3", "9"],
        "2 has not been used for longest, and 9 holds no stack"
    );
    assert_eq!(charged_stacks(&pool), 3);
    drop(fourth);
    clock.advance(SECOND);
    // An instance that is there evicts for its stack as one that is made.
    block_on(f.call_async(9, ())).unwrap();
    assert_eq!(idle_groups(&pool), ["1", "4", "9"]);
    assert_eq!(charged_stacks(&pool), 3);
}

#[test]
fn c_b5_a_stack_that_leases_leave_no_room_for_is_refused_with_the_numbers() {
    let pool = stacks(2).build().unwrap();
    let f = define(&pool, memory_module(1, 0));
    f.call(3, ()).unwrap();
    let leases = [lease_of_a_task(&f, 1), lease_of_a_task(&f, 2)];
    for group in [3, 4_u64] {
        let before = charges(&pool);
        let error = block_on(f.acquire_async(group)).unwrap_err();
        let AcquireError::BudgetExceeded(short) = error else {
            panic!("{error}");
        };
        assert_eq!(short.budget, Budget::Stack);
        let numbers = (short.requested, short.limit, short.charged, short.evictable);
        assert_eq!(numbers, (STACK, 2 * STACK, 2 * STACK, 0));
        assert_eq!(charges(&pool), before);
    }
    assert_eq!(idle_groups(&pool), ["3"], "nobody is evicted in vain");
    assert_eq!(f.call(3, ()).unwrap(), 1, "threads need none");
    drop(leases);
    drop(lease_of_a_task(&f, 4));
    check(&pool);
}

#[test]
fn c_b5_nobody_is_evicted_for_a_stack_that_can_never_fit() {
    let pool = stacks(2).build().unwrap();
    let f = define(&pool, memory_module(1, 0));
    f.call(1, ()).unwrap();
    pool.set_limits(Limits::new().stack(STACK / 2)).unwrap();
    let error = block_on(f.acquire_async_with(1, room_within(MINUTE))).unwrap_err();
    let AcquireError::BudgetExceeded(short) = error else {
        panic!("{error}");
    };
    assert_eq!((short.budget, short.requested), (Budget::Stack, STACK));
    assert_eq!(idle_groups(&pool), ["1"]);
}

#[test]
fn c_b1_who_waits_for_a_stack_gets_that_of_a_lease_that_ends() {
    let clock = ManualClock::new();
    let pool = stacks(1).clock(clock.clone()).build().unwrap();
    let f = define(&pool, memory_module(1, 0));
    // Of these two, one has an instance already, and one has not.
    for group in [2_u64, 3] {
        f.call(2, ()).unwrap();
        let held = lease_of_a_task(&f, 1);
        let waiting = f.clone();
        let mut waiting =
            ByHand::new(
                async move { waiting.acquire_async_with(group, room_within(SECOND)).await },
            );
        assert!(waiting.poll().is_none());
        assert_eq!(check(&pool).waiting, 1);
        drop(held);
        waiting.wait_until_woken();
        drop(waiting.finish().unwrap());
        assert_eq!(charged_stacks(&pool), 1);
    }
    let held = lease_of_a_task(&f, 1);
    let late = f.clone();
    let mut late =
        ByHand::new(async move { late.acquire_async_with(4, room_within(SECOND)).await });
    assert!(late.poll().is_none());
    clock.advance(SECOND);
    assert!(!late.is_woken());
    pool.sweep();
    let error = late.poll().unwrap().unwrap_err();
    let AcquireError::Timeout {
        waiting_for,
        shortage: Some(short),
        waited,
        ..
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!((waiting_for, waited), (WaitingFor::Room, SECOND));
    let numbers = (short.budget, short.requested, short.charged);
    assert_eq!(numbers, (Budget::Stack, STACK, STACK));
    drop(held);
    assert_eq!(check(&pool).waiting, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c_b1_many_tasks_never_have_more_stacks_than_fit() {
    let pool = stacks(3).build().unwrap();
    let f = define(&pool, memory_module(1, 0));
    let tasks: Vec<_> = (0..40_u64)
        .map(|n| {
            let f = f.clone();
            tokio::spawn(async move {
                for round in 0..10 {
                    let group = (n + round) % 11;
                    let mut lease = f
                        .acquire_async_with(group, room_within(MINUTE))
                        .await
                        .unwrap();
                    tokio::task::yield_now().await;
                    assert_eq!(lease.call_async(()).await.unwrap(), 1);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let stats = check(&pool);
    assert_eq!(stats.budget(Budget::Stack).peak, 3 * STACK);
    assert_eq!((stats.leased, stats.waiting), (0, 0));
    pool.close();
    check_empty(&pool);
}

#[test]
fn c_b1_stacks_and_code_under_one_limit_wait_for_each_other() {
    let pool = Pool::builder()
        .no_housekeeper()
        .max_instances_per_entry(1)
        .limits(Limits::new().mapped(STACK + 40_000))
        .build()
        .unwrap();
    let functions: Vec<Function<(), i32>> = (0..3)
        .map(|n| {
            let definition = Definition::new(format!("f{n}")).wasm(memory_module(1, n));
            pool.define(definition.export("f")).unwrap()
        })
        .collect();
    std::thread::scope(|scope| {
        for f in &functions {
            scope.spawn(move || {
                for group in 0..10_u64 {
                    let lease =
                        block_on(f.acquire_async_with(group % 2, room_within(MINUTE))).unwrap();
                    std::thread::yield_now();
                    drop(lease);
                }
            });
        }
    });
    assert_eq!(check(&pool).waiting, 0);
}

// A second stack ─────────────────────────────────────────────────────────────────────────────────

/// `f` calls the host, which calls `g` of the same guest as a task. The most charged meanwhile is
/// left in the cell.
fn calling_back(builder: PoolBuilder) -> (Pool, Function<(), i32>, Arc<Mutex<u64>>) {
    let seen = Arc::new(Mutex::new(0));
    let look = seen.clone();
    let pool_of_import: Arc<Mutex<Option<Pool>>> = Arc::default();
    let import = pool_of_import.clone();
    let builder = builder.imports(move |linker| {
        linker.func_wrap_async("env", "back", move |mut caller, (): ()| {
            let (import, look) = (import.clone(), look.clone());
            Box::new(async move {
                let g = caller.get_export("g").and_then(|g| g.into_func()).unwrap();
                let g = g.typed::<(), i32>(&caller)?;
                let answer = g.call_async(&mut caller, ()).await;
                let pool = import.lock().unwrap().clone().unwrap();
                *look.lock().unwrap() = charged(&pool, Budget::Stack);
                answer
            })
        })?;
        Ok(())
    });
    let pool = builder.build().unwrap();
    *pool_of_import.lock().unwrap() = Some(pool.clone());
    let f = define(
        &pool,
        wat(r#"(module (import "env" "back" (func $back (result i32)))
            (func (export "g") (result i32) i32.const 7)
            (func (export "f") (result i32) call $back))"#),
    );
    (pool, f, seen)
}

#[test]
fn a_guest_that_is_called_back_has_a_second_stack_for_as_long() {
    let (pool, f, seen) = calling_back(stacks(2));
    for _ in 0..3 {
        assert_eq!(block_on(f.call_async(1, ())).unwrap(), 7);
        assert_eq!(*seen.lock().unwrap(), 2 * STACK);
        assert_eq!(charged_stacks(&pool), 1, "one is kept");
    }
    pool.close();
    check_empty(&pool);
}

#[test]
fn a_second_stack_without_room_is_an_error_of_the_call() {
    let (pool, f, _) = calling_back(stacks(1));
    let error = block_on(f.call_async(1, ())).unwrap_err();
    let CallError::Host { source, .. } = error else {
        panic!("{error}");
    };
    assert!(source.to_string().contains("stack"), "{source}");
    assert_eq!((charged_stacks(&pool), check(&pool).idle), (0, 0));
}

// What ends a stack ──────────────────────────────────────────────────────────────────────────────

#[test]
fn c_i4_however_a_call_fails_its_stack_is_given_back() {
    let (builder, _gate) = waiting_host(stacks(1));
    let pool = builder
        .call_timeout(SECOND / 50)
        .imports(|linker| {
            linker.func_wrap("env", "panic", || -> () {
                panic!("a host function panics")
            })?;
            Ok(())
        })
        .build()
        .unwrap();
    let failing = |name: &str, what: &str| -> Function<(), i32> {
        let wasm = wat(&format!(
            r#"(module (import "env" "panic" (func $panic)) (import "env" "gate" (func $gate))
                (func (export "f") (result i32) {what} i32.const 1))"#
        ));
        let definition = Definition::new(name).wasm(wasm).export("f");
        pool.define(definition).unwrap()
    };
    let given_back = |what: &str| {
        let stats = check(&pool);
        assert_eq!((stats.idle, stats.leased), (0, 0), "{what}");
        assert_eq!(stats.budget(Budget::Stack).charged, 0, "{what}");
    };

    let trap = block_on(failing("trap", "unreachable").call_async(1, ()));
    assert!(matches!(trap, Err(CallError::Trap { .. })), "{trap:?}");
    given_back("a trap");

    let panics = failing("panic", "call $panic");
    let call = AssertUnwindSafe(|| block_on(panics.call_async(1, ())));
    assert!(catch_unwind(call).is_err(), "the panic arrives");
    given_back("a panic");

    let spins = failing("spin", "(loop br 0)");
    let late = with_ticks(&pool, || block_on(spins.call_async(1, ())));
    let is_late = |error: &CallError| {
        let CallError::Limit { limit, .. } = error else {
            return false;
        };
        matches!(limit, CallLimit::Time(_))
    };
    assert!(late.as_ref().is_err_and(is_late), "{late:?}");
    given_back("a deadline");

    let mut lease = block_on(spins.acquire_async(1)).unwrap();
    lease.canceller().cancel();
    let stopped = block_on(lease.call_async(()));
    assert!(matches!(stopped, Err(CallError::Cancelled { .. })));
    drop(lease);
    given_back("a cancellation");

    let waits = failing("wait", "call $gate");
    let mut call = ByHand::new(async move { waits.call_async(1, ()).await });
    while check(&pool).leased == 0 {
        assert!(call.poll().is_none());
    }
    drop(call);
    given_back("a drop");

    let start = wat(r#"(module (func $s unreachable) (start $s) (func (export "f")))"#);
    let start: Function<(), ()> = pool
        .define(Definition::new("s").wasm(start).export("f"))
        .unwrap();
    let failed = block_on(start.acquire_async(1)).map(drop);
    assert!(matches!(failed, Err(AcquireError::StartTrapped { .. })));
    given_back("a start function");
}

// The host's own engine ──────────────────────────────────────────────────────────────────────────

#[test]
fn stacks_of_the_hosts_own_engine_are_charged_by_its_settings() {
    let mut config = Config::new();
    config.epoch_interruption(true).async_stack_size(3 << 18);
    let pool = stacks(3)
        .engine(Engine::new(&config).unwrap())
        .async_stack_size(7 << 20)
        .build()
        .unwrap();
    let f = define(&pool, memory_module(1, 0));
    for group in 0..8_u64 {
        block_on(f.call_async(group, ())).unwrap();
        let stacks = (group + 1).min(4);
        assert_eq!(charged(&pool, Budget::Stack), stacks * (3 << 18));
    }
    f.call(9, ()).unwrap();
    assert_eq!(check(&pool).idle, 5);
    pool.close();
    check_empty(&pool);
}
