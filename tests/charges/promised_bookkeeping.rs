//! What the pool's own books take of the heap is bounded, and goes with the pool.

use std::sync::mpsc::channel;
use std::thread;

use crate::common::child::is_child;
use crate::common::{answering, check, heap};
use wasm_pool::{Billing, Definition, Function, Limits, ManualClock, Pool, PoolBuilder};

const MIB: u64 = 1 << 20;

/// A pool with this many seats for each group, and a function that takes no memory of its own.
fn pool(seats: usize) -> (Pool, Function<(), i32>) {
    with_function(builder(seats))
}

fn builder(seats: usize) -> PoolBuilder {
    Pool::builder()
        .limits(Limits::new().memory(16 * MIB))
        .max_instances_per_entry(seats)
        .call_timeout(None)
        .clock(ManualClock::new())
        .no_housekeeper()
}

fn with_function(builder: PoolBuilder) -> (Pool, Function<(), i32>) {
    let pool = builder.build().unwrap();
    let f = pool
        .define(Definition::new("f").wasm(answering(1)))
        .unwrap();
    (pool, f)
}

/// Bytes of heap in use now beyond `before`.
fn more_than(before: u64) -> u64 {
    heap::in_use().saturating_sub(before)
}

/// Each group gets an instance, for which another's is evicted.
#[test]
fn promise_08_four_hundred_thousand_new_groups_take_no_more_than_a_few() {
    if !is_child(
        "promised_bookkeeping::promise_08_four_hundred_thousand_new_groups_take_no_more_than_a_few",
        "",
    ) {
        return;
    }
    let (pool, f) = pool(8);
    let groups = |from: u64, count: u64| {
        for group in from..from + count {
            assert_eq!(f.call(group, ()).unwrap(), 1);
        }
    };
    // As many as there is room for, and as a thread's table has lines.
    groups(0, 10_000);
    let before = heap::in_use();
    let ((), peak) = heap::peak_during(|| groups(10_000, 400_000));
    println!("peak {peak}, after {}", more_than(before));
    assert!(peak <= 8 * MIB, "{peak} bytes for 400,000 groups");
    check(&pool);
}

/// So do bills of groups that are gone, of which a thousand are kept.
#[test]
fn promise_08_bills_of_new_groups_take_no_more_than_those_that_are_kept() {
    if !is_child(
        "promised_bookkeeping::promise_08_bills_of_new_groups_take_no_more_than_those_that_are_kept",
        "",
    ) {
        return;
    }
    let builder = builder(8).billing(Billing::new());
    let (pool, f) = with_function(builder);
    let groups = |from: u64, count: u64| {
        for group in from..from + count {
            assert_eq!(f.call(group, ()).unwrap(), 1);
        }
    };
    groups(0, 10_000);
    let before = heap::in_use();
    let ((), peak) = heap::peak_during(|| groups(10_000, 100_000));
    println!("peak {peak}, after {}", more_than(before));
    assert!(peak <= 2 * MIB, "{peak} bytes for 100,000 groups");
    let bills = check(&pool).bills.unwrap();
    assert_eq!(bills.total.calls, 110_000);
    let kept = bills.groups.len() as u64;
    assert_eq!(bills.other_groups.calls, 110_000 - kept);
    println!("{kept} bills");
}

/// Whatever leads to an entry: here, handles.
#[test]
fn promise_08_handles_that_are_dropped_leave_nothing() {
    if !is_child(
        "promised_bookkeeping::promise_08_handles_that_are_dropped_leave_nothing",
        "",
    ) {
        return;
    }
    let (pool, f) = pool(8);
    (0..10_000u64).for_each(|group| drop(f.in_group(group)));
    let before = heap::in_use();
    let ((), peak) = heap::peak_during(|| {
        (10_000..410_000u64).for_each(|group| drop(f.in_group(group)));
    });
    println!("peak {peak}, after {}", more_than(before));
    assert!(peak <= MIB, "{peak} bytes for 400,000 handles");
    // One that is kept stays what it is.
    let kept = f.in_group(7);
    (0..10_000u64).for_each(|group| drop(f.in_group(group)));
    assert_eq!(kept.call(()).unwrap(), 1);
    drop(kept);
    check(&pool);
}

