//! Artifacts are made ahead of time, by a deploy step; and code is prepared from them.

use std::sync::{Arc, mpsc};
use std::thread;

use wasm_pool::{
    AcquireError, Artifacts, Budget, CodeOrigin, Compiled, ErrorKind, InspectError, Limits,
    MemoryStore, Pool, PrecompileError, PrecompileOutcome, Precompiled,
};

use super::shelf::{Failing, Shelf};
use crate::common::*;

fn pool(artifacts: &Artifacts) -> Pool {
    quiet().artifacts(artifacts).build().unwrap()
}

fn broken() -> Vec<u8> {
    wat(r#"(module (func (export "f") (result i32) i64.const 1))"#)
}

fn one(pool: &Pool, name: &str, wasm: &[u8]) -> Precompiled {
    let mut all = pool.precompile([(name, wasm)]);
    assert_eq!(all.size_hint(), (1, Some(1)));
    let module = all.next().unwrap();
    assert!(all.next().is_none());
    module
}

#[track_caller]
fn outcome(module: &Precompiled) -> PrecompileOutcome {
    *module.outcome.as_ref().unwrap()
}

#[track_caller]
fn end(pool: &Pool) {
    check(pool);
    check_empty(pool);
    pool.close();
}

#[test]
fn what_a_deploy_step_has_compiled_is_compiled_by_nobody_else() {
    let shelf = Shelf::default();
    let modules = [1, 2, 3].map(|answer| (format!("{answer}.wasm"), answering(answer)));
    let deploying = pool(&shelf.artifacts());
    let mut sizes = Vec::new();
    for (index, module) in deploying.precompile(modules.clone()).enumerate() {
        assert_eq!(module.index, index);
        assert_eq!(&*module.name, modules[index].0);
        assert_eq!(module.wasm_bytes, modules[index].1.len() as u64);
        assert_eq!(outcome(&module), PrecompileOutcome::Compiled);
        assert!(module.artifact_bytes > module.wasm_bytes && !module.time.is_zero());
        sizes.push(module.artifact_bytes);
    }
    let stats = check(&deploying);
    assert_eq!(
        (stats.compilations, stats.loads, stats.modules_known),
        (3, 0, 0)
    );
    assert_eq!((stats.hits, stats.misses), (0, 0));
    assert_eq!(shelf.with(|shelf| shelf.saves), 3);

    let again = pool(&shelf.artifacts());
    for (module, size) in again.precompile(modules.clone()).zip(sizes) {
        assert_eq!(outcome(&module), PrecompileOutcome::Present);
        // As it is mapped: in whole pages, with the footer.
        assert!((size..=size + 8192).contains(&module.artifact_bytes));
    }
    assert_eq!(again.stats().compilations, 0);

    for prepares in [true, false] {
        let serving = pool(&shelf.artifacts());
        for (answer, (name, wasm)) in (1..).zip(&modules) {
            let f = define(&serving, name.trim_end_matches(".wasm"), wasm.clone());
            if prepares {
                assert_eq!(f.prepare().unwrap().origin, CodeOrigin::Loaded);
                assert_eq!(f.prepare().unwrap().origin, CodeOrigin::Present);
            }
            assert_eq!(f.call(1, ()).unwrap(), answer);
        }
        let stats = check(&serving);
        assert_eq!((stats.compilations, stats.loads), (0, 3));
    }
    end(&deploying);
    end(&again);
}

#[test]
fn one_that_fails_does_not_stop_the_others() {
    let shelf = Shelf::default();
    let artifacts = shelf.artifacts();
    let pool = pool(&artifacts);
    let modules = [
        ("garbage", b"what is this?".to_vec()),
        ("broken", broken()),
        ("good", answering(1)),
    ];
    let all: Vec<_> = pool.precompile(modules).collect();
    let kinds = all.iter().map(|module| match &module.outcome {
        Ok(_) => None,
        Err(error) => Some((error.kind(), error.is_retryable())),
    });
    let invalid = Some((ErrorKind::Invalid, false));
    assert_eq!(kinds.collect::<Vec<_>>(), [invalid, invalid, None]);
    let garbage = all[0].outcome.as_ref().unwrap_err();
    assert!(
        matches!(
            garbage,
            PrecompileError::Module(InspectError::NotWasm { .. })
        ),
        "{garbage:?}"
    );
    let broken = all[1].outcome.as_ref().unwrap_err();
    assert!(matches!(broken, PrecompileError::Compile(_)), "{broken:?}");
    assert_eq!(all[1].artifact_bytes, 0);
    let stats = check(&pool);
    assert_eq!((stats.compilations, stats.module_failures), (1, 1));
    assert_eq!(artifacts.stats().saved, 1);
    end(&pool);
}

#[test]
fn a_pool_without_artifacts_compiles_nothing() {
    let pool = quiet().build().unwrap();
    let error = one(&pool, "f", &answering(1)).outcome.unwrap_err();
    assert!(matches!(error, PrecompileError::NoArtifacts), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::Misuse);
    assert_eq!(check(&pool).compilations, 0);
    end(&pool);
}

#[test]
fn what_no_store_takes_is_said() {
    for failing in [None, Some(Failing::Unreadable), Some(Failing::Panics)] {
        let shelf = Shelf::default();
        shelf.with(|shelf| {
            shelf.fails = failing;
            shelf.read_only = failing.is_none();
        });
        let pool = pool(&shelf.artifacts());
        let module = one(&pool, "f", &answering(1));
        let error = module.outcome.unwrap_err();
        assert!(matches!(error, PrecompileError::NotSaved), "{error:?}");
        assert_eq!(check(&pool).compilations, 1);
        end(&pool);
    }
}

#[test]
fn too_small_a_budget_and_a_closed_pool_refuse() {
    let artifacts = Shelf::default().artifacts();
    let limits = Limits::new().compile(2 << 20);
    let small = quiet()
        .limits(limits)
        .artifacts(&artifacts)
        .build()
        .unwrap();
    let error = one(&small, "big.wasm", &answering(1)).outcome.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    let PrecompileError::Acquire(AcquireError::BudgetExceeded(short)) = error else {
        panic!("{error:?}")
    };
    assert_eq!(short.budget, Budget::Compile);
    assert_eq!(short.target.signature(), "big.wasm");
    assert_eq!(check(&small).compilations, 0);
    end(&small);
    let error = one(&small, "late", &answering(1)).outcome.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed, "{error:?}");
    check_empty(&small);
}

