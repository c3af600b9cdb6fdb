//! What is measured: each subject does one thing `n` times and says how long that took. Both
//! `benches/pool` (criterion) and `benches/targets` run them.
#![allow(dead_code, reason = "each bench uses its own part")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use wasm_pool::{Definition, Function, Pool, PoolBuilder};

pub mod artifacts;
pub mod bookkeeping;
pub mod by_hand;
pub mod cold;
pub mod eviction;
#[path = "../../tests/common/heap.rs"]
pub mod heap;
#[cfg(target_os = "linux")]
pub mod host_memory;
pub mod many;
pub mod pristine;
pub mod tasks;
pub mod tenants;
pub mod threads;
pub mod warm;
#[cfg(feature = "warm-up")]
pub mod warm_up;

/// The guest that warm subjects call: `add(i64, i64) -> i64`, compiled from Rust.
pub const ADD: &[u8] = include_bytes!("../../examples/guests/prebuilt/math_add.wasm");
/// A guest with a memory and data of its own.
pub const SOUNDEX: &[u8] = include_bytes!("../../examples/guests/prebuilt/text_soundex.wasm");
/// A guest that takes some time to compile: 100 kB.
pub const JSON: &[u8] = include_bytes!("../../examples/guests/prebuilt/json_extract.wasm");
/// A guest that takes long to compile: 1.1 MB.
pub const REGEX: &[u8] = include_bytes!("../../examples/guests/prebuilt/text_regex_match.wasm");

pub type Add = Function<(i64, i64), i64>;

/// Something that can be done any number of times.
pub struct Subject {
    pub name: &'static str,
    run: Box<dyn FnMut(u64) -> Duration>,
}

impl Subject {
    /// A subject that measures itself.
    pub fn new(name: &'static str, run: impl FnMut(u64) -> Duration + 'static) -> Self {
        let run = Box::new(run);
        Self { name, run }
    }

    /// One guest call after the other; every sum is looked at.
    pub fn calls(name: &'static str, mut add: impl FnMut(i64, i64) -> i64 + 'static) -> Self {
        Self::new(name, move |n| sums(n, &mut add))
    }

    /// Something without a result.
    pub fn repeats(name: &'static str, mut act: impl FnMut() + 'static) -> Self {
        Self::new(name, move |n| {
            let began = Instant::now();
            (0..n).for_each(|_| act());
            began.elapsed()
        })
    }

    pub fn run(&mut self, n: u64) -> Duration {
        (self.run)(n)
    }

    /// Nanoseconds for each of `n`.
    pub fn nanos(&mut self, n: u64) -> f64 {
        self.run(n).as_nanos() as f64 / n as f64
    }
}

/// Adds one to each number below `n`.
#[inline]
pub fn sums(n: u64, add: &mut impl FnMut(i64, i64) -> i64) -> Duration {
    let began = Instant::now();
    for i in 0..n as i64 {
        assert_eq!(add(black_box(i), 1), i + 1);
    }
    began.elapsed()
}

/// A pool as its builder makes it, with `add` defined.
pub fn pool() -> (Pool, Add) {
    pool_of(Pool::builder())
}

pub fn pool_of(builder: PoolBuilder) -> (Pool, Add) {
    let pool = builder.build().expect("a plain pool");
    let definition = Definition::new("math.add").wasm(ADD);
    let add = pool.define(definition).expect("a good guest");
    (pool, add)
}
