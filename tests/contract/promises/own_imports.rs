//! Imports of a definition's own, and memories, tables and globals that each instance gets of its own.

use pollster::block_on;
use wasm_pool::{
    AcquireError, Budget, DefineError, Definition, Dynamic, Function, ImportError, Imports,
    ImportsError, InspectError, Limits, Pool, StoreData,
};
use wasmtime::{Caller, Extern, Linker, Ref, RefType, Table, TableType, Val};

use crate::common::*;

/// Imports `a.a`, a function that answers.
fn answered(pool: &Pool, answer: i64) -> Imports {
    let add = |linker: &mut Linker<StoreData<()>>| {
        linker.func_wrap("a", "a", move || answer)?;
        Ok(())
    };
    pool.imports().functions(add).build().unwrap()
}

/// What `a.a` answers.
fn asking() -> Vec<u8> {
    wat(r#"(module (import "a" "a" (func $a (result i64)))
        (func (export "f") (result i64) call $a))"#)
}

#[test]
fn promise_25_modules_that_import_other_types_under_the_same_names_live_in_one_pool() {
    let pool = quiet().build().unwrap();
    let one: Function<(), i64> = pool
        .define(
            Definition::new("one.f")
                .wasm(asking())
                .imports(&answered(&pool, 5)),
        )
        .unwrap();
    // As a module that came later would, long after `build`.
    let memory = pool.imports().memory("a", "a").build().unwrap();
    let wasm = wat(r#"(module (import "a" "a" (memory 1))
        (func (export "f") (param i32) (result i32)
            (i32.store (i32.const 8) (local.get 0)) (i32.load (i32.const 8))))"#);
    let two: Function<i32, i32> = pool
        .define(Definition::new("two.f").wasm(wasm).imports(&memory))
        .unwrap();
    assert_eq!((one.call(1, ()).unwrap(), two.call(1, 7).unwrap()), (5, 7));
    check(&pool);
}

#[test]
fn promise_25_imports_begin_with_the_pools_and_may_stand_before_them() {
    let builder = quiet().imports(|linker| {
        linker.func_wrap("a", "a", || 1_i64)?;
        linker.func_wrap("a", "b", || 10_i64)?;
        Ok(())
    });
    let pool = builder.build().unwrap();
    let wasm = || {
        wat(
            r#"(module (import "a" "a" (func $a (result i64))) (import "a" "b" (func $b (result i64)))
            (func (export "f") (result i64) (i64.add (call $a) (call $b))))"#,
        )
    };
    let plain: Function<(), i64> = pool.define(f(wasm())).unwrap();
    let own = Definition::new("own.f")
        .wasm(wasm())
        .imports(&answered(&pool, 2));
    let own: Function<(), i64> = pool.define(own).unwrap();
    assert_eq!(
        (plain.call(1, ()).unwrap(), own.call(1, ()).unwrap()),
        (11, 12)
    );
}

#[test]
fn promise_25_the_same_imports_share_code_and_others_do_not() {
    let pool = quiet().build().unwrap();
    let [two, three] = [2, 3].map(|answer| answered(&pool, answer));
    let define = |name: &'static str, imports: &Imports| -> Function<(), i64> {
        let definition = Definition::new(name).export("f").wasm(asking());
        pool.define(definition.imports(imports)).unwrap()
    };
    let twins = [define("b", &two), define("c", &two.clone())];
    assert_eq!(twins.map(|twin| twin.call(1, ()).unwrap()), [2, 2]);
    assert_eq!((check(&pool).compilations, two.clone() == two), (1, true));
    assert_eq!(define("d", &three).call(1, ()).unwrap(), 3);
    assert_eq!(check(&pool).compilations, 2);
}

