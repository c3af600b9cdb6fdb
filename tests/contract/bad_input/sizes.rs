//! What modules declare must fit: an instance's limits, the budgets, and what can be charged at all.

use super::*;

fn with_memories(memories: &str) -> Vec<u8> {
    wat(&format!(
        r#"(module {memories} (func (export "f") (result i32) i32.const 1))"#
    ))
}

#[track_caller]
fn check_memory_too_large(pool: &Pool, memories: &str, bytes: u64, most: u64) {
    let error = refused_at_the_door(pool, f(with_memories(memories)));
    assert!(
        wasm_pool::Report(&error)
            .to_string()
            .contains(&format!("{bytes} bytes")),
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
    assert!(
        wasm_pool::Report(&error)
            .to_string()
            .contains("It can never fit"),
        "{error}"
    );
    assert_eq!(check(&pool).refusals, 1);
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
            wasm_pool::Report(&error)
                .to_string()
                .contains(&format!("{elements} elements")),
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
        assert!(
            wasm_pool::Report(&error).to_string().contains(what),
            "{error}"
        );
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
        (stats.refusals, stats.modules_loaded, stats.loads),
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
    let needed = compile_need(&wasm, "soundex");
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
    assert!(
        wasm_pool::Report(&error)
            .to_string()
            .contains("It can never fit"),
        "{error}"
    );
    assert_eq!(spans::begun("compile", "huge.soundex()"), 0);
    check(&pool);
    check_empty(&pool);
    pool.set_limits(limits.compile(needed)).unwrap();
    drop(soundex.acquire(1).unwrap());
    check(&pool);
}
