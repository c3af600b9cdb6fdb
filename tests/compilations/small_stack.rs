//! What a module nests costs no stack; and a thread that has little of it may compile.

use wasm_pool::{
    Artifacts, Definition, MemoryStore, ModuleLimit, ModuleLimits, Pool, PrecompileOutcome,
};

use crate::common::hostile::{Recipe, Shape};

/// Less than the compiler takes. (`acquire` wants more, for the guest.)
const SMALL: usize = 128 << 10;

fn on_small_thread(run: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(SMALL).spawn(run);
    thread.unwrap().join().unwrap();
}

/// As deep as the default limits admit; quick to compile.
fn deep() -> Vec<(&'static str, Vec<u8>)> {
    let of = |shape, count| Recipe::default().with(shape, count, 0).module(1);
    let nesting = ModuleLimits::new().get(ModuleLimit::Nesting) as u32;
    vec![
        ("blocks", of(Shape::Block, nesting)),
        ("ifs", of(Shape::If, nesting / 4)),
        ("loops", of(Shape::Loop, 300)),
        ("operands", of(Shape::Operands, 20_000)),
        ("a chain", of(Shape::Chain, 20_000)),
        ("selections", of(Shape::Select, 5_000)),
    ]
}

#[test]
fn deep_nesting_is_compiled_on_a_thread_with_little_stack() {
    // The guest wants little, so that the thread is not refused.
    let artifacts = Artifacts::builder()
        .store(MemoryStore::new(1 << 20))
        .build();
    let pool = Pool::builder()
        .artifacts(&artifacts)
        .max_wasm_stack(1)
        .no_housekeeper()
        .build()
        .unwrap();
    for (name, wasm) in deep() {
        let pool = pool.clone();
        let handle = std::thread::Builder::new().stack_size(SMALL + (64 << 10));
        let done = handle.spawn(move || pool.precompile([(name, wasm)]).next().unwrap());
        let done = done.unwrap().join().unwrap();
        assert_eq!(
            done.outcome.ok(),
            Some(PrecompileOutcome::Compiled),
            "{name}"
        );
    }
}

#[test]
fn what_nests_too_deep_is_refused_on_a_thread_with_little_stack() {
    on_small_thread(|| {
        let pool = Pool::builder().no_housekeeper().build().unwrap();
        let wasm = Recipe::default().with(Shape::Block, 100_000, 0).module(1);
        let definition = Definition::new("f").wasm(wasm);
        let error = pool.define::<(), ()>(definition).unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("blocks in each other"), "{source}");
    });
}
