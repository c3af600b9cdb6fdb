//! Leases and calls of tasks: what a thread can do, without blocking one.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use crate::common::polling::{ByHand, MINUTE, waiting_host};
use crate::common::*;
use pollster::block_on;
use wasm_pool::{
    AcquireError, CallError, Definition, Function, Limits, ManualClock, ModuleError, Pool,
    StoreData, WaitingFor,
};
use wasmtime::{Linker, Val};

const SECOND: Duration = Duration::from_secs(1);

/// As tokio's tasks need it.
fn sendable<T: Send>(value: T) -> T {
    value
}

// Calls ──────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn a_task_calls_what_a_thread_calls() {
    let pool = one_at_a_time().build().unwrap();
    let next = counter(&pool);
    // In one lease, across leases, through each handle: the same instance counts on.
    assert_eq!(block_on(next.call_async(1, ())).unwrap(), 1);
    assert_eq!(next.call(1, ()).unwrap(), 2);
    let mut lease = block_on(next.acquire_async(1)).unwrap();
    assert_eq!(lease.call(()).unwrap(), 3);
    assert_eq!(block_on(lease.call_async(())).unwrap(), 4);
    assert_eq!(lease.call(()).unwrap(), 5);
    drop(lease);
    let group = next.in_group(1);
    assert_eq!(block_on(group.call_async(())).unwrap(), 6);
    assert_eq!(group.call(()).unwrap(), 7);
    let mut lease = block_on(group.acquire_async()).unwrap();
    assert_eq!(block_on(lease.call_async(())).unwrap(), 8);
    drop(lease);
    let mut lease = block_on(group.acquire_async_with(room_within(SECOND))).unwrap();
    assert_eq!(block_on(lease.call_async(())).unwrap(), 9);
    drop(lease);
    let mut lease = group.acquire().unwrap();
    assert_eq!(block_on(lease.call_async(())).unwrap(), 10);
    assert_eq!(lease.uses(), 8);
    drop(lease);
    let stats = check(&pool);
    assert_eq!((stats.misses, stats.hits, stats.idle), (1, 7, 1));
}

#[test]
fn a_task_calls_with_values() {
    let pool = one_at_a_time().build().unwrap();
    let definition = Definition::new("math.add").wasm(guest("math_add"));
    let add: Function = pool.define(definition.export("add")).unwrap();
    let mut lease = block_on(add.acquire_async(1)).unwrap();
    let sum = block_on(lease.call_values_async(&[Val::I64(40), Val::I64(2)])).unwrap();
    assert_eq!(sum.len(), 1);
    assert_eq!(sum[0].i64(), Some(42));
    let few = block_on(lease.call_values_async(&[Val::I64(40)]));
    assert!(matches!(few, Err(CallError::Arguments { .. })), "{few:?}");
    drop(lease);
    assert_eq!(check(&pool).idle, 1);
}

#[test]
fn futures_and_leases_go_between_threads() {
    let pool = one_at_a_time().build().unwrap();
    let next = counter(&pool);
    let group = next.in_group(1);
    drop(sendable(next.acquire_async(1)));
    drop(sendable(next.acquire_async_with(1, room_within(SECOND))));
    drop(sendable(next.call_async("a", ())));
    drop(sendable(group.acquire_async()));
    drop(sendable(group.call_async(())));
    let mut lease = next.acquire(1).unwrap();
    drop(sendable(lease.call_async(())));
    assert!(!lease.is_broken(), "it had not begun");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_goes_from_task_to_task() {
    let pool = one_at_a_time().build().unwrap();
    let next = counter(&pool);
    let mut lease = next.acquire_async(1).await.unwrap();
    for calls in 1..=20 {
        let task = tokio::spawn(async move {
            assert_eq!(lease.call_async(()).await.unwrap(), calls);
            lease
        });
        lease = task.await.unwrap();
    }
    drop(lease);
    assert_eq!(check(&pool).idle, 1);
}

/// `f` waits in its host for so many polls, then returns 7.
fn pausing(pool: &Pool, polls: usize) -> Function<(), i32> {
    let wasm = wat(&format!(
        r#"(module (import "env" "pause" (func $pause (param i32)))
            (func (export "f") (result i32) i32.const {polls} call $pause i32.const 7))"#
    ));
    let definition = Definition::new("pausing").wasm(wasm).export("f");
    pool.define(definition).unwrap()
}