#[test]
fn promise_25_replace_may_change_imports() {
    let pool = quiet().build().unwrap();
    let define = |answer| f(asking()).imports(&answered(&pool, answer));
    let function: Function<(), i64> = pool.define(define(2)).unwrap();
    assert_eq!(function.call(1, ()).unwrap(), 2);
    pool.replace::<(), i64>(define(3)).unwrap();
    assert_eq!(function.call(1, ()).unwrap(), 3);
    // Without, it is linked with what the pool has: nothing.
    let error = pool.replace::<(), i64>(f(asking())).unwrap_err();
    assert!(matches!(error, DefineError::Imports { .. }), "{error:?}");
    assert_eq!(function.call(1, ()).unwrap(), 3);
    pool.close();
    check_empty(&pool);
}

#[test]
fn promise_25_imports_of_another_pool_are_refused() {
    let (pool, other) = (quiet().build().unwrap(), quiet().build().unwrap());
    let with_data = Pool::builder_with(|_, _| 7_u8)
        .engine(pool.engine().clone())
        .no_housekeeper()
        .build()
        .unwrap();
    let foreign = [
        f(asking()).imports(&answered(&other, 1)),
        f(asking()).imports(&with_data.imports().build().unwrap()),
    ];
    for definition in foreign {
        let error = pool.define::<(), i64>(definition).unwrap_err();
        assert!(
            matches!(error, DefineError::ForeignImports { .. }),
            "{error:?}"
        );
        assert!(
            wasm_pool::Report(&error)
                .to_string()
                .contains("another pool"),
            "{error}"
        );
    }
}

/// As Emscripten and clang write them: memory, table and stack pointer are imported, and the memory is
/// not exported. Counts calls in a global, keeps the last parameter in memory, grows, and calls a function
/// through the table.
fn importing_all() -> Vec<u8> {
    wat(r#"(module
        (import "env" "memory" (memory 1 4))
        (import "env" "__indirect_function_table" (table $t 3 funcref))
        (import "env" "__stack_pointer" (global $sp (mut i32)))
        (import "env" "__memory_base" (global $base i32))
        (import "GOT.mem" "calls" (global $calls (mut i64)))
        (data (global.get $base) "\2a")
        (elem (i32.const 1) $double)
        (type $unary (func (param i64) (result i64)))
        (func $double (type $unary) (i64.mul (local.get 0) (i64.const 2)))
        (func (export "f") (param i64) (result i64)
            (global.set $calls (i64.add (global.get $calls) (i64.const 1)))
            (i64.store (global.get $sp) (local.get 0))
            (call_indirect $t (type $unary) (i64.load (global.get $sp)) (i32.const 1)))
        (func (export "calls") (result i64) global.get $calls)
        (func (export "first") (result i32) (i32.load8_u (global.get $base)))
        (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))
        (func (export "alloc") (param i32) (result i32) (i32.const 4096))
        (func (export "dealloc") (param i32 i32)))"#)
}

fn all(pool: &Pool) -> Imports {
    pool.imports()
        .memory("env", "memory")
        .table("env", "__indirect_function_table")
        .global("env", "__stack_pointer", Val::I32(2048))
        .global("env", "__memory_base", Val::I32(1024))
        .global("GOT.mem", "calls", Val::I64(0))
        .build()
        .unwrap()
}

#[test]
fn promise_26_each_instance_has_a_memory_a_table_and_globals_of_its_own() {
    let pool = quiet().build().unwrap();
    let definition = f(importing_all()).imports(&all(&pool));
    let function: Function<i64, i64> = pool.define(definition).unwrap();
    let mut leases = [1, 2].map(|group| function.acquire(group).unwrap());
    for (lease, calls) in leases.iter_mut().zip([1, 2]) {
        for n in 0..calls {
            assert_eq!(lease.call(n + calls).unwrap(), 2 * (n + calls));
        }
        let counted = lease.export::<(), i64>("calls").unwrap();
        assert_eq!(counted.call(lease, ()).unwrap(), calls);
        let first = lease.export::<(), i32>("first").unwrap();
        assert_eq!(first.call(lease, ()).unwrap(), 42);
        // The memory is found, though it is not exported.
        let memory = lease.memory().unwrap();
        assert_eq!(memory.data(lease.store())[1024], 42);
        let passed = lease.pass_bytes(b"bytes").unwrap();
        assert_eq!(lease.read_bytes(passed).unwrap(), b"bytes");
    }
    drop(leases);
    check(&pool);
    pool.close();
    check_empty(&pool);
}

