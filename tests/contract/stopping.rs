//! Every call can be stopped: from outside, by time, by fuel. Whoever stops knows why, nobody else
//! notices, and the instance is never seen again.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::common::failures::Failures;
use crate::common::polling::{ByHand, Gate, MINUTE, waiting_host};
use crate::common::*;
use pollster::block_on;
use wasm_pool::{
    AcquireError, Budget, CallError, CallLimit, Canceller, Definition, Function, Lease, Limits,
    ManualClock, MemoryError, Pool, PoolBuilder,
};
use wasmtime::Trap;

const SECOND: Duration = Duration::from_secs(1);

/// A pool whose guests say when they have begun: `env.begun`.
pub fn host(builder: PoolBuilder) -> (Pool, Gate, mpsc::Receiver<()>) {
    let (begun, has_begun) = mpsc::channel();
    let (builder, gate) = waiting_host(builder.no_housekeeper());
    let builder = builder.imports(move |linker| {
        let begin = move || begun.send(()).unwrap_or_default();
        linker.func_wrap("env", "begun", begin)?;
        linker.func_wrap("env", "fail", || -> wasmtime::Result<()> {
            Err(wasmtime::Error::msg("the host fails"))
        })?;
        Ok(())
    });
    (builder.build().unwrap(), gate, has_begun)
}