/// Seats cost something when they are used.
#[test]
fn promise_08_seats_that_nobody_uses_take_nothing() {
    if !is_child(
        "promised_bookkeeping::promise_08_seats_that_nobody_uses_take_nothing",
        "",
    ) {
        return;
    }
    let before = heap::in_use();
    let (pool, f) = pool(1 << 16);
    assert_eq!(f.call(1000, ()).unwrap(), 1);
    let warm = heap::in_use();
    let leases: Vec<_> = (0..60u64).map(|group| f.acquire(group).unwrap()).collect();
    let bytes = more_than(warm);
    println!("60 groups of 65,536 seats, with an instance each: {bytes}");
    assert!(bytes <= 60 * wasm_pool::INSTANCE_OVERHEAD, "{bytes} bytes");
    drop(leases);
    check(&pool);
    drop((pool, f));
    // What is left is the thread's table itself.
    let left = more_than(before);
    println!("left when the pool is gone: {left}");
    assert!(left <= 256 << 10, "{left} bytes are left of a pool");
}

/// An instance of one group pays for its seat, however many it has.
#[test]
fn promise_08_seats_grow_with_the_instances() {
    if !is_child(
        "promised_bookkeeping::promise_08_seats_grow_with_the_instances",
        "",
    ) {
        return;
    }
    let (pool, f) = pool(1 << 16);
    drop(f.acquire(1).unwrap());
    let before = heap::in_use();
    let leases: Vec<_> = (0..1500).map(|_| f.acquire(1).unwrap()).collect();
    let bytes = more_than(before) / leases.len() as u64;
    println!("an instance of a group of 1,500 takes {bytes}");
    assert!(bytes <= wasm_pool::INSTANCE_OVERHEAD, "{bytes} bytes each");
    drop(leases);
    assert_eq!(check(&pool).idle, 1500);
}

/// A thread that used a pool, and is alive when it goes, keeps nothing of it once it leases again.
#[test]
fn promise_08_other_threads_keep_nothing_of_a_pool_that_is_gone() {
    if !is_child(
        "promised_bookkeeping::promise_08_other_threads_keep_nothing_of_a_pool_that_is_gone",
        "",
    ) {
        return;
    }
    let (other, g) = pool(1);
    let (tell, told) = channel::<()>();
    let (answer, answered) = channel();
    let (pool, f) = pool(8);
    g.call(0, ()).unwrap();
    let user = f.clone();
    let thread = thread::spawn(move || {
        g.call(0, ()).unwrap();
        (0..4000u64).for_each(|group| _ = user.call(group, ()).unwrap());
        drop(user);
        answer.send(()).unwrap();
        told.recv().unwrap();
        g.call(1, ()).unwrap();
        answer.send(()).unwrap();
        told.recv().unwrap();
    });
    answered.recv().unwrap();
    check(&pool);
    drop((pool, f));
    let kept = heap::in_use();
    tell.send(()).unwrap();
    answered.recv().unwrap();
    let freed = kept.saturating_sub(heap::in_use());
    println!("freed by the thread's next lease: {freed}");
    // At least half of 4,000 entries stand in its table.
    assert!(freed >= 2000 * 1024, "{freed} bytes");
    tell.send(()).unwrap();
    thread.join().unwrap();
    check(&other);
}

/// Forgotten and made again, an entry is the same to whoever asks by name, and its hits are counted.
#[test]
fn promise_08_a_forgotten_group_is_served_as_before() {
    if !is_child(
        "promised_bookkeeping::promise_08_a_forgotten_group_is_served_as_before",
        "",
    ) {
        return;
    }
    let (pool, f) = pool(8);
    for round in 0..3u64 {
        for group in 0..3000u64 {
            assert_eq!(f.call(group, ()).unwrap(), 1);
            assert_eq!(f.call(group, ()).unwrap(), 1);
        }
        assert_eq!(check(&pool).hits, 3000 * (round + 1));
    }
    assert_eq!(pool.stats().function("f").unwrap().hits, 9000);
    pool.remove("f").unwrap();
    assert!(f.acquire(1).is_err());
    assert_eq!(pool.stats().hits, 9000);
}
