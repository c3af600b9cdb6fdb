//! What an error says is what happened, down to the last cause, and each cause once.

use wasm_pool::{AcquireError, CallError, Definition, Function, Pool, Report};

use crate::common::wat;

fn occurrences(text: &str, words: &str) -> usize {
    text.matches(words).count()
}

#[test]
fn promise_18_a_compile_error_says_which_proposal_it_lacks() {
    let mut config = wasmtime::Config::new();
    config
        .epoch_interruption(true)
        .wasm_exceptions(false)
        .wasm_tail_call(false);
    let engine = wasmtime::Engine::new(&config).unwrap();
    let pool = Pool::builder().engine(engine).build().unwrap();
    let raises = r#"(module (tag $oops) (func (export "f") throw $oops))"#;
    let calls = r#"(module (func $f (export "f") return_call $f))"#;
    for (name, text, proposal) in [
        ("raises", raises, "exceptions"),
        ("calls", calls, "tail call"),
    ] {
        let definition = Definition::new(name).wasm(wat(text)).export("f");
        let f: Function<(), ()> = pool.define(definition).unwrap();
        let error = f.acquire(1).map(drop).unwrap_err();
        let AcquireError::Module { source, .. } = &error else {
            panic!("{error:?}");
        };
        for text in [Report(&error).to_string(), Report(&**source).to_string()] {
            assert_eq!(occurrences(&text, proposal), 1, "{text}");
            assert_eq!(occurrences(&text, "offset"), 1, "{text}");
        }
    }
}

#[test]
fn promise_18_a_link_error_says_both_types() {
    let pool = Pool::builder()
        .imports(|linker| {
            linker.func_wrap("env", "f", |x: i32| x)?;
            Ok(())
        })
        .build()
        .unwrap();
    let wasm = wat(r#"(module (import "env" "f" (func (param i64))) (func (export "g")))"#);
    let error = match pool.define::<(), ()>(Definition::new("g").wasm(wasm)) {
        Ok(g) => Report(&g.acquire(1).map(drop).unwrap_err()).to_string(),
        Err(error) => Report(&error).to_string(),
    };
    assert!(error.contains("i64") && error.contains("i32"), "{error}");
}

#[test]
fn promise_18_a_host_functions_error_says_all_its_causes_once() {
    #[derive(Debug, thiserror::Error)]
    #[error("the disk is full")]
    struct Full;
    #[derive(Debug, thiserror::Error)]
    #[error("the row was not written: {0}")]
    struct Unwritten(#[source] Full);
    let pool = Pool::builder()
        .imports(|linker| {
            linker.func_wrap("env", "write", || -> wasmtime::Result<()> {
                Err(wasmtime::Error::new(Unwritten(Full)).context("table 7"))
            })?;
            Ok(())
        })
        .on_create(|_, _| Ok(()))
        .build()
        .unwrap();
    let wasm = wat(
        r#"(module (import "env" "write" (func $w)) (func (export "f") call $w)
            (func (export "g")) (start $w))"#,
    );
    let calls = wat(r#"(module (import "env" "write" (func $w)) (func (export "f") call $w))"#);
    let starts: Function<(), ()> = pool
        .define(Definition::new("starts").wasm(wasm).export("g"))
        .unwrap();
    let called: Function<(), ()> = pool
        .define(Definition::new("called").wasm(calls).export("f"))
        .unwrap();
    let start = starts.acquire(1).map(drop).unwrap_err();
    let call = called.call(1, ()).unwrap_err();
    assert!(matches!(call, CallError::Host { .. }), "{call:?}");
    for text in [Report(&start).to_string(), Report(&call).to_string()] {
        for cause in ["table 7", "not written", "the disk is full"] {
            assert_eq!(occurrences(&text, cause), 1, "{text}");
        }
    }
}

#[test]
fn promise_09_a_compiler_that_panics_is_an_error() {
    // Valid, and more than Cranelift has aliasing regions for. Should a later one take it, that is well, too.
    let globals = "(global (mut externref) (ref.null extern))".repeat(100_000);
    let wasm = wat(&format!(r#"(module {globals} (func (export "f")))"#));
    let pool = Pool::builder().build().unwrap();
    let f: Function<(), ()> = pool.define(Definition::new("f").wasm(wasm)).unwrap();
    for _ in 0..2 {
        match f.acquire(1) {
            Ok(_) => {}
            Err(error) => assert!(
                Report(&error).to_string().contains("the compiler panicked"),
                "{error}"
            ),
        }
        let stats = crate::common::check(&pool);
        assert!(stats.compilations <= 1 && stats.compiling == 0);
    }
    let g: Function<(), i32> = (pool.define(
        Definition::new("g")
            .wasm(crate::common::answering(7))
            .export("f"),
    ))
    .unwrap();
    assert_eq!(g.call(1, ()).unwrap(), 7);
}
