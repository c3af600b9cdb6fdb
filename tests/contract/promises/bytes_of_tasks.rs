//! 14: a guest's allocator is a guest as well: in a task it is called as one.

use std::time::Duration;

use pollster::block_on;
use wasm_pool::{
    AcquireError, AsyncReason, CallError, CallLimit, Definition, Function, GuestBytes, Lease,
    MemoryError, Pool,
};

use crate::common::polling::{ByHand, waiting_host};
use crate::common::*;

const SECOND: Duration = Duration::from_secs(1);

/// Takes a text, returns a text.
fn soundex(pool: &Pool) -> Function<(i32, i32), i64> {
    let definition = Definition::new("text.soundex").wasm(guest("text_soundex"));
    pool.define(definition.export("soundex")).unwrap()
}

/// Its `alloc`, and its `dealloc`, do as they are told; `f` returns a text of one byte.
fn allocating(pool: &Pool, alloc: &str, dealloc: &str) -> Function<(), i64> {
    let wasm = wat(&format!(
        r#"(module
            (import "env" "pause" (func $pause (param i32)))
            (memory (export "memory") 1)
            (func (export "alloc") (param i32) (result i32) {alloc} (i32.const 8))
            (func (export "dealloc") (param i32 i32) {dealloc})
            (func (export "f") (result i64) (i64.const 0x0000_0008_0000_0001)))"#
    ));
    let definition = Definition::new("allocating").wasm(wasm).export("f");
    pool.define(definition).unwrap()
}

const LOOPS: &str = "(loop $for_ever (br $for_ever))";
const WAITS: &str = "(call $pause (i32.const 5))";

#[track_caller]
fn is_refused<X: std::fmt::Debug>(result: Result<X, CallError>, why: AsyncReason, what: &str) {
    let Err(CallError::AsyncRequired {
        reason, instead, ..
    }) = result
    else {
        panic!("{result:?}");
    };
    assert_eq!((reason, instead), (why, what));
}

async fn answer(lease: &mut Lease<'_, (i32, i32), i64>, name: &str) -> Option<String> {
    let passed = lease.pass_bytes_async(name.as_bytes()).await.unwrap();
    let packed = lease.call_async(passed.params()).await.unwrap();
    lease.take_string_async(packed).await.unwrap()
}

#[test]
fn promise_14_a_task_passes_and_takes_bytes() {
    for builder in [one_at_a_time(), one_at_a_time().fuel_yield_interval(100)] {
        let pool = builder.build().unwrap();
        let soundex = soundex(&pool);
        let mut lease = block_on(soundex.acquire_async(1)).unwrap();
        for (name, code) in [("Robert", "R163"), ("Tymczak", "T522"), ("", "")] {
            assert_eq!(block_on(answer(&mut lease, name)).unwrap(), code);
        }
        let passed = block_on(lease.pass_bytes_async(b"Pfister")).unwrap();
        let packed = block_on(lease.call_async(passed.params())).unwrap();
        let bytes = block_on(lease.take_bytes_async(packed)).unwrap();
        assert_eq!(bytes.unwrap(), b"P236");
        assert_eq!(block_on(lease.take_bytes_async(-1)).unwrap(), None);
        drop(lease);
        assert_eq!(check(&pool).idle, 1);
    }
}

#[test]
fn promise_14_futures_of_bytes_go_between_threads() {
    let pool = one_at_a_time().build().unwrap();
    let soundex = soundex(&pool);
    let mut lease = block_on(soundex.acquire_async(1)).unwrap();
    is_send(&lease.pass_bytes_async(b"text"));
    is_send(&lease.take_bytes_async(-1));
    is_send(&lease.take_string_async(-1));
}