/// `f` does this and returns 1. It imports only what it names: a module with async imports cannot be
/// called by a thread.
pub fn doing(pool: &Pool, name: &str, what: &str) -> Function<(), i32> {
    let imports: String = ["begun", "gate", "fail"]
        .iter()
        .filter(|import| what.contains(*import))
        .map(|import| format!(r#"(import "env" "{import}" (func ${import}))"#))
        .collect();
    let wasm = wat(&format!(
        r#"(module {imports} (memory (export "memory") 1)
            (func $deep (param i64) (result i64) local.get 0 call $deep i64.const 1 i64.add)
            (func (export "f") (result i32) {what} i32.const 1))"#
    ));
    let definition = Definition::new(name).wasm(wasm).export("f");
    pool.define(definition).unwrap()
}

pub const SPIN: &str = "call $begun (loop br 0)";

#[track_caller]
pub fn is_cancelled(result: Result<i32, CallError>) {
    assert!(
        matches!(result, Err(CallError::Cancelled { .. })),
        "{result:?}"
    );
}

#[track_caller]
fn is_out_of_time(result: Result<i32, CallError>, time: Duration) {
    let limit = match result {
        Err(CallError::Limit { limit, .. }) => limit,
        other => panic!("{other:?}"),
    };
    assert_eq!(limit, CallLimit::Time(time));
}

/// Nothing is left of the call that was stopped.
#[track_caller]
pub fn is_retired(pool: &Pool) {
    let stats = check(pool);
    assert_eq!((stats.idle, stats.leased, stats.dying), (0, 0, 0));
    let charged = [Budget::Memory, Budget::Stack].map(|b| stats.budget(b).charged);
    assert_eq!(charged, [0, 0]);
}

// From outside ───────────────────────────────────────────────────────────────────────────────────

/// A lease whose guest spins in a thread of its own, and what its call returns.
fn spinning(
    mut lease: Lease<'static, (), i32>,
    as_task: bool,
) -> (Canceller, mpsc::Receiver<Result<i32, CallError>>) {
    let canceller = lease.canceller();
    let (ended, has_ended) = mpsc::channel();
    thread::spawn(move || {
        let result = if as_task {
            block_on(lease.call_async(()))
        } else {
            lease.call(())
        };
        drop(lease);
        ended.send(result).unwrap();
    });
    (canceller, has_ended)
}

#[test]
fn c_i8_a_guest_that_spins_ends_within_two_ticks_of_being_cancelled() {
    let (pool, _, has_begun) = host(Pool::builder());
    let spin = doing(&pool, "spin", SPIN);
    for as_task in [false, true] {
        let held = if as_task {
            lease_of_a_task(&spin, 1)
        } else {
            spin.acquire(1).unwrap()
        };
        let (canceller, has_ended) = spinning(held, as_task);
        has_begun.recv_timeout(MINUTE).unwrap();
        for _ in 0..5 {
            pool.tick();
        }
        assert!(has_ended.try_recv().is_err(), "nothing stops it");
        canceller.cancel();
        pool.tick();
        // It may have been asked just before it was cancelled: then it is asked again at the next tick.
        let ended = has_ended.recv_timeout(SECOND).or_else(|_| {
            pool.tick();
            has_ended.recv_timeout(MINUTE)
        });
        is_cancelled(ended.unwrap());
        is_retired(&pool);
    }
}

#[test]
fn c_i8_a_task_that_waits_for_a_host_function_is_cancelled_at_once() {
    let (pool, gate, _) = host(Pool::builder());
    let waits = doing(&pool, "waits", "call $gate");
    let mut held = lease_of_a_task(&waits, 1);
    let canceller = held.canceller();
    let mut call = ByHand::new(async move { held.call_async(()).await });
    assert!(call.poll().is_none());
    assert!(!call.is_woken() && !canceller.is_cancelled());
    thread::spawn(move || canceller.cancel());
    call.wait_until_woken();
    is_cancelled(call.poll().unwrap());
    drop(call);
    assert_eq!((gate.came(), gate.left()), (1, 1));
    is_retired(&pool);
}

#[test]
fn c_i8_a_call_that_has_not_begun_does_not_begin() {
    let (pool, _, has_begun) = host(Pool::builder());
    let f = doing(&pool, "f", "call $begun");
    for as_task in [false, true] {
        for calls_before in [0, 1] {
            let mut held = lease_of_a_task(&f, 1);
            let canceller = held.canceller();
            for _ in 0..calls_before {
                assert_eq!(block_on(held.call_async(())).unwrap(), 1);
                has_begun.try_recv().unwrap();
            }
            canceller.clone().cancel();
            assert!(canceller.is_cancelled());
            for again in 0..2 {
                let result = if as_task {
                    block_on(held.call_async(()))
                } else {
                    held.call(())
                };
                match result {
                    Err(CallError::Cancelled { .. }) if again == 0 => {}
                    Err(CallError::Broken { .. }) if again == 1 => {}
                    other => panic!("{other:?}"),
                }
            }
            assert!(has_begun.try_recv().is_err(), "it began");
            drop(held);
            is_retired(&pool);
        }
    }
}

#[test]
fn c_i8_cancelling_a_lease_that_is_over_changes_nothing() {
    let (pool, _, _) = host(Pool::builder());
    let f = doing(&pool, "f", "");
    let mut first = lease_of_a_task(&f, 1);
    let canceller = first.canceller();
    assert_eq!(first.call(()).unwrap(), 1);
    drop(first);
    let mut second = lease_of_a_task(&f, 1);
    canceller.cancel();
    pool.tick();
    assert_eq!(block_on(second.call_async(())).unwrap(), 1);
    assert_eq!(second.call(()).unwrap(), 1);
    assert_eq!(second.uses(), 2, "the same instance");
    drop(second);
    assert_eq!(check(&pool).idle, 1);
}

#[test]
fn c_i8_neighbours_do_not_notice_that_others_are_stopped() {
    let (pool, _, has_begun) = host(Pool::builder());
    let spin = doing(&pool, "spin", SPIN);
    let f = doing(&pool, "f", "");
    let (done, calls) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut held = lease_of_a_task(&f, 2);
            while !done.load(Ordering::Relaxed) {
                assert_eq!(block_on(held.call_async(())).unwrap(), 1);
                assert_eq!(held.call(()).unwrap(), 1);
                calls.fetch_add(1, Ordering::Relaxed);
            }
            assert_eq!(held.uses(), 1);
        });
        for round in 0..20 {
            let (canceller, has_ended) = spinning(lease_of_a_task(&spin, 1), round % 2 == 0);
            has_begun.recv_timeout(MINUTE).unwrap();
            let before = calls.load(Ordering::Relaxed);
            until(|| calls.load(Ordering::Relaxed) > before);
            canceller.cancel();
            pool.tick();
            pool.tick();
            is_cancelled(has_ended.recv_timeout(MINUTE).unwrap());
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(check(&pool).idle, 1);
}

// By time and fuel ───────────────────────────────────────────────────────────────────────────────

#[test]
fn c_i3_a_task_that_spins_runs_out_of_time() {
    let (pool, _, _) = host(Pool::builder().call_timeout(SECOND / 20));
    let spin = doing(&pool, "spin", SPIN);
    let result = with_ticks(&pool, || block_on(spin.call_async(1, ())));
    is_out_of_time(result, SECOND / 20);
    is_retired(&pool);
}

