//! Compilations that end because nobody needs them any more.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use wasm_pool::{AcquireError, AcquireOptions, CallError, Function, Pool};

use crate::children::compiling;
use crate::common::*;
use crate::{alone, builder, define_bomb, helper};

/// A pool with one turn to compile, and a function that would take it for long.
fn pool() -> (Pool, Function<(), ()>) {
    let pool = builder(8 << 30, helper().first_cap(1 << 30))
        .max_compilations(1)
        .build()
        .unwrap();
    let f = define_bomb(&pool);
    (pool, f)
}

/// The turn is free, and somebody else's module is compiled.
#[track_caller]
fn goes_on(pool: &Pool, before: &[(wasm_pool::Budget, u64)]) {
    let other = define(pool, "other", answering(7));
    assert_eq!(other.call(2, ()).unwrap(), 7);
    pool.remove("other").unwrap();
    pool.sweep();
    until(|| charges(pool) == before);
    check(pool);
}

#[test]
fn a_thread_waits_until_its_deadline() {
    let _alone = alone();
    let (pool, f) = pool();
    let before = charges(&pool);
    let began = Instant::now();
    let lease = f.acquire_timeout(1, Duration::from_millis(200));
    let error = lease.map(drop).unwrap_err();
    assert!(matches!(error, AcquireError::Timeout { .. }), "{error}");
    assert!(began.elapsed() < Duration::from_secs(30));
    goes_on(&pool, &before);
    assert_eq!(check(&pool).compiler_kills.unwanted, 1);
}

#[test]
fn a_compilation_goes_on_for_whoever_waits_still() {
    let _alone = alone();
    let (pool, f) = pool();
    let before = charges(&pool);
    let g = f.clone();
    thread::scope(|scope| {
        let first = scope.spawn(|| f.acquire_timeout(1, Duration::from_millis(300)).map(drop));
        let process = compiling(&pool);
        let second = scope.spawn(|| g.acquire_timeout(2, Duration::from_secs(2)).map(drop));
        wait_for_waiters(&pool, 1);
        assert!(first.join().unwrap().is_err());
        assert_eq!(compiling(&pool), process, "the second waits for it");
        assert_eq!(check(&pool).compiler_kills.total(), 0);
        assert!(second.join().unwrap().is_err());
    });
    goes_on(&pool, &before);
    assert_eq!(check(&pool).compiler_kills.unwanted, 1);
}

#[test]
fn a_task_that_is_dropped_ends_its_compilation() {
    let _alone = alone();
    let (pool, f) = pool();
    let before = charges(&pool);
    {
        let mut acquire = pin!(f.acquire_async(1));
        let mut context = Context::from_waker(Waker::noop());
        // What compiling it takes is looked for first, aside as well.
        while pool.stats().compilations_in_flight.is_empty() {
            assert!(matches!(acquire.as_mut().poll(&mut context), Poll::Pending));
            thread::yield_now();
        }
        compiling(&pool);
    }
    goes_on(&pool, &before);
    assert_eq!(check(&pool).compiler_kills.unwanted, 1);
}

#[test]
fn a_function_that_is_removed_ends_its_compilation() {
    let _alone = alone();
    let (pool, f) = pool();
    let before = charges(&pool);
    thread::scope(|scope| {
        let call = scope.spawn(|| f.call(1, ()));
        compiling(&pool);
        pool.remove("f").unwrap();
        let error = call.join().unwrap().unwrap_err();
        assert!(
            matches!(error, CallError::Acquire(AcquireError::Removed { .. })),
            "{error}"
        );
    });
    goes_on(&pool, &before);
    assert_eq!(check(&pool).compiler_kills.removed, 1);
}

#[test]
fn a_function_that_is_replaced_is_compiled_as_what_it_is_now() {
    let _alone = alone();
    let (pool, f) = pool();
    thread::scope(|scope| {
        let call = scope.spawn(|| f.call(1, ()));
        compiling(&pool);
        let small = wat(r#"(module (func (export "f")))"#);
        pool.replace::<(), ()>(definition("f", small)).unwrap();
        call.join().unwrap().unwrap();
    });
    assert_eq!(check(&pool).compiler_kills.removed, 1);
}

#[test]
fn close_ends_compilations_and_whoever_waits_for_them() {
    let _alone = alone();
    let (pool, f) = pool();
    thread::scope(|scope| {
        let calls = [1, 2, 3].map(|group| {
            scope.spawn({
                let f = f.clone();
                move || f.acquire_with(group, AcquireOptions::new()).map(drop)
            })
        });
        compiling(&pool);
        wait_for_waiters(&pool, 2);
        assert!(pool.close_and_drain(Duration::from_secs(30)));
        for call in calls {
            is_closed(call.join().unwrap());
        }
    });
    check_empty(&pool);
    assert_eq!(check(&pool).compiler_kills.closed, 1);
}
