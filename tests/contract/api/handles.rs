//! Handles: what they say of themselves, clone, send, lend and give away.

use std::panic::{RefUnwindSafe, UnwindSafe, catch_unwind};

use wasm_pool::{
    AcquireError, Canceller, Definition, Function, Group, Imports, InGroup, Lease, Pool,
    PoolBuilder,
};
use wasmtime::{AsContext, AsContextMut};

use crate::common::{check, check_empty, memory_module};

fn pool() -> Pool {
    Pool::builder().no_housekeeper().build().unwrap()
}

fn define(pool: &Pool) -> Function<(), i32> {
    let definition = Definition::new("math.one").args(["int", "decimal(10, 2)"]);
    let definition = definition.wasm(memory_module(1, 1)).export("f");
    pool.define(definition).unwrap()
}

const SIGNATURE: &str = "math.one(int, decimal(10, 2))";

#[test]
fn everything_says_its_name_and_its_signature() {
    let left = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let pool = Pool::builder()
        .no_housekeeper()
        .removal_listener({
            let left = left.clone();
            move |e| left.lock().unwrap().push(e.clone())
        })
        .build()
        .unwrap();
    let f = define(&pool);
    assert_eq!((f.name(), f.signature()), ("math.one", SIGNATURE));
    let group = f.in_group("reports");
    assert_eq!((group.name(), group.signature()), ("math.one", SIGNATURE));
    assert_eq!(group.group(), &Group::from("reports"));
    assert_eq!(group.function().signature(), SIGNATURE);
    let lease = group.acquire().unwrap();
    assert_eq!((lease.name(), lease.signature()), ("math.one", SIGNATURE));
    drop(lease);

    let stats = pool.stats();
    let of_f = stats.function("math.one").unwrap();
    assert_eq!((of_f.name(), &*of_f.signature()), ("math.one", SIGNATURE));
    let holder = &stats.holders(wasm_pool::Budget::Memory)[0];
    assert_eq!((holder.name(), holder.signature()), ("math.one", SIGNATURE));
    let evicted = pool.retain(|idle| {
        assert_eq!((idle.name(), idle.signature()), ("math.one", SIGNATURE));
        false
    });
    assert_eq!(evicted, 1);
    let left = left.lock().unwrap();
    assert_eq!(
        (left[0].name(), left[0].signature()),
        ("math.one", SIGNATURE)
    );

    let held = pool.define::<(), i32>(Definition::new("f").wasm(memory_module(1, 2)));
    let held = held.unwrap();
    pool.close();
    let AcquireError::Closed { target } = held.acquire(7).unwrap_err() else {
        panic!("it is closed")
    };
    assert_eq!((target.name(), target.signature()), ("f", "f()"));
}

#[test]
fn a_group_of_a_function_that_is_gone_still_says_what_it_is() {
    let pool = pool();
    let f = define(&pool);
    pool.remove("math.one").unwrap();
    let group = f.in_group("reports");
    assert_eq!(group.group(), &Group::from("reports"));
    assert_eq!(group.signature(), SIGNATURE);
    assert!(matches!(
        group.clone().acquire(),
        Err(AcquireError::Removed { .. })
    ));
}

#[test]
fn a_clone_of_a_resolved_handle_keeps_its_entry_by_itself() {
    let pool = pool();
    let f = define(&pool);
    let first = f.in_group("kept");
    let clone = first.clone();
    drop(first);
    // More than the entries that a pool keeps though nobody uses them.
    for other in 0..1100 {
        drop(f.in_group(other));
    }
    assert_eq!(clone.call(()).unwrap(), 1);
    assert_eq!(clone.group(), &Group::from("kept"));
    drop(clone);
    check(&pool);
}

#[test]
fn an_owned_lease_outlives_handle_and_thread() {
    let pool = pool();
    let group = define(&pool).in_group(1);
    let cold = group.acquire_owned().unwrap();
    drop(cold);
    let mut warm: Lease<'static, (), i32> = group.acquire_owned().unwrap();
    drop(group);
    let answer = std::thread::spawn(move || warm.call(()).unwrap());
    assert_eq!(answer.join().unwrap(), 1);
    let stats = check(&pool);
    assert_eq!((stats.hits, stats.misses, stats.leased), (1, 1, 0));

    let group = define(&Pool::builder().build().unwrap()).in_group(1);
    let lease = pollster::block_on(group.acquire_owned_async()).unwrap();
    drop(group);
    let mut lease: Lease<'static, (), i32> = lease;
    assert_eq!(pollster::block_on(lease.call_async(())).unwrap(), 1);
    pool.close();
    check_empty(&pool);
}

#[test]
fn a_lease_is_a_context_of_wasmtime() {
    let pool = pool();
    let mut lease = define(&pool).acquire(1).unwrap();
    let memory = lease.memory().unwrap();
    assert_eq!(memory.data_size(&lease), 65_536);
    memory.write(&mut lease, 10, b"bytes").unwrap();
    assert_eq!(&memory.data(lease.store())[10..15], b"bytes");
    memory.data_mut(lease.store_mut())[10] = b'B';
    assert_eq!(&memory.data(lease.as_context())[10..15], b"Bytes");
    assert_eq!(lease.as_context_mut().data().memory_bytes(), 65_536);
}

#[test]
fn an_export_clones() {
    let pool = pool();
    let mut lease = define(&pool).acquire(1).unwrap();
    let salt = lease.export::<(), i32>("salt").unwrap();
    let again = salt.clone();
    drop(salt);
    assert_eq!(again.call(&mut lease, ()).unwrap(), 1);
}

#[test]
fn what_should_be_sent_and_shared_can_be() {
    fn all<X: Send + Sync + Clone + UnwindSafe + RefUnwindSafe>() {}
    fn send<X: Send>() {}
    // Neither Sync nor RefUnwindSafe by itself.
    type Data = std::cell::Cell<u8>;
    all::<Pool<Data>>();
    all::<Function<(), i32, Data>>();
    all::<InGroup<(), i32, Data>>();
    all::<Canceller>();
    all::<Imports<Data>>();
    send::<PoolBuilder<Data>>();
    send::<Lease<'static, (), i32, Data>>();
}

#[test]
fn a_handle_survives_a_panic_that_passes_it() {
    let pool = Pool::builder()
        .no_housekeeper()
        .imports(|linker| {
            linker.func_wrap("host", "panic", || -> () { panic!("on purpose") })?;
            Ok(())
        })
        .build()
        .unwrap();
    let wasm = wat::parse_str(
        r#"(module (import "host" "panic" (func $panic (result)))
            (func (export "f") (param i32) (result i32)
                (if (local.get 0) (then (call $panic))) (i32.const 1)))"#,
    );
    let f = pool
        .define::<i32, i32>(Definition::new("f").wasm(wasm.unwrap()))
        .unwrap();
    let group = f.in_group(1);
    assert!(catch_unwind(|| group.call(1)).is_err());
    assert_eq!(group.call(0).unwrap(), 1);
    let stats = check(&pool);
    assert_eq!((stats.misses, stats.idle, stats.leased), (2, 1, 0));
}
