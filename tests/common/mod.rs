//! What the tests share: real guests, small hand-written ones, and a look at the books.
#![allow(dead_code, reason = "each test file uses its own part")]

pub mod heap;

use wasm_pool::{Budget, Pool, Stats};

/// A prebuilt guest of `examples/guests`, by file name without `.wasm`.
pub fn guest(name: &str) -> Vec<u8> {
    let path = format!(
        "{}/examples/guests/prebuilt/{name}.wasm",
        env!("CARGO_MANIFEST_DIR")
    );
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
    pool.stats()
        .budgets()
        .map(|(budget, report)| (budget, report.charged))
        .collect()
}

/// Nothing is charged: the pool is closed, and all leases are back.
#[track_caller]
pub fn check_empty<T: Send + 'static>(pool: &Pool<T>) {
    for (budget, charged) in charges(pool) {
        assert_eq!(charged, 0, "{budget}");
    }
}

pub mod spans;

/// Looks again and again until the condition holds; gives up after a minute.
#[track_caller]
pub fn until(condition: impl Fn() -> bool) {
    let began = std::time::Instant::now();
    while !condition() {
        assert!(began.elapsed().as_secs() < 60, "it never became true");
        std::thread::yield_now();
    }
}

/// Runs something while another thread moves the pool's epoch, as fast as it can.
pub fn with_ticks<T: Send + 'static, R>(pool: &Pool<T>, run: impl FnOnce() -> R) -> R {
    use std::sync::atomic::{AtomicBool, Ordering};
    struct Done<'a>(&'a AtomicBool);
    impl Drop for Done<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                pool.tick();
                std::thread::yield_now();
            }
        });
        let _done = Done(&done);
        run()
    })
}

/// A module without memory whose export `f` returns `answer`.
pub fn answering(answer: i32) -> Vec<u8> {
    wat(&format!(
        r#"(module (func (export "f") (result i32) i32.const {answer}))"#
    ))
}
