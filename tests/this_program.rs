//! A host that is its own compiler: its `main` begins with `serve_compiler_with`. So it has a `main` of its own, and its
//! checks run one after the other.

use wasm_pool::wasmtime::{self, Config, Engine};
use wasm_pool::{
    BuildError, CompilerError, CompilerProcess, Definition, Function, Limits, Pool, PoolBuilder,
};

/// Of the host's own engine.
fn config() -> wasmtime::Result<Config> {
    let mut config = Config::new();
    config.epoch_interruption(true).consume_fuel(true);
    Ok(config)
}

fn builder() -> PoolBuilder {
    Pool::builder()
        .no_housekeeper()
        .limits(Limits::new().compile(256 << 20))
        .compile_in(CompilerProcess::this_program())
}

#[track_caller]
fn answers(pool: &Pool) {
    let wasm = wat::parse_str(r#"(module (func (export "f") (result i32) i32.const 42))"#);
    let definition = Definition::new("f").wasm(wasm.unwrap());
    let f: Function<(), i32> = pool.define(definition).unwrap();
    assert_eq!(f.call(1, ()).unwrap(), 42);
    assert_eq!(pool.stats().compilations, 1);
}

fn main() {
    wasm_pool::serve_compiler_with(config);

    answers(&builder().build().unwrap());

    let engine = Engine::new(&config().unwrap()).unwrap();
    answers(&builder().engine(engine).fuel(1 << 30).build().unwrap());

    let mut other = Config::new();
    other.epoch_interruption(true);
    let engine = Engine::new(&other).unwrap();
    let refused = builder().engine(engine).build().map(drop).unwrap_err();
    assert!(
        matches!(
            refused,
            BuildError::Compiler(CompilerError::OtherEngine { .. })
        ),
        "{refused}"
    );
    println!("a host is its own compiler, with the pool's engine and with its own");
}