#[test]
fn a_corrupt_artifact_is_made_anew() {
    let shelf = Shelf::default();
    let pool = pool(&shelf.artifacts());
    let wasm = answering(1);
    assert_eq!(
        outcome(&one(&pool, "f", &wasm)),
        PrecompileOutcome::Compiled
    );
    let (key, mut bytes) = shelf.only();
    let whole = bytes.clone();
    bytes[100] ^= 1;
    shelf.put(key, bytes);
    assert_eq!(
        outcome(&one(&pool, "f", &wasm)),
        PrecompileOutcome::Compiled
    );
    assert_eq!(shelf.only(), (key, whole));
    assert_eq!(outcome(&one(&pool, "f", &wasm)), PrecompileOutcome::Present);
    end(&pool);
}

#[test]
fn threads_and_pools_that_want_the_same_compile_it_once() {
    let shelf = Shelf::default();
    let artifacts = shelf.artifacts();
    let pools = [pool(&artifacts), pool(&artifacts)];
    let wasm: Arc<[u8]> = guest("text_soundex").into();
    thread::scope(|scope| {
        for pool in [&pools[0], &pools[0], &pools[1], &pools[1]] {
            let wasm = wasm.clone();
            scope.spawn(move || {
                for module in pool.precompile([("a", &wasm), ("b", &wasm)]) {
                    module.outcome.unwrap();
                }
            });
        }
    });
    let compilations: u64 = pools.iter().map(|pool| check(pool).compilations).sum();
    assert_eq!((compilations, artifacts.stats().saved), (1, 1));
    pools.iter().for_each(end);
}

#[test]
fn its_room_is_charged_while_it_compiles_and_given_back() {
    let shelf = Shelf::default();
    let (tell, told) = mpsc::channel();
    let builder = quiet().artifacts(&shelf.artifacts());
    let hook = move |compiled: &Compiled| tell.send(compiled.reserved_bytes).unwrap();
    let pool = builder.on_compiled(hook).build().unwrap();
    let wasm = answering(1);
    let compiling = spans::hold("compile", "ahead.artifact");
    thread::scope(|scope| {
        let deploying = scope.spawn(|| one(&pool, "ahead.artifact", &wasm));
        compiling.wait_until_reached();
        let charged = check(&pool).budget(Budget::Compile).charged;
        assert!(charged >= compile_need(&wasm, "f"), "{charged}");
        drop(compiling);
        deploying.join().unwrap().outcome.unwrap();
        assert_eq!(told.recv(), Ok(charged));
    });
    end(&pool);
}

#[test]
fn who_stops_early_has_stopped() {
    let shelf = Shelf::default();
    let pool = pool(&shelf.artifacts());
    let modules = (1..4).map(|answer| ("f", answering(answer)));
    let first = pool.precompile(modules).next().unwrap();
    assert_eq!(outcome(&first), PrecompileOutcome::Compiled);
    assert_eq!(check(&pool).compilations, 1);
    end(&pool);
}

#[test]
fn what_is_there_is_found_where_its_code_would_not_fit() {
    let artifacts = Artifacts::builder()
        .store(MemoryStore::new(1 << 20))
        .build();
    let builder = quiet().limits(Limits::new().code(64 << 10));
    let pool = builder.artifacts(&artifacts).build().unwrap();
    for expected in [PrecompileOutcome::Compiled, PrecompileOutcome::Present] {
        let all: Vec<_> = pool.precompile([("json", guest("json_extract"))]).collect();
        assert_eq!(*all[0].outcome.as_ref().unwrap(), expected);
        assert_eq!(check(&pool).budget(Budget::Code).peak, 0);
    }
}
