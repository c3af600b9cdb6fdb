//! The contenders: what holds instances that grow.

use std::time::Duration;

use wasm_pool::{Budget, Definition, Function, Limits, Pool};

use super::cached::Cached;
use super::caches;
use super::{BUDGET, INSTANCES};
use crate::peers::extism::pool_of;

/// Grows by so many pages and writes to all of them; the bytes that it has then, or −1.
pub const FILL: &str = r#"(module (memory (export "memory") 1)
    (func (export "fill") (param i64) (result i64)
        (if (i32.eq (memory.grow (i32.wrap_i64 (local.get 0))) (i32.const -1))
            (then (return (i64.const -1))))
        (memory.fill (i32.const 0) (i32.const 165) (i32.mul (memory.size) (i32.const 65536)))
        (i64.mul (i64.extend_i32_u (memory.size)) (i64.const 65536))))"#;

/// The same in extism's convention.
const FILL_PLUGIN: &str = r#"(module
    (import "extism:host/env" "input_load_u64" (func $input (param i64) (result i64)))
    (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
    (import "extism:host/env" "store_u64" (func $store (param i64 i64)))
    (import "extism:host/env" "output_set" (func $output (param i64 i64)))
    (memory (export "memory") 1)
    (func (export "fill") (result i32)
        (local $at i64) (local $old i32)
        (local.set $old (memory.grow (i32.wrap_i64 (call $input (i64.const 0)))))
        (memory.fill (i32.const 0) (i32.const 165) (i32.mul (memory.size) (i32.const 65536)))
        (local.set $at (call $alloc (i64.const 8)))
        (call $store (local.get $at) (i64.extend_i32_s (local.get $old)))
        (call $output (local.get $at) (i64.const 8))
        (i32.const 0)))"#;

pub const NAMES: [&str; 5] = ["wasm-pool", "moka", "quick_cache", "bare", "extism Pool"];

/// Keeps an instance for each group.
pub trait Filler: Sync {
    /// Lets the group's instance grow, holds it during `hold`, and gives it back.
    fn fill(&self, group: u64, pages: i64, hold: &dyn Fn()) -> bool;

    /// Drops the group's instance, if that can be asked for.
    fn forget(&self, _group: u64) {}

    /// The most bytes of memory that were charged, if anything is.
    fn charged(&self) -> Option<u64> {
        None
    }

    /// Does what is left to do when all is idle.
    fn settle(&self) {}
}

pub fn named(name: &str) -> Box<dyn Filler> {
    match name {
        "wasm-pool" => Box::new(Ours::new()),
        "moka" => Box::new(Cached::new(caches::moka())),
        "quick_cache" => Box::new(Cached::new(caches::quick_cache())),
        "bare" => Box::new(Cached::new(caches::map())),
        "extism Pool" => {
            let wasm = wat::parse_str(FILL_PLUGIN).expect("well-formed");
            Box::new(pool_of(wasm, INSTANCES))
        }
        other => panic!("no contender is called {other}"),
    }
}

struct Ours(Pool, Function<i64, i64>);

impl Ours {
    fn new() -> Self {
        let limits = Limits::new().memory(BUDGET);
        let pool = Pool::builder().limits(limits).build().expect("good limits");
        let definition = Definition::new("fill").wasm(wat::parse_str(FILL).expect("well-formed"));
        let fill = pool.define(definition).expect("a good guest");
        Self(pool, fill)
    }
}

impl Filler for Ours {
    fn fill(&self, group: u64, pages: i64, hold: &dyn Fn()) -> bool {
        let mut lease = self.1.acquire(group).expect("room for a small one");
        let bytes = lease.call(pages).expect("no trap");
        hold();
        bytes > 0
    }

    fn forget(&self, _: u64) {
        self.0.retain(|_| false);
    }

    fn charged(&self) -> Option<u64> {
        Some(self.0.stats().budget(Budget::Memory).peak)
    }
}

impl Filler for extism::Pool {
    fn fill(&self, _: u64, pages: i64, hold: &dyn Fn()) -> bool {
        let plugin = self.get(Duration::from_secs(10)).expect("it compiles");
        let mut plugin = plugin.expect("one is left");
        let old: i64 = plugin.call("fill", pages).expect("no trap");
        hold();
        old > 0
    }
}