#[test]
fn promise_14_what_goes_wrong_is_the_same_for_tasks() {
    let pool = waiting_host(one_at_a_time()).0.build().unwrap();
    let traps = allocating(&pool, "unreachable", "unreachable");
    let mut lease = block_on(traps.acquire_async(1)).unwrap();
    let result = block_on(lease.pass_bytes_async(b"text"));
    assert!(matches!(result, Err(CallError::Trap { .. })), "{result:?}");
    assert!(lease.is_broken());
    drop(lease);
    let mut lease = block_on(traps.acquire_async(1)).unwrap();
    let packed = block_on(lease.call_async(())).unwrap();
    let result = block_on(lease.take_bytes_async(packed));
    assert!(matches!(result, Err(CallError::Trap { .. })), "{result:?}");
    drop(lease);
    let mut lease = block_on(traps.acquire_async(1)).unwrap();
    let outside = block_on(lease.take_bytes_async(i64::MAX)).unwrap_err();
    let CallError::Memory { source, .. } = outside else {
        panic!("{outside}");
    };
    assert!(matches!(source, MemoryError::OutOfBounds { .. }));
    assert!(!lease.is_broken());
    drop(lease);
    let stats = check(&pool);
    assert_eq!((stats.idle, stats.leased), (1, 0));
}

#[test]
fn promise_14_an_allocator_that_loops_lets_others_go_on_and_ends_in_time() {
    let builder = waiting_host(one_at_a_time()).0.call_timeout(3600 * SECOND);
    let pool = builder.build().unwrap();
    let looping = allocating(&pool, LOOPS, LOOPS);
    for is_alloc in [true, false] {
        let mut lease = block_on(looping.acquire_async(1)).unwrap();
        let canceller = lease.canceller();
        let packed = block_on(lease.call_async(())).unwrap();
        let mut passing = ByHand::new(async move {
            match is_alloc {
                true => lease.pass_bytes_async(b"text").await.map(drop),
                false => lease.take_bytes_async(packed).await.map(drop),
            }
        });
        let pool = pool.clone();
        in_time(move || {
            with_ticks(&pool, || {
                // Each of these is another task's turn.
                for _ in 0..5 {
                    assert!(passing.poll().is_none());
                }
                canceller.cancel();
                let result = passing.finish();
                assert!(
                    matches!(result, Err(CallError::Cancelled { .. })),
                    "{result:?}"
                );
            });
        });
    }
    assert_eq!(check(&pool).idle, 0);
}

#[test]
fn promise_14_an_allocator_may_wait_for_the_host() {
    let pool = waiting_host(one_at_a_time()).0.build().unwrap();
    let waiting = allocating(&pool, WAITS, WAITS);
    let mut lease = block_on(waiting.acquire_async(1)).unwrap();
    let passed = block_on(lease.pass_bytes_async(b"x")).unwrap();
    assert_eq!(
        passed,
        GuestBytes {
            pointer: 8,
            length: 1
        }
    );
    let packed = block_on(lease.call_async(())).unwrap();
    let text = block_on(lease.take_string_async(packed)).unwrap();
    assert_eq!(text.unwrap(), "x");
    drop(lease);
    // Dropped in the middle, it costs the instance.
    let mut lease = block_on(waiting.acquire_async(1)).unwrap();
    let dropped = ByHand::new(async move { lease.pass_bytes_async(b"x").await });
    let mut dropped = dropped;
    assert!(dropped.poll().is_none());
    drop(dropped);
    let stats = check(&pool);
    assert_eq!((stats.idle, stats.leased), (0, 0));
}

#[test]
fn promise_14_passing_bytes_on_the_executors_thread_is_refused() {
    let pool = one_at_a_time().build().unwrap();
    let soundex = soundex(&pool);
    // A lease that a task has acquired: new, warm, of an instance that a thread has made, by handle.
    for again in 0..3 {
        let mut lease = block_on(soundex.acquire_async(1)).unwrap();
        let why = AsyncReason::LeaseOfATask;
        is_refused(lease.pass_bytes(b"x"), why, "pass_bytes_async");
        is_refused(lease.take_bytes(-1), why, "take_bytes_async");
        is_refused(lease.take_string(-1), why, "take_string_async");
        // It is as it was; and what calls no guest goes on.
        assert!(!lease.is_broken());
        assert_eq!(block_on(answer(&mut lease, "Robert")).unwrap(), "R163");
        lease.write_bytes(0, b"x").unwrap();
        lease
            .read_bytes(GuestBytes {
                pointer: 0,
                length: 1,
            })
            .unwrap();
        drop(lease);
        if again == 1 {
            pool.retain(|_| false);
            drop(soundex.acquire(1).unwrap());
        }
    }
    let group = soundex.in_group(1);
    let mut lease = block_on(group.acquire_async()).unwrap();
    is_refused(
        lease.pass_bytes(b"x"),
        AsyncReason::LeaseOfATask,
        "pass_bytes_async",
    );
    drop(lease);
    // A lease that a thread has acquired, of the same instance: until it is called as a task.
    let mut lease = soundex.acquire(1).unwrap();
    let passed = lease.pass_bytes(b"Robert").unwrap();
    let packed = lease.call(passed.params()).unwrap();
    assert_eq!(lease.take_string(packed).unwrap().unwrap(), "R163");
    assert_eq!(block_on(answer(&mut lease, "Robert")).unwrap(), "R163");
    is_refused(
        lease.pass_bytes(b"x"),
        AsyncReason::LeaseOfATask,
        "pass_bytes_async",
    );
    drop(lease);
    assert_eq!(check(&pool).idle, 1);
}