#[test]
fn c_i3_a_task_whose_host_never_answers_runs_out_of_time() {
    let clock = ManualClock::new();
    let (pool, gate, _) = host(Pool::builder().clock(clock.clone()).call_timeout(SECOND));
    let waits = doing(&pool, "waits", "call $gate");
    let mut held = lease_of_a_task(&waits, 1);
    // Its time begins with its first call.
    clock.advance(10 * SECOND);
    let mut call = ByHand::new(async move { held.call_async(()).await });
    assert!(call.poll().is_none());
    clock.advance(SECOND - Duration::from_nanos(1));
    pool.sweep();
    assert!(!call.is_woken());
    clock.advance(Duration::from_nanos(1));
    pool.sweep();
    assert!(call.is_woken());
    is_out_of_time(call.poll().unwrap(), SECOND);
    drop(call);
    assert_eq!(gate.left(), 1);
    is_retired(&pool);
}

#[test]
fn c_i3_the_housekeeper_ends_what_runs_or_waits_for_too_long() {
    let (builder, _gate) = waiting_host(Pool::builder().call_timeout(SECOND / 20));
    let pool = builder.build().unwrap();
    for (name, what) in [("spins", "(loop br 0)"), ("waits", "call $gate")] {
        let f = doing(&pool, name, what);
        let result = in_time(move || block_on(f.call_async(1, ())));
        is_out_of_time(result, SECOND / 20);
        is_retired(&pool);
    }
}

#[test]
fn c_i3_the_time_of_a_call_ends_although_the_pool_is_gone() {
    for what in ["(loop br 0)", "call $gate"] {
        let (builder, gate) = waiting_host(Pool::builder().call_timeout(SECOND / 20));
        let pool = builder.build().unwrap();
        let f = doing(&pool, "f", what);
        let mut held = lease_of_a_task(&f, 1);
        let (ended, has_ended) = mpsc::channel();
        let caller = thread::spawn(move || {
            let result = block_on(held.call_async(()));
            ended.send(result).unwrap();
        });
        if what.contains("gate") {
            until(|| gate.came() == 1);
        }
        drop((f, pool));
        let result = has_ended.recv_timeout(Duration::from_secs(10));
        gate.open();
        assert!(
            matches!(result, Ok(Err(CallError::Limit { .. }))),
            "{what}: {result:?}"
        );
        caller.join().unwrap();
    }
}

/// Fuel that a call of it takes.
fn fuel_of(what: &str) -> u64 {
    let (pool, _, _) = host(Pool::builder().fuel(1 << 40));
    let mut held = lease_of_a_task(&doing(&pool, "f", what), 1);
    block_on(held.call_async(())).unwrap();
    (1 << 40) - held.store().get_fuel().unwrap()
}

#[test]
fn c_i3_a_task_runs_out_of_fuel() {
    let (pool, _, _) = host(Pool::builder().fuel(10_000));
    let spin = doing(&pool, "spin", SPIN);
    let result = block_on(spin.call_async(1, ()));
    let Err(CallError::Limit { limit, .. }) = result else {
        panic!("{result:?}");
    };
    assert_eq!(limit, CallLimit::Fuel(10_000));
    is_retired(&pool);
}

#[test]
fn c_i3_ten_thousand_tasks_with_nine_tenths_of_their_fuel_each() {
    const WORK: &str = "(local i32) i32.const 100 local.set 0
        (loop local.get 0 i32.const 1 i32.sub local.tee 0 br_if 0)";
    let used = fuel_of(WORK);
    let (pool, _, _) = host(Pool::builder().fuel(used * 10 / 9));
    let f = doing(&pool, "f", WORK);
    block_on(async {
        for _ in 0..10_000 {
            assert_eq!(f.call_async(1, ()).await.unwrap(), 1);
        }
    });
    let mut held = lease_of_a_task(&f, 1);
    assert_eq!(held.uses(), 10_001, "one instance served them all");
    // A lease's fuel is for all of its calls.
    assert_eq!(block_on(held.call_async(())).unwrap(), 1);
    let second = block_on(held.call_async(()));
    assert!(matches!(second, Err(CallError::Limit { .. })), "{second:?}");
}

