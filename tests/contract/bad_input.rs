//! Bad input is a clear error, and nothing else: for everything that a host, a module or an engine
//! can get wrong, the exact variant, with all charges as before and the function usable at once.

use std::sync::Arc;
use std::time::Duration;

use crate::common::{answering, charges, check, check_empty, guest, spans, until, wat, with_ticks};
use proptest::prelude::*;
use wasm_pool::{
    AcquireError, Budget, BuildError, CallError, CallLimit, DefineError, Definition, Dynamic,
    Function, ImportError, InGroup, InspectError, Limits, LimitsError, LookupError, ManualClock,
    ModuleError, Pool, PoolBuilder, StoreData, UnknownFunction,
};
use wasmtime::{Config, Engine, Linker, Trap};

const MIB: u64 = 1 << 20;

fn quiet() -> PoolBuilder {
    Pool::builder().clock(ManualClock::new()).no_housekeeper()
}

fn f(wasm: impl Into<Arc<[u8]>>) -> Definition {
    Definition::new("f").wasm(wasm)
}

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
        DefineError::Module { function, source } => {
            assert_eq!(&*function, "f()");
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
        let text = error.to_string();
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
    assert!(matches!(&error, DefineError::NoWasm { function } if &**function == "f()"));
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
    assert!(error.to_string().contains("does not compile"), "{error}");
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
    assert!(error.to_string().contains("component"), "{error}");
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
    assert!(error.to_string().contains("does not link"), "{error}");
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
            error.to_string().contains("its functions are: g() -> ()"),
            "{error}"
        );
    }
}

