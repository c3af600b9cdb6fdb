//! Artifacts that are not what was saved: no crash, no wrong result, always a miss.

use wasm_pool::{Artifacts, Definition, Function, Pool};

use super::shelf::Shelf;
use crate::common::*;

/// Pools come and go; each loads what stands on the shelf, or compiles.
struct Bench {
    shelf: Shelf,
    wasm: Vec<u8>,
}

impl Bench {
    fn new(wasm: Vec<u8>) -> Self {
        Self {
            shelf: Shelf::default(),
            wasm,
        }
    }

    fn compilations(&self, artifacts: &Artifacts) -> u64 {
        let pool: Pool = quiet().artifacts(artifacts).build().unwrap();
        let definition = Definition::new("f").wasm(&*self.wasm);
        let f: Function<(), i32> = pool.define(definition).unwrap();
        assert_eq!(f.call(1, ()).unwrap(), 1);
        check(&pool).compilations
    }
}

#[test]
fn an_artifact_of_another_module_is_not_taken() {
    let [one, other] = [1, 2].map(|salt| Bench::new(memory_module(1, salt)));
    one.compilations(&one.shelf.artifacts());
    other.compilations(&other.shelf.artifacts());
    let ((key, _), (_, foreign)) = (one.shelf.only(), other.shelf.only());
    one.shelf.put(key, foreign);
    let artifacts = one.shelf.artifacts();
    assert_eq!(one.compilations(&artifacts), 1);
    assert_eq!(artifacts.stats().rejected, 1);
    // It went, and what was compiled took its place.
    assert_eq!(one.compilations(&artifacts), 0);
}

#[test]
fn a_secret_keeps_strangers_artifacts_out() {
    let bench = Bench::new(memory_module(1, 1));
    let with = |secret: Option<&[u8]>| {
        let builder = Artifacts::builder().store(bench.shelf.clone());
        match secret {
            Some(secret) => builder.secret(secret).build(),
            None => builder.build(),
        }
    };
    let secrets: [Option<&[u8]>; 3] = [None, Some(b"one"), Some(b"another")];
    for maker in secrets {
        for taker in secrets {
            bench.shelf.with(|shelf| shelf.artifacts.clear());
            assert_eq!(bench.compilations(&with(maker)), 1);
            let expected = u64::from(maker != taker);
            assert_eq!(
                bench.compilations(&with(taker)),
                expected,
                "{maker:?} {taker:?}"
            );
        }
    }
}

#[test]
fn a_corrupt_artifact_on_a_read_only_shelf_stays() {
    let bench = Bench::new(memory_module(1, 1));
    let artifacts = bench.shelf.artifacts();
    assert_eq!(bench.compilations(&artifacts), 1);
    let (key, mut bytes) = bench.shelf.only();
    bytes[100] ^= 1;
    bench.shelf.put(key, bytes.clone());
    bench.shelf.with(|shelf| shelf.read_only = true);
    assert_eq!(bench.compilations(&artifacts), 1);
    assert_eq!(bench.shelf.only(), (key, bytes));
    bench
        .shelf
        .with(|shelf| assert_eq!((shelf.saves, shelf.removals), (1, 0)));
}
