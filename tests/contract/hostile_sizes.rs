//! Modules that are small on disk and large in every instance are charged for it; modules that lie
//! about counts cost nothing; host data that panics when it is dropped keeps nothing mapped.

use std::fmt::Write;

use crate::common::{check, check_empty, wat};
use wasm_pool::{Budget, Definition, Function, Pool, RemovalReason};

fn memory(pool: &Pool) -> u64 {
    pool.stats().budget(Budget::Memory).charged
}

/// What one instance of such a module is charged.
fn charge(text: &str) -> u64 {
    let pool = Pool::builder().no_housekeeper().build().unwrap();
    let definition = Definition::new("f").wasm(wat(text));
    let f: Function<(), ()> = pool.define(definition).unwrap();
    let lease = f.acquire(1).unwrap();
    let charged = memory(&pool);
    drop(lease);
    check(&pool);
    charged
}

#[test]
fn passive_elements_are_charged_to_every_instance() {
    let many = "0 ".repeat(100_000);
    let text = format!("(module (func (export \"f\")) (elem func {many}))");
    let plain = charge("(module (func (export \"f\")))");
    assert!(charge(&text) >= plain + 15 * 100_000);
}

#[test]
fn globals_are_charged_to_every_instance() {
    let mut text = "(module (func (export \"f\"))".to_owned();
    for _ in 0..10_000 {
        write!(text, "(global (mut i64) (i64.const 0))").unwrap();
    }
    text.push(')');
    let plain = charge("(module (func (export \"f\")))");
    assert!(charge(&text) >= plain + 15 * 10_000);
}

#[test]
fn a_wide_type_with_many_exports_is_described_in_brief() {
    let params = "i32 ".repeat(900);
    let mut text = format!("(module (func $f (param {params}))");
    for n in 0..20_000 {
        write!(text, "(export \"e{n}\" (func $f))").unwrap();
    }
    text.push(')');
    let pool = Pool::builder().no_housekeeper().build().unwrap();
    let definition = Definition::new("missing").wasm(wat(&text));
    let error = pool.define::<(), ()>(definition).unwrap_err().to_string();
    assert!(error.contains("and 19992 more"), "{error}");
    assert!(error.len() < 2000, "{} bytes of error", error.len());
}

/// Panics when it is dropped.
struct Touchy;

impl Drop for Touchy {
    fn drop(&mut self) {
        panic!("do not drop me");
    }
}

#[test]
fn store_data_that_panics_when_dropped_costs_nothing() {
    let (tell, told) = std::sync::mpsc::channel();
    let pool = Pool::builder_with(|_, _| Touchy)
        .no_housekeeper()
        .removal_listener(move |eviction| tell.send(eviction.reason).unwrap())
        .build()
        .unwrap();
    let text = r#"(module (memory 1) (func (export "f")) (func (export "trap") unreachable))"#;
    let f = pool
        .define::<(), ()>(Definition::new("f").wasm(wat(text)))
        .unwrap();
    let trap = pool
        .define::<(), ()>(Definition::new("trap").wasm(wat(text)))
        .unwrap();
    f.call(1, ()).unwrap();
    trap.call(1, ()).unwrap_err();
    assert_eq!(told.try_recv(), Ok(RemovalReason::Failed));
    assert_eq!(pool.retain(|_| false), 1);
    assert_eq!(told.try_recv(), Ok(RemovalReason::NotRetained));
    check(&pool);
    f.call(1, ()).unwrap();
    pool.close();
    check_empty(&pool);
}
