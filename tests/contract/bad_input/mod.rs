//! Bad input is a clear error, and nothing else: for everything that a host, a module or an engine
//! can get wrong, the exact variant, with all charges as before and the function usable at once.

mod bytes;
mod handles;
mod sizes;

use std::sync::Arc;
use std::time::Duration;

use crate::common::*;
use proptest::prelude::*;
use wasm_pool::{
    AcquireError, Budget, BuildError, CallError, CallLimit, DefineError, Definition, Dynamic,
    Function, ImportError, InGroup, InspectError, Limits, LimitsError, LookupError, ModuleError,
    Pool, PoolBuilder, StoreData, UnknownFunction,
};
use wasmtime::{Config, Engine, Linker, Trap};

const MIB: u64 = 1 << 20;

/// The error of defining this; nothing is charged for it, and the name is free.
#[track_caller]
fn refused_at_the_door(pool: &Pool, definition: Definition) -> DefineError {
    let before = charges(pool);
    let error = pool.define::<(), i32>(definition).unwrap_err();
    assert_eq!(charges(pool), before);
    let good: Function<(), i32> = pool.define(f(answering(7))).unwrap();
    assert_eq!(good.call(1, ()).unwrap(), 7);
    pool.remove("f").unwrap();
    assert_eq!(charges(pool), before);
    check(pool);
    error
}

/// The error of the first lease of this. Tried again it is the same, and what is charged does not
/// change any more; with good code the very same handles work; removed, it leaves nothing behind.
#[track_caller]
fn refused_at_the_first_lease(pool: &Pool, wasm: impl Into<Arc<[u8]>>) -> AcquireError {
    let before = charges(pool);
    let function: Function<(), i32> = pool.define(f(wasm)).unwrap();
    let in_group = function.in_group(1);
    let error = function.acquire(1).unwrap_err();
    let after = charges(pool);
    // Code that did load is kept for a next time; it is all that may be charged.
    for ((budget, before), (_, after)) in before.iter().zip(&after) {
        let kept = pool.stats().function("f").unwrap().code_loaded
            && matches!(
                budget,
                Budget::Code | Budget::Mappings | Budget::Total | Budget::Mapped
            );
        assert!(after == before || kept, "{budget}: {before} then {after}");
    }
    assert_eq!(
        in_group.acquire().unwrap_err().to_string(),
        error.to_string()
    );
    assert_eq!(charges(pool), after);
    assert_eq!((check(pool).idle, check(pool).leased), (0, 0));

    pool.replace::<(), i32>(f(answering(8))).unwrap();
    assert_eq!(function.call(1, ()).unwrap(), 8);
    assert_eq!(in_group.call(()).unwrap(), 8);
    pool.remove("f").unwrap();
    assert_eq!(charges(pool), before);
    check(pool);
    error
}

