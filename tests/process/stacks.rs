//! As many fiber stacks are mapped as are charged.

use pollster::block_on;
use wasm_pool::{Budget, Limits};

use crate::alone;
use crate::common::*;

#[test]
fn c_b1_there_are_as_many_stacks_as_are_charged() {
    let _alone = alone();
    // More than anything else in this process has.
    const SIZE: u64 = 6 << 20;
    let limits = Limits::new().stack(8 * SIZE);
    let builder = one_at_a_time()
        .idle_timeout(None)
        .async_stack_size(SIZE as usize)
        .limits(limits);
    let pool = builder.build().unwrap();
    let f = define(&pool, "f", memory_module(1, 0));
    let charged_stacks = || check(&pool).budget(Budget::Stack).charged / SIZE;
    assert_eq!(kernel::mapped_stacks(SIZE), 0);
    for group in 0..5_u64 {
        block_on(f.call_async(group, ())).unwrap();
        assert_eq!(charged_stacks(), kernel::mapped_stacks(SIZE));
        assert_eq!(charged_stacks(), group + 1);
    }
    pool.retain(|idle| idle.group == 3_u64.into());
    assert_eq!((charged_stacks(), kernel::mapped_stacks(SIZE)), (1, 1));
    // More than fit: those that leave are unmapped before others are mapped.
    for group in 0..20_u64 {
        block_on(f.call_async(group, ())).unwrap();
        assert_eq!(charged_stacks(), kernel::mapped_stacks(SIZE));
    }
    assert!(charged_stacks() >= 7, "the budget is used");
    pool.close();
    assert_eq!((charged_stacks(), kernel::mapped_stacks(SIZE)), (0, 0));
}
