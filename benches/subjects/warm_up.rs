//! The first call of a guest that builds its tables first, as interpreters do; and of one that was warmed up.

use std::time::Instant;

use wasm_pool::{Artifacts, Definition, Function, MemoryStore, Pool};

use super::Subject;

/// `run` looks a hash up in a table of 65,536, and fills that before if nobody has: each entry takes a thousand
/// rounds of a mixing function.
const GUEST: &str = r#"(module
    (memory 9)
    (global $ready (mut i32) (i32.const 0))
    (func $mix (param $x i64) (result i64) (local $round i32)
        (loop $again
            (local.set $x (i64.mul (i64.const 0xbf58476d1ce4e5b9)
                (i64.xor (local.get $x) (i64.shr_u (local.get $x) (i64.const 30)))))
            (local.set $round (i32.add (local.get $round) (i32.const 1)))
            (br_if $again (i32.lt_u (local.get $round) (i32.const 1000))))
        (local.get $x))
    (func $init (export "init") (local $entry i32)
        (if (global.get $ready) (then (return)))
        (loop $next
            (i64.store (i32.shl (local.get $entry) (i32.const 3))
                (call $mix (i64.extend_i32_u (i32.add (local.get $entry) (i32.const 1)))))
            (local.set $entry (i32.add (local.get $entry) (i32.const 1)))
            (br_if $next (i32.lt_u (local.get $entry) (i32.const 65536))))
        (global.set $ready (i32.const 1)))
    (func (export "run") (param i32) (result i64)
        (call $init)
        (i64.load (i32.shl (local.get 0) (i32.const 3)))))"#;

/// The first call in a new pool, which finds artifacts of the module.
fn first_call(name: &'static str, set: fn(Definition) -> Definition) -> Subject {
    let artifacts = Artifacts::builder()
        .store(MemoryStore::new(64 << 20))
        .no_keeper()
        .build();
    let wasm = wat::parse_str(GUEST).expect("the text is valid");
    let call = move || {
        let pool = Pool::builder().artifacts(&artifacts).build();
        let pool = pool.expect("a plain pool");
        let definition = Definition::new("script.run").wasm(wasm.clone());
        let run: Function<i32, i64> = pool.define(set(definition)).expect("a good guest");
        let began = Instant::now();
        assert_ne!(run.call(0, 7).expect("room"), 0);
        (began.elapsed(), pool.stats().compilations)
    };
    call();
    Subject::new(name, move |n| {
        let once = |_| {
            let (took, compilations) = call();
            assert_eq!(compilations, 0);
            took
        };
        (0..n).map(once).sum()
    })
}

/// It builds its tables in the call.
pub fn cold() -> Subject {
    first_call("first call, cold", |definition| definition)
}

/// They are in its snapshot.
pub fn warmed_up() -> Subject {
    first_call("first call, warmed up", |definition| {
        definition.warm_up("init")
    })
}
