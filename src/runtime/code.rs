//! Compiling and loading. The only file with `unsafe`: wasmtime cannot check that machine code is
//! its own.
#![allow(unsafe_code)]

use std::sync::Arc;

use wasmtime::{Engine, InstancePre, Linker, Module};

use super::engine::Runtime;
use super::inspect::Facts;
use super::instance::StoreData;
use super::sizes;
use crate::state::Amounts;

/// Machine code as the compiler left it, in heap memory.
pub(crate) struct Artifact {
    bytes: Vec<u8>,
    amounts: Amounts,
}

/// Compiles in an engine that is thrown away with all that the compiler keeps.
pub(crate) fn compile(runtime: &Runtime, wasm: &[u8], facts: &Facts) -> wasmtime::Result<Artifact> {
    let bytes = runtime.throwaway()?.precompile_module(wasm)?;
    let image = if runtime.copies_on_write() {
        facts.image_bytes
    } else {
        0
    };
    let amounts = sizes::code_amounts(bytes.len() as u64, image);
    Ok(Artifact { bytes, amounts })
}

impl Artifact {
    /// What it will take when it is mapped.
    pub fn amounts(&self) -> Amounts {
        self.amounts
    }

    fn load(&self, engine: &Engine) -> wasmtime::Result<Module> {
        // SAFETY: `deserialize` demands bytes that `precompile_module` of a compatible engine
        // produced. An `Artifact` is made by `compile` alone, from an engine with this one's
        // configuration, and its bytes have never left this process's heap or been written to.
        unsafe { Module::deserialize(engine, &self.bytes) }
    }
}

/// Loaded code, its imports resolved. Mapped until the last clone and the last store that ran it
/// are gone.
pub(crate) struct Code<T: 'static>(Arc<Loaded<T>>);

struct Loaded<T: 'static> {
    pre: InstancePre<StoreData<T>>,
    amounts: Amounts,
}

impl<T> Clone for Code<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: 'static> Code<T> {
    /// Maps the artifact and links it.
    pub fn load(artifact: &Artifact, linker: &Linker<StoreData<T>>) -> wasmtime::Result<Self> {
        let module = artifact.load(linker.engine())?;
        let range = module.image_range();
        let mapped = range.end.addr() - range.start.addr();
        debug_assert!(
            mapped <= artifact.bytes.len(),
            "more is mapped than was reserved"
        );
        // Now, and not at the first instantiation: its room is reserved.
        module.initialize_copy_on_write_image()?;
        let pre = linker.instantiate_pre(&module)?;
        let amounts = artifact.amounts();
        Ok(Self(Arc::new(Loaded { pre, amounts })))
    }

    pub fn pre(&self) -> &InstancePre<StoreData<T>> {
        &self.0.pre
    }

    /// What the kernel gave it.
    pub fn amounts(&self) -> Amounts {
        self.0.amounts
    }
}
