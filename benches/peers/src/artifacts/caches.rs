//! The contenders: everything that keeps compiled code for the next process, or the next engine.

use std::path::PathBuf;

use tempfile::TempDir;
use wasm_pool::{Artifacts, Definition, DirStore, Function, MemoryStore, Pool};
use wasmer::imports;
use wasmer_cache::{Cache as _, FileSystemCache, Hash};
use wasmtime::{CacheConfig, Config, Engine, Instance, Module, Store};

use super::{Cache, Guest, Started};

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

/// With deadlines, as wasm-pool has them.
fn config() -> Config {
    let mut config = Config::new();
    config.epoch_interruption(true);
    config
}

fn call(engine: &Engine, module: &Module) {
    let mut store = Store::new(engine, ());
    store.set_epoch_deadline(1 << 40);
    let instance = Instance::new(&mut store, module, &[]).expect("no imports");
    let alloc = instance.get_typed_func::<i32, i32>(&mut store, "alloc");
    let bytes = alloc.expect("an allocator").call(&mut store, 16);
    assert_ne!(bytes.expect("some bytes"), 0);
}

/// A file, and nothing around it.
pub struct Bare {
    _folder: TempDir,
    file: PathBuf,
}

impl Bare {
    pub fn new(guest: &Guest) -> Self {
        let folder = folder();
        let file = folder.path().join("module.cwasm");
        let engine = Engine::new(&config()).expect("the engine is plain");
        let code = engine.precompile_module(&guest.wasm).expect("it compiles");
        std::fs::write(&file, code).expect("the file");
        Self {
            _folder: folder,
            file,
        }
    }
}

impl Cache for Bare {
    fn start(&self) -> Box<dyn Started + '_> {
        let engine = Engine::new(&config()).expect("the engine is plain");
        Box::new((engine, &self.file))
    }
}

impl Started for (Engine, &PathBuf) {
    fn first_call(&mut self) {
        // SAFETY: the file is what `precompile_module` has made, in a folder of this process's own.
        let module = unsafe { Module::deserialize_file(&self.0, self.1) };
        call(&self.0, &module.expect("its own code"));
    }
}

/// `Config::cache`: compressed files, and a worker that counts uses.
pub struct WasmtimesOwn {
    folder: TempDir,
    wasm: Vec<u8>,
}

impl WasmtimesOwn {
    pub fn new(guest: &Guest) -> Self {
        let cache = Self {
            folder: folder(),
            wasm: guest.wasm.clone(),
        };
        let (engine, own) = cache.open();
        Module::new(&engine, &guest.wasm).expect("it compiles");
        assert_eq!((own.cache_hits(), own.cache_misses()), (0, 1));
        cache
    }

    fn open(&self) -> (Engine, wasmtime::Cache) {
        let mut settings = CacheConfig::new();
        settings.with_directory(self.folder.path());
        let own = wasmtime::Cache::new(settings).expect("a cache in a folder");
        let mut config = config();
        config.cache(Some(own.clone()));
        (Engine::new(&config).expect("the engine is plain"), own)
    }
}

impl Cache for WasmtimesOwn {
    fn start(&self) -> Box<dyn Started + '_> {
        let (engine, own) = self.open();
        Box::new((engine, own, &self.wasm))
    }
}

impl Started for (Engine, wasmtime::Cache, &Vec<u8>) {
    fn first_call(&mut self) {
        let (engine, own, wasm) = self;
        let module = Module::new(engine, wasm).expect("it is there");
        call(engine, &module);
        assert_eq!(own.cache_misses(), 0);
    }
}

/// One file for each hash of wasm, in an engine of wasmer's.
pub struct Wasmer {
    folder: TempDir,
    key: Hash,
}

impl Wasmer {
    pub fn new(guest: &Guest) -> Self {
        let (folder, key) = (folder(), Hash::generate(&guest.wasm));
        let store = wasmer::Store::default();
        let module = wasmer::Module::new(&store, &guest.wasm).expect("it compiles");
        let mut cache = FileSystemCache::new(folder.path()).expect("a cache in a folder");
        cache.store(key, &module).expect("it is kept");
        Self { folder, key }
    }
}

impl Cache for Wasmer {
    fn start(&self) -> Box<dyn Started + '_> {
        let cache = FileSystemCache::new(self.folder.path()).expect("a cache in a folder");
        let engine = wasmer::Engine::default();
        Box::new((engine, cache, self.key))
    }
}

