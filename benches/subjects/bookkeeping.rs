//! Bytes of heap, by a counting allocator, which the bench must install.

use std::sync::Arc;

use wasm_pool::{Definition, Function, ManualClock, Pool, PoolBuilder};
use wasmtime::{Engine, Instance, Module, Store};

use super::{ADD, REGEX, by_hand, heap};

const MANY: u64 = 10_000;

/// Bytes that `work` leaves in use, while its result is kept.
fn kept_by<R>(work: impl FnOnce() -> R) -> (R, u64) {
    let before = heap::in_use();
    let result = work();
    (result, heap::in_use().saturating_sub(before))
}

fn quiet(engine: &Engine) -> PoolBuilder {
    Pool::builder()
        .clock(ManualClock::new())
        .no_housekeeper()
        .engine(engine.clone())
        .max_instances_per_entry(1)
}

pub fn per_definition() -> u64 {
    let pool = quiet(&by_hand::engine()).build().expect("a plain pool");
    let wasm: Arc<[u8]> = ADD.into();
    let define = |n| {
        let definition = Definition::new(format!("schema.function_{n:05}"))
            .args(["bigint", "bigint"])
            .wasm(wasm.clone())
            .export("add");
        let defined = pool.define::<(i64, i64), i64>(definition);
        drop(defined.expect("a good guest"));
    };
    define(MANY);
    let ((), bytes) = kept_by(|| (0..MANY).for_each(define));
    bytes / MANY
}

/// Bytes for an idle instance of a resolved entry, beyond those of a bare store with an instance.
pub fn per_idle_instance() -> u64 {
    const COUNT: u64 = 1000;
    let engine = by_hand::engine();
    let module = Module::new(&engine, ADD).expect("the guest compiles");
    let bare = |_| {
        let mut store = Store::new(&engine, ());
        Instance::new(&mut store, &module, &[]).expect("the guest imports nothing");
        store
    };
    bare(0);
    let mut stores = Vec::with_capacity(COUNT as usize);
    let ((), bare) = kept_by(|| stores.extend((0..COUNT).map(bare)));
    drop(stores);

    let pool = quiet(&engine).build().expect("a plain pool");
    let definition = Definition::new("math.add").wasm(ADD);
    let add: Function<(i64, i64), i64> = pool.define(definition).expect("a good guest");
    let groups: Vec<_> = (0..COUNT).map(|group| add.in_group(group)).collect();
    add.call(COUNT, (1, 2)).expect("adds");
    let ((), pooled) = kept_by(|| {
        for group in &groups {
            assert_eq!(group.call((1, 2)).expect("adds"), 3);
        }
    });
    assert_eq!(pool.stats().idle as u64, COUNT + 1);
    pooled.saturating_sub(bare) / COUNT
}

/// Bytes that compiling a large module leaves on the heap when the module is gone: with the pool,
/// and in an engine that compiled it.
pub fn kept_after_compiling() -> [u64; 2] {
    let pool = Pool::builder().build().expect("a plain pool");
    let compile = || {
        let definition = Definition::new("text.regex_match").wasm(REGEX);
        let function: Function = pool.define(definition).expect("a good guest");
        drop(function.acquire(0).expect("room"));
        pool.remove("text.regex_match").expect("it is defined");
        assert_eq!(pool.stats().idle, 0);
    };
    let ((), pooled) = kept_by(compile);
    let engine = by_hand::engine();
    let (module, bare) = kept_by(|| drop(Module::new(&engine, REGEX).expect("it compiles")));
    let () = module;
    [pooled, bare]
}
