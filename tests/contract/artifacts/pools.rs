//! What pools do with artifacts.

use std::sync::{Arc, Barrier};
use std::thread;

use wasm_pool::{
    AcquireError, ArtifactInfo, ArtifactKey, ArtifactStore, Artifacts, Budget, Definition,
    EncodedArtifact, Function, Limits, Pool, PoolBuilder, StoreError, StoredArtifact,
};

use super::shelf::{Failing, Shelf};
use crate::common::*;

fn pool(shelf: &Shelf) -> Pool {
    quiet().artifacts(&shelf.artifacts()).build().unwrap()
}

fn answer(pool: &Pool) -> i32 {
    define_with_pages(pool, "f", 1).call(1, ()).unwrap()
}

#[test]
fn a_second_start_compiles_nothing() {
    let shelf = Shelf::default();
    let first = pool(&shelf);
    assert_eq!(answer(&first), 1);
    let stats = check(&first);
    assert_eq!((stats.compilations, stats.loads), (1, 1));
    let second = pool(&shelf);
    assert_eq!(answer(&second), 1);
    let stats = check(&second);
    assert_eq!((stats.compilations, stats.loads), (0, 1));
    assert_eq!(shelf.with(|shelf| (shelf.saves, shelf.loads)), (1, 2));
    for pool in [first, second] {
        pool.close();
        check_empty(&pool);
    }
}

#[test]
fn files_are_loaded_as_bytes_are() {
    let shelf = Shelf::default();
    assert_eq!(answer(&pool(&shelf)), 1);
    shelf.with(|shelf| shelf.gives_files = true);
    let pool = pool(&shelf);
    assert_eq!(answer(&pool), 1);
    assert_eq!(pool.stats().compilations, 0);
}

#[test]
fn evicted_code_is_loaded_and_not_compiled_again() {
    let shelf = Shelf::default();
    let pool = pool(&shelf);
    let f = define_with_pages(&pool, "f", 1);
    for _ in 0..3 {
        assert_eq!(f.call(1, ()).unwrap(), 1);
        // Whatever is idle and unused goes.
        pool.set_limits(Limits::new().memory(8192).code(1)).unwrap();
        pool.set_limits(Limits::new()).unwrap();
        assert_eq!(check(&pool).modules_loaded, 0);
    }
    let stats = pool.stats();
    assert_eq!((stats.compilations, stats.loads), (1, 3));
}

#[test]
fn what_an_artifact_is_charged_is_what_its_code_is_charged() {
    let shelf = Shelf::default();
    let charged = |pool: &Pool| {
        assert_eq!(answer(pool), 1);
        charged(pool, Budget::Code)
    };
    let compiled = charged(&pool(&shelf));
    let loaded = charged(&pool(&shelf));
    // The footer, and what pads the code to a page.
    assert!(
        (compiled..=compiled + 8192).contains(&loaded),
        "{compiled}, {loaded}"
    );
}

#[test]
fn another_engine_has_artifacts_of_its_own() {
    let shelf = Shelf::default();
    let compiled = |builder: PoolBuilder| {
        let pool = builder.artifacts(&shelf.artifacts()).build().unwrap();
        assert_eq!(answer(&pool), 1);
        pool.stats().compilations
    };
    assert_eq!(compiled(quiet()), 1);
    // Upgraded: each module is compiled again, once, and the old ones are still there.
    assert_eq!(compiled(quiet().fuel(1 << 40)), 1);
    assert_eq!(compiled(quiet().fuel(1 << 40)), 0);
    assert_eq!(compiled(quiet()), 0);
    assert_eq!(shelf.with(|shelf| shelf.artifacts.len()), 2);
}

#[test]
fn pools_that_share_their_artifacts_compile_once_between_them() {
    let shelf = Shelf::default();
    let artifacts = shelf.artifacts();
    let pools: Vec<_> = (0..4)
        .map(|_| quiet().artifacts(&artifacts).build().unwrap())
        .collect();
    let barrier = Barrier::new(pools.len());
    thread::scope(|scope| {
        for pool in &pools {
            scope.spawn(|| {
                barrier.wait();
                let f: Function = pool
                    .define(Definition::new("text.soundex").wasm(guest("text_soundex")))
                    .unwrap();
                drop(f.acquire(1).unwrap());
            });
        }
    });
    let compilations: u64 = pools.iter().map(|pool| check(pool).compilations).sum();
    assert_eq!(compilations, 1);
    assert_eq!(artifacts.stats().saved, 1);
}

#[test]
fn tasks_load_artifacts_too() {
    let shelf = Shelf::default();
    assert_eq!(answer(&pool(&shelf)), 1);
    let pool = pool(&shelf);
    let f = define_with_pages(&pool, "f", 1);
    let one = pollster::block_on(async { f.call_async(1, ()).await.unwrap() });
    assert_eq!((one, pool.stats().compilations), (1, 0));
}