#[test]
fn promise_26_a_task_gets_them_as_a_thread_does() {
    let pool = quiet().build().unwrap();
    let definition = f(importing_all()).imports(&all(&pool));
    let function: Function<i64, i64> = pool.define(definition).unwrap();
    for n in 1..4 {
        assert_eq!(block_on(function.call_async(1, n)).unwrap(), 2 * n);
    }
    assert_eq!(check(&pool).misses, 1);
}

#[test]
fn promise_26_what_is_given_is_charged_as_what_is_declared() {
    let wasm = |memory: &str| {
        wat(&format!(
            r#"(module {memory} (func (export "f") (result i32) i32.const 1)
                (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0))))"#
        ))
    };
    let taken = |wasm: Vec<u8>, imports: &dyn Fn(&Pool) -> Imports| {
        let pool = quiet().max_instance_memory(1 << 20).build().unwrap();
        let definition = f(wasm).imports(&imports(&pool));
        let function: Function<(), i32> = pool.define(definition).unwrap();
        let mut lease = function.acquire(1).unwrap();
        let born = charged(&pool, Budget::Memory);
        assert_eq!(lease.memory_bytes(), 3 << 16);
        let grow = lease.export::<i32, i32>("grow").unwrap();
        assert_eq!(grow.call(&mut lease, 2).unwrap(), 3);
        assert_eq!(charged(&pool, Budget::Memory) - born, 2 << 16);
        // What one instance may have counts for it as well.
        assert_eq!(grow.call(&mut lease, 12).unwrap(), -1);
        drop(lease);
        let mappings = charged(&pool, Budget::Mappings);
        check(&pool);
        pool.close();
        check_empty(&pool);
        (born, mappings)
    };
    let nothing = |pool: &Pool| pool.imports().build().unwrap();
    let declared = taken(wasm(r#"(memory (export "memory") 3)"#), &nothing);
    let import = r#"(import "env" "memory" (memory 1)) (export "memory" (memory 0))"#;
    let given = taken(wasm(import), &|pool| {
        let more = 2 * (1 << 16) + 1;
        let imports = pool.imports().memory_with_minimum("env", "memory", more);
        imports.build().unwrap()
    });
    // Wasmtime's records of it come on top.
    let beside = given.0 - declared.0;
    assert!((1..16 << 10).contains(&beside), "{declared:?} {given:?}");
    assert_eq!(given.1, declared.1);
}

#[test]
fn promise_26_what_an_instance_may_have_is_checked_in_define() {
    let builder = quiet().max_instance_memory(1 << 20).max_table_elements(100);
    let pool = builder.build().unwrap();
    let imports = pool
        .imports()
        .memory("env", "memory")
        .table("env", "table")
        .memory_with_minimum("big", "memory", (1 << 20) + 1)
        .table_with_minimum("big", "table", 101)
        .build()
        .unwrap();
    let error = |import: &str| {
        let wasm = wat(&format!(
            r#"(module (import {import}) (func (export "f")))"#
        ));
        pool.define::<(), ()>(f(wasm).imports(&imports))
            .unwrap_err()
    };
    for memory in [
        r#""env" "memory" (memory 17)"#,
        r#""big" "memory" (memory 1)"#,
    ] {
        let error = error(memory);
        assert!(
            matches!(error, DefineError::MemoryTooLarge { .. }),
            "{error:?}"
        );
    }
    for table in [
        r#""env" "table" (table 101 funcref)"#,
        r#""big" "table" (table 0 funcref)"#,
    ] {
        let error = error(table);
        assert!(
            matches!(error, DefineError::TableTooLarge { .. }),
            "{error:?}"
        );
    }
}

#[test]
fn promise_26_define_says_what_it_cannot_give() {
    let pool = quiet().build().unwrap();
    let imports = pool
        .imports()
        .memory_with_minimum("env", "memory", 3 << 16)
        .table_with_minimum("env", "table", 5)
        .global("env", "global", Val::I32(7))
        .build()
        .unwrap();
    let error = |import: &str| {
        let wasm = wat(&format!(
            r#"(module (import "env" {import}) (func (export "f")))"#
        ));
        let defined = pool.define::<Dynamic, Dynamic>(f(wasm).imports(&imports));
        defined.map(drop).unwrap_err()
    };
    for (import, found) in [
        (r#""memory" (memory 1 2)"#, "memory of 196608 bytes or more"),
        (
            r#""memory" (table 1 funcref)"#,
            "memory of 196608 bytes or more",
        ),
        (r#""table" (table 1 4 funcref)"#, "table of 5 nulls or more"),
        (r#""global" (global (mut i64))"#, "global i32"),
        (r#""global" (global funcref)"#, "global i32"),
        (r#""global" (func)"#, "global i32"),
        (
            r#""memory" (memory 4)) (import "env" "memory" (memory 1 3)"#,
            "memory of",
        ),
        (
            r#""global" (global i32)) (import "env" "global" (global (mut i32))"#,
            "global i32",
        ),
    ] {
        let error = error(import);
        let text = wasm_pool::Report(&error).to_string();
        let DefineError::Imports {
            source: ImportError::Mismatch { found: what, .. },
            ..
        } = error
        else {
            panic!("{import}: {error:?}");
        };
        assert!(what.starts_with(found), "{import}: {text}");
    }
    let shared = error(r#""memory" (memory 1 2 shared)"#);
    let unsupported = |error: &DefineError| {
        matches!(
            error,
            DefineError::Module {
                source: InspectError::Unsupported { .. },
                ..
            }
        )
    };
    assert!(unsupported(&shared), "{shared:?}");
    // Who can give it is said as well.
    let missing = error(r#""other" (memory 1)"#);
    let missing = wasm_pool::Report(&missing).to_string();
    assert!(missing.contains("Pool::imports"), "{missing}");
    check(&pool);
}

#[test]
fn promise_26_what_is_imported_twice_is_made_once() {
    let pool = quiet().build().unwrap();
    let wasm = wat(r#"(module
        (import "env" "memory" (memory $one 1 9)) (import "env" "memory" (memory $two 2))
        (func (export "f") (param i32) (result i32)
            (i32.store $one (i32.const 16) (local.get 0))
            (i32.add (i32.load $two (i32.const 16)) (memory.size $one))))"#);
    let imports = pool.imports().memory("env", "memory").build().unwrap();
    let function: Function<i32, i32> = pool.define(f(wasm).imports(&imports)).unwrap();
    assert_eq!(function.call(1, 40).unwrap(), 42);
    assert_eq!(function.acquire(1).unwrap().memory_bytes(), 2 << 16);
    check(&pool);
}

#[test]
fn promise_26_a_global_cannot_begin_in_another_store() {
    let pool = quiet().build().unwrap();
    let wasm = wat(r#"(module (func (export "f")))"#);
    let function: Function<(), ()> = pool.define(f(wasm)).unwrap();
    let mut lease = function.acquire(1).unwrap();
    let instance = lease.instance();
    let reference = instance.get_func(lease.store_mut(), "f");
    assert!(reference.is_some());
    let imports = pool.imports().global("env", "f", Val::FuncRef(reference));
    let error = imports.build().unwrap_err();
    assert!(matches!(error, ImportsError::Reference { .. }), "{error:?}");
    let null = pool
        .imports()
        .global("env", "f", Val::FuncRef(None))
        .build()
        .unwrap();
    let wasm = wat(r#"(module (import "env" "f" (global $f (mut funcref)))
        (func (export "f") (result i32) (ref.is_null (global.get $f))))"#);
    let definition = Definition::new("null.f").wasm(wasm).imports(&null);
    let is_null: Function<(), i32> = pool.define(definition).unwrap();
    assert_eq!(is_null.call(1, ()).unwrap(), 1);
    // A table of a lease's own store is the host's affair, and charged to that lease.
    let before = charged(&pool, Budget::Memory);
    let ty = TableType::new(RefType::FUNCREF, 1024, None);
    Table::new(lease.store_mut(), ty, Ref::Func(None)).unwrap();
    assert_eq!(charged(&pool, Budget::Memory) - before, 8192);
}

/// A start function calls the host already, which reads a memory that the module does not export.
#[test]
fn promise_26_host_functions_find_what_was_made_for_the_instance() {
    let add = |linker: &mut Linker<StoreData<()>>| {
        linker.func_wrap(
            "env",
            "sum",
            |mut caller: Caller<'_, StoreData<()>>, from: i32, count: i32| {
                let memory = caller.data().imported("env", "memory");
                let memory = memory.and_then(Extern::into_memory).unwrap();
                let table = caller.data().imported("env", "table");
                let table = table.and_then(Extern::into_table).unwrap();
                assert_eq!(table.size(&caller), 4);
                assert!(caller.data().imported("env", "sum").is_none());
                let bytes = &memory.data(&caller)[from as usize..][..count as usize];
                let sum = bytes.iter().map(|byte| i32::from(*byte)).sum::<i32>();
                memory.data_mut(&mut caller)[from as usize] = 100;
                sum
            },
        )?;
        Ok(())
    };
    let pool = quiet().build().unwrap();
    let imports = pool.imports().functions(add);
    let imports = imports.memory("env", "memory").table("env", "table");
    let imports = imports.build().unwrap();
    let wasm = wat(r#"(module
        (import "env" "memory" (memory 1)) (import "env" "table" (table 4 funcref))
        (import "env" "sum" (func $sum (param i32 i32) (result i32)))
        (data (i32.const 64) "\01\02\03")
        (func $start (drop (call $sum (i32.const 64) (i32.const 3))))
        (start $start)
        (func (export "f") (result i32) (call $sum (i32.const 64) (i32.const 3))))"#);
    let function: Function<(), i32> = pool.define(f(wasm).imports(&imports)).unwrap();
    assert_eq!(function.call(1, ()).unwrap(), 105);
    assert_eq!(block_on(function.call_async(2, ())).unwrap(), 105);
    let lease = function.acquire(1).unwrap();
    let imported = lease.store().data().imported("env", "memory");
    assert!(imported.and_then(Extern::into_memory).is_some());
}

/// Many modules may be given the same imports, each taking what it asks for.
#[test]
fn promise_26_what_a_module_does_not_import_is_not_made() {
    let pool = quiet().build().unwrap();
    let imports = pool.imports().memory_with_minimum("env", "memory", 1 << 20);
    let imports = imports.build().unwrap();
    let wasm = wat(r#"(module (func (export "f")))"#);
    let function: Function<(), ()> = pool.define(f(wasm).imports(&imports)).unwrap();
    function.call(1, ()).unwrap();
    assert!(charged(&pool, Budget::Memory) < 64 << 10);
}

/// A budget that has no room for what would be made refuses before it is made, as for declared ones.
#[test]
fn promise_26_a_budget_refuses_what_would_be_made() {
    let limits = Limits::new().memory(2 << 20);
    let pool = quiet().limits(limits).build().unwrap();
    let imports = pool.imports().memory("env", "memory").build().unwrap();
    let wasm = wat(r#"(module (import "env" "memory" (memory 24)) (func (export "f")))"#);
    let function: Function<(), ()> = pool.define(f(wasm).imports(&imports)).unwrap();
    let held = function.acquire(1).unwrap();
    let error = function.acquire(2).map(drop).unwrap_err();
    let AcquireError::BudgetExceeded(error) = error else {
        panic!("{error:?}");
    };
    assert_eq!(error.budget, Budget::Memory);
    assert!(error.requested > 24 << 16, "{error}");
    drop(held);
    function.call(2, ()).unwrap();
    check(&pool);
}
