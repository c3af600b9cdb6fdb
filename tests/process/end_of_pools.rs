//! Of a pool that has ended, no thread, no stack and no code is left.

use pollster::block_on;
use wasm_pool::{Function, Pool};

use crate::alone;
use crate::common::polling::{ByHand, MINUTE};
use crate::common::*;

/// Of a stack: more than anything else has.
const SIZE: u64 = 6 << 20;

/// What this process has of any pool: threads, stacks, code.
fn of_pools() -> (usize, u64, usize) {
    (
        kernel::threads("wasm-pool"),
        kernel::mapped_stacks(SIZE),
        kernel::mapped_code(),
    )
}

/// A pool with all that it can have, used by tasks.
fn used() -> (Pool, Function<(), i32>) {
    let pool = Pool::builder()
        .max_instances_per_entry(1)
        .async_stack_size(SIZE as usize)
        .build()
        .unwrap();
    let f = define(&pool, "used", memory_module(1, 0));
    for group in 0..3_u64 {
        assert_eq!(block_on(f.call_async(group, ())).unwrap(), 1);
    }
    (pool, f)
}

#[test]
fn c_d2_nothing_is_left_of_a_pool_that_was_drained_or_dropped() {
    let _alone = alone();
    drop(used());
    until(|| kernel::threads("wasm-pool") == 0);
    let before = of_pools();
    for drained in [true, false] {
        let (pool, f) = used();
        let (threads, stacks, code) = of_pools();
        assert_eq!(
            (threads > 1, stacks),
            (true, 3),
            "a housekeeper, a compiler"
        );
        assert!(code > before.2);
        if drained {
            assert!(pool.close_and_drain(MINUTE));
            let (_, stacks, code) = of_pools();
            assert_eq!((stacks, code), (0, before.2), "freed when it is drained");
        }
        drop(pool);
        assert!(kernel::threads("wasm-pool") > 0 || drained, "f is a handle");
        drop(f);
        assert_eq!(of_pools(), before, "drained: {drained}");
    }
}

#[test]
fn c_d2_a_lease_may_be_the_last_of_its_pool() {
    let _alone = alone();
    drop(used());
    let before = of_pools();
    let (pool, f) = used();
    let mut lease = block_on(f.acquire_async(1)).unwrap();
    drop((pool, f));
    assert_eq!(kernel::mapped_stacks(SIZE), 1);
    assert_eq!(lease.call(()).unwrap(), 1);
    assert_eq!(block_on(lease.call_async(())).unwrap(), 1);
    drop(lease);
    until(|| of_pools() == before);
}

#[test]
fn c_d2_a_compiler_may_be_the_last_of_its_pool() {
    let _alone = alone();
    drop(used());
    let before = of_pools();
    let pool = Pool::builder().max_instances_per_entry(1).build().unwrap();
    let f = define(&pool, "last", memory_module(1, 0));
    let held = spans::hold("compile", "last()");
    let mut task = ByHand::new(async move { f.acquire_async(1).await.map(drop) });
    assert!(task.poll().is_none());
    held.wait_until_reached();
    drop(task);
    drop(pool);
    drop(held);
    until(|| of_pools() == before);
}

#[test]
fn c_d2_a_closed_pool_starts_no_thread() {
    let _alone = alone();
    let (pool, f) = used();
    pool.close();
    let before = kernel::threads("wasm-pool");
    is_closed(block_on(f.acquire_async(9)));
    assert!(kernel::threads("wasm-pool") <= before);
    drop((pool, f));
    until(|| kernel::threads("wasm-pool") == 0);
}
