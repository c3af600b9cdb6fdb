//! What a module takes, and what it is charged.

use wasm_pool::{Budget, Definition, Function, Pool, PoolBuilder};
use wasmtime::{Config, Engine, Linker, Module, Val};

use crate::common::kernel;
use crate::common::{charged, heap};

/// Instances that are compared at once.
const INSTANCES: u64 = 3;

/// Bytes and mappings.
#[derive(Debug, Clone, Copy, Default)]
pub struct Measured {
    pub wasm: u64,
    /// Charged to `code`; mapped and kept as images; of the heap.
    pub code: u64,
    pub mapped: u64,
    pub module_heap: u64,
    /// Of each instance: charged to `memory` beside its linear memories; of the heap.
    pub instance: u64,
    pub instance_heap: u64,
    /// Charged, and taken: by the module with one instance, by the other instances.
    pub mappings: [u64; 2],
    pub maps: [u64; 2],
}

/// Why a module could not be measured.
#[derive(Debug)]
#[allow(dead_code, reason = "printed")]
pub struct Skipped(pub String);

/// With all that wasmtime offers.
pub fn everything() -> Engine {
    let mut config = Config::new();
    config
        .wasm_gc(true)
        .wasm_function_references(true)
        .wasm_exceptions(true)
        .wasm_tail_call(true)
        .wasm_memory64(true)
        .wasm_multi_memory(true)
        .wasm_relaxed_simd(true)
        .wasm_wide_arithmetic(true)
        .consume_fuel(true)
        .memory_may_move(false);
    Engine::new(&config).expect("the settings suit each other")
}

fn stub(
    linker: &mut Linker<wasm_pool::StoreData<()>>,
    engine: &Engine,
    wasm: &[u8],
) -> wasmtime::Result<()> {
    // Compiled here only for the types of its imports.
    let module = Module::new(engine, wasm)?;
    linker.allow_shadowing(true);
    for import in module.imports() {
        if let Some(ty) = import.ty().func() {
            linker.func_new(
                import.module(),
                import.name(),
                ty.clone(),
                |_, _, results| {
                    let zero = |result: &Val| match result {
                        Val::I64(_) => Val::I64(0),
                        Val::F32(_) => Val::F32(0),
                        Val::F64(_) => Val::F64(0),
                        _ => Val::I32(0),
                    };
                    results.iter_mut().for_each(|result| *result = zero(result));
                    Ok(())
                },
            )?;
        }
    }
    Ok(())
}

/// A pool that does nothing by itself.
pub fn builder(engine: &Engine) -> PoolBuilder {
    Pool::builder()
        .engine(engine.clone())
        .no_housekeeper()
        .call_timeout(None)
        .fuel(100_000_000)
        .max_instances_per_entry(INSTANCES as usize + 1)
        .max_table_elements(10_000_000)
        .max_instance_memory(1 << 30)
}

/// What the pool, the engine and the thread keep once is nobody's.
pub fn warm_up(pool: &Pool) {
    let wasm = crate::common::answering(1);
    let definition = Definition::new("first").wasm(wasm).export("f");
    let first: Function = pool.define(definition).expect("it has such an export");
    drop(first.acquire(1).expect("there is room"));
}

/// Defines it in a pool of its own, and takes some instances.
pub fn measure(
    engine: &Engine,
    wasm: &[u8],
    export: &str,
    imports: bool,
) -> Result<Measured, Skipped> {
    let skipped = |what: &str, error: &dyn std::error::Error| {
        let mut text = format!("{what}: {error}");
        let mut source = error.source();
        while let Some(cause) = source {
            text += &format!(": {cause}");
            source = cause.source();
        }
        Skipped(text)
    };
    let mut builder = builder(engine);
    if imports {
        let (engine, wasm) = (engine.clone(), wasm.to_vec());
        builder = builder.imports(move |linker| stub(linker, &engine, &wasm));
    }
    let pool = builder
        .build()
        .map_err(|error| skipped("imports", &error))?;
    warm_up(&pool);
    let definition = Definition::new("module").wasm(wasm).export(export);
    let function: Function = pool
        .define(definition)
        .map_err(|error| skipped("define", &error))?;
    let group = function.in_group(1);

    let mut leases = Vec::with_capacity(8);
    let mut mark = Mark::now(&pool);
    leases.push(
        group
            .acquire()
            .map_err(|error| skipped("acquire", &error))?,
    );
    let with_one = mark.since(&pool);
    for _ in 0..INSTANCES {
        leases.push(
            group
                .acquire()
                .map_err(|error| skipped("acquire", &error))?,
        );
    }
    let others = mark.since(&pool);

    let linear: u64 = leases[1..].iter().map(|lease| lease.memory_bytes()).sum();
    let instance_heap = others.heap.div_ceil(INSTANCES);
    drop(leases);
    pool.close();
    crate::common::check_empty(&pool);
    Ok(Measured {
        wasm: wasm.len() as u64,
        code: with_one.code,
        mapped: with_one.mapped,
        module_heap: with_one.heap.saturating_sub(instance_heap),
        instance: (others.memory - linear) / INSTANCES,
        instance_heap,
        mappings: [with_one.mappings, others.mappings],
        maps: [with_one.maps, others.maps],
    })
}

/// What is charged and taken at a moment; or since one.
pub struct Mark {
    pub code: u64,
    pub memory: u64,
    pub mappings: u64,
    pub heap: u64,
    /// Bytes of code and images.
    pub mapped: u64,
    /// Mappings.
    pub maps: u64,
}

impl Mark {
    pub fn now(pool: &Pool) -> Self {
        let kernel = kernel::mapped();
        Self {
            code: charged(pool, Budget::Code),
            memory: charged(pool, Budget::Memory),
            mappings: charged(pool, Budget::Mappings),
            heap: heap::in_use(),
            mapped: kernel.code + kernel.images,
            maps: kernel.mappings,
        }
    }

    /// The difference; this becomes now.
    pub fn since(&mut self, pool: &Pool) -> Self {
        let now = Self::now(pool);
        let before = std::mem::replace(self, Self::now(pool));
        Self {
            code: now.code - before.code,
            memory: now.memory - before.memory,
            mappings: now.mappings - before.mappings,
            heap: now.heap.saturating_sub(before.heap),
            mapped: now.mapped.saturating_sub(before.mapped),
            maps: now.maps.saturating_sub(before.maps),
        }
    }
}

impl Measured {
    /// What is charged too little, in words.
    pub fn shortfall(&self) -> Option<String> {
        let code = self.mapped + self.module_heap;
        let short = [
            ("code", self.code, code),
            ("an instance", self.instance, self.instance_heap),
            ("mappings", self.mappings[0], self.maps[0]),
            ("mappings of more instances", self.mappings[1], self.maps[1]),
        ];
        let short = short.iter().filter(|(_, charged, taken)| charged < taken);
        let words: Vec<_> = short
            .map(|(what, charged, taken)| format!("{what}: {charged} charged, {taken} taken"))
            .collect();
        (!words.is_empty()).then(|| words.join("; "))
    }
}
