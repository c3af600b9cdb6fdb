//! A stand-in for `src/runtime/code.rs`: each module is really compiled once per process, before
//! any schedule runs. In a schedule, to compile is to look it up.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};

use wasmtime::{Config, Engine, Module};

use super::engine::Runtime;
use super::imports::HostImports;
use super::inspect::Facts;
use super::link::Linked;
use super::sizes::{self, InstanceNeeds};
use crate::artifacts::VerifiedArtifact;
use crate::state::Amounts;

/// Bytes of a fiber stack.
pub(crate) const STACK: u64 = 256 << 10;

/// Compiled, or why not.
type Compiled = Result<Module, String>;

thread_local! {
    static ATTEMPTS: Cell<u64> = const { Cell::new(0) };
}

/// How often this thread's models have compiled anything, ever.
pub(crate) fn attempts() -> u64 {
    ATTEMPTS.get()
}

/// The engine of all pools.
pub(crate) fn shared_engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| {
        let mut config = Config::new();
        // Calls run on the checker's small stacks, and memories come and go by the thousand.
        config.max_wasm_stack(64 << 10);
        config.async_stack_size(STACK as usize);
        config.memory_reservation(1 << 20);
        config.memory_guard_size(64 << 10);
        config.memory_may_move(false);
        config.wasm_backtrace_max_frames(None);
        Engine::new(&config).expect("the settings suit each other")
    })
}

fn modules() -> &'static Mutex<HashMap<Vec<u8>, Compiled>> {
    static MODULES: OnceLock<Mutex<HashMap<Vec<u8>, Compiled>>> = OnceLock::new();
    MODULES.get_or_init(Mutex::default)
}

/// Compiles, where there is stack enough for it.
pub(crate) fn prepare(wasm: &[u8]) {
    let mut modules = modules().lock().expect("no test has panicked in here");
    let compile = || Module::new(shared_engine(), wasm).map_err(|error| format!("{error:#}"));
    modules.entry(wasm.to_vec()).or_insert_with(compile);
}

pub(crate) struct Unmapped {
    module: Module,
    amounts: Amounts,
    instance: InstanceNeeds,
}

/// Nothing is stored here.
pub(crate) struct CodeNeeds(Amounts);

impl CodeNeeds {
    pub fn of(_: &Runtime, facts: &Facts, bytes: u64) -> Self {
        Self(sizes::code_amounts(bytes, 0, facts.heap.module))
    }

    pub fn amounts(&self) -> Amounts {
        self.0
    }
}

pub(crate) fn compile(runtime: &Runtime, wasm: &[u8], facts: &Facts) -> wasmtime::Result<Unmapped> {
    ATTEMPTS.set(ATTEMPTS.get() + 1);
    let modules = modules().lock().expect("no test has panicked in here");
    let compiled = modules.get(wasm).expect("modules are prepared");
    let module = compiled.clone().map_err(wasmtime::Error::msg)?;
    let range = module.image_range();
    let bytes = range.end.addr() - range.start.addr();
    let amounts = sizes::code_amounts(bytes as u64, 0, facts.heap.module);
    let instance = InstanceNeeds::of(facts, runtime);
    Ok(Unmapped {
        module,
        amounts,
        instance,
    })
}

impl Unmapped {
    pub fn stored(_: VerifiedArtifact, _: u64, _: CodeNeeds) -> Self {
        unreachable!("no model has artifacts")
    }

    pub fn made_elsewhere(_: VerifiedArtifact, _: u64, _: (u64, CodeNeeds)) -> Self {
        unreachable!("no model has processes")
    }

    pub fn artifact(&self) -> Option<&VerifiedArtifact> {
        None
    }

    pub fn compiled(&self) -> Option<std::borrow::Cow<'_, [u8]>> {
        None
    }

    pub fn amounts(&self) -> Amounts {
        self.amounts
    }

    pub(super) fn map(&self, _: &Engine) -> wasmtime::Result<Module> {
        Ok(self.module.clone())
    }
}

pub(crate) struct Code<T: 'static>(Arc<Loaded<T>>);

struct Loaded<T: 'static> {
    linked: Linked<T>,
    amounts: Amounts,
    instance: InstanceNeeds,
}

impl<T> Clone for Code<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

pub(crate) enum LoadFailure {
    Map(wasmtime::Error),
    Link(wasmtime::Error),
}

impl<T: 'static> Code<T> {
    pub fn load(code: &Unmapped, imports: &Arc<HostImports<T>>) -> Result<Self, LoadFailure> {
        let linked = Linked::new(imports, &code.module).map_err(LoadFailure::Link)?;
        Ok(Self(Arc::new(Loaded {
            linked,
            amounts: code.amounts,
            instance: code.instance,
        })))
    }

    pub fn linked(&self) -> &Linked<T> {
        &self.0.linked
    }

    pub fn instance_needs(&self) -> InstanceNeeds {
        self.0.instance
    }

    pub fn amounts(&self) -> Amounts {
        self.0.amounts
    }
}