impl Started for (wasmer::Engine, FileSystemCache, Hash) {
    fn first_call(&mut self) {
        let (engine, cache, key) = self;
        let mut store = wasmer::Store::new(engine.clone());
        // SAFETY: the file is what `FileSystemCache::store` has made, in a folder of this process's own.
        let module = unsafe { cache.load(&store, *key) }.expect("its own code");
        let instance = wasmer::Instance::new(&mut store, &module, &imports! {});
        let instance = instance.expect("no imports");
        let alloc = (instance.exports).get_typed_function::<i32, i32>(&store, "alloc");
        let bytes = alloc.expect("an allocator").call(&mut store, 16);
        assert_ne!(bytes.expect("some bytes"), 0);
    }
}

/// A list of modules in memory, for the whole process: another engine has them serialized and deserialized.
pub struct Gear {
    wasm: Vec<u8>,
}

impl Gear {
    pub fn new(guest: &Guest) -> Self {
        let gear = Self {
            wasm: guest.wasm.clone(),
        };
        gear.start().first_call();
        gear
    }
}

impl Cache for Gear {
    fn start(&self) -> Box<dyn Started + '_> {
        let mut config = wasmtime_of_gear::Config::new();
        config.epoch_interruption(true);
        let engine = wasmtime_of_gear::Engine::new(&config).expect("the engine is plain");
        Box::new((engine, &self.wasm))
    }
}

impl Started for (wasmtime_of_gear::Engine, &Vec<u8>) {
    fn first_call(&mut self) {
        use wasmtime_of_gear::{Instance, Store};
        let (engine, wasm) = self;
        let module = gear_wasmtime_cache::get(engine, wasm).expect("it is there");
        let mut store = Store::new(engine, ());
        store.set_epoch_deadline(1 << 40);
        let instance = Instance::new(&mut store, &module, &[]).expect("no imports");
        let alloc = instance.get_typed_func::<i32, i32>(&mut store, "alloc");
        let bytes = alloc.expect("an allocator").call(&mut store, 16);
        assert_ne!(bytes.expect("some bytes"), 0);
    }
}

/// A directory, with or without memory in front of it.
pub struct Ours {
    folder: TempDir,
    wasm: Vec<u8>,
    has_memory: bool,
}

impl Ours {
    pub fn in_directory(guest: &Guest) -> Self {
        Self::new(guest, false)
    }

    pub fn in_memory_and_directory(guest: &Guest) -> Self {
        Self::new(guest, true)
    }

    fn new(guest: &Guest, has_memory: bool) -> Self {
        let ours = Self {
            folder: folder(),
            wasm: guest.wasm.clone(),
            has_memory,
        };
        let (pool, alloc) = ours.pool(&ours.open());
        alloc.call(0, 16).expect("some bytes");
        assert_eq!(pool.stats().compilations, 1);
        ours
    }

    fn open(&self) -> Artifacts {
        let directory = DirStore::open(self.folder.path().join("artifacts"));
        let mut builder = Artifacts::builder();
        if self.has_memory {
            builder = builder.store(MemoryStore::new(64 << 20));
        }
        builder.store(directory.expect("a directory")).build()
    }

    fn pool(&self, artifacts: &Artifacts) -> (Pool, Function<i32, i32>) {
        let pool = Pool::builder().artifacts(artifacts).build();
        let pool = pool.expect("the pool is plain");
        let definition = Definition::new("alloc").wasm(&*self.wasm);
        let alloc = pool.define(definition).expect("the guest is good");
        (pool, alloc)
    }
}

impl Cache for Ours {
    fn start(&self) -> Box<dyn Started + '_> {
        let artifacts = self.open();
        let first = Some(self.pool(&artifacts));
        let second = Some(self.pool(&artifacts));
        Box::new(Pools([first, second]))
    }
}

/// Two of one process, one for each call: then nothing is loaded before it.
struct Pools([Option<(Pool, Function<i32, i32>)>; 2]);

impl Started for Pools {
    fn first_call(&mut self) {
        let next = self.0.iter_mut().find_map(Option::take);
        let (pool, alloc) = next.expect("two calls at most");
        assert_ne!(alloc.call(0, 16).expect("some bytes"), 0);
        assert_eq!(pool.stats().compilations, 0);
        drop((pool, alloc));
    }
}