fn inspected(error: DefineError) -> InspectError {
    match error {
        DefineError::Module { target, source } => {
            assert_eq!(&*target, "f()");
            source
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_not_wasm_is_said_to_be_not_wasm() {
    let pool = quiet().build().unwrap();
    let garbage: Vec<u8> = (0..5000u32).map(|n| (n * n + 77 * n + 3) as u8).collect();
    let inputs: [(&[u8], &str); 7] = [
        (b"", "no bytes at all"),
        (b"\0", "perhaps text"),
        (b"\0as", "perhaps text"),
        (b"(module)", "perhaps text"),
        (b"CREATE FUNCTION f() AS $$ $$", "perhaps text"),
        (b"\x7fELF\x02\x01\x01", "ELF"),
        (&garbage, "perhaps text"),
    ];
    for (input, hint) in inputs {
        let error = refused_at_the_door(&pool, f(input));
        let text = wasm_pool::Report(&error).to_string();
        let source = inspected(error);
        assert!(matches!(source, InspectError::NotWasm { .. }), "{source:?}");
        assert!(
            text.contains("not WebAssembly") && text.contains(hint),
            "{text}"
        );
    }
}

#[test]
fn garbage_behind_the_magic_is_malformed() {
    let pool = quiet().build().unwrap();
    let mut endless_section = answering(1);
    endless_section.extend([1, 0xff, 0xff, 0xff, 0xff, 0x0f]);
    let inputs: [&[u8]; 4] = [
        b"\0asm",
        b"\0asm\x02\0\0\0",
        b"\0asm\x01\0\0\0\x01\x7f",
        &endless_section,
    ];
    for input in inputs {
        let source = inspected(refused_at_the_door(&pool, f(input)));
        assert!(
            matches!(source, InspectError::Malformed { .. }),
            "{source:?}"
        );
    }
}

#[test]
fn a_definition_without_wasm_says_so() {
    let pool = quiet().build().unwrap();
    let error = refused_at_the_door(&pool, Definition::new("f"));
    assert!(matches!(&error, DefineError::NoWasm { target } if &**target == "f()"));
}

/// A prefix is an error at the door or at the first lease, unless it happens to be a module.
fn check_prefix(pool: &Pool, wasm: &[u8], export: &str) -> bool {
    let definition = Definition::new("cut").wasm(wasm).export(export);
    let refused = match pool.define::<Dynamic, Dynamic>(definition) {
        Err(DefineError::Module { .. } | DefineError::MissingExport { .. }) => true,
        Err(other) => panic!("{} bytes: {other:?}", wasm.len()),
        Ok(function) => {
            let refused = match function.acquire(1) {
                Ok(_) => false,
                Err(AcquireError::Module { source, .. }) => {
                    matches!(*source, ModuleError::Compile(_))
                }
                Err(other) => panic!("{} bytes: {other:?}", wasm.len()),
            };
            pool.remove("cut").unwrap();
            refused
        }
    };
    assert_eq!(check(pool).modules_known, 0);
    check_empty(pool);
    refused
}

#[test]
fn every_prefix_of_a_small_guest_is_refused() {
    let pool = quiet().build().unwrap();
    let wasm = guest("math_add");
    for cut in 0..wasm.len() {
        assert!(check_prefix(&pool, &wasm[..cut], "add"), "{cut} bytes");
    }
    assert!(!check_prefix(&pool, &wasm, "add"));
}

/// Where the sections of a module begin.
fn section_starts(wasm: &[u8]) -> Vec<usize> {
    let parser = wasmparser::Parser::new(0);
    let sections = parser.parse_all(wasm).map(Result::unwrap);
    let ranges = sections.filter_map(|payload| payload.as_section());
    ranges.map(|(_, range)| range.start).collect()
}

#[test]
fn prefixes_of_large_guests_are_refused() {
    let pool = quiet().build().unwrap();
    for (name, export, step) in [
        ("text_soundex", "soundex", 97),
        ("text_regex_match", "regex_match", 49_999),
    ] {
        let wasm = guest(name);
        let around = |start| start - 4..start + 4;
        let cuts = (0..wasm.len()).step_by(step);
        let cuts = cuts.chain(section_starts(&wasm).into_iter().flat_map(around));
        for cut in cuts.filter(|cut| *cut < wasm.len()) {
            // Cut between code and data, it is a module still, and the big one takes long.
            let valid = wasmtime::Module::validate(pool.engine(), &wasm[..cut]).is_ok();
            if !valid || name != "text_regex_match" {
                let refused = check_prefix(&pool, &wasm[..cut], export);
                assert!(refused || valid, "{name}: {cut} bytes");
            }
        }
    }
}

#[test]
fn a_body_that_does_not_compile_is_a_module_error() {
    let pool = quiet().build().unwrap();
    let wasm = wat(r#"(module (func (export "f") (result i32) i64.const 1))"#);
    let error = refused_at_the_first_lease(&pool, wasm);
    assert!(
        wasm_pool::Report(&error)
            .to_string()
            .contains("does not compile"),
        "{error}"
    );
    let AcquireError::Module { target, source } = error else {
        panic!("{error:?}")
    };
    assert_eq!(target.to_string(), "f() in group 1");
    assert!(matches!(*source, ModuleError::Compile(_)), "{source:?}");
    // What is wrong with it stands somewhere in the chain of causes.
    let causes = std::iter::successors(Some(&*source as &dyn std::error::Error), |e| e.source());
    let text: Vec<_> = causes.map(ToString::to_string).collect();
    assert!(text.join(": ").contains("type mismatch"), "{text:?}");
}

#[test]
fn a_component_is_told_from_a_module() {
    let pool = quiet().build().unwrap();
    let error = refused_at_the_door(&pool, f(wat("(component)")));
    assert!(
        wasm_pool::Report(&error).to_string().contains("component"),
        "{error}"
    );
    assert_eq!(inspected(error), InspectError::Component);
}

/// What is wrong with the imports of this module, whose export `f` is never reached.
#[track_caller]
fn refused_for_its_imports(pool: &Pool, imports: &str) -> ImportError {
    let wasm = wat(&format!(
        r#"(module {imports} (func (export "f") (result i32) i32.const 1))"#
    ));
    match refused_at_the_door(pool, f(wasm)) {
        DefineError::Imports { source, .. } => source,
        error => panic!("{error:?}"),
    }
}

#[test]
fn an_unknown_import_is_named() {
    let pool = quiet().build().unwrap();
    let import = r#"(import "env" "log" (func (param i32)))"#;
    let error = refused_for_its_imports(&pool, import);
    let ImportError::Missing { imports, more: 0 } = error else {
        panic!("{error:?}")
    };
    assert_eq!(
        imports[0].to_string(),
        r#""env" "log" (function (i32) -> ())"#
    );
}

#[test]
fn an_import_of_another_type_is_refused() {
    let add_log = |linker: &mut Linker<StoreData<()>>| {
        linker.func_wrap("env", "log", |_: i32| {})?;
        Ok(())
    };
    let pool = quiet().imports(add_log).build().unwrap();
    let import = r#"(import "env" "log" (func (param i64)))"#;
    let error = refused_for_its_imports(&pool, import);
    let ImportError::Mismatch { module, name, .. } = error else {
        panic!("{error:?}")
    };
    assert_eq!((&*module, &*name), ("env", "log"));
}

/// Only the compiler can tell a function type of a group from the same one that stands alone.
#[test]
fn an_import_whose_type_only_the_compiler_knows_does_not_link() {
    let add_log = |linker: &mut Linker<StoreData<()>>| {
        linker.func_wrap("env", "log", |_: i32| {})?;
        Ok(())
    };
    let pool = quiet().imports(add_log).build().unwrap();
    let wasm = wat(
        r#"(module (rec (type $log (func (param i32))) (type (func)))
        (import "env" "log" (func (type $log)))
        (func (export "f") (result i32) i32.const 1))"#,
    );
    let error = refused_at_the_first_lease(&pool, wasm);
    assert!(
        wasm_pool::Report(&error)
            .to_string()
            .contains("does not link"),
        "{error}"
    );
    let AcquireError::Module { source, .. } = error else {
        panic!("{error:?}")
    };
    let ModuleError::Link(source) = &*source else {
        panic!("{source:?}")
    };
    assert!(
        format!("{source:?}").contains("incompatible import type"),
        "{source:?}"
    );
}

#[test]
fn imported_memories_tables_and_globals_are_unknown_imports() {
    let pool = quiet().build().unwrap();
    for import in ["(memory 1)", "(table 1 funcref)", "(global i32)"] {
        let import = format!(r#"(import "env" "it" {import})"#);
        let error = refused_for_its_imports(&pool, &import);
        assert!(matches!(error, ImportError::Missing { .. }), "{error:?}");
    }
}

#[test]
fn a_missing_export_comes_with_what_there_is() {
    let pool = quiet().build().unwrap();
    let error = refused_at_the_door(&pool, f(guest("text_soundex")));
    let DefineError::MissingExport {
        export, available, ..
    } = &error
    else {
        panic!("{error:?}")
    };
    assert_eq!(export, "f");
    assert!(
        available.contains("soundex(i32, i32) -> i64"),
        "{available}"
    );
    let none = refused_at_the_door(&pool, f(wat("(module)")));
    assert!(
        none.to_string().ends_with("its functions are: none"),
        "{none}"
    );
}

#[test]
fn an_export_that_is_not_a_function_is_missing() {
    let pool = quiet().build().unwrap();
    for item in [
        "(memory (export \"f\") 1)",
        "(table (export \"f\") 1 funcref)",
        "(global (export \"f\") i32 i32.const 0)",
    ] {
        let wasm = wat(&format!(r#"(module {item} (func (export "g")))"#));
        let error = refused_at_the_door(&pool, f(wasm));
        assert!(
            matches!(error, DefineError::MissingExport { .. }),
            "{error:?}"
        );
        assert!(
            wasm_pool::Report(&error)
                .to_string()
                .contains("its functions are: g() -> ()"),
            "{error}"
        );
    }
}

#[test]
fn an_export_of_another_type_is_refused_with_both_types() {
    let pool = quiet().build().unwrap();
    let definition = Definition::new("f").wasm(guest("math_add")).export("add");
    let error = refused_at_the_door(&pool, definition);
    let DefineError::WrongType {
        export,
        found,
        expected,
        ..
    } = &error
    else {
        panic!("{error:?}")
    };
    assert_eq!(
        (&**export, &**found, &**expected),
        ("add", "(i64, i64) -> i64", "() -> i32")
    );
}

#[test]
fn a_start_function_that_traps_is_named() {
    let pool = quiet().build().unwrap();
    let wasm = wat(r#"(module (func $s unreachable) (start $s)
        (func (export "f") (result i32) i32.const 1))"#);
    let error = refused_at_the_first_lease(&pool, wasm);
    assert!(
        wasm_pool::Report(&error)
            .to_string()
            .contains("the start function trapped"),
        "{error}"
    );
    let AcquireError::StartTrapped { trap, .. } = error else {
        panic!("{error:?}")
    };
    assert_eq!(trap.code, Trap::UnreachableCodeReached);
}

#[test]
fn a_data_segment_beyond_the_memory_traps_at_the_start() {
    let pool = quiet().build().unwrap();
    let wasm = wat(r#"(module (memory 1) (data (i32.const 65536) "x")
        (func (export "f") (result i32) i32.const 1))"#);
    let error = refused_at_the_first_lease(&pool, wasm);
    let AcquireError::StartTrapped { trap, .. } = error else {
        panic!("{error:?}")
    };
    assert_eq!(trap.code, Trap::MemoryOutOfBounds);
}

const ENDLESS_START: &str = r#"(module (func $s (loop br 0)) (start $s)
    (func (export "f") (result i32) i32.const 1))"#;

/// The endless function has `limit` alone; good code in its place has all the time it needs.
fn check_endless_start(
    pool: &Pool,
    limit: Duration,
    acquire: impl Fn(&InGroup<(), i32>) -> AcquireError,
) {
    let endless = f(wat(ENDLESS_START)).call_timeout(limit);
    let function = pool.define::<(), i32>(endless).unwrap().in_group(1);
    for _ in 0..2 {
        let error = acquire(&function);
        let text = format!("the start function ran out of time ({limit:?})");
        assert!(
            wasm_pool::Report(&error).to_string().contains(&text),
            "{error}"
        );
        let AcquireError::StartLimit { limit: of, .. } = error else {
            panic!("{error:?}")
        };
        assert_eq!(of, CallLimit::Time(limit));
        let stats = check(pool);
        assert_eq!((stats.idle, stats.leased), (0, 0));
        assert_eq!(stats.budget(Budget::Memory).charged, 0);
    }
    pool.replace::<(), i32>(f(answering(8))).unwrap();
    assert_eq!(function.call(()).unwrap(), 8);
    pool.remove("f").unwrap();
    check_empty(pool);
}

#[test]
fn an_endless_start_function_runs_into_the_call_timeout() {
    let pool = quiet().build().unwrap();
    check_endless_start(&pool, Duration::from_millis(10), |function| {
        with_ticks(&pool, || function.acquire().unwrap_err())
    });
}

#[test]
fn the_housekeeper_ends_an_endless_start_function() {
    let builder = Pool::builder().epoch_tick(Duration::from_millis(1));
    let pool = builder.build().unwrap();
    check_endless_start(&pool, Duration::from_millis(5), |function| {
        function.acquire().unwrap_err()
    });
}

#[test]
fn an_endless_start_function_runs_out_of_fuel() {
    let pool = quiet().fuel(10_000).build().unwrap();
    let error = refused_at_the_first_lease(&pool, wat(ENDLESS_START));
    assert!(
        wasm_pool::Report(&error)
            .to_string()
            .contains("ran out of fuel (10000 units)"),
        "{error}"
    );
    let AcquireError::StartLimit { limit, .. } = error else {
        panic!("{error:?}")
    };
    assert_eq!(limit, CallLimit::Fuel(10_000));
}

#[test]
fn a_start_function_whose_host_call_fails_is_not_instantiated() {
    let add_fail = |linker: &mut Linker<StoreData<()>>| {
        let fail = || -> wasmtime::Result<()> { Err(wasmtime::Error::msg("no such table")) };
        linker.func_wrap("env", "fail", fail)?;
        Ok(())
    };
    let pool = quiet().imports(add_fail).build().unwrap();
    let wasm = wat(r#"(module (import "env" "fail" (func $s)) (start $s)
        (func (export "f") (result i32) i32.const 1))"#);
    let error = refused_at_the_first_lease(&pool, wasm);
    let AcquireError::Instantiate { source, .. } = error else {
        panic!("{error:?}")
    };
    assert!(source.to_string().contains("no such table"), "{source:?}");
}

#[test]
fn a_create_hook_that_fails_fails_the_lease() {
    let pool = quiet()
        .on_create(|_, _| Err(wasmtime::Error::msg("not today")))
        .build()
        .unwrap();
    let function: Function<(), i32> = pool.define(f(answering(1))).unwrap();
    let error = function.acquire(1).unwrap_err();
    assert!(
        matches!(error, AcquireError::Instantiate { .. }),
        "{error:?}"
    );
    assert!(
        wasm_pool::Report(&error).to_string().contains("not today"),
        "{error}"
    );
    assert_eq!(check(&pool).budget(Budget::Memory).charged, 0);
    pool.close();
    check_empty(&pool);
}
