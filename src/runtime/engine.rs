//! Engine set-up: made by the pool, or brought by the host.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use wasmtime::{Config, Engine, InstanceAllocationStrategy, ModuleVersionStrategy, WasmFeatures};

use super::epoch::Epoch;
use super::heap::{self, Heap, TypeRegistry};
use super::inspect::Facts;
use super::meter::GrowthAccount;
use super::pooling::Places;
use super::raw::ChargedStacks;
use super::sizes;
use super::stack_area::StackArea;
use super::stack_quota::StackQuota;
use crate::artifacts::EngineKey;
use crate::state::Amounts;

/// What the pool's own engine is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EngineSettings {
    pub interrupt: bool,
    pub fuel: bool,
    pub max_wasm_stack: usize,
    pub async_stack_size: usize,
    pub backtraces: bool,
}

/// The engine that runs code, and the configuration of the engines that compile it.
pub(crate) struct Runtime {
    engine: Engine,
    compiler: Config,
    key: EngineKey,
    epoch: Arc<Epoch>,
    /// Made ahead, for memories, tables and stacks.
    places: Option<Places>,
    /// Where stacks lie, if in places.
    stacks: Option<StackArea>,
    types: Arc<TypeRegistry>,
}

/// Collects what wasmtime hashes.
struct Settings(Vec<u8>);

impl Hasher for Settings {
    fn write(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn finish(&self) -> u64 {
        // Never asked: the bytes are.
        0
    }
}

impl EngineSettings {
    /// An engine that suits the pool: interruptible by epochs, with fuel if calls are limited by
    /// it, and without the tables that only backtraces need (15 % of the code).
    pub fn config(&self) -> Config {
        let mut config = Config::new();
        config.epoch_interruption(self.interrupt);
        config.consume_fuel(self.fuel);
        config.max_wasm_stack(self.max_wasm_stack);
        config.async_stack_size(self.async_stack_size);
        config.with_host_stack(Arc::new(ChargedStacks));
        // A memory that moves to grow is there twice for a while, and charged once.
        config.memory_may_move(false);
        if !self.backtraces {
            config.wasm_backtrace_max_frames(None);
            config.generate_address_map(false);
            config.native_unwind_info(false);
        }
        config
    }
}

/// The configuration of engines that compile for one of this configuration; and what tells its code from others'.
pub(crate) fn compiler_config(of: &Config) -> wasmtime::Result<(Config, EngineKey)> {
    let mut compiler = of.clone();
    // Compiling needs no place for instances, and the strategy does not affect the code.
    compiler.allocation_strategy(InstanceAllocationStrategy::OnDemand);
    // Of the exact version, whatever the host's engine makes of versions.
    let mut exact = compiler.clone();
    exact.module_version(ModuleVersionStrategy::WasmtimeVersion)?;
    let mut settings = Settings(Vec::new());
    let exact = Engine::new(&exact)?;
    exact.precompile_compatibility_hash().hash(&mut settings);
    Ok((compiler, EngineKey::new(&settings.0)))
}

impl Runtime {
    /// With an engine of the pool's own, whose instances are made on demand or in these places.
    pub fn new(settings: EngineSettings, planned: Option<Places>) -> wasmtime::Result<Self> {
        let mut config = settings.config();
        if let Some(places) = &planned {
            config.allocation_strategy(places.strategy());
            // A stack that has been given back would stay resident otherwise.
            config.async_stack_zeroing(true);
        }
        let mut runtime = Self::with_engine(Engine::new(&config)?)?;
        if let (Some(places), Some(planned)) = (&mut runtime.places, planned) {
            places.instances = planned.instances;
        }
        Ok(runtime)
    }

    pub fn with_engine(engine: Engine) -> wasmtime::Result<Self> {
        let (compiler, key) = compiler_config(engine.config())?;
        let epoch = Arc::new(Epoch::new(engine.clone()));
        let places = Places::of(&engine);
        let stacks = places.and_then(|places| StackArea::of(&engine, places.stacks()));
        Ok(Self {
            engine,
            compiler,
            key,
            epoch,
            places,
            stacks,
            types: Arc::default(),
        })
    }

    /// What its code can run in: engines of one key can run each other's.
    pub fn key(&self) -> &EngineKey {
        &self.key
    }

    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The engine's epoch, which this pool alone moves.
    pub fn epoch(&self) -> &Arc<Epoch> {
        &self.epoch
    }

    /// An engine that has compiled keeps the compiler's contexts, 4 to 140 MB, until it is
    /// dropped: so each compilation has one of its own.
    pub fn throwaway(&self) -> wasmtime::Result<Engine> {
        Engine::new(&self.compiler)
    }

    /// The first size of an instance's GC heap, if a module of these facts has one.
    pub fn gc_heap(&self, facts: &Facts) -> Option<u64> {
        gc_heap(&self.engine, facts)
    }

    /// Heap of such a module and of its instances.
    pub fn heap(&self, facts: &Facts) -> Heap {
        let mut heap = facts.heap;
        if self.gc_heap(facts).is_some() {
            heap.add(1, heap::COLLECTOR);
        }
        if !self.keeps_images(facts) {
            heap.add(facts.active_segments, heap::DATA_SEGMENT);
        }
        heap
    }

    /// Whether wasmtime keeps images of initial memory, to be copied on write, instead of the segments
    /// that they are made of.
    pub fn keeps_images(&self, facts: &Facts) -> bool {
        keeps_images(&self.engine, facts)
    }

    /// The types of all modules that are loaded into its engine.
    pub fn types(&self) -> &Arc<TypeRegistry> {
        &self.types
    }

    pub fn interrupts(&self) -> bool {
        self.engine.get_epoch_interruption()
    }

    pub fn meters_fuel(&self) -> bool {
        self.engine.get_consume_fuel()
    }

    pub fn max_wasm_stack(&self) -> usize {
        self.engine.get_max_wasm_stack()
    }

    /// Where instances lie, if that is made ahead.
    pub fn places(&self) -> Option<&Places> {
        self.places.as_ref()
    }

    /// What one instance may spend on fiber stacks, of which one is charged already.
    pub fn stack_quota(&self, account: Arc<dyn GrowthAccount>) -> Arc<StackQuota> {
        StackQuota::new(self.stack_amounts(), self.stacks, account)
    }

    /// What a fiber stack takes. The mappings of places are there already.
    pub fn stack_amounts(&self) -> Amounts {
        let stack = sizes::stack_amounts(self.engine.get_async_stack_size() as u64);
        match self.places {
            Some(_) => stack.mappings(0),
            None => stack,
        }
    }
}

/// The first size of an instance's GC heap in this engine: see [`Runtime::gc_heap`].
pub(crate) fn gc_heap(engine: &Engine, facts: &Facts) -> Option<u64> {
    let collects = facts.collects
        && engine.get_collector().is_some()
        && engine.get_wasm_features().contains(WasmFeatures::GC_TYPES);
    collects.then(|| engine.get_gc_heap_initial_size())
}

/// Whether an engine keeps images of a module's initial memory: see [`Runtime::keeps_images`].
pub(super) fn keeps_images(engine: &Engine, facts: &Facts) -> bool {
    let dense = engine.get_memory_guaranteed_dense_image_size();
    let suits = |extent| extent == 0 || extent < dense;
    engine.get_memory_init_cow() && facts.sparse_image.is_some_and(suits)
}
