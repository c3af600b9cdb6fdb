//! Tasks that nobody will ever poll again: an executor that is dropped may leak them. What is past its deadline
//! gets nothing, and holds nothing.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use wasm_pool::{
    AcquireError, Budget, Definition, Function, Limits, ManualClock, Pool, PoolBuilder,
};

use crate::common::*;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

fn pool(set: impl FnOnce(PoolBuilder) -> PoolBuilder) -> (Pool, ManualClock) {
    let clock = ManualClock::new();
    let builder = Pool::builder()
        .no_housekeeper()
        .clock(clock.clone())
        .max_instances_per_entry(1)
        .idle_timeout(None);
    (set(builder).build().unwrap(), clock)
}

fn define(pool: &Pool, name: &str, salt: u32) -> Function<(), i32> {
    let definition = Definition::new(name).wasm(memory_module(1, salt));
    pool.define(definition.export("f")).unwrap()
}

type Waiting = Pin<Box<dyn Future<Output = Result<(), AcquireError>> + Send>>;

fn poll(waiting: &mut Waiting) -> Poll<Result<(), AcquireError>> {
    waiting
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
}

/// A task that waits for an instance, and has been polled once.
fn waiting(f: &Function<(), i32>, group: u64, timeout: Duration) -> Waiting {
    let f = f.clone();
    let mut waiting: Waiting = Box::pin(async move {
        f.acquire_async_with(group, room_within(timeout))
            .await
            .map(drop)
    });
    assert!(poll(&mut waiting).is_pending());
    waiting
}

fn leak(f: &Function<(), i32>, group: u64) {
    std::mem::forget(waiting(f, group, SECOND));
}

#[track_caller]
fn is_served(mut waiting: Waiting) {
    assert!(matches!(poll(&mut waiting), Poll::Ready(Ok(()))));
}

#[track_caller]
fn is_late(mut waiting: Waiting) {
    let polled = poll(&mut waiting);
    assert!(matches!(
        polled,
        Poll::Ready(Err(AcquireError::Timeout { .. }))
    ));
}

#[test]
fn promise_04_who_is_late_is_handed_nothing() {
    for reused in [true, false] {
        let (pool, clock) = pool(|builder| builder);
        let f = define(&pool, "f", 0);
        let lease = f.acquire(1).unwrap();
        leak(&f, 1);
        let alive = waiting(&f, 1, SECOND);
        let next = waiting(&f, 1, HOUR);
        clock.advance(SECOND);
        if reused {
            drop(lease);
            is_served(next);
        } else {
            // It makes an instance of its own; the code is there.
            lease.discard();
            is_served(next);
        }
        is_late(alive);
        let uses = if reused { 3 } else { 2 };
        assert_eq!(f.try_acquire(1).unwrap().uses(), uses);
        assert_eq!(check(&pool).waiting, 0);
    }
}

#[test]
fn promise_04_what_is_not_taken_in_time_goes_to_the_next() {
    for reused in [true, false] {
        let (pool, clock) = pool(|builder| builder);
        let f = define(&pool, "f", 0);
        let lease = f.acquire(1).unwrap();
        leak(&f, 1);
        let next = waiting(&f, 1, HOUR);
        // In time: it is handed to the first.
        match reused {
            true => drop(lease),
            false => lease.discard(),
        }
        assert!(f.try_acquire(1).is_err());
        clock.advance(SECOND);
        pool.sweep();
        is_served(next);
        drop(f.try_acquire(1).unwrap());
        let stats = check(&pool);
        assert_eq!((stats.leased, stats.waiting), (0, 0));
    }
}

#[test]
fn promise_04_a_leaked_wait_for_room_holds_neither_its_turn_nor_its_seat() {
    for in_time in [true, false] {
        let limits = Limits::new().memory(instance_bytes(1));
        let (pool, clock) = pool(|builder| builder.limits(limits));
        let f = define(&pool, "f", 0);
        let lease = f.acquire(1).unwrap();
        leak(&f, 2);
        let next = waiting(&f, 3, HOUR);
        let same_seat = waiting(&f, 2, HOUR);
        if in_time {
            drop(lease);
            clock.advance(SECOND);
            pool.sweep();
        } else {
            clock.advance(SECOND);
            pool.sweep();
            drop(lease);
        }
        is_served(next);
        let mut same_seat = same_seat;
        while poll(&mut same_seat).is_pending() {
            pool.sweep();
        }
        let stats = check(&pool);
        assert_eq!((stats.leased, stats.waiting), (0, 0));
        assert!(charged(&pool, Budget::Memory) <= instance_bytes(1));
        assert!(pool.close_and_drain(Duration::ZERO));
        check_empty(&pool);
    }
}

/// Whoever leads a compilation that nobody waits for, or waits for a turn to compile.
#[test]
fn promise_04_leaked_compilations_hold_nothing() {
    let (pool, clock) = pool(|builder| builder.max_compilations(1));
    let functions: Vec<_> = (0..4).map(|n| define(&pool, &format!("f{n}"), n)).collect();
    for f in &functions {
        leak(f, 1);
        leak(f, 2);
    }
    until(|| pool.stats().compilations > 0);
    clock.advance(SECOND);
    until(|| {
        pool.sweep();
        let stats = pool.stats();
        (stats.compiling, stats.waiting, stats.leased) == (0, 0, 0)
            && stats.budget(Budget::Memory).charged == 0
    });
    check(&pool);
    for f in functions {
        for group in 1..3_u64 {
            let f = f.clone();
            let served = in_time(move || f.acquire_with(group, room_within(HOUR)).map(drop));
            served.unwrap();
        }
    }
    check(&pool);
    assert!(pool.close_and_drain(Duration::ZERO));
    check_empty(&pool);
}