#[test]
fn an_async_host_function_may_take_its_time() {
    let pool = waiting_host(one_at_a_time()).0.build().unwrap();
    let f = pausing(&pool, 100);
    drop(block_on(f.acquire_async(1)).unwrap());
    let mut call = ByHand::new(async move { f.call_async(1, ()).await });
    let mut polls = 1;
    let answer = loop {
        match call.poll() {
            Some(answer) => break answer,
            None => polls += 1,
        }
        assert!(call.is_woken());
    };
    assert_eq!((answer.unwrap(), polls), (7, 101));
    assert_eq!(check(&pool).idle, 1);
}

#[tokio::test]
async fn hosts_functions_of_many_guests_wait_at_once_on_one_thread() {
    let (builder, gate) = waiting_host(one_at_a_time());
    let pool = builder.build().unwrap();
    let wasm = wat(r#"(module (import "env" "gate" (func $gate))
        (func (export "f") (result i32) call $gate i32.const 7))"#);
    let f: Function<(), i32> = pool.define(Definition::new("f").wasm(wasm)).unwrap();
    let tasks: Vec<_> = (0..30_u64)
        .map(|group| {
            let f = f.clone();
            tokio::spawn(async move { f.call_async(group, ()).await })
        })
        .collect();
    while gate.came() < 30 {
        tokio::task::yield_now().await;
    }
    assert_eq!(check(&pool).leased, 30);
    gate.open();
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap(), 7);
    }
    assert_eq!(check(&pool).idle, 30);
}

#[test]
fn an_async_host_function_leases_another_function() {
    let inner: Arc<OnceLock<Function<(), i64>>> = Arc::default();
    let import = inner.clone();
    let builder = one_at_a_time().imports(move |linker| {
        linker.func_wrap_async("env", "inner", move |_, (): ()| {
            let inner = import.get().unwrap().clone();
            Box::new(async move { Ok(inner.call_async(9, ()).await?) })
        })?;
        Ok(())
    });
    let pool = builder.build().unwrap();
    inner.set(counter(&pool)).unwrap();
    let wasm = wat(r#"(module (import "env" "inner" (func $inner (result i64)))
        (func (export "f") (result i64) call $inner call $inner i64.add))"#);
    let f: Function<(), i64> = pool.define(Definition::new("f").wasm(wasm)).unwrap();
    assert_eq!(block_on(f.call_async(1, ())).unwrap(), 1 + 2);
    assert_eq!(block_on(f.call_async(2, ())).unwrap(), 3 + 4);
    assert_eq!(check(&pool).idle, 3);
}

