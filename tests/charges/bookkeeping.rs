//! What the pool's own books take of the heap: for a definition, for a (function, group), and for
//! an idle instance beyond what wasmtime itself takes.

use std::sync::Arc;

use crate::common::child::is_child;
use crate::common::{answering, check, heap};
use wasm_pool::{Definition, Function, InGroup, ManualClock, Pool, PoolBuilder};
use wasmtime::{Engine, Instance, Module, Store};

const MANY: u64 = 10_000;

/// Bytes of heap that `work` leaves in use, and its result, which is kept meanwhile.
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
        .call_timeout(None)
}

fn bytes_per_definition(pool: &Pool) -> u64 {
    let wasm: Arc<[u8]> = answering(1).into();
    let define = |n| {
        let definition = Definition::new(format!("schema.function_{n:05}"))
            .args(["bigint", "bigint"])
            .wasm(wasm.clone())
            .export("f");
        pool.define::<(), i32>(definition).map(drop).unwrap();
    };
    define(MANY);
    let ((), bytes) = kept_by(|| (0..MANY).for_each(define));
    bytes / MANY
}

/// Handles are kept, so that nothing is forgotten; what they take themselves is not counted.
fn bytes_per_entry(engine: &Engine, seats: usize) -> u64 {
    let pool = quiet(engine)
        .max_instances_per_entry(seats)
        .build()
        .unwrap();
    let function: Function<(), i32> = pool
        .define(Definition::new("f").wasm(answering(1)))
        .unwrap();
    let mut handles = Vec::with_capacity(MANY as usize);
    let ((), bytes) = kept_by(|| handles.extend((0..MANY).map(|group| function.in_group(group))));
    let handles: Vec<InGroup<(), i32>> = handles;
    assert_eq!(handles.len() as u64, MANY);
    bytes / MANY
}

/// Of a pool, and of wasmtime alone.
fn bytes_per_instance(engine: &Engine) -> (u64, u64) {
    const COUNT: u64 = 1000;
    let wasm = answering(1);
    let module = Module::new(engine, &wasm).unwrap();
    let bare = |_| {
        let mut store = Store::new(engine, ());
        let instance = Instance::new(&mut store, &module, &[]).unwrap();
        let main = instance.get_func(&mut store, "f").unwrap();
        (store, main)
    };
    bare(0);
    let mut stores = Vec::with_capacity(COUNT as usize);
    let ((), bare) = kept_by(|| stores.extend((0..COUNT).map(bare)));
    drop(stores);

    let pool = quiet(engine).max_instances_per_entry(1).build().unwrap();
    let function: Function<(), i32> = pool.define(Definition::new("f").wasm(wasm)).unwrap();
    let handles: Vec<_> = (0..COUNT).map(|group| function.in_group(group)).collect();
    function.call(COUNT, ()).unwrap();
    let ((), pooled) = kept_by(|| {
        for handle in &handles {
            assert_eq!(handle.call(()).unwrap(), 1);
        }
    });
    assert_eq!(check(&pool).idle as u64, COUNT + 1);
    (pooled / COUNT, bare / COUNT)
}

#[test]
fn a_definition_takes_half_a_kibibyte() {
    if !is_child("bookkeeping::a_definition_takes_half_a_kibibyte", "") {
        return;
    }
    let pool = quiet(&Engine::default()).build().unwrap();
    let bytes = bytes_per_definition(&pool);
    println!("bytes per definition: {bytes}");
    assert!(bytes <= 512, "{bytes} bytes per definition");
}

#[test]
fn an_entry_takes_what_its_seats_take() {
    if !is_child("bookkeeping::an_entry_takes_what_its_seats_take", "") {
        return;
    }
    let engine = Engine::default();
    let [one, eight] = [1, 8].map(|seats| bytes_per_entry(&engine, seats));
    println!("bytes per (function, group) without instances: {one} with 1 seat, {eight} with 8");
    assert!(one <= 640, "{one} bytes with one seat");
    // A seat is a cache line, or two, of its own.
    assert!(
        eight - one <= 7 * 160,
        "{} bytes for seven more seats",
        eight - one
    );
}

#[test]
fn an_idle_instance_takes_half_a_kibibyte_beyond_wasmtimes_own() {
    if !is_child(
        "bookkeeping::an_idle_instance_takes_half_a_kibibyte_beyond_wasmtimes_own",
        "",
    ) {
        return;
    }
    let (pooled, bare) = bytes_per_instance(&Engine::default());
    println!("bytes per idle instance: {pooled}, of which wasmtime's own {bare}");
    assert!(
        pooled - bare <= 512,
        "{} bytes beyond wasmtime's",
        pooled - bare
    );
}

#[test]
fn a_warm_lease_allocates_nothing_however_long_its_groups_name_is() {
    if !is_child(
        "bookkeeping::a_warm_lease_allocates_nothing_however_long_its_groups_name_is",
        "",
    ) {
        return;
    }
    let pool = quiet(&Engine::default()).build().unwrap();
    let definition = Definition::new("f").wasm(answering(1));
    let function: Function<(), i32> = pool.define(definition).unwrap();
    for len in [0, 7, 22, 23, 1000] {
        let name = "n".repeat(len);
        let key = pool.group(&name);
        let lease = || {
            function.call(&name, ()).unwrap();
            function.call(key, ()).unwrap();
        };
        // Until the slot is this thread's.
        (0..20).for_each(|_| lease());
        let ((), peak) = heap::peak_during(lease);
        assert_eq!(peak, 0, "{len} bytes");
    }
}
