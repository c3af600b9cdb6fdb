//! What compilations in processes of their own leave on this process's heap.

use wasm_pool::{CompilerProcess, Definition, Function, Limits, Pool};

use crate::common::child::is_child;
use crate::common::{answering, check, heap};

/// Bytes, of all of them.
const LEFT: u64 = 2048;

#[test]
fn nothing_is_left_of_what_another_process_has_compiled() {
    if !is_child(
        "left_behind::nothing_is_left_of_what_another_process_has_compiled",
        "",
    ) {
        return;
    }
    let helper = CompilerProcess::helper(env!("CARGO_BIN_EXE_wasm-pool-compiler"));
    let pool = Pool::builder()
        .no_housekeeper()
        .limits(Limits::new().compile(256 << 20))
        .compile_in(helper)
        .build()
        .unwrap();
    let compile = |n| {
        let definition = Definition::new("left").wasm(answering(n)).export("f");
        let function: Function<(), i32> = pool.define(definition).unwrap();
        let _ = function.prepare().unwrap();
        pool.remove("left").unwrap();
    };
    // What is made at first use, and maps that grow to what they need.
    (0..32).for_each(compile);
    let before = heap::in_use();
    (32..128).for_each(compile);
    let left = heap::in_use().saturating_sub(before);
    assert!(left <= LEFT, "{left} bytes are left of 96 compilations");
    check(&pool);
}