#[test]
fn an_export_of_another_type_is_refused_with_both_types() {
    let pool = quiet().build().unwrap();
    let definition = Definition::new("f").wasm(guest("math_add")).export("add");
    let error = refused_at_the_door(&pool, definition);
    let DefineError::WrongSignature {
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
        error.to_string().contains("the start function trapped"),
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
        assert!(error.to_string().contains(&text), "{error}");
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
        error.to_string().contains("ran out of fuel (10000 units)"),
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
    assert!(error.to_string().contains("not today"), "{error}");
    assert_eq!(check(&pool).budget(Budget::Memory).charged, 0);
    pool.close();
    check_empty(&pool);
}

fn with_memories(memories: &str) -> Vec<u8> {
    wat(&format!(
        r#"(module {memories} (func (export "f") (result i32) i32.const 1))"#
    ))
}

#[track_caller]
fn check_memory_too_large(pool: &Pool, memories: &str, bytes: u64, most: u64) {
    let error = refused_at_the_door(pool, f(with_memories(memories)));
    assert!(
        error.to_string().contains(&format!("{bytes} bytes")),
        "{error}"
    );
    let DefineError::MemoryTooLarge {
        requested, limit, ..
    } = error
    else {
        panic!("{error:?}")
    };
    assert_eq!((requested, limit), (bytes, most));
}

#[test]
fn declared_memory_over_the_instance_limit_is_refused_in_bytes() {
    let pool = quiet().max_instance_memory(2 * MIB).build().unwrap();
    check_memory_too_large(&pool, "(memory 33)", 33 * 65_536, 2 * MIB);
    check_memory_too_large(&pool, "(memory i64 33)", 33 * 65_536, 2 * MIB);
    // Several that are over it together only.
    let together = "(memory 20) (memory 12) (memory 1)";
    check_memory_too_large(&pool, together, 33 * 65_536, 2 * MIB);
    let fits: Function<(), i32> = pool
        .define(f(with_memories("(memory 20) (memory 12)")))
        .unwrap();
    assert_eq!(fits.call(1, ()).unwrap(), 1);
    check(&pool);
}

/// At the door if the instance limit follows the budget, or else at the first lease.
#[test]
fn declared_memory_over_the_budget_is_refused_in_bytes() {
    const BUDGET: u64 = 16 * MIB;
    for limits in [Limits::new().memory(BUDGET), Limits::new().total(BUDGET)] {
        let pool = quiet().limits(limits).build().unwrap();
        let (requested, limit) = match pool.define::<(), i32>(f(with_memories("(memory 256)"))) {
            Err(DefineError::MemoryTooLarge {
                requested, limit, ..
            }) => (requested, limit),
            Err(other) => panic!("{other:?}"),
            Ok(function) => match function.acquire(1).unwrap_err() {
                AcquireError::BudgetExceeded(exceeded) => {
                    assert!(
                        exceeded.to_string().contains("It can never fit"),
                        "{exceeded}"
                    );
                    (exceeded.requested, exceeded.limit)
                }
                other => panic!("{other:?}"),
            },
        };
        assert!(
            requested >= BUDGET && limit <= BUDGET,
            "{requested} of {limit}"
        );
        check(&pool);
        check_empty(&pool);
    }
}

#[test]
fn declared_memory_that_overflows_is_refused() {
    let pool = quiet().build().unwrap();
    for memories in [
        "(memory i64 0x1000000000000)",
        "(memory i64 0x800000000000) (memory i64 0x800000000000)",
    ] {
        let error = refused_at_the_door(&pool, f(with_memories(memories)));
        let DefineError::MemoryTooLarge {
            requested, limit, ..
        } = error
        else {
            panic!("{error:?}")
        };
        assert!(requested == u64::MAX && limit < u64::MAX, "{limit}");
    }
}

#[test]
fn declared_sizes_that_no_machine_has_are_refused_without_any_limit() {
    for item in [
        "(memory i64 0xffffffffffff)",
        "(memory i64 0x400000000000)",
        "(table i64 0xffffffffffffffff funcref)",
        "(memory 1) (table i64 0x1fffffffffffffff funcref)",
    ] {
        let pool = quiet().max_table_elements(u64::MAX).build().unwrap();
        match pool.define::<(), i32>(f(with_memories(item))) {
            Err(error) => assert!(
                matches!(
                    error,
                    DefineError::MemoryTooLarge { .. } | DefineError::TableTooLarge { .. }
                ),
                "{error:?}"
            ),
            Ok(function) => {
                let error = function.try_acquire(1).unwrap_err();
                assert!(
                    !matches!(error, AcquireError::WouldBlock { .. }),
                    "{error:?}"
                );
                assert_eq!(check(&pool).budget(Budget::Memory).charged, 0);
                pool.remove("f").unwrap();
            }
        }
        check_empty(&pool);
    }
}

#[test]
fn memory_that_fits_a_limit_but_not_the_budget_is_refused_with_numbers() {
    let pool = quiet().build().unwrap();
    let function: Function<(), i32> = pool.define(f(with_memories("(memory 16)"))).unwrap();
    pool.set_limits(Limits::new().memory(MIB)).unwrap();
    let error = function.acquire(1).unwrap_err();
    let AcquireError::BudgetExceeded(exceeded) = &error else {
        panic!("{error:?}")
    };
    assert_eq!((exceeded.budget, exceeded.limit), (Budget::Memory, MIB));
    assert!(
        exceeded.requested > MIB && exceeded.requested < MIB + 16_384,
        "{exceeded:?}"
    );
    assert!(error.to_string().contains("It can never fit"), "{error}");
    assert_eq!(check(&pool).refused, 1);
    check_empty(&pool);
    pool.set_limits(Limits::new()).unwrap();
    assert_eq!(function.call(1, ()).unwrap(), 1);
}

#[test]
fn declared_tables_over_the_limit_are_refused() {
    let pool = quiet().max_table_elements(1000).build().unwrap();
    for (table, elements) in [
        ("(table 1001 funcref)", 1001),
        ("(table i64 0xffffffffffffffff funcref)", u64::MAX),
    ] {
        let error = refused_at_the_door(&pool, f(with_memories(table)));
        assert!(
            error.to_string().contains(&format!("{elements} elements")),
            "{error}"
        );
        let DefineError::TableTooLarge {
            requested, limit, ..
        } = error
        else {
            panic!("{error:?}")
        };
        assert_eq!((requested, limit), (elements, 1000));
    }
    let fits: Function<(), i32> = pool
        .define(f(with_memories("(table 1000 funcref)")))
        .unwrap();
    assert_eq!(fits.call(1, ()).unwrap(), 1);
}

#[test]
fn the_table_limit_is_for_each_table() {
    let pool = quiet().max_table_elements(1000).build().unwrap();
    let tables = with_memories("(table 600 funcref) (table 600 funcref)");
    let fits: Function<(), i32> = pool.define(f(tables)).unwrap();
    assert_eq!(fits.call(1, ()).unwrap(), 1);
}

#[test]
fn what_cannot_be_charged_is_not_supported() {
    let pool = quiet().build().unwrap();
    for (item, what) in [
        ("(memory 1 1 shared)", "shared memory"),
        (r#"(import "env" "m" (memory 1 1 shared))"#, "shared memory"),
        ("(memory 1 (pagesize 1))", "page size"),
        (r#"(import "env" "m" (memory 1 (pagesize 1)))"#, "page size"),
    ] {
        let error = refused_at_the_door(&pool, f(with_memories(item)));
        assert!(error.to_string().contains(what), "{error}");
        let source = inspected(error);
        assert!(
            matches!(source, InspectError::Unsupported { .. }),
            "{source:?}"
        );
    }
}

#[test]
fn code_larger_than_its_budget_is_compiled_once_and_refused_with_numbers() {
    spans::watch();
    let pool = quiet().limits(Limits::new().code(MIB)).build().unwrap();
    let definition = Definition::new("huge")
        .wasm(guest("text_regex_match"))
        .export("regex_match");
    let large: Function = pool.define(definition).unwrap();
    let exceeded = |error| match error {
        AcquireError::BudgetExceeded(exceeded) => exceeded,
        other => panic!("{other:?}"),
    };
    let first = exceeded(large.acquire(1).unwrap_err());
    assert_eq!((first.budget, first.limit), (Budget::Code, MIB));
    check_empty(&pool);
    assert_eq!(spans::begun("compile", "huge()"), 1);

    let second = exceeded(large.acquire(1).unwrap_err());
    assert_eq!(
        (second.budget, second.limit, second.charged),
        (Budget::Code, MIB, 0)
    );
    assert!(second.requested > 2 * MIB, "{second:?}");
    assert!(second.to_string().contains("It can never fit"), "{second}");
    assert_eq!(
        spans::begun("compile", "huge()"),
        1,
        "it was compiled again"
    );
    let stats = check(&pool);
    assert_eq!(
        (stats.refused, stats.modules_loaded, stats.loads),
        (2, 0, 0)
    );
    check_empty(&pool);

    let small: Function<(), i32> = pool.define(f(answering(3))).unwrap();
    assert_eq!(small.call(1, ()).unwrap(), 3);
    pool.set_limits(Limits::new()).unwrap();
    drop(large.acquire(1).unwrap());
    assert_eq!(
        pool.stats().function("huge").unwrap().code_bytes,
        second.requested
    );
}

#[test]
fn code_larger_than_its_budget_is_refused_with_all_that_it_needs() {
    let pool = quiet()
        .limits(Limits::new().code(128 << 10))
        .build()
        .unwrap();
    let definition = Definition::new("large")
        .wasm(guest("json_extract"))
        .export("extract");
    let large: Function = pool.define(definition).unwrap();
    let texts = [(); 2].map(|()| large.acquire(1).unwrap_err().to_string());
    assert_eq!(texts[0], texts[1]);
    assert!(
        texts[0].contains("128 KiB") || texts[0].contains("131072"),
        "{}",
        texts[0]
    );
    assert!(texts[0].contains("It can never fit"), "{}", texts[0]);
}

#[test]
fn a_compilation_larger_than_its_budget_is_refused_with_numbers() {
    spans::watch();
    let wasm = guest("text_soundex");
    let needed = (4 << 20) + 96 * wasm.len() as u64;
    let limits = Limits::new().compile(needed - 1);
    let pool = quiet().limits(limits).build().unwrap();
    let definition = Definition::new("huge.soundex").wasm(wasm);
    let soundex: Function = pool.define(definition).unwrap();
    let error = soundex.acquire(1).unwrap_err();
    let AcquireError::BudgetExceeded(exceeded) = &error else {
        panic!("{error:?}")
    };
    assert_eq!(exceeded.budget, Budget::Compile);
    assert_eq!((exceeded.requested, exceeded.limit), (needed, needed - 1));
    assert!(error.to_string().contains("It can never fit"), "{error}");
    assert_eq!(spans::begun("compile", "huge.soundex()"), 0);
    check(&pool);
    check_empty(&pool);
    pool.set_limits(limits.compile(needed)).unwrap();
    drop(soundex.acquire(1).unwrap());
    check(&pool);
}

#[test]
fn unknown_functions_are_named() {
    let pool = quiet().build().unwrap();
    let name = || "no.such".to_owned();
    assert_eq!(
        pool.function::<(), i32>("no.such").unwrap_err(),
        LookupError::Unknown { name: name() }
    );
    assert_eq!(
        pool.remove("no.such"),
        Err(UnknownFunction { name: name() })
    );
    let definition = Definition::new("no.such").args(["int"]).wasm(answering(1));
    let error = pool.replace::<(), i32>(definition).unwrap_err();
    assert_eq!(
        error,
        DefineError::NotDefined {
            function: "no.such(int)".into()
        }
    );
    assert_eq!(
        error.to_string(),
        "no.such(int) is not defined, so it cannot be replaced"
    );
    assert_eq!(check(&pool).modules_known, 0);
}

#[test]
fn an_ambiguous_name_comes_with_its_overloads() {
    let pool = quiet().build().unwrap();
    for args in [&["int"][..], &["text", "int"]] {
        let definition = Definition::new("f").args(args).wasm(answering(1));
        pool.define::<(), i32>(definition).unwrap();
    }
    let error = pool.function::<(), i32>("f").unwrap_err();
    let overloads = ["f(int)", "f(text, int)"].map(String::from).to_vec();
    assert_eq!(
        error,
        LookupError::Ambiguous {
            name: "f".into(),
            overloads
        }
    );
    assert!(
        error.to_string().contains("f(int); f(text, int)"),
        "{error}"
    );
    let one = pool.function::<(), i32>("f(text, int)").unwrap();
    assert_eq!(one.signature(), "f(text, int)");
    for unknown in ["f()", "f(text)", "f(", "f)", "(int)", ""] {
        let error = pool.function::<(), i32>(unknown).unwrap_err();
        assert!(
            matches!(error, LookupError::Unknown { .. }),
            "{unknown}: {error:?}"
        );
    }
    pool.remove("f").unwrap();
    assert!(pool.function::<(), i32>("f(int)").is_err());
}

#[test]
fn a_lookup_with_other_types_is_refused_with_both() {
    let pool = quiet().build().unwrap();
    pool.define::<(), i32>(f(answering(1))).unwrap();
    let error = pool.function::<i64, i32>("f").unwrap_err();
    assert_eq!(
        error.to_string(),
        "f() is () -> i32, and the handle expects i64 -> i32"
    );
    assert!(matches!(error, LookupError::WrongSignature { .. }));
    pool.function::<Dynamic, Dynamic>("f").unwrap();
}

#[test]
fn a_removed_function_is_gone_for_every_handle() {
    let pool = quiet().build().unwrap();
    let old: Function<(), i32> = pool.define(f(answering(1))).unwrap();
    let in_group = old.in_group(1);
    assert_eq!(
        (old.call(1, ()).unwrap(), in_group.call(()).unwrap()),
        (1, 1)
    );
    pool.remove("f").unwrap();
    check_empty(&pool);
    let new: Function<(), i32> = pool.define(f(answering(2))).unwrap();
    let gone = |error: AcquireError| {
        assert_eq!(error.to_string(), "function f() was removed");
        assert!(matches!(error, AcquireError::Removed { .. }), "{error:?}");
    };
    gone(old.acquire(1).unwrap_err());
    gone(old.acquire(2).unwrap_err());
    gone(old.try_acquire(1).unwrap_err());
    gone(in_group.acquire().unwrap_err());
    gone(old.in_group(3).acquire().unwrap_err());
    assert_eq!(new.call(1, ()).unwrap(), 2);
    check(&pool);
}

#[test]
fn a_name_is_taken_only_with_the_same_arguments() {
    let pool = quiet().build().unwrap();
    pool.define::<(), i32>(f(answering(1))).unwrap();
    let error = pool.define::<(), i32>(f(answering(2))).unwrap_err();
    assert_eq!(
        error,
        DefineError::AlreadyDefined {
            function: "f()".into()
        }
    );
    assert!(error.to_string().contains("use replace"), "{error}");
    let overload = f(answering(2)).args(["int"]);
    pool.define::<(), i32>(overload).unwrap();
    let kept: Function<(), i32> = pool.function("f()").unwrap();
    assert_eq!(kept.call(1, ()).unwrap(), 1);
    check(&pool);
}

#[test]
fn a_closed_pool_says_so_to_everybody() {
    let pool = quiet().max_instances_per_entry(1).build().unwrap();
    let function: Function<(), i32> = pool.define(f(answering(1))).unwrap();
    let in_group = function.in_group(1);
    let mut lease = function.acquire(1).unwrap();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| function.acquire(1).map(drop).unwrap_err());
        until(|| pool.stats().waiting == 1);
        pool.close();
        let error = waiter.join().unwrap();
        assert!(matches!(error, AcquireError::Closed { .. }), "{error:?}");
        assert_eq!(error.to_string(), "f() in group 1: the pool is closed");
    });
    for error in [
        function.acquire(1).unwrap_err(),
        function.try_acquire(2).unwrap_err(),
        in_group.acquire().unwrap_err(),
    ] {
        assert!(matches!(error, AcquireError::Closed { .. }), "{error:?}");
    }
    let error = pool
        .define::<(), i32>(f(answering(2)).args(["int"]))
        .unwrap_err();
    assert_eq!(
        error,
        DefineError::Closed {
            function: "f(int)".into()
        }
    );
    let error = pool.replace::<(), i32>(f(answering(2))).unwrap_err();
    assert_eq!(
        error,
        DefineError::Closed {
            function: "f()".into()
        }
    );

    assert_eq!(lease.call(()).unwrap(), 1, "leases end as they please");
    drop(lease);
    assert!(check(&pool).closed && pool.is_closed());
    check_empty(&pool);
    pool.close();
}