// Waiting ────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn c_i1_tasks_and_threads_wait_in_one_queue() {
    for task_first in [true, false] {
        let pool = one_at_a_time().build().unwrap();
        let next = counter(&pool);
        let held = next.acquire(1).unwrap();
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        let mut threads = Vec::new();
        for number in 0..6 {
            let (next, order) = (next.clone(), order.clone());
            if (number % 2 == 0) == task_first {
                let mut task = ByHand::new(async move {
                    let mut lease = next.acquire_async(1).await.unwrap();
                    order.lock().unwrap().push(number);
                    assert_eq!(lease.call_async(()).await.unwrap(), number + 1);
                });
                assert!(task.poll().is_none());
                tasks.push(task);
            } else {
                threads.push(thread::spawn(move || {
                    let mut lease = next.acquire(1).unwrap();
                    order.lock().unwrap().push(number);
                    assert_eq!(lease.call(()).unwrap(), number + 1);
                }));
            }
            wait_for_waiters(&pool, number as usize + 1);
        }
        drop(held);
        tasks.into_iter().for_each(ByHand::finish);
        threads.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3, 4, 5]);
        let stats = check(&pool);
        assert_eq!((stats.blocks, stats.misses, stats.waiting), (6, 1, 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c_i1_no_wake_up_is_lost_among_many_tasks_and_threads() {
    let pool = one_at_a_time().build().unwrap();
    let next = counter(&pool);
    let inside = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = (0..2)
        .map(|_| {
            let (next, inside) = (next.clone(), inside.clone());
            thread::spawn(move || {
                for _ in 0..200 {
                    let mut lease = next.acquire(1).unwrap();
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                    lease.call(()).unwrap();
                    inside.fetch_sub(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let (next, inside) = (next.clone(), inside.clone());
            tokio::spawn(async move {
                for _ in 0..10 {
                    let mut lease = next.acquire_async(1).await.unwrap();
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                    lease.call_async(()).await.unwrap();
                    inside.fetch_sub(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    threads.into_iter().for_each(|t| t.join().unwrap());
    assert_eq!(next.call(1, ()).unwrap(), 2 * 200 + 50 * 10 + 1);
    assert_eq!(check(&pool).waiting, 0);
}

#[track_caller]
fn is_late<X>(result: Result<X, AcquireError>, time: Duration, what: WaitingFor) {
    let Err(AcquireError::Timeout {
        waited,
        waiting_for,
        ..
    }) = result.map(drop)
    else {
        panic!("it is served, or fails otherwise");
    };
    assert!(waited >= time && waited < 30 * SECOND, "{waited:?}");
    assert_eq!(waiting_for, what);
}

#[test]
fn c_i1_a_deadline_ends_the_wait_of_a_task_and_not_that_of_others() {
    let clock = ManualClock::new();
    let builder = one_at_a_time()
        .clock(clock.clone())
        .wait_timeout(9 * SECOND);
    let pool = builder.build().unwrap();
    let next = counter(&pool);
    let held = next.acquire(1).unwrap();
    let wait = |timeout: Option<Duration>| {
        let next = next.clone();
        let mut task = ByHand::new(async move {
            match timeout {
                Some(timeout) => next.acquire_async_with(1, room_within(timeout)).await,
                None => next.acquire_async(1).await,
            }
        });
        assert!(task.poll().is_none());
        task
    };
    let (mut short, mut usual, long) = (wait(Some(SECOND)), wait(None), wait(Some(100 * SECOND)));
    clock.advance(SECOND - Duration::from_nanos(1));
    pool.sweep();
    assert!(!short.is_woken());
    clock.advance(Duration::from_nanos(1));
    pool.sweep();
    is_late(short.poll().unwrap(), SECOND, WaitingFor::Instance);
    assert!(!usual.is_woken() && !long.is_woken());
    assert_eq!(pool.stats().waiting, 2);
    clock.advance(8 * SECOND);
    pool.sweep();
    is_late(usual.poll().unwrap(), 9 * SECOND, WaitingFor::Instance);
    assert!(!long.is_woken());
    drop(held);
    drop(long.finish().unwrap());
    assert_eq!(check(&pool).waiting, 0);
}

#[test]
fn c_i1_the_housekeeper_wakes_tasks_whose_deadline_has_come() {
    const SHORT: Duration = Duration::from_millis(30);
    let limits = Limits::new().memory(instance_bytes(1));
    let builder = Pool::builder().max_instances_per_entry(1).limits(limits);
    let pool = builder.build().unwrap();
    let definition = Definition::new("f").wasm(memory_module(1, 0)).export("f");
    let f: Function<(), i32> = pool.define(definition).unwrap();
    let held = f.acquire(1).unwrap();
    for (group, what) in [(1, WaitingFor::Instance), (2_u64, WaitingFor::Room)] {
        let f = f.clone();
        // Nobody else wakes it: pollster's thread sleeps.
        let result =
            in_time(move || block_on(f.acquire_async_with(group, room_within(SHORT))).map(drop));
        is_late(result, SHORT, what);
    }
    drop(held);
    check(&pool);
}

// Compilation ────────────────────────────────────────────────────────────────────────────────────

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c_m1_tasks_and_threads_that_need_one_module_compile_it_once() {
    let pool = one_at_a_time().build().unwrap();
    let definition = Definition::new("shared").wasm(guest("text_soundex"));
    let f: Function = pool.define(definition.export("soundex")).unwrap();
    let tasks: Vec<_> = (0..6_u64)
        .map(|group| {
            let f = f.clone();
            tokio::spawn(async move { f.acquire_async(group).await.map(drop) })
        })
        .collect();
    let thread = thread::spawn({
        let f = f.clone();
        move || f.acquire(9).map(drop)
    });
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    thread.join().unwrap().unwrap();
    assert_eq!(check(&pool).compilations, 1);
}

#[test]
fn hosts_hooks_for_tasks_run_where_the_task_is_polled() {
    let names = Arc::new(Mutex::new(Vec::new()));
    let seen = names.clone();
    let builder = one_at_a_time().on_create(move |_, _| {
        let name = thread::current().name().unwrap_or_default().to_owned();
        seen.lock().unwrap().push(name);
        Ok(())
    });
    let pool = builder.build().unwrap();
    let next = counter(&pool);
    let poller = thread::Builder::new().name("poller".into());
    let poller = poller.spawn(move || block_on(next.call_async(1, ())));
    assert_eq!(poller.unwrap().join().unwrap().unwrap(), 1);
    assert_eq!(*names.lock().unwrap(), ["poller"]);
}

#[test]
fn a_module_that_does_not_link_fails_as_it_does_for_threads() {
    let go = |linker: &mut Linker<StoreData<()>>| linker.func_wrap("no", "where", || ()).map(drop);
    let pool = one_at_a_time().imports(go).build().unwrap();
    // Only the compiler can tell a type of a group from the same one that stands alone.
    let wasm = wat(r#"(module (rec (type $go (func)) (type (func)))
        (import "no" "where" (func (type $go))) (func (export "f")))"#);
    let f: Function<(), ()> = pool.define(Definition::new("f").wasm(wasm)).unwrap();
    let both = [
        block_on(f.acquire_async(1)).map(drop),
        f.acquire(1).map(drop),
    ];
    for error in both {
        let Err(AcquireError::Module { source, .. }) = error else {
            panic!("{error:?}");
        };
        assert!(matches!(*source, ModuleError::Link(_)), "{source}");
    }
    assert_eq!(check(&pool).compiling, 0);
    pool.close();
    check_empty(&pool);
}

#[test]
fn a_compiler_that_panics_costs_its_own_request_only() {
    let pool = one_at_a_time().build().unwrap();
    spans::panic_at("compile", "doomed.task()");
    let definition = Definition::new("doomed.task")
        .wasm(answering(1))
        .export("f");
    let f: Function<(), i32> = pool.define(definition).unwrap();
    let failed = block_on(f.call_async(1, ()));
    let said_closed = matches!(failed, Err(CallError::Acquire(AcquireError::Closed { .. })));
    assert!(
        failed.is_err() && !said_closed,
        "the pool is open: {failed:?}"
    );
    assert_eq!(block_on(f.call_async(1, ())).unwrap(), 1);
    assert_eq!(check(&pool).compiling, 0);
    pool.close();
    check_empty(&pool);
}

// Turns ──────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn a_guest_that_spins_lets_others_go_on_at_each_tick() {
    let pool = one_at_a_time().call_timeout(3600 * SECOND).build().unwrap();
    let wasm = wat(r#"(module (func (export "f") (loop br 0)))"#);
    let f: Function<(), ()> = pool.define(Definition::new("f").wasm(wasm)).unwrap();
    let mut lease = block_on(f.acquire_async(1)).unwrap();
    let result = with_ticks(&pool, || {
        one_thread().block_on(async {
            let canceller = lease.canceller();
            let spinning = tokio::spawn(async move { lease.call_async(()).await });
            let other = tokio::spawn(async move {
                // Each of these is a turn between two of the guest's.
                for _ in 0..100 {
                    tokio::task::yield_now().await;
                }
                canceller.cancel();
            });
            other.await.unwrap();
            spinning.await.unwrap()
        })
    });
    assert!(matches!(result, Err(CallError::Cancelled { .. })));
    assert_eq!(check(&pool).idle, 0);
}

#[test]
fn a_guest_that_spins_lets_others_go_on_by_fuel() {
    let pool = one_at_a_time().fuel_yield_interval(10_000).build().unwrap();
    let wasm = wat(r#"(module (func (export "f") (loop br 0)))"#);
    let f: Function<(), ()> = pool.define(Definition::new("f").wasm(wasm)).unwrap();
    let mut lease = block_on(f.acquire_async(1)).unwrap();
    let canceller = lease.canceller();
    let mut call = ByHand::new(async move { lease.call_async(()).await });
    // Nobody ticks.
    for _ in 0..20 {
        assert!(call.poll().is_none());
        assert!(call.is_woken());
    }
    canceller.cancel();
    let result = call.poll().unwrap();
    assert!(matches!(result, Err(CallError::Cancelled { .. })));
    drop(call);
    check(&pool);
}

#[test]
fn a_task_that_nobody_ticks_for_waits_no_less_for_its_own_host() {
    let (builder, gate) = waiting_host(one_at_a_time());
    let pool = builder.build().unwrap();
    let wasm = wat(r#"(module (import "env" "gate" (func $gate))
        (func (export "f") (result i32) call $gate i32.const 7))"#);
    let f: Function<(), i32> = pool.define(Definition::new("f").wasm(wasm)).unwrap();
    let (send, receive) = mpsc::channel();
    thread::spawn(move || send.send(block_on(f.call_async(1, ()))));
    until(|| gate.came() == 1);
    gate.open();
    assert_eq!(receive.recv_timeout(MINUTE).unwrap().unwrap(), 7);
}

/// Any future, on both executors.
fn on_both<F: Future<Output = ()>>(work: impl Fn() -> F) {
    block_on(work());
    one_thread().block_on(work());
}

#[test]
fn it_needs_no_executor_in_particular() {
    let pool = one_at_a_time().build().unwrap();
    let next = counter(&pool);
    let calls = AtomicUsize::new(0);
    on_both(|| async {
        for group in 0..3_u64 {
            next.call_async(group, ()).await.unwrap();
            calls.fetch_add(1, Ordering::Relaxed);
        }
    });
    assert_eq!(calls.into_inner(), 6);
    assert_eq!(next.call(0, ()).unwrap(), 3);
}

#[test]
fn an_export_is_called_as_a_task_in_its_own_lease_only() {
    let pool = Pool::builder().build().unwrap();
    let wasm = wat::parse_str(
        r#"(module (global $sum (mut i64) (i64.const 0))
            (func (export "f") (param i64) (global.set $sum (i64.add (global.get $sum) (local.get 0))))
            (func (export "total") (result i64) global.get $sum))"#,
    );
    let f: Function<i64, ()> = pool
        .define(Definition::new("f").wasm(wasm.unwrap()))
        .unwrap();
    block_on(async {
        let mut lease = f.acquire_async(1).await.unwrap();
        let total = lease.export::<(), i64>("total").unwrap();
        for row in 1..=10 {
            lease.call_async(row).await.unwrap();
        }
        assert_eq!(total.call_async(&mut lease, ()).await.unwrap(), 55);
        let mut other = f.acquire_async(2).await.unwrap();
        let error = total.call_async(&mut other, ()).await.unwrap_err();
        assert!(matches!(error, CallError::Export { .. }), "{error}");
    });
}
