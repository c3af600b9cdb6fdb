//! What is measured: each subject does one thing `n` times and says how long that took. Both
//! `benches/pool` (criterion) and `benches/targets` run them.

use std::hint::black_box;
use std::time::{Duration, Instant};

pub mod by_hand;
pub mod warm;

/// The guest that all warm subjects call: `add(i64, i64) -> i64`, compiled from Rust.
pub const ADD: &[u8] = include_bytes!("../../examples/guests/prebuilt/math_add.wasm");

/// Something that can be done any number of times.
pub struct Subject<'a> {
    pub name: &'static str,
    run: Box<dyn FnMut(u64) -> Duration + 'a>,
}

impl<'a> Subject<'a> {
    /// A subject that measures itself.
    pub fn new(name: &'static str, run: impl FnMut(u64) -> Duration + 'a) -> Self {
        let run = Box::new(run);
        Self { name, run }
    }

    /// A subject of one guest call at a time; every sum is looked at.
    pub fn calls(name: &'static str, mut add: impl FnMut(i64, i64) -> i64 + 'a) -> Self {
        Self::new(name, move |n| {
            let began = Instant::now();
            for i in 0..n as i64 {
                assert_eq!(add(black_box(i), 1), i + 1, "{name}");
            }
            began.elapsed()
        })
    }

    /// A subject without a result.
    pub fn repeats(name: &'static str, mut act: impl FnMut() + 'a) -> Self {
        Self::new(name, move |n| {
            let began = Instant::now();
            (0..n).for_each(|_| act());
            began.elapsed()
        })
    }

    pub fn run(&mut self, n: u64) -> Duration {
        (self.run)(n)
    }
}