#[test]
fn promise_14_a_synchronous_call_in_a_task_is_made_and_ends_in_time() {
    let pool = Pool::builder()
        .epoch_tick(Duration::from_millis(1))
        .call_timeout(Duration::from_millis(5))
        .build()
        .unwrap();
    let wasm = wat(r#"(module (func (export "f") (param i32)
        (if (local.get 0) (then (loop $for_ever (br $for_ever))))))"#);
    let f: Function<i32, ()> = pool.define(Definition::new("f").wasm(wasm)).unwrap();
    in_time(move || {
        let mut lease = block_on(f.acquire_async(1)).unwrap();
        lease.call(0).unwrap();
        block_on(lease.call_async(0)).unwrap();
        lease.call(0).unwrap();
        let result = lease.call(1);
        let Err(CallError::Limit { limit, .. }) = result else {
            panic!("{result:?}");
        };
        assert!(matches!(limit, CallLimit::Time(_)));
    });
}

#[test]
fn promise_14_guests_that_run_only_as_tasks_say_so() {
    let yielding = one_at_a_time().fuel_yield_interval(1_000).build().unwrap();
    let waiting = waiting_host(one_at_a_time()).0.build().unwrap();
    let import = r#"(import "env" "pause" (func $pause (param i32)))"#;
    for (pool, import) in [(yielding, ""), (waiting, import)] {
        let wasm = wat(&format!(
            r#"(module {import} (memory (export "memory") 1)
                (func (export "alloc") (param i32) (result i32) i32.const 8)
                (func (export "dealloc") (param i32 i32))
                (func (export "other"))
                (func (export "f") (result i32) i32.const 7))"#
        ));
        let define = |name: &str| Definition::new(name).wasm(wasm.clone()).export("f");
        let f: Function<(), i32> = pool.define(define("typed")).unwrap();
        let dynamic: Function = pool.define(define("dynamic")).unwrap();
        // Nothing is there, and no thread can make it.
        let cold = f.acquire(1).unwrap_err();
        assert!(matches!(cold, AcquireError::AsyncRequired { .. }), "{cold}");
        let cold = f.call(1, ()).unwrap_err();
        let cold = matches!(cold, CallError::Acquire(AcquireError::AsyncRequired { .. }));
        assert!(cold);
        // What tasks have made, a thread may lease, and call as a task.
        assert_eq!(block_on(f.call_async(1, ())).unwrap(), 7);
        let why = AsyncReason::TasksOnly;
        let mut lease = f.acquire(1).unwrap();
        for _ in 0..3 {
            is_refused(lease.call(()), why, "call_async");
        }
        let other = lease.export::<(), ()>("other").unwrap();
        is_refused(other.call(&mut lease, ()), why, "call_async");
        is_refused(lease.pass_bytes(b"x"), why, "pass_bytes_async");
        is_refused(lease.take_bytes(8 << 32), why, "take_bytes_async");
        is_refused(lease.take_string(8 << 32), why, "take_string_async");
        assert!(!lease.is_broken());
        assert_eq!(block_on(lease.call_async(())).unwrap(), 7);
        drop(lease);
        block_on(dynamic.acquire_async(1)).map(drop).unwrap();
        let mut lease = dynamic.acquire(1).unwrap();
        is_refused(lease.call_values(&[]), why, "call_async");
        drop(lease);
        assert_eq!(check(&pool).idle, 2, "nobody was retired");
    }
}
