//! Errors: whom they are for, of what kind they are, and what they say.

use std::error::Error;
use std::time::Duration;

use wasm_pool::{
    AcquireError, BuildError, CallError, DefineError, Definition, ErrorKind, Function, Limits,
    LookupError, Pool, PoolBuilder, Report,
};

use crate::common::memory_module;

const MODULE: &str = r#"(module
    (import "host" "fail" (func $fail))
    (memory (export "memory") 1)
    (func (export "alloc") (param i32) (result i32) (i32.const 0))
    (func (export "dealloc") (param i32 i32))
    (func (export "trap") unreachable)
    (func (export "spin") (loop br 0))
    (func (export "fail") call $fail))"#;

fn builder() -> PoolBuilder {
    Pool::builder().no_housekeeper().imports(|linker| {
        linker.func_wrap("host", "fail", || -> wasmtime::Result<()> {
            Err(wasmtime::Error::msg("the disk is full").context("row 7"))
        })?;
        Ok(())
    })
}

fn define(pool: &Pool, export: &str) -> Function<(), ()> {
    let definition = Definition::new(export).wasm(wat::parse_str(MODULE).unwrap());
    pool.define(definition).unwrap()
}

/// What a host answers: all that it has to write.
fn http_status(error: &CallError) -> u16 {
    match error.kind() {
        ErrorKind::NotFound => 404,
        ErrorKind::Invalid | ErrorKind::TooLarge => 400,
        ErrorKind::Guest | ErrorKind::Limit => 422,
        _ if error.is_retryable() => 503,
        _ => 500,
    }
}

/// One error of each kind that a call can have, with the status that it should have.
fn errors_of_calls() -> Vec<(u16, ErrorKind, CallError)> {
    let pool = builder()
        .max_instances_per_entry(1)
        .fuel(10_000)
        .build()
        .unwrap();
    let call = |export: &str| define(&pool, export).call(1, ()).unwrap_err();
    let mut errors = vec![
        (422, ErrorKind::Guest, call("trap")),
        (422, ErrorKind::Limit, call("spin")),
        (500, ErrorKind::Host, call("fail")),
    ];
    let dealloc: Function = pool
        .define(Definition::new("dealloc").wasm(wat::parse_str(MODULE).unwrap()))
        .unwrap();
    let arguments = dealloc.call_values(1, &[]).unwrap_err();
    errors.push((400, ErrorKind::Invalid, arguments));
    let mut held = dealloc.acquire(1).unwrap();
    let full = held.pass_bytes(b"x").unwrap_err();
    errors.push((422, ErrorKind::Limit, full));
    let busy = dealloc.try_acquire(1).map(drop).unwrap_err();
    errors.push((503, ErrorKind::Exhausted, busy.into()));
    let late = dealloc.acquire_timeout(1, Duration::ZERO);
    let late = late.map(drop).unwrap_err();
    errors.push((503, ErrorKind::Timeout, late.into()));
    held.canceller().cancel();
    let cancelled = held.call_values(&[wasmtime::Val::I32(0); 2]).unwrap_err();
    errors.push((500, ErrorKind::Cancelled, cancelled));
    let broken = held.call_values(&[wasmtime::Val::I32(0); 2]).unwrap_err();
    errors.push((500, ErrorKind::Misuse, broken));

    pool.remove("trap").unwrap();
    let trap: Result<Function<(), ()>, LookupError> = pool.function("trap");
    let unknown = trap.unwrap_err();
    assert_eq!(
        (unknown.kind(), unknown.target(), unknown.is_retryable()),
        (ErrorKind::NotFound, "trap", false)
    );
    let spin: Function<(), ()> = pool.function("spin").unwrap();
    pool.remove("spin").unwrap();
    errors.push((404, ErrorKind::NotFound, spin.call(1, ()).unwrap_err()));
    let broken = r#"(module (func (export "f") (result i32)))"#;
    let definition = Definition::new("f").wasm(wat::parse_str(broken).unwrap());
    let f: Function = pool.define(definition).unwrap();
    let uncompiled = f.call_values(1, &[]).unwrap_err();
    errors.push((400, ErrorKind::Invalid, uncompiled));
    pool.close();
    errors.push((500, ErrorKind::Closed, f.call_values(1, &[]).unwrap_err()));

    let small = builder().limits(Limits::new().memory(100_000));
    let small = small.build().unwrap();
    let definition = |pages| Definition::new("f").wasm(memory_module(pages, 1));
    let large: Function<(), i32> = small.define(definition(2)).unwrap();
    let never = large.call(1, ()).unwrap_err();
    errors.push((400, ErrorKind::TooLarge, never));
    small.remove("f").unwrap();
    let f: Function<(), i32> = small.define(definition(1)).unwrap();
    let _held = f.acquire(1).unwrap();
    let not_now = f.call(2, ()).unwrap_err();
    errors.push((503, ErrorKind::Exhausted, not_now));
    errors
}