#[test]
fn limits_that_make_no_sense_name_their_field() {
    let limits = |builder: PoolBuilder| match builder.build().unwrap_err() {
        BuildError::Limits(error) => error,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        limits(quiet().limits(Limits::new().code(0))),
        LimitsError::Zero { field: "code" }
    );
    assert_eq!(
        limits(quiet().max_instances_per_entry(0)),
        LimitsError::Zero {
            field: "max_instances_per_entry"
        }
    );
    let huge = limits(quiet().limits(Limits::new().memory(u64::MAX - 1)));
    assert!(
        matches!(
            huge,
            LimitsError::TooLarge {
                field: "memory",
                ..
            }
        ),
        "{huge:?}"
    );
    let small = limits(
        quiet()
            .limits(Limits::new().memory(MIB))
            .max_instance_memory(MIB),
    );
    assert!(
        matches!(
            small,
            LimitsError::NeverFits {
                field: "memory",
                ..
            }
        ),
        "{small:?}"
    );
}

#[test]
fn a_linker_of_another_engine_is_refused() {
    let mut config = Config::new();
    config.epoch_interruption(true);
    let [ours, theirs] = [(); 2].map(|()| Engine::new(&config).unwrap());
    let error = quiet()
        .engine(ours.clone())
        .linker(Linker::new(&theirs))
        .build()
        .unwrap_err();
    assert!(matches!(error, BuildError::ForeignLinker), "{error:?}");
    let error = quiet().linker(Linker::new(&theirs)).build().unwrap_err();
    assert!(matches!(error, BuildError::ForeignLinker), "{error:?}");
    quiet()
        .engine(ours.clone())
        .linker(Linker::new(&ours))
        .build()
        .unwrap();
}

