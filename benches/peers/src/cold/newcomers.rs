//! The contenders: everything that compiles a module at its first use.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use extism::{Manifest, PluginBuilder, PoolBuilder, Wasm};
use wasm_pool::{Definition, Function, Pool};
use wasmtime::{Config, Engine, Instance, Module, Store};

use super::{Guest, HERD};

/// Someone who has not seen the module yet.
pub trait Newcomer: Sync {
    /// Gets hold of an instance, keeps it during `hold`, and gives it back.
    fn first_use(&self, hold: &dyn Fn());

    fn compilations(&self) -> usize;
}

/// Has an engine; compiles whenever it is asked.
pub struct Bare {
    engine: Engine,
    wasm: Vec<u8>,
    compiled: AtomicUsize,
}

impl Bare {
    pub fn new(guest: &Guest) -> Self {
        let mut config = Config::new();
        config.epoch_interruption(true);
        Self {
            engine: Engine::new(&config).expect("the engine is plain"),
            wasm: guest.wasm.clone(),
            compiled: AtomicUsize::new(0),
        }
    }

    fn compile(&self) -> Module {
        self.compiled.fetch_add(1, Ordering::Relaxed);
        Module::new(&self.engine, &self.wasm).expect("it compiles")
    }

    fn instantiate(&self, module: &Module) -> (Store<()>, Instance) {
        let mut store = Store::new(&self.engine, ());
        let instance = Instance::new(&mut store, module, &[]).expect("no imports");
        (store, instance)
    }
}

impl Newcomer for Bare {
    fn first_use(&self, hold: &dyn Fn()) {
        let instance = self.instantiate(&self.compile());
        hold();
        drop(instance);
    }

    fn compilations(&self) -> usize {
        self.compiled.load(Ordering::Relaxed)
    }
}

/// One compilation for all who ask at the same time, by moka's `get_with`.
pub struct Shared(Bare, moka::sync::Cache<u64, Module>);

impl Shared {
    pub fn new(guest: &Guest) -> Self {
        Self(Bare::new(guest), moka::sync::Cache::new(100))
    }
}

impl Newcomer for Shared {
    fn first_use(&self, hold: &dyn Fn()) {
        let module = self.1.get_with(1, || self.0.compile());
        let instance = self.0.instantiate(&module);
        hold();
        drop(instance);
    }

    fn compilations(&self) -> usize {
        self.0.compilations()
    }
}

/// The function is defined beforehand: the module is hashed and its sections are looked at.
pub struct Ours(Pool, Function);

impl Ours {
    pub fn new(guest: &Guest) -> Self {
        let pool = Pool::builder().build().expect("the pool is plain");
        let definition = Definition::new("guest").wasm(guest.wasm.clone());
        let function = pool.define(definition.export(guest.export));
        Self(pool, function.expect("the guest is good"))
    }
}

impl Newcomer for Ours {
    fn first_use(&self, hold: &dyn Fn()) {
        let lease = self.1.acquire(1).expect("there is room");
        hold();
        drop(lease);
    }

    fn compilations(&self) -> usize {
        self.0.stats().compilations as usize
    }
}

/// A pool that is given the module's source, as in extism's README.
pub struct Extism(extism::Pool, Arc<AtomicUsize>);

impl Extism {
    pub fn new(guest: &Guest) -> Self {
        let manifest = Manifest::new([Wasm::data(guest.wasm.clone())]);
        let compiled = Arc::new(AtomicUsize::new(0));
        let count = compiled.clone();
        let make = move || {
            count.fetch_add(1, Ordering::Relaxed);
            PluginBuilder::new(&manifest).with_cache_disabled().build()
        };
        let pool = PoolBuilder::new().with_max_instances(HERD).build(make);
        Self(pool, compiled)
    }
}

impl Newcomer for Extism {
    /// Plugins are instantiated by their first call, before it fails for want of such an export.
    fn first_use(&self, hold: &dyn Fn()) {
        let plugin = self.0.get(Duration::from_secs(300)).expect("it compiles");
        let mut plugin = plugin.expect("there is one for each thread");
        let missing = plugin.call::<_, ()>("no such export", ());
        assert!(missing.is_err(), "there is no such export");
        hold();
    }

    fn compilations(&self) -> usize {
        self.1.load(Ordering::Relaxed)
    }
}