#[test]
fn c_i3_the_start_function_is_limited_as_calls_are() {
    let start = |pool: &Pool, name: &str, what: &str| -> Function<(), i32> {
        let wasm = wat(&format!(
            r#"(module (import "env" "gate" (func $gate)) (memory 1)
                (func $start {what}) (start $start) (func (export "f") (result i32) i32.const 1))"#
        ));
        let definition = Definition::new(name).wasm(wasm).export("f");
        pool.define(definition).unwrap()
    };
    let limit = |result: Result<(), AcquireError>| match result {
        Err(AcquireError::StartLimit { limit, .. }) => limit,
        other => panic!("{other:?}"),
    };

    let (pool, _, _) = host(Pool::builder().call_timeout(SECOND / 20));
    let spin = start(&pool, "spin", "(loop br 0)");
    let result = with_ticks(&pool, || block_on(spin.acquire_async(1)).map(drop));
    assert_eq!(limit(result), CallLimit::Time(SECOND / 20));
    is_retired(&pool);

    let (pool, _, _) = host(Pool::builder().fuel(10_000));
    let spin = start(&pool, "spin", "(loop br 0)");
    let result = block_on(spin.acquire_async(1)).map(drop);
    assert_eq!(limit(result), CallLimit::Fuel(10_000));
    is_retired(&pool);

    let clock = ManualClock::new();
    let (pool, gate, _) = host(Pool::builder().clock(clock.clone()).call_timeout(SECOND));
    let waits = start(&pool, "waits", "call $gate");
    let mut acquire = ByHand::new(async move { waits.acquire_async(1).await.map(drop) });
    while gate.came() == 0 {
        assert!(acquire.poll().is_none());
    }
    clock.advance(SECOND);
    pool.sweep();
    assert_eq!(limit(acquire.poll().unwrap()), CallLimit::Time(SECOND));
    is_retired(&pool);
}

// Each is counted ────────────────────────────────────────────────────────────────────────────────

#[test]
fn c_o2_each_way_to_fail_is_told_apart_and_counted_and_retires() {
    let (pool, _, _) = host(Pool::builder().fuel(1 << 30).call_timeout(SECOND / 20));
    let trap = doing(&pool, "trap", "unreachable");
    let fail = doing(&pool, "fail", "call $fail");
    let spin = doing(&pool, "spin", "(loop br 0)");
    let f = doing(&pool, "f", "");
    let call = |f: &Function<(), i32>, as_task: bool| match as_task {
        true => block_on(f.call_async(1, ())),
        false => f.call(1, ()),
    };
    let failures = Failures::default();
    let mut retired = 0;
    let mut expect = |kind: &str, count: u64| {
        is_retired(&pool);
        let counted = failures.of(kind);
        assert_eq!(counted, count, "{kind}");
        retired += 1;
        let functions = pool.stats().functions;
        let all: u64 = functions.iter().map(|f| f.retirements).sum();
        assert_eq!(all, retired, "{kind}");
    };
    metrics::with_local_recorder(&failures, || {
        for (as_task, count) in [(false, 1), (true, 2)] {
            let result = call(&trap, as_task);
            assert!(matches!(result, Err(CallError::Trap { .. })), "{result:?}");
            expect("trap", count);
            let result = call(&fail, as_task);
            assert!(matches!(result, Err(CallError::Host { .. })), "{result:?}");
            expect("host", count);
            is_out_of_time(with_ticks(&pool, || call(&spin, as_task)), SECOND / 20);
            expect("deadline", count);
            let mut held = lease_of_a_task(&f, 1);
            held.canceller().cancel();
            is_cancelled(match as_task {
                true => block_on(held.call_async(())),
                false => held.call(()),
            });
            drop(held);
            expect("cancelled", count);
        }
    });
}

// Guests that mean harm ──────────────────────────────────────────────────────────────────────────

#[test]
fn c_e2_a_task_that_recurses_to_the_end_of_its_fiber_traps() {
    let (pool, _, _) = host(Pool::builder());
    let deep = doing(&pool, "deep", "i64.const 0 call $deep drop");
    let f = doing(&pool, "f", "");
    for _ in 0..3 {
        let result = block_on(deep.call_async(1, ()));
        let Err(CallError::Trap { trap, .. }) = result else {
            panic!("{result:?}");
        };
        assert_eq!(trap.code, Trap::StackOverflow);
        assert_eq!(block_on(f.call_async(1, ())).unwrap(), 1);
    }
    pool.retain(|_| false);
    is_retired(&pool);
}