#[test]
fn a_pool_works_on_without_a_store_that_fails() {
    for failing in [Failing::Unreadable, Failing::Refused, Failing::Panics] {
        let shelf = Shelf::default();
        shelf.with(|shelf| shelf.fails = Some(failing));
        let artifacts = shelf.artifacts();
        let pool = quiet().artifacts(&artifacts).build().unwrap();
        assert_eq!(answer(&pool), 1);
        assert_eq!(check(&pool).compilations, 1);
        let stats = artifacts.stats();
        assert_eq!(
            (stats.hits, stats.misses, stats.failures),
            (0, 1, 2),
            "{failing:?}"
        );
        // And with it again when it works.
        shelf.with(|shelf| shelf.fails = None);
        pool.set_limits(Limits::new().memory(8192).code(1)).unwrap();
        pool.set_limits(Limits::new()).unwrap();
        assert_eq!(define_with_pages(&pool, "g", 1).call(1, ()).unwrap(), 1);
        assert_eq!(artifacts.stats().saved, 1);
    }
}

#[test]
fn idle_instances_make_room_where_the_system_has_no_file_left() {
    let shelf = Shelf::default();
    assert_eq!(answer(&pool(&shelf)), 1);
    for (lacking, compilations) in [(2, 0), (1000, 1)] {
        let pool = pool(&shelf);
        let idle: Vec<_> = (2..6)
            .map(|n| define_with_pages(&pool, &format!("idle{n}"), n))
            .collect();
        for f in &idle {
            f.call(1, ()).unwrap();
        }
        let before = check(&pool);
        shelf.with(|shelf| shelf.lacks_files = lacking);
        assert_eq!(answer(&pool), 1);
        let stats = check(&pool);
        assert_eq!(stats.compilations - before.compilations, compilations);
        // One for the first refusal, two for the second; with nothing idle left, no room can be made.
        let evicted = before.idle + 1 - stats.idle;
        assert_eq!(evicted, if compilations == 0 { 3 } else { 4 });
        shelf.with(|shelf| shelf.lacks_files = 0);
    }
}

#[test]
fn a_store_behind_another_is_asked_when_that_has_nothing() {
    let (near, far) = (Shelf::default(), Shelf::default());
    assert_eq!(answer(&pool(&far)), 1);
    let chain = Artifacts::builder()
        .store(near.clone())
        .store(far.clone())
        .build();
    let pool = quiet().artifacts(&chain).build().unwrap();
    assert_eq!(answer(&pool), 1);
    assert_eq!(pool.stats().compilations, 0);
    // What is compiled is saved to both.
    define_with_pages(&pool, "g", 2).call(1, ()).unwrap();
    let saved = |shelf: &Shelf| shelf.with(|shelf| shelf.saves);
    assert_eq!((saved(&near), saved(&far)), (1, 2));
}

#[test]
fn code_that_has_no_room_is_not_loaded_from_an_artifact_either() {
    let shelf = Shelf::default();
    assert_eq!(answer(&pool(&shelf)), 1);
    let builder = quiet().limits(Limits::new().code(8192));
    let pool = builder.artifacts(&shelf.artifacts()).build().unwrap();
    let f = define_with_pages(&pool, "f", 1);
    let error = f.call(1, ()).unwrap_err();
    assert!(error.to_string().contains("code"), "{error}");
    let stats = check(&pool);
    assert_eq!((stats.compilations, stats.loads), (0, 0));
}

#[test]
fn an_artifact_is_loaded_where_compiling_would_not_fit() {
    let shelf = Shelf::default();
    shelf.with(|shelf| shelf.gives_files = true);
    assert_eq!(answer(&pool(&shelf)), 1);
    let with = |compile| {
        let builder = quiet().limits(Limits::new().compile(compile));
        let pool = builder.artifacts(&shelf.artifacts()).build().unwrap();
        let f = define_with_pages(&pool, "f", 1);
        let result = f.acquire(1).map(drop);
        check(&pool);
        result
    };
    with(512 << 10).unwrap();
    let refused = with((512 << 10) - 1).unwrap_err();
    assert!(
        matches!(refused, AcquireError::BudgetExceeded(_)),
        "{refused}"
    );
}

#[test]
fn code_that_has_an_artifact_goes_before_code_that_must_be_compiled() {
    let shelf = Shelf::default();
    let pool = pool(&shelf);
    let acquire = |name: &'static str, export| {
        let definition = Definition::new(name).wasm(guest(name)).export(export);
        let function: Function = pool.define(definition).unwrap();
        drop(function.acquire(1).unwrap());
        function
    };
    // The older one could not be saved: it costs a tenth of a second to have again, the other a load.
    shelf.with(|shelf| shelf.fails = Some(Failing::Refused));
    let unsaved = acquire("json_extract", "extract");
    shelf.with(|shelf| shelf.fails = None);
    let saved = acquire("text_soundex", "soundex");
    let full = charged(&pool, Budget::Code);
    pool.set_limits(Limits::new().code(full + 4096)).unwrap();
    // Either would do.
    acquire("text_levenshtein", "levenshtein");
    assert_eq!(check(&pool).code_dropped, 1);
    let before = pool.stats();
    drop(unsaved.acquire(1).unwrap());
    assert_eq!(check(&pool).loads, before.loads, "it is still there");
    drop(saved.acquire(1).unwrap());
    let after = check(&pool);
    assert_eq!((after.compilations, after.loads), (3, before.loads + 1));
}

