//! extism's `Pool`, with its own wasmtime, convention and kernel.

use std::time::Duration;

use extism::{Manifest, Pool, PoolBuilder, Wasm};

use crate::measure::Peer;
use crate::peers::INSTANCES;
use crate::workers::Seat;

/// Plugins get their input and leave their output in the kernel's memory; extism's Rust guests do
/// what this one does, and more.
const ADD: &str = r#"(module
    (import "extism:host/env" "input_load_u64" (func $input (param i64) (result i64)))
    (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
    (import "extism:host/env" "store_u64" (func $store (param i64 i64)))
    (import "extism:host/env" "output_set" (func $output (param i64 i64)))
    (memory (export "memory") 1)
    (func (export "add") (result i32)
        (local $at i64)
        (local.set $at (call $alloc (i64.const 8)))
        (call $store (local.get $at)
            (i64.add (call $input (i64.const 0)) (call $input (i64.const 8))))
        (call $output (local.get $at) (i64.const 8))
        (i32.const 0)))"#;

/// Plugins with a time-out of 30 s, counted afresh for each call.
pub struct Extism(Pool);

/// A pool whose plugins are each compiled from this module, as the README of extism has it, without
/// the cache on disk.
pub fn pool_of(wasm: Vec<u8>, instances: usize) -> Pool {
    let manifest = Manifest::new([Wasm::data(wasm)]).with_timeout(Duration::from_secs(30));
    PoolBuilder::new()
        .with_max_instances(instances)
        .build(move || {
            extism::PluginBuilder::new(&manifest)
                .with_cache_disabled()
                .build()
        })
}

impl Extism {
    pub fn new() -> Self {
        let wasm = wat::parse_str(ADD).expect("the plugin is well-formed");
        Self(pool_of(wasm, INSTANCES))
    }
}

impl Peer for Extism {
    type Hand = ();

    fn hand(&self, _: &Seat, _: u64) {}

    #[inline]
    fn call(&self, (): &mut (), a: i64, b: i64) -> i64 {
        let mut input = [0; 16];
        input[..8].copy_from_slice(&a.to_le_bytes());
        input[8..].copy_from_slice(&b.to_le_bytes());
        let plugin = self.0.get(Duration::from_secs(10)).expect("it compiles");
        let mut plugin = plugin.expect("a plugin comes back soon");
        plugin.call("add", &input[..]).expect("it adds")
    }
}