#[test]
fn imports_that_cannot_be_added_fail_the_build() {
    let twice = |linker: &mut Linker<StoreData<()>>| {
        linker.func_wrap("env", "log", |_: i32| {})?;
        linker.func_wrap("env", "log", |_: i32| {})?;
        Ok(())
    };
    let error = quiet().imports(twice).build().unwrap_err();
    assert!(matches!(error, BuildError::Engine(_)), "{error:?}");
    assert!(error.to_string().contains("defined twice"), "{error}");
}

#[test]
fn an_engine_that_lacks_what_a_setting_needs_is_refused() {
    let plain = Engine::default();
    let lacks = |builder: PoolBuilder| match builder.engine(plain.clone()).build().unwrap_err() {
        BuildError::EngineLacks { setting, needs } => (setting, needs),
        other => panic!("{other:?}"),
    };
    assert_eq!(lacks(quiet()), ("call_timeout", "epoch_interruption"));
    assert_eq!(
        lacks(quiet().fuel(1).call_timeout(None)),
        ("fuel", "consume_fuel")
    );
    let pool = quiet().call_timeout(None).build().unwrap();
    let fuel = pool.define::<(), i32>(f(answering(1)).fuel(5)).unwrap_err();
    let (function, setting, needs) = ("f()".into(), "fuel", "consume_fuel");
    assert_eq!(
        fuel,
        DefineError::EngineLacks {
            function,
            setting,
            needs
        }
    );
    let timeout = f(answering(1)).call_timeout(Duration::from_secs(1));
    let timeout = pool.define::<(), i32>(timeout).unwrap_err();
    let (function, setting, needs) = ("f()".into(), "call_timeout", "epoch_interruption");
    assert_eq!(
        timeout,
        DefineError::EngineLacks {
            function,
            setting,
            needs
        }
    );
}

