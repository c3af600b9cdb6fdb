//! Workers that share a bucket.

use std::sync::Arc;

use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use object_store::path::Path;
#[cfg(unix)]
use wasm_pool::DirStore;
use wasm_pool::{ArtifactStore, Artifacts, MemoryStore, ObjectStoreAdapter, Pool};

#[cfg(unix)]
use crate::common::temp_dir::TempDir;
use crate::common::*;

/// A worker: a pool with a memory of its own, and the bucket.
fn worker(bucket: &Arc<InMemory>, secret: &[u8]) -> (Pool, Arc<MemoryStore>) {
    let memory = Arc::new(MemoryStore::new(64 << 20));
    let shared = ObjectStoreAdapter::new(bucket.clone(), "fleet").unwrap();
    let artifacts = Artifacts::builder()
        .store(memory.clone())
        .store(shared)
        .secret(secret)
        .build();
    (quiet().artifacts(&artifacts).build().unwrap(), memory)
}

fn answer(pool: &Pool) -> i32 {
    define_with_pages(pool, "f", 1).call(1, ()).unwrap()
}

#[test]
fn one_worker_compiles_for_all() {
    let bucket = Arc::new(InMemory::new());
    for compilations in [1, 0, 0] {
        let (pool, memory) = worker(&bucket, b"secret");
        assert_eq!(answer(&pool), 1);
        let stats = check(&pool);
        assert_eq!((stats.compilations, stats.loads), (compilations, 1));
        // What came from the bucket is in this worker's memory now.
        assert_eq!(memory.list().unwrap().len(), 1);
    }
}

/// A worker's directory has what came from the bucket, when the worker starts again.
#[cfg(unix)]
#[test]
fn a_worker_fetches_an_artifact_once() {
    let bucket = Arc::new(InMemory::new());
    let (pool, _) = worker(&bucket, b"secret");
    assert_eq!(answer(&pool), 1);
    let temp = TempDir::new();
    let start = |bucket: &Arc<InMemory>| {
        let directory = Arc::new(DirStore::open(temp.join("artifacts")).unwrap());
        let artifacts = Artifacts::builder()
            .store(directory.clone())
            .store(ObjectStoreAdapter::new(bucket.clone(), "fleet").unwrap())
            .secret(b"secret")
            .build();
        let pool = quiet().artifacts(&artifacts).build().unwrap();
        assert_eq!(answer(&pool), 1);
        assert_eq!(check(&pool).compilations, 0);
        assert_eq!(artifacts.stats().failures, 0);
        assert_eq!(directory.list().unwrap().len(), 1);
    };
    start(&bucket);
    let empty = Arc::new(InMemory::new());
    start(&empty);
}

#[test]
fn nobody_loads_what_a_worker_without_the_secret_has_put_there() {
    let bucket = Arc::new(InMemory::new());
    for secret in [b"theirs", b"ours!!"] {
        let (pool, _) = worker(&bucket, secret);
        assert_eq!(answer(&pool), 1);
        assert_eq!(check(&pool).compilations, 1);
    }
}

#[test]
fn one_who_changes_an_artifact_makes_it_be_compiled_again() {
    let bucket = Arc::new(InMemory::new());
    let store = ObjectStoreAdapter::new(bucket.clone(), "fleet").unwrap();
    let (pool, _) = worker(&bucket, b"secret");
    assert_eq!(answer(&pool), 1);
    let key = store.list().unwrap()[0].key;
    let path = Path::from(format!("fleet/{key}"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let object = bucket.get(&path).await.unwrap().bytes().await.unwrap();
        let mut object = object.to_vec();
        object[100] ^= 1;
        bucket.put(&path, object.into()).await.unwrap();
    });
    for compilations in [1, 0] {
        let (pool, _) = worker(&bucket, b"secret");
        assert_eq!(answer(&pool), 1);
        assert_eq!(check(&pool).compilations, compilations);
    }
}
