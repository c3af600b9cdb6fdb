//! Pools and functions as most tests want them.

use std::sync::{Arc, mpsc};

use pollster::block_on;
use wasm_pool::{AcquireError, Definition, Function, Lease, ManualClock, Pool, PoolBuilder};

use super::memory_module;

/// Of a pool whose time stands still, and that does nothing by itself.
pub fn quiet() -> PoolBuilder {
    quiet_with_clock().0
}

/// The same, with the clock that moves its time.
pub fn quiet_with_clock() -> (PoolBuilder, ManualClock) {
    let clock = ManualClock::new();
    (Pool::builder().clock(clock.clone()).no_housekeeper(), clock)
}

/// Of a pool in whose entries each lease must end before the next begins.
pub fn one_at_a_time() -> PoolBuilder {
    Pool::builder().no_housekeeper().max_instances_per_entry(1)
}

/// Calls the export `f` of this module.
pub fn definition(name: &str, wasm: impl Into<Arc<[u8]>>) -> Definition {
    Definition::new(name).wasm(wasm).export("f")
}

/// Calls the function `f` of this module, by that name.
pub fn f(wasm: impl Into<Arc<[u8]>>) -> Definition {
    Definition::new("f").wasm(wasm)
}

/// A function that calls the export `f` of this module.
pub fn define<T: Send + 'static>(
    pool: &Pool<T>,
    name: &str,
    wasm: impl Into<Arc<[u8]>>,
) -> Function<(), i32, T> {
    pool.define(definition(name, wasm)).unwrap()
}

/// A definition with `pages` pages of memory and, by its name, a module of its own; it returns 1.
pub fn definition_with_pages(name: &str, pages: u32) -> Definition {
    let salt = |hash: u32, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte));
    definition(name, memory_module(pages, name.bytes().fold(pages, salt)))
}

/// A function of such a definition.
pub fn define_with_pages<T: Send + 'static>(
    pool: &Pool<T>,
    name: &str,
    pages: u32,
) -> Function<(), i32, T> {
    pool.define(definition_with_pages(name, pages)).unwrap()
}

/// A function that counts its instance's calls: a fresh instance says 1.
pub fn counter<T: Send + 'static>(pool: &Pool<T>) -> Function<(), i64, T> {
    let definition = Definition::new("state.next").wasm(super::guest("state_counter"));
    pool.define(definition).unwrap()
}

/// A task's lease.
pub fn lease_of_a_task(f: &Function<(), i32>, group: u64) -> Lease<'static, (), i32> {
    block_on(f.acquire_async(group)).unwrap()
}

/// It was refused because the pool is closed.
#[track_caller]
pub fn is_closed<X>(result: Result<X, AcquireError>) {
    let error = result.map(drop).unwrap_err();
    assert!(matches!(error, AcquireError::Closed { .. }), "{error}");
}

/// As an executor of many threads needs it.
pub fn is_send<T: Send>(_: &T) {}

/// An executor on the thread that blocks on it.
pub fn one_thread() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
}

/// Bytes of `compile` that compiling this reserves, as a plain pool says that did it. `tests/compilations` compares
/// them with what is taken.
pub fn compile_need(wasm: &[u8], export: &str) -> u64 {
    let (tell, told) = mpsc::channel();
    let hook = move |compiled: &wasm_pool::Compiled| tell.send(compiled.reserved_bytes).unwrap();
    let pool = quiet().on_compiled(hook).build().unwrap();
    let definition = Definition::new("measured").wasm(wasm).export(export);
    let function: Function = pool.define(definition).unwrap();
    function.prepare().unwrap();
    told.recv().unwrap()
}