/// Calls guests in a pool with the host's engine; it did not compile them, so it may be thrown
/// away with nothing of the compiler's.
fn check_host_engine(engine: &Engine, builder: PoolBuilder) {
    let pool = builder.engine(engine.clone()).build().unwrap();
    assert!(Engine::same(pool.engine(), engine));
    let definition = Definition::new("math.add").wasm(guest("math_add"));
    let add: Function<(i64, i64), i64> = pool.define(definition).unwrap();
    for n in 0..3 {
        assert_eq!(add.call(1, (n, 40)).unwrap(), n + 40);
    }
    assert_eq!(check(&pool).hits, 2);
    pool.close();
    check_empty(&pool);
}

#[test]
fn a_plain_engine_of_the_hosts_works() {
    let engine = Engine::default();
    check_host_engine(&engine, quiet().call_timeout(None));
}

#[test]
fn an_engine_of_the_hosts_with_fuel_and_epochs_works() {
    let mut config = Config::new();
    config.epoch_interruption(true).consume_fuel(true);
    check_host_engine(&Engine::new(&config).unwrap(), quiet().fuel(1_000_000));
}

#[test]
fn an_engine_that_counts_fuel_works_without_a_limit() {
    let mut config = Config::new();
    config.consume_fuel(true);
    check_host_engine(&Engine::new(&config).unwrap(), quiet().call_timeout(None));
}

