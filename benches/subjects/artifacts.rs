//! From an artifact to the first call: wasmtime alone, which verifies nothing, and a pool.
#![allow(
    unsafe_code,
    reason = "the baseline is what a host would do with wasmtime alone"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use wasm_pool::{ArtifactStore, Artifacts, Definition, DirStore, Function, MemoryStore, Pool};
use wasmtime::{Config, Engine, Instance, Module, Store};

use super::Subject;

/// A folder of this process's own, which goes with it.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.expect("a clock after 1970").as_nanos();
        let name = format!("wasm-pool-bench-{name}-{}-{now}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// With settings as the pool's own engine has them.
fn engine() -> Engine {
    let mut config = Config::new();
    config.epoch_interruption(true);
    config.memory_may_move(false);
    config.wasm_backtrace_max_frames(None);
    config.generate_address_map(false);
    config.native_unwind_info(false);
    Engine::new(&config).expect("a plain engine")
}

/// `Module::deserialize_file`, an instance, and a call of the guest's allocator.
pub fn deserialize_file(wasm: &'static [u8]) -> Subject {
    let engine = engine();
    let folder = Folder::new("file");
    let file = folder.path().join("module.cwasm");
    let code = engine.precompile_module(wasm).expect("a good guest");
    fs::write(&file, code).expect("a file");
    Subject::new("deserialize_file", move |n| {
        let _folder = &folder;
        let began = Instant::now();
        for _ in 0..n {
            // SAFETY: the file is what `precompile_module` has just made, in a folder of this process's own.
            let module = unsafe { Module::deserialize_file(&engine, &file) };
            let module = module.expect("its own code");
            let mut store = Store::new(&engine, ());
            store.set_epoch_deadline(1 << 40);
            let instance = Instance::new(&mut store, &module, &[]).expect("no imports");
            let alloc = instance.get_typed_func::<i32, i32>(&mut store, "alloc");
            let alloc = alloc.expect("an allocator");
            assert_ne!(alloc.call(&mut store, 16).expect("some bytes"), 0);
        }
        began.elapsed()
    })
}

/// The code of the guest as an artifact has it, in a file.
fn code_in_file(wasm: &[u8]) -> (Folder, fs::File, u64) {
    let folder = Folder::new("code");
    let path = folder.path().join("code");
    let code = engine().precompile_module(wasm).expect("a good guest");
    fs::write(&path, &code).expect("a file");
    let file = fs::File::open(path).expect("the same file");
    (folder, file, code.len() as u64)
}

/// The digest of the code, which is in memory and in as much of the cache as fits: nothing that verifies is faster, on
/// one thread.
pub fn hash_alone(wasm: &'static [u8]) -> Subject {
    let code = engine().precompile_module(wasm).expect("a good guest");
    Subject::repeats("BLAKE3 of the code, in memory", move || {
        std::hint::black_box(blake3::hash(&code));
    })
}

/// The code from the page cache into a sealed file in memory, and nothing else.
#[cfg(target_os = "linux")]
pub fn copy_alone(wasm: &'static [u8]) -> Subject {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
    use std::io::Write;
    use std::os::unix::fs::FileExt;

    let (folder, file, bytes) = code_in_file(wasm);
    Subject::repeats("the code into a sealed file in memory", move || {
        let _folder = &folder;
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let mut copy = fs::File::from(memfd_create("copy", flags).expect("a file in memory"));
        let mut buffer = vec![0; 64 << 10];
        let mut at = 0;
        while at < bytes {
            let read = file.read_at(&mut buffer, at).expect("its own file");
            copy.write_all(&buffer[..read]).expect("memory");
            at += read as u64;
        }
        let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
        fcntl_add_seals(&copy, seals).expect("a file of its own");
    })
}

/// A pool that has these artifacts, and was never used.
fn pool(artifacts: &Artifacts, wasm: &'static [u8]) -> (Pool, Function<i32, i32>) {
    let pool = Pool::builder().artifacts(artifacts).build();
    let pool = pool.expect("a plain pool");
    let definition = Definition::new("alloc").wasm(wasm);
    let alloc = pool.define(definition).expect("a good guest");
    (pool, alloc)
}

/// The first call in a pool that is there, whose code comes from an artifact.
fn first_call(artifacts: &Artifacts, wasm: &'static [u8]) -> Duration {
    let (pool, alloc) = pool(artifacts, wasm);
    let began = Instant::now();
    assert_ne!(alloc.call(0, 16).expect("some bytes"), 0);
    let took = began.elapsed();
    assert_eq!(pool.stats().compilations, 0);
    took
}

fn fill(artifacts: &Artifacts, wasm: &'static [u8]) {
    let (pool, alloc) = pool(artifacts, wasm);
    alloc.call(0, 16).expect("some bytes");
    assert_eq!(pool.stats().compilations, 1);
}

/// From this store, as often as it is asked.
fn from(store: impl ArtifactStore, folder: Option<Folder>, wasm: &'static [u8]) -> Subject {
    let artifacts = Artifacts::builder().store(store).no_keeper().build();
    fill(&artifacts, wasm);
    Subject::new("first call from an artifact", move |n| {
        let _folder = &folder;
        (0..n).map(|_| first_call(&artifacts, wasm)).sum()
    })
}

/// From a directory that was never read.
pub fn first_time(wasm: &'static [u8]) -> Subject {
    Subject::new("first call from a new artifact", move |n| {
        let once = |_| {
            let folder = Folder::new("new");
            let store = DirStore::open(folder.path().join("artifacts")).expect("a directory");
            let artifacts = Artifacts::builder().store(store).no_keeper().build();
            fill(&artifacts, wasm);
            first_call(&artifacts, wasm)
        };
        (0..n).map(once).sum()
    })
}

/// The same file again, in the same process, as another pool has it.
pub fn again(wasm: &'static [u8]) -> Subject {
    let folder = Folder::new("again");
    let store = DirStore::open(folder.path().join("artifacts")).expect("a directory");
    from(store, Some(folder), wasm)
}

/// Compressed: decompressed each time. The keeper would have it raw after its second use.
#[cfg(feature = "zstd")]
pub fn compressed(wasm: &'static [u8]) -> Subject {
    use wasm_pool::{Codec, Upkeep};
    Subject::new("first call from a compressed artifact", move |n| {
        let once = |_| {
            let folder = Folder::new("zstd");
            let store = DirStore::open(folder.path().join("artifacts")).expect("a directory");
            let upkeep = Upkeep::new().codec(Codec::Zstd);
            let builder = Artifacts::builder().store_with(store, upkeep);
            let artifacts = builder.no_keeper().build();
            fill(&artifacts, wasm);
            first_call(&artifacts, wasm)
        };
        (0..n).map(once).sum()
    })
}

/// From memory, where it was saved.
pub fn in_memory(wasm: &'static [u8]) -> Subject {
    from(MemoryStore::new(64 << 20), None, wasm)
}

/// From a directory with memory in front of it, again: what came from the directory first has stayed in memory.
pub fn again_with_memory(wasm: &'static [u8]) -> Subject {
    let folder = Folder::new("tiers");
    let path = folder.path().join("artifacts");
    let directory = || DirStore::open(&path).expect("a directory");
    fill(&Artifacts::builder().store(directory()).build(), wasm);
    let memory = MemoryStore::new(64 << 20);
    let tiers = Artifacts::builder().store(memory).store(directory());
    let artifacts = tiers.no_keeper().build();
    first_call(&artifacts, wasm);
    Subject::new("first call from memory in front of a directory", move |n| {
        let _folder = &folder;
        (0..n).map(|_| first_call(&artifacts, wasm)).sum()
    })
}

/// Bytes of the guest's artifact, raw and as Zstandard makes it of each of these levels.
#[cfg(feature = "zstd")]
pub fn sizes(wasm: &'static [u8], levels: &[i32]) -> (u64, Vec<u64>) {
    use wasm_pool::{Codec, Upkeep};
    let saved = |upkeep: Upkeep| {
        let store = std::sync::Arc::new(MemoryStore::new(1 << 30));
        let artifacts = Artifacts::builder().store_with(store.clone(), upkeep);
        fill(&artifacts.no_keeper().build(), wasm);
        store.size().expect("a size")
    };
    let compressed =
        |level: &i32| saved(Upkeep::new().codec(Codec::Zstd).compression_level(*level));
    (
        saved(Upkeep::new()),
        levels.iter().map(compressed).collect(),
    )
}
