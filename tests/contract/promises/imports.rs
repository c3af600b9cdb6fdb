//! What modules import: compared with what the host provides before anything is compiled.

use std::time::Duration;

use wasm_pool::{
    AcquireError, CallError, DefineError, Definition, Dynamic, Function, ImportError, ManualClock,
    ModuleError, Pool, StoreData,
};
use wasmtime::{Engine, Func, Linker, Memory, MemoryType};

use crate::common::*;

/// Why the module's imports are refused; nothing is compiled for it, and the name stays free.
#[track_caller]
fn refused(pool: &Pool, wasm: Vec<u8>) -> ImportError {
    let error = pool.define::<Dynamic, Dynamic>(f(wasm)).unwrap_err();
    let DefineError::Imports { source, .. } = error else {
        panic!("{error:?}");
    };
    assert_eq!(check(pool).compilations, 0);
    pool.define::<(), i32>(f(answering(1))).unwrap();
    pool.remove("f").unwrap();
    source
}

fn importing(imports: &str) -> Vec<u8> {
    wat(&format!(
        r#"(module {imports} (func (export "f") (result i32) i32.const 1))"#
    ))
}

#[test]
fn promise_17_what_the_host_lacks_is_named_in_define_all_of_it() {
    let has = |linker: &mut Linker<StoreData<()>>| linker.func_wrap("env", "has", || ()).map(drop);
    let pool = quiet().imports(has).build().unwrap();
    let functions: String = (0..9)
        .map(|n| format!(r#"(import "env" "f{n}" (func (param i32) (result f64)))"#))
        .collect();
    let wasm = importing(&format!(
        r#"(import "env" "has" (func))
           (import "env" "memory" (memory 2 3))
           (import "env" "table" (table 7 funcref))
           (import "GOT.mem" "heap" (global (mut i32)))
           {functions}"#
    ));
    let error = refused(&pool, wasm);
    let text = error.to_string();
    for named in [
        r#""env" "memory" (memory of 131072 to 196608 bytes)"#,
        r#""env" "table" (table of 7 funcref or more)"#,
        r#""GOT.mem" "heap" (mutable global i32)"#,
        r#""env" "f0" (function (i32) -> f64)"#,
        "and 4 more",
    ] {
        assert!(text.contains(named), "{named} in {text}");
    }
    let ImportError::Missing { imports, more } = error else {
        panic!("{error:?}");
    };
    assert_eq!((imports.len(), more), (8, 4));
    assert_eq!((&*imports[0].module, &*imports[0].name), ("env", "memory"));
}

#[test]
fn promise_17_an_import_of_another_type_is_named_in_define() {
    let log = |linker: &mut Linker<StoreData<()>>| {
        linker.func_wrap("env", "log", |_: i32, _: f32| 1_i64)?;
        Ok(())
    };
    let pool = quiet().imports(log).build().unwrap();
    for (import, expected) in [
        ("(func (param i32) (result i64))", "function (i32) -> i64"),
        (
            "(func (param i32 f32) (result i32))",
            "function (i32, f32) -> i32",
        ),
        (
            "(func (param i32 externref) (result i64))",
            "function (i32, externref) -> i64",
        ),
        ("(memory 1)", "memory of 65536 bytes or more"),
        ("(global i64)", "global i64"),
    ] {
        let wasm = importing(&format!(r#"(import "env" "log" {import})"#));
        let error = refused(&pool, wasm);
        let text = error.to_string();
        let ImportError::Mismatch {
            module,
            name,
            expected: wanted,
            found,
        } = error
        else {
            panic!("{error:?}");
        };
        assert_eq!((&*module, &*name, &*wanted), ("env", "log", expected));
        assert!(found.contains("i64"), "{found}");
        assert!(text.contains(expected) && text.contains(&found), "{text}");
    }
    let good = importing(r#"(import "env" "log" (func (param i32 f32) (result i64)))"#);
    let good: Function<(), i32> = pool.define(f(good)).unwrap();
    assert_eq!(good.call(1, ()).unwrap(), 1);
}

#[test]
fn promise_17_replace_checks_imports_and_leaves_the_old_code() {
    let pool = quiet().build().unwrap();
    let old: Function<(), i32> = pool.define(f(answering(7))).unwrap();
    let wasm = importing(r#"(import "no" "where" (func))"#);
    let error = pool.replace::<(), i32>(f(wasm)).unwrap_err();
    assert!(matches!(error, DefineError::Imports { .. }), "{error:?}");
    assert_eq!(old.call(1, ()).unwrap(), 7);
    pool.close();
    check_empty(&pool);
}

/// A function type of a group is another type than the same one that stands alone: only the compiled
/// module shows it.
fn links_never() -> Vec<u8> {
    wat(r#"(module (rec (type $a (func)) (type $b (func)))
        (import "env" "go" (func (type $b)))
        (func (export "f") (result i32) i32.const 1))"#)
}

#[test]
fn promise_17_what_can_never_link_is_compiled_once() {
    let clock = ManualClock::new();
    let go = |linker: &mut Linker<StoreData<()>>| linker.func_wrap("env", "go", || ()).map(drop);
    let builder = Pool::builder().clock(clock.clone()).no_housekeeper();
    let pool = builder.imports(go).build().unwrap();
    let function: Function<(), i32> = pool.define(f(links_never())).unwrap();
    let twin = Definition::new("twin").wasm(links_never()).export("f");
    let twin: Function<(), i32> = pool.define(twin).unwrap();
    for _ in 0..3 {
        for function in [&function, &twin] {
            let error = function.call(1, ()).unwrap_err();
            let CallError::Acquire(AcquireError::Module { source, .. }) = error else {
                panic!("{error:?}");
            };
            assert!(matches!(*source, ModuleError::Link(_)), "{source:?}");
            let said = wasm_pool::Report(&*source).to_string();
            assert!(said.contains("`env::go`"), "{said}");
        }
        clock.advance(Duration::from_secs(1 << 20));
        pool.sweep();
    }
    assert_eq!(check(&pool).compilations, 1);
    pool.replace::<(), i32>(f(answering(3))).unwrap();
    assert_eq!(function.call(1, ()).unwrap(), 3);
    pool.close();
    check_empty(&pool);
}

#[test]
fn promise_17_what_belongs_to_a_store_of_the_hosts_is_told_in_define() {
    let engine = Engine::default();
    let pool = || quiet().engine(engine.clone()).call_timeout(None);
    let other = pool().build().unwrap();
    let function: Function<(), i32> = other.define(f(answering(1))).unwrap();
    let mut lease = function.acquire(1).unwrap();
    let store = lease.store_mut();
    let memory = Memory::new(&mut *store, MemoryType::new(1, None)).unwrap();
    let own = Func::wrap(&mut *store, || ());
    let mut linker: Linker<StoreData<()>> = Linker::new(&engine);
    linker.define(&*store, "env", "memory", memory).unwrap();
    linker.define(&*store, "env", "own", own).unwrap();
    let pool = pool().linker(linker).build().unwrap();
    for import in [r#""memory" (memory 1)"#, r#""own" (func)"#] {
        let error = refused(&pool, importing(&format!(r#"(import "env" {import})"#)));
        assert!(
            wasm_pool::Report(&error)
                .to_string()
                .contains("belongs to a store"),
            "{error}"
        );
    }
}