#[test]
fn c_e2_an_allocator_that_traps_breaks_only_its_own_lease() {
    let (pool, _, _) = host(Pool::builder());
    let wasm = wat(r#"(module (memory (export "memory") 1)
        (func (export "alloc") (param i32) (result i32) unreachable)
        (func (export "dealloc") (param i32 i32))
        (func (export "f") (result i64) i64.const 0x0001_0000_0000_ffff))"#);
    let definition = Definition::new("f").wasm(wasm).export("f");
    let f: Function<(), i64> = pool.define(definition).unwrap();
    let mut held = block_on(f.acquire_async(1)).unwrap();
    block_on(held.call_async(())).unwrap();
    let error = block_on(held.pass_bytes_async(b"text")).unwrap_err();
    assert!(matches!(error, CallError::Trap { .. }), "{error}");
    let again = block_on(held.call_async(()));
    assert!(matches!(again, Err(CallError::Broken { .. })), "{again:?}");
    drop(held);
    is_retired(&pool);
}

#[test]
fn c_e2_pointers_outside_of_memory_are_refused() {
    let (pool, _, _) = host(Pool::builder());
    for (pointer, length) in [(65_536_u64, 1_u64), (8, 65_529), (0xffff_ffff, 0xffff_fffe)] {
        let packed = pointer << 32 | length;
        let wasm = wat(&format!(
            r#"(module (memory (export "memory") 1)
                (func (export "alloc") (param i32) (result i32) i32.const 0)
                (func (export "dealloc") (param i32 i32))
                (func (export "f") (result i64) i64.const {packed}))"#
        ));
        let definition = Definition::new(format!("f{packed}")).wasm(wasm).export("f");
        let f: Function<(), i64> = pool.define(definition).unwrap();
        let mut held = block_on(f.acquire_async(1)).unwrap();
        let answer = block_on(held.call_async(())).unwrap();
        let error = block_on(held.take_bytes_async(answer)).unwrap_err();
        let CallError::Memory { source, .. } = error else {
            panic!("{error}");
        };
        assert!(
            matches!(source, MemoryError::OutOfBounds { .. }),
            "{source}"
        );
    }
    check(&pool);
}

#[test]
fn a_module_with_async_imports_is_refused_to_threads_and_not_to_tasks() {
    let (pool, gate, _) = host(Pool::builder());
    let waits = doing(&pool, "waits", "call $gate");
    gate.open();
    let error = waits.call(1, ()).unwrap_err();
    assert!(
        wasm_pool::Report(&error).to_string().contains("async"),
        "{error}"
    );
    is_retired(&pool);
    assert_eq!(block_on(waits.call_async(1, ())).unwrap(), 1);
}

// Leases ─────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn a_leaked_lease_costs_its_charge_and_nothing_else() {
    let limits = Limits::new().stack(2 << 20);
    let (pool, _, _) = host(Pool::builder().limits(limits).max_instances_per_entry(2));
    let f = doing(&pool, "f", "");
    let mut leaked = lease_of_a_task(&f, 1);
    assert_eq!(block_on(leaked.call_async(())).unwrap(), 1);
    std::mem::forget(leaked);
    let cost = charges(&pool);
    for _ in 0..3 {
        assert_eq!(block_on(f.call_async(1, ())).unwrap(), 1);
        assert_eq!(block_on(f.call_async(2, ())).unwrap(), 1);
    }
    assert_eq!(check(&pool).leased, 1);
    pool.retain(|_| false);
    assert_eq!(charges(&pool), cost);
    assert!(!pool.close_and_drain(Duration::ZERO), "it never comes back");
    check(&pool);
}

#[test]
fn leases_and_cancellers_go_to_any_thread() {
    fn is_sync<T: Sync>(_: &T) {}
    let (pool, _, _) = host(Pool::builder());
    let f = doing(&pool, "f", "");
    let mut held = lease_of_a_task(&f, 1);
    let canceller = held.canceller();
    is_send(&held);
    is_send(&canceller);
    is_sync(&canceller);
    for _ in 0..4 {
        held = thread::spawn(move || {
            assert_eq!(block_on(held.call_async(())).unwrap(), 1);
            assert_eq!(held.call(()).unwrap(), 1);
            held
        })
        .join()
        .unwrap();
    }
    thread::spawn(move || drop(held)).join().unwrap();
    assert_eq!(check(&pool).idle, 1);
}