#[test]
fn an_engine_with_epochs_works_without_a_timeout() {
    let mut config = Config::new();
    config.epoch_interruption(true);
    check_host_engine(&Engine::new(&config).unwrap(), quiet().call_timeout(None));
}

/// Define, lease, call, remove: whatever comes of it, the host is well and nothing stays charged.
fn try_everything(pool: &Pool, wasm: Vec<u8>, export: &str) {
    let definition = Definition::new("fuzz").wasm(wasm).export(export);
    if let Ok(function) = pool.define::<Dynamic, Dynamic>(definition.clone()) {
        for call in 0..2 {
            let Ok(mut lease) = function.acquire(call) else {
                continue;
            };
            let ty = lease.instance();
            let ty = ty.get_func(lease.store_mut(), export).unwrap();
            let ty = ty.ty(lease.store());
            let default = |ty| wasmtime::Val::default_for_ty(&ty);
            let params: Option<Vec<_>> = ty.params().map(default).collect();
            if let Some(params) = params {
                let _ = lease.call_values(&params);
                let _ = lease.pass_bytes(b"some bytes");
            }
        }
        check(pool);
        pool.remove("fuzz").unwrap();
    }
    // The typed check at the door reads what the module declares as well.
    if pool.define::<(i32, i32), i64>(definition).is_ok() {
        pool.remove("fuzz").unwrap();
    }
    assert_eq!(check(pool).modules_known, 0);
    check_empty(pool);
}

