//! What processes have compiled is an artifact as any other.

use wasm_pool::{Artifacts, CodeOrigin, Definition, Function, MemoryStore, PrecompileOutcome};

use crate::common::*;
use crate::{alone, builder, helper};

fn artifacts() -> Artifacts {
    let store = MemoryStore::new(64 << 20);
    Artifacts::builder()
        .secret(b"of the host")
        .store(store)
        .build()
}

#[test]
fn what_a_process_has_compiled_is_found_by_pools_that_compile_here() {
    let _alone = alone();
    let kept = artifacts();
    let pool = builder(256 << 20, helper())
        .artifacts(&kept)
        .build()
        .unwrap();
    assert_eq!(define(&pool, "f", answering(3)).call(1, ()).unwrap(), 3);
    let here = one_at_a_time().artifacts(&kept).build().unwrap();
    let f = define(&here, "f", answering(3));
    assert_eq!(f.prepare().unwrap().origin, CodeOrigin::Loaded);
    assert_eq!(f.call(1, ()).unwrap(), 3);
    assert_eq!(
        (check(&pool).compilations, check(&here).compilations),
        (1, 0)
    );
}

#[test]
fn processes_precompile() {
    let _alone = alone();
    let kept = artifacts();
    let pool = builder(256 << 20, helper())
        .artifacts(&kept)
        .build()
        .unwrap();
    let before = charges(&pool);
    let modules = || {
        [
            ("a", answering(1)),
            ("b", guest("text_soundex")),
            ("c", answering(1)),
        ]
    };
    let outcomes = |pool: &wasm_pool::Pool| {
        let all = pool.precompile(modules());
        all.map(|module| module.outcome.unwrap())
            .collect::<Vec<_>>()
    };
    let (compiled, present) = (PrecompileOutcome::Compiled, PrecompileOutcome::Present);
    assert_eq!(outcomes(&pool), [compiled, compiled, present]);
    assert_eq!(outcomes(&pool), [present; 3]);
    assert_eq!(charges(&pool), before);
}

#[cfg(feature = "warm-up")]
#[test]
fn processes_compile_what_is_warmed_up() {
    let _alone = alone();
    let pool = builder(256 << 20, helper()).build().unwrap();
    let before = charges(&pool);
    let wasm = wat(r#"(module (global $n (mut i32) (i32.const 1))
        (func (export "init") (global.set $n (i32.const 41)))
        (func (export "f") (result i32) (i32.add (global.get $n) (i32.const 1))))"#);
    let f: Function<(), i32> = pool
        .define(Definition::new("f").wasm(wasm).warm_up("init"))
        .unwrap();
    assert_eq!(f.call(1, ()).unwrap(), 42);
    let stats = check(&pool);
    assert_eq!((stats.warm_ups, stats.compilations), (1, 1));
    pool.remove("f").unwrap();
    pool.sweep();
    assert_eq!(charges(&pool), before);
}
