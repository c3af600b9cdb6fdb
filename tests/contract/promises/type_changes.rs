//! A function that is replaced by another type: refused, unless it is meant; then handles with the old
//! types are told so before anything is made for them.

use std::thread;

use wasm_pool::{AcquireError, CallError, DefineError, Definition, Dynamic, Function, LookupError};
use wasmtime::Val;

use crate::common::*;

fn unit(answer: i32) -> Definition {
    Definition::new("f").wasm(answering(answer)).export("f")
}

fn echo() -> Definition {
    let wasm = wat(r#"(module (func (export "f") (param i64) (result i64) local.get 0))"#);
    Definition::new("f").wasm(wasm).export("f")
}

#[track_caller]
fn assert_changed(error: &AcquireError) {
    let AcquireError::TypeChanged { .. } = error else {
        panic!("{error:?}");
    };
    assert_eq!(
        error.to_string(),
        "function f() was replaced by another type: it is (i64) -> i64, and the handle expects () -> i32"
    );
}

#[test]
fn promise_21_another_type_is_refused_and_changes_nothing() {
    let pool = quiet().build().unwrap();
    let f: Function<(), i32> = pool.define(unit(1)).unwrap();
    assert_eq!(f.call(1, ()).unwrap(), 1);
    let before = check(&pool);
    let typed = pool.replace::<i64, i64>(echo()).unwrap_err();
    let dynamic = pool.replace::<Dynamic, Dynamic>(echo()).unwrap_err();
    assert_eq!(typed, dynamic);
    assert!(
        matches!(typed, DefineError::TypeChanged { .. }),
        "{typed:?}"
    );
    assert_eq!(
        typed.to_string(),
        "f() is () -> i32, and its replacement is (i64) -> i64: if that is meant, say so by \
         allow_type_change"
    );
    let after = check(&pool);
    assert!(before.budgets().eq(after.budgets()));
    assert_eq!(after.modules_known, 1);
    assert_eq!(f.call(1, ()).unwrap(), 1);
    // The same type needs no such word, and bears it.
    pool.replace::<(), i32>(unit(2)).unwrap();
    pool.replace::<Dynamic, Dynamic>(unit(3).allow_type_change())
        .unwrap();
    assert_eq!(f.call(1, ()).unwrap(), 3);
}

#[test]
fn promise_21_old_handles_are_told_in_acquire_and_nothing_is_made() {
    let pool = quiet().build().unwrap();
    let f: Function<(), i32> = pool.define(unit(1)).unwrap();
    let in_group = f.in_group(1);
    let unresolved = f.clone();
    assert_eq!(in_group.call(()).unwrap(), 1);
    let new: Function<i64, i64> = pool.replace(echo().allow_type_change()).unwrap();
    let made = check(&pool).compilations;
    assert_eq!(check(&pool).idle, 0, "the old instance has gone");
    let before = charges(&pool);
    for group in [1, 2] {
        assert_changed(&f.acquire(group).map(drop).unwrap_err());
        assert_changed(&f.try_acquire(group).map(drop).unwrap_err());
        let CallError::Acquire(error) = f.call(group, ()).unwrap_err() else {
            panic!("it fails in acquire");
        };
        assert_changed(&error);
        let task = pollster::block_on(unresolved.acquire_async(group));
        assert_changed(&task.map(drop).unwrap_err());
    }
    assert_changed(&in_group.acquire().map(drop).unwrap_err());
    let task = pollster::block_on(in_group.acquire_async());
    assert_changed(&task.map(drop).unwrap_err());
    assert_changed(&f.in_group(1).acquire().map(drop).unwrap_err());
    assert_changed(&f.clone().in_group(3).acquire().map(drop).unwrap_err());
    let stats = check(&pool);
    assert_eq!((stats.compilations, stats.misses), (made, 1));
    assert_eq!(charges(&pool), before, "nothing was made for them");
    assert_eq!(new.call(1, 5).unwrap(), 5);
    let looked_up: Function<i64, i64> = pool.function("f").unwrap();
    assert_eq!(looked_up.call(1, 6).unwrap(), 6);
    let error = pool.function::<(), i32>("f").unwrap_err();
    assert!(matches!(error, LookupError::WrongType { .. }));
    // Back to the old type: what the old handles can call, they call.
    pool.replace::<(), i32>(unit(7).allow_type_change())
        .unwrap();
    assert_eq!(f.call(1, ()).unwrap(), 7);
    assert_eq!(in_group.call(()).unwrap(), 7);
    assert!(new.call(1, 5).is_err());
}

#[test]
fn promise_21_handles_with_values_go_on() {
    let pool = quiet().build().unwrap();
    let f: Function = pool.define(unit(1)).unwrap();
    let in_group = f.in_group(1);
    let one = f.call_values(1, &[]).unwrap();
    assert!(matches!(one[..], [Val::I32(1)]));
    for n in 0..3 {
        pool.replace::<Dynamic, Dynamic>(echo().allow_type_change())
            .unwrap();
        for _ in 0..2 {
            let five = f.call_values(1, &[Val::I64(5)]).unwrap();
            assert!(matches!(five[..], [Val::I64(5)]));
            let mut lease = in_group.acquire().unwrap();
            let six = lease.call_values(&[Val::I64(6)]).unwrap();
            assert!(matches!(six[..], [Val::I64(6)]));
            drop(lease);
            let mut lease = pollster::block_on(in_group.acquire_async()).unwrap();
            let seven = pollster::block_on(lease.call_values_async(&[Val::I64(7)])).unwrap();
            assert!(matches!(seven[..], [Val::I64(7)]));
            drop(lease);
            drop(pollster::block_on(f.acquire_async(1)).unwrap());
        }
        assert_eq!(check(&pool).idle, 1, "all of them share the instances");
        pool.replace::<(), i32>(unit(n).allow_type_change())
            .unwrap();
        let answer = f.call_values(1, &[]).unwrap();
        assert!(matches!(answer[..], [Val::I32(m)] if m == n));
    }
    let stats = check(&pool);
    let counted = stats.function("f").unwrap();
    // A new instance after each of the six, and the first.
    assert_eq!(counted.misses, 7, "counts go on");
    assert_eq!(stats.misses, 7);
    pool.remove("f").unwrap();
    let error = f.acquire(1).map(drop).unwrap_err();
    assert!(matches!(error, AcquireError::Removed { .. }), "{error:?}");
    // A function that is defined anew is another one, whatever its type.
    pool.define::<(), i32>(unit(1)).unwrap();
    let error = f.acquire(1).map(drop).unwrap_err();
    assert!(matches!(error, AcquireError::Removed { .. }), "{error:?}");
}

#[test]
fn promise_21_calls_under_way_end_as_they_please_and_who_waits_is_told() {
    in_time(|| {
        let pool = quiet().max_instances_per_entry(1).build().unwrap();
        let f: Function<(), i32> = pool.define(unit(1)).unwrap();
        let dynamic: Function = pool.function("f").unwrap();
        let mut lease = f.acquire(1).unwrap();
        thread::scope(|scope| {
            let typed = scope.spawn(|| f.acquire(1).map(drop).unwrap_err());
            let values = scope.spawn(|| dynamic.call_values(1, &[Val::I64(5)]).unwrap());
            wait_for_waiters(&pool, 2);
            pool.replace::<i64, i64>(echo().allow_type_change())
                .unwrap();
            assert_changed(&typed.join().unwrap());
            let five = values.join().unwrap();
            assert!(matches!(five[..], [Val::I64(5)]));
            assert_eq!(lease.call(()).unwrap(), 1);
        });
        drop(lease);
        let stats = check(&pool);
        assert_eq!((stats.idle, stats.leased, stats.modules_known), (1, 0, 1));
    });
}

#[test]
fn promise_21_another_export_of_the_same_module_is_not_compiled_again() {
    let pool = quiet().build().unwrap();
    let wasm: std::sync::Arc<[u8]> = wat(r#"(module (func (export "f") (result i32) i32.const 1)
            (func (export "g") (param i64) (result i64) local.get 0))"#)
    .into();
    let definition = |export| Definition::new("f").wasm(wasm.clone()).export(export);
    let f: Function<(), i32> = pool.define(definition("f")).unwrap();
    f.call(1, ()).unwrap();
    let g: Function<i64, i64> = pool.replace(definition("g").allow_type_change()).unwrap();
    assert_eq!(g.call(1, 3).unwrap(), 3);
    assert_eq!(check(&pool).compilations, 1);
}