fn fuzzed() -> Pool {
    quiet()
        .fuel(100_000)
        .max_instance_memory(4 * MIB)
        .limits(Limits::new().memory(16 * MIB).code(16 * MIB))
        .build()
        .unwrap()
}

const SMALL: [(&str, &str); 8] = [
    ("math_add", "add"),
    ("state_counter", "next"),
    ("rogue_trap", "trap_if"),
    ("rogue_recurse", "recurse"),
    ("rogue_spin", "spin"),
    ("geo_haversine", "haversine"),
    ("rogue_leak", "leak"),
    ("text_soundex", "soundex"),
];

#[derive(Debug, Clone)]
enum Mutation {
    Flip(prop::sample::Index, u8),
    Set(prop::sample::Index, u8),
    Cut(prop::sample::Index, usize),
    Repeat(prop::sample::Index, usize),
    Splice(usize, prop::sample::Index, prop::sample::Index),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        4 => (at(), 0..8u8).prop_map(|(at, bit)| Mutation::Flip(at, bit)),
        3 => (at(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        1 => (at(), 1..40usize).prop_map(|(at, count)| Mutation::Cut(at, count)),
        1 => (at(), 1..40usize).prop_map(|(at, count)| Mutation::Repeat(at, count)),
        1 => (0..SMALL.len(), at(), at()).prop_map(|(other, a, b)| Mutation::Splice(other, a, b)),
    ]
}

fn mutate(wasm: &mut Vec<u8>, mutation: &Mutation) {
    if wasm.is_empty() {
        return;
    }
    let range = |wasm: &Vec<u8>, at: &prop::sample::Index, count: usize| {
        let at = at.index(wasm.len());
        at..wasm.len().min(at + count)
    };
    match mutation {
        Mutation::Flip(at, bit) => {
            let at = at.index(wasm.len());
            wasm[at] ^= 1 << bit;
        }
        Mutation::Set(at, byte) => {
            let at = at.index(wasm.len());
            wasm[at] = *byte;
        }
        Mutation::Cut(at, count) => drop(wasm.drain(range(wasm, at, *count))),
        Mutation::Repeat(at, count) => {
            let range = range(wasm, at, *count);
            let copy = wasm[range.clone()].to_vec();
            wasm.splice(range.start..range.start, copy);
        }
        Mutation::Splice(other, at, from) => {
            let other = guest(SMALL[*other].0);
            wasm.truncate(at.index(wasm.len()));
            wasm.extend(&other[from.index(other.len())..]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..<_>::default() })]

    #[test]
    fn random_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let pool = fuzzed();
        try_everything(&pool, bytes.clone(), "f");
        bytes.splice(0..0, *b"\0asm\x01\0\0\0");
        try_everything(&pool, bytes, "f");
    }

    #[test]
    fn mutated_guests_never_panic(
        which in 0..SMALL.len(),
        mutations in prop::collection::vec(mutation(), 1..4),
    ) {
        let (name, export) = SMALL[which];
        let mut wasm = guest(name);
        for mutation in &mutations {
            mutate(&mut wasm, mutation);
        }
        try_everything(&fuzzed(), wasm, export);
    }
}

#[test]
fn a_closed_pool_fails_a_call_too() {
    let pool = quiet().build().unwrap();
    let function: Function<(), i32> = pool.define(f(answering(1))).unwrap();
    pool.close();
    let error = function.call(1, ()).unwrap_err();
    assert!(
        matches!(error, CallError::Acquire(AcquireError::Closed { .. })),
        "{error:?}"
    );
}
