//! The end of a pool: nobody waits any more, nothing is charged. `tests/process` says that no thread and
//! no mapping is left.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::common::polling::{ByHand, MINUTE};
use crate::common::*;
use pollster::block_on;
use wasm_pool::{
    AcquireError, Budget, CallError, Definition, Function, Limits, ManualClock, Pool, PoolBuilder,
};

const SECOND: Duration = Duration::from_secs(1);

fn builder() -> PoolBuilder {
    Pool::builder().max_instances_per_entry(1)
}

/// Closes in a thread of its own, and says whether everything had ended in time.
fn draining(pool: &Pool, timeout: Duration) -> mpsc::Receiver<bool> {
    let (done, is_done) = mpsc::channel();
    let closing = pool.clone();
    thread::spawn(move || done.send(closing.close_and_drain(timeout)));
    until(|| pool.is_closed());
    is_done
}

// close_and_drain ────────────────────────────────────────────────────────────────────────────────

#[test]
fn c_d1_a_pool_without_leases_is_drained_at_once() {
    let pool = builder().build().unwrap();
    assert_eq!(
        block_on(define(&pool, "f", memory_module(1, 0)).call_async(1, ())).unwrap(),
        1
    );
    assert!(pool.close_and_drain(Duration::ZERO));
    check_empty(&pool);
    assert!(pool.close_and_drain(Duration::ZERO), "and again");
    let never_used = builder().build().unwrap();
    assert!(never_used.close_and_drain(Duration::ZERO));
}

#[test]
fn c_d1_draining_waits_for_the_leases_of_tasks_and_threads() {
    let pool = builder().build().unwrap();
    let f = define(&pool, "f", memory_module(1, 0));
    let mut of_a_task = block_on(f.acquire_async(1)).unwrap();
    let mut of_a_thread = f.acquire(2).unwrap();
    let drained = draining(&pool, MINUTE);
    assert_eq!(block_on(of_a_task.call_async(())).unwrap(), 1);
    assert_eq!(of_a_thread.call(()).unwrap(), 1);
    drop(of_a_task);
    assert_eq!(check(&pool).leased, 1);
    assert!(drained.try_recv().is_err(), "one is left");
    drop(of_a_thread);
    assert!(drained.recv_timeout(MINUTE).unwrap());
    check_empty(&pool);
}

#[test]
fn c_d1_draining_ends_at_its_deadline() {
    let clock = ManualClock::new();
    let pool = builder().no_housekeeper().clock(clock.clone());
    let pool = pool.build().unwrap();
    let f = define(&pool, "f", memory_module(1, 0));
    let lease = block_on(f.acquire_async(1)).unwrap();
    assert!(!pool.close_and_drain(Duration::ZERO));
    let drained = draining(&pool, SECOND);
    assert!(drained.try_recv().is_err(), "the clock stands still");
    // Until it has begun to wait, and a second has passed since.
    let given_up = loop {
        clock.advance(SECOND);
        if let Ok(drained) = drained.try_recv() {
            break !drained;
        }
        thread::yield_now();
    };
    assert!(given_up);
    assert!(charged(&pool, Budget::Stack) > 0);
    drop(lease);
    assert!(pool.close_and_drain(Duration::ZERO));
    check_empty(&pool);
}

#[test]
fn c_d1_a_task_waits_for_the_leases_and_is_woken_by_the_last() {
    let pool = builder().build().unwrap();
    let f = define(&pool, "f", memory_module(1, 0));
    let of_a_thread = f.acquire(2).unwrap();
    let closing = pool.clone();
    let mut drained = ByHand::new(async move { closing.close_and_drain_async(MINUTE).await });
    assert!(!pool.is_closed(), "nobody has polled it");
    assert!(drained.poll().is_none());
    assert!(pool.is_closed() && !drained.is_woken());
    drop(of_a_thread);
    assert!(drained.is_woken());
    assert_eq!(drained.poll(), Some(true));
    check_empty(&pool);
    assert!(
        block_on(pool.close_and_drain_async(Duration::ZERO)),
        "and again"
    );
}

#[test]
fn c_d1_a_tasks_draining_ends_at_its_deadline_and_may_be_dropped() {
    let clock = ManualClock::new();
    let pool = builder().no_housekeeper().clock(clock.clone());
    let pool = pool.build().unwrap();
    let f = define(&pool, "f", memory_module(1, 0));
    let lease = f.acquire(1).unwrap();
    let [mut dropped, mut drained] = [(), ()].map(|()| {
        let closing = pool.clone();
        ByHand::new(async move { closing.close_and_drain_async(SECOND).await })
    });
    assert!(dropped.poll().is_none() && drained.poll().is_none());
    drop(dropped);
    assert!(!drained.is_woken());
    clock.advance(SECOND);
    // Without threads of the pool's own, a sweep rings alarms.
    pool.sweep();
    assert!(drained.is_woken());
    assert_eq!(drained.poll(), Some(false));
    drop(lease);
    check_empty(&pool);
}

#[test]
fn c_d1_draining_waits_for_what_is_compiled() {
    let pool = builder().build().unwrap();
    let f = define(&pool, "slow.drained", memory_module(1, 0));
    let held = spans::hold("compile", "slow.drained()");
    let task = f.clone();
    let mut task = ByHand::new(async move { task.acquire_async(1).await.map(drop) });
    assert!(task.poll().is_none());
    held.wait_until_reached();
    let drained = draining(&pool, MINUTE);
    assert!(charged(&pool, Budget::Compile) > 0);
    assert!(drained.try_recv().is_err(), "its heap is in use");
    drop(held);
    is_closed(task.finish());
    assert!(drained.recv_timeout(MINUTE).unwrap());
    check_empty(&pool);
}

#[test]
fn c_d1_draining_wakes_everyone_who_waits() {
    let limits = Limits::new().memory(instance_bytes(1));
    let pool = builder()
        .limits(limits)
        .max_compilations(1)
        .build()
        .unwrap();
    let f = define(&pool, "f", memory_module(1, 0));
    let lease = f.acquire(1).unwrap();
    let compiled = pool.define(
        Definition::new("busy")
            .wasm(memory_module(0, 1))
            .export("f"),
    );
    let compiled: Function<(), i32> = compiled.unwrap();
    let queued = pool.define(
        Definition::new("queued")
            .wasm(memory_module(0, 2))
            .export("f"),
    );
    let queued: Function<(), i32> = queued.unwrap();
    let mut tasks = Vec::new();
    let mut threads = Vec::new();
    // For an instance; for room.
    for (function, group) in [(&f, 1_u64), (&f, 2), (&compiled, 3), (&queued, 3)] {
        let task = function.clone();
        let mut task = ByHand::new(async move {
            task.acquire_async_with(group, room_within(MINUTE))
                .await
                .map(drop)
        });
        assert!(task.poll().is_none());
        tasks.push(task);
        let function = function.clone();
        threads.push(thread::spawn(move || {
            function.acquire_with(group, room_within(MINUTE)).map(drop)
        }));
        wait_for_waiters(&pool, tasks.len() + threads.len());
    }
    let drained = draining(&pool, MINUTE);
    tasks.into_iter().for_each(|task| is_closed(task.finish()));
    for thread in threads {
        is_closed(thread.join().unwrap());
    }
    is_closed(block_on(f.acquire_async(1)));
    let call = block_on(f.call_async(7, ()));
    assert!(matches!(
        call,
        Err(CallError::Acquire(AcquireError::Closed { .. }))
    ));
    drop(lease);
    assert!(drained.recv_timeout(MINUTE).unwrap());
    check_empty(&pool);
}
