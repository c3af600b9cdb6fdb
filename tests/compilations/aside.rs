//! What a task's thread does not do: look at megabytes of operators.

use wasm_pool::{Definition, Function};

use crate::common::polling::ByHand;
use crate::common::{check, quiet, spans, wat};

#[test]
fn what_compiling_takes_is_looked_for_on_another_thread_than_a_tasks() {
    let drops = "i32.const 7 drop ".repeat(20_000);
    let wasm = wat(&format!(
        r#"(module (func (export "f") (result i32) {drops} i32.const 3))"#
    ));
    let pool = quiet().build().unwrap();
    let definition = Definition::new("seen.aside").wasm(wasm).export("f");
    let function: Function<(), i32> = pool.define(definition).unwrap();
    // A thread that begins to look stops there: it is not this one.
    let held = spans::hold("estimate", "seen.aside()");
    let mut task = ByHand::new(async move { function.call_async(1, ()).await });
    assert!(task.poll().is_none());
    held.wait_until_reached();
    assert_eq!(spans::begun("compile", "seen.aside()"), 0);
    drop(held);
    assert_eq!(task.finish().unwrap(), 3);
    assert_eq!(spans::begun("estimate", "seen.aside()"), 1);
    check(&pool);
}
