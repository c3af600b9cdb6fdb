//! What the host is told of compilations, and what it tells of them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use wasm_pool::{Budget, Compiled, Definition, Limits, Pool, PoolBuilder};

use crate::common::{answering, charged, check, guest, wat};

type Told = Arc<Mutex<Vec<Compiled>>>;

fn telling(builder: PoolBuilder) -> (PoolBuilder, Told) {
    let told = Told::default();
    let heard = told.clone();
    let builder = builder
        .no_housekeeper()
        .on_compiled(move |compiled| heard.lock().unwrap().push(compiled.clone()));
    (builder, told)
}

#[test]
fn the_host_is_told_of_each_compilation() {
    let (builder, told) = telling(Pool::builder());
    let pool = builder.build().unwrap();
    let wasm = answering(7);
    let bytes = wasm.len() as u64;
    let f = pool
        .define::<(), i32>(Definition::new("seven").wasm(wasm).export("f"))
        .unwrap();
    assert_eq!(f.call("tenant", ()).unwrap(), 7);
    assert_eq!(f.call("another", ()).unwrap(), 7);
    let told = told.lock().unwrap();
    let [compiled] = &told[..] else {
        panic!("{told:?}");
    };
    assert_eq!(
        (compiled.name(), compiled.group.name()),
        ("seven", Some("tenant"))
    );
    assert_eq!((compiled.wasm_bytes, compiled.heap_bytes), (bytes, None));
    assert!(compiled.succeeded && compiled.reserved_bytes > 0);
    assert_eq!(
        pool.stats().budget(Budget::Compile).peak,
        compiled.reserved_bytes
    );
}

#[test]
fn it_may_look_at_the_pool_and_panic_and_hears_of_failures() {
    let pool: Arc<Mutex<Option<Pool>>> = Arc::default();
    let seen = Arc::new(AtomicU64::new(0));
    let (known, reserved) = (pool.clone(), seen.clone());
    let built = Pool::builder()
        .no_housekeeper()
        .on_compiled(move |compiled| {
            let pool = known.lock().unwrap().clone().unwrap();
            reserved.store(charged(&pool, Budget::Compile), Ordering::Relaxed);
            assert!(!compiled.succeeded, "on purpose");
        })
        .build()
        .unwrap();
    *pool.lock().unwrap() = Some(built.clone());
    let f = built
        .define::<(), i32>(Definition::new("f").wasm(answering(1)))
        .unwrap();
    assert_eq!(f.call(1, ()).unwrap(), 1, "its panic is nobody's");
    assert!(
        seen.swap(0, Ordering::Relaxed) > 0,
        "the room is still reserved"
    );

    // An operator that lacks its operands.
    let mut invalid = wat(r#"(module (func (export "g") (drop (i32.const 77))))"#);
    let at = invalid
        .windows(3)
        .position(|w| w == [0x41, 0xcd, 0x00])
        .unwrap();
    invalid[at..at + 3].copy_from_slice(&[0x01, 0x01, 0x01]);
    let g = built
        .define::<(), ()>(Definition::new("g").wasm(invalid))
        .unwrap();
    g.call(1, ()).unwrap_err();
    assert!(seen.load(Ordering::Relaxed) > 0);
    assert_eq!(charged(&built, Budget::Compile), 0);
    check(&built);
    pool.lock().unwrap().take();
}

#[test]
fn what_a_module_took_is_reserved_when_it_is_compiled_again() {
    const TOOK: u64 = 32 << 20;
    let (builder, told) = telling(Pool::builder());
    let pool = builder
        .compile_probe(|compile| {
            compile();
            Some(TOOK)
        })
        .build()
        .unwrap();
    let f = pool
        .define::<(), i32>(Definition::new("f").wasm(answering(1)))
        .unwrap();
    f.call(1, ()).unwrap();
    pool.retain(|_| false);
    let code = charged(&pool, Budget::Code);
    pool.set_limits(Limits::new().code(1)).unwrap();
    assert_eq!(
        charged(&pool, Budget::Code),
        0,
        "{code} bytes of code are gone"
    );
    pool.set_limits(Limits::new()).unwrap();
    f.call(1, ()).unwrap();
    let told = told.lock().unwrap();
    let [first, again] = &told[..] else {
        panic!("{told:?}");
    };
    assert_eq!(
        (first.heap_bytes, again.heap_bytes),
        (Some(TOOK), Some(TOOK))
    );
    assert!(first.reserved_bytes < TOOK);
    assert!(
        (TOOK..TOOK + TOOK / 16).contains(&again.reserved_bytes),
        "{again:?}"
    );
    assert_eq!(
        pool.stats().budget(Budget::Compile).peak,
        again.reserved_bytes
    );
}

#[test]
fn a_probe_that_forgets_to_compile_does_no_harm() {
    let (builder, told) = telling(Pool::builder());
    let pool = builder.compile_probe(|_| Some(5)).build().unwrap();
    let f = pool
        .define::<(), i32>(Definition::new("f").wasm(answering(1)))
        .unwrap();
    assert_eq!(f.call(1, ()).unwrap(), 1);
    assert_eq!(
        told.lock().unwrap()[0].heap_bytes,
        None,
        "nothing was measured"
    );

    let pool = Pool::builder()
        .compile_probe(|_| panic!("on purpose"))
        .no_housekeeper()
        .build()
        .unwrap();
    let f = pool
        .define::<(), i32>(Definition::new("f").wasm(answering(1)))
        .unwrap();
    f.call(1, ()).unwrap_err();
    check(&pool);
}

#[test]
fn a_budget_that_is_smaller_than_what_is_needed_refuses() {
    let pool = Pool::builder()
        .limits(Limits::new().compile(1 << 20))
        .no_housekeeper()
        .build()
        .unwrap();
    let f = pool
        .define::<wasm_pool::Dynamic, wasm_pool::Dynamic>(
            Definition::new("f")
                .wasm(guest("text_markdown"))
                .export("markdown"),
        )
        .unwrap();
    let error = f.acquire(1).unwrap_err();
    let wasm_pool::AcquireError::BudgetExceeded(exceeded) = &error else {
        panic!("{error}");
    };
    assert_eq!(exceeded.budget, Budget::Compile);
    assert!(exceeded.requested > 16 << 20, "{exceeded}");
    assert_eq!(pool.stats().compilations, 0);
}