#[cfg(feature = "warm-up")]
#[test]
fn a_warm_up_whose_snapshot_was_not_kept_is_part_of_what_its_code_costs() {
    let slow = wat(&format!(
        r#"(module (memory 8) (data (i32.const 0) "{}")
            (func (export "warm") (local $n i32)
                (loop $next
                    (local.set $n (i32.add (local.get $n) (i32.const 1)))
                    (br_if $next (i32.lt_u (local.get $n) (i32.const 50_000_000)))))
            (func (export "f") (result i32) (i32.load8_u (i32.const 9))))"#,
        "x".repeat(300_000),
    ));
    let shelf = Shelf::default();
    let pool = pool(&shelf);
    // The snapshot is saved first.
    shelf.with(|shelf| shelf.refuses = 1);
    let definition = Definition::new("slow").wasm(slow).export("f");
    let slow: Function<(), i32> = pool.define(definition.warm_up("warm")).unwrap();
    assert_eq!(slow.call(1, ()).unwrap(), i32::from(b'x'));
    let acquire = |name: &'static str, export| {
        let definition = Definition::new(name).wasm(guest(name)).export(export);
        let function: Function = pool.define(definition).unwrap();
        drop(function.acquire(1).unwrap());
    };
    acquire("text_soundex", "soundex");
    let full = charged(&pool, Budget::Code);
    pool.set_limits(Limits::new().code(full + 4096)).unwrap();
    // Either would do, and the other one is only loaded again.
    acquire("text_levenshtein", "levenshtein");
    let before = check(&pool);
    assert_eq!((before.warm_ups, before.code_dropped), (1, 1));
    drop(slow.acquire(1).unwrap());
    assert_eq!(check(&pool).loads, before.loads, "it is still there");
}

/// Of which hardly anything is data, and whose code has all of it.
#[test]
fn sparse_modules_are_loaded_as_bytes_too() {
    let sparse = wat(r#"(module (memory 128)
        (data (i32.const 0) "a") (data (i32.const 8000000) "b")
        (func (export "f") (result i32) (i32.load8_u (i32.const 8000000))))"#);
    let shelf = Shelf::default();
    let compilations = [(); 2].map(|()| {
        let pool = pool(&shelf);
        assert_eq!(define(&pool, "f", &*sparse).call(1, ()).unwrap(), 98);
        check(&pool).compilations
    });
    assert_eq!(compilations, [1, 0]);
}

/// A shelf that does not come to an end with what it saves.
struct Slow {
    shelf: Shelf,
    saves: Barrier,
    goes_on: Barrier,
}

impl ArtifactStore for Slow {
    fn load(&self, key: &ArtifactKey, most: u64) -> Result<StoredArtifact, StoreError> {
        self.shelf.load(key, most)
    }

    fn save(&self, key: &ArtifactKey, artifact: &EncodedArtifact<'_>) -> Result<(), StoreError> {
        self.saves.wait();
        self.goes_on.wait();
        self.shelf.save(key, artifact)
    }

    fn remove(&self, key: &ArtifactKey) -> Result<(), StoreError> {
        self.shelf.remove(key)
    }

    fn list(&self) -> Result<Vec<ArtifactInfo>, StoreError> {
        self.shelf.list()
    }
}

#[test]
fn who_does_not_wait_for_compilations_does_not_wait_for_another_pools() {
    let slow = Arc::new(Slow {
        shelf: Shelf::default(),
        saves: Barrier::new(2),
        goes_on: Barrier::new(3),
    });
    let artifacts = Artifacts::builder().store(slow.clone()).build();
    let [first, second] = [(); 2].map(|()| quiet().artifacts(&artifacts).build().unwrap());
    thread::scope(|scope| {
        let saving = scope.spawn(|| answer(&first));
        slow.saves.wait();
        // It holds the key's flight. The other pool compiles beside it, and comes as far as saving that.
        let beside = scope.spawn(|| {
            let f = define_with_pages(&second, "f", 1);
            f.try_acquire(1).map(drop).unwrap();
        });
        slow.saves.wait();
        assert_eq!(check(&second).compilations, 1);
        slow.goes_on.wait();
        beside.join().unwrap();
        assert_eq!(saving.join().unwrap(), 1);
    });
}
