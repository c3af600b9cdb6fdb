//! What the tests share: real guests, small hand-written ones, and a look at the books.
#![allow(dead_code, reason = "each test file uses its own part")]

use wasm_pool::{Budget, Pool, Stats};

/// A prebuilt guest of `examples/guests`, by file name without `.wasm`.
pub fn guest(name: &str) -> Vec<u8> {
    let path = format!("{}/examples/guests/prebuilt/{name}.wasm", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A module from its text.
pub fn wat(text: &str) -> Vec<u8> {
    wat::parse_str(text).expect("the text is valid")
}

/// A module with `pages` pages of memory, of `salt`'s own identity, whose export `f` returns 1.
pub fn memory_module(pages: u32, salt: u32) -> Vec<u8> {
    wat(&format!(
        r#"(module (memory (export "memory") {pages})
            (func (export "f") (result i32) i32.const 1)
            (func (export "salt") (result i32) i32.const {salt})
            (func (export "grow") (param i32) (result i32) local.get 0 memory.grow))"#
    ))
}

/// Every invariant of the books holds, and no budget is overdrawn.
#[track_caller]
pub fn check<T: Send + 'static>(pool: &Pool<T>) -> Stats {
    pool.recount().unwrap();
    let stats = pool.stats();
    for (budget, report) in stats.budgets() {
        assert!(report.charged <= report.limit, "{budget}: {report:?}");
        assert!(report.peak <= report.limit, "{budget}: {report:?}");
    }
    stats
}

/// What is charged now, budget by budget.
pub fn charges<T: Send + 'static>(pool: &Pool<T>) -> Vec<(Budget, u64)> {
    pool.stats().budgets().map(|(budget, report)| (budget, report.charged)).collect()
}

/// Nothing is charged: the pool is closed, and all leases are back.
#[track_caller]
pub fn check_empty<T: Send + 'static>(pool: &Pool<T>) {
    for (budget, charged) in charges(pool) {
        assert_eq!(charged, 0, "{budget}");
    }
}