#[test]
fn a_host_maps_errors_in_five_lines() {
    for (status, kind, error) in errors_of_calls() {
        assert_eq!(
            (error.kind(), http_status(&error)),
            (kind, status),
            "{error:?}"
        );
        assert_eq!(error.is_retryable(), status == 503, "{error:?}");
        assert!(!error.target().name().is_empty());
    }
}

/// No message of the chain repeats one behind it, and a report has all of them.
fn check_chain(error: &(dyn Error + 'static)) {
    let messages: Vec<_> = std::iter::successors(Some(error), |error| (*error).source())
        .map(ToString::to_string)
        .collect();
    let report = Report(error).to_string();
    for (n, message) in messages.iter().enumerate() {
        assert!(report.contains(message), "{report}");
        // Wasmtime's own errors are as they are.
        for later in messages[n + 1..].iter().filter(|_| n == 0) {
            assert!(!message.contains(later), "{messages:#?}");
        }
    }
}

#[test]
fn each_message_of_a_chain_is_printed_once() {
    let mut with_sources = 0;
    for (_, _, error) in errors_of_calls() {
        check_chain(&error);
        with_sources += usize::from(error.source().is_some());
    }
    assert_eq!(with_sources, 5);
    let pool = builder().build().unwrap();
    let refused = |definition: Definition| pool.define::<(), ()>(definition).unwrap_err();
    let imports = r#"(module (import "no" "such" (func)) (func (export "f")))"#;
    let f = || Definition::new("f");
    for (error, says) in [
        (refused(Definition::new("f g")), "the name contains ' '"),
        (refused(f().wasm(*b"ELF")), "not WebAssembly"),
        (refused(f().wasm(wat::parse_str(imports).unwrap())), "such"),
        (
            refused(f().wasm(memory_module(1, 1)).call_timeout(Duration::ZERO)),
            "call_timeout is zero",
        ),
    ] {
        check_chain(&error);
        let source = error.source().expect("what is wrong").to_string();
        assert!(source.contains(says), "{source}");
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.target().starts_with('f'));
    }
    assert!(matches!(refused(f()), DefineError::NoWasm { target } if &*target == "f()"));
    let error = Pool::builder().limits(Limits::new().code(0)).build();
    let error = error.map(drop).unwrap_err();
    assert!(matches!(error, BuildError::Limits(_)));
    check_chain(&error);
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[test]
fn kinds_have_names() {
    for kind in ErrorKind::ALL {
        assert_eq!(kind.to_string().parse(), Ok(kind));
    }
    let error = "404".parse::<ErrorKind>().unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("\"404\" is not a kind of error: one of invalid, ")
    );
}

#[test]
fn who_holds_a_removed_function_learns_for_whom_it_was() {
    let pool = builder().build().unwrap();
    let trap = define(&pool, "trap");
    pool.remove("trap").unwrap();
    let AcquireError::Removed { target } = trap.acquire("tenant").map(drop).unwrap_err() else {
        panic!("it is removed")
    };
    assert_eq!(target.to_string(), "trap() in group tenant");
}
