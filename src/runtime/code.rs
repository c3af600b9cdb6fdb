//! Compiling and loading. The only file with `unsafe`: wasmtime cannot check that machine code is
//! its own.
#![allow(unsafe_code)]

use std::sync::Arc;

use wasmtime::{Engine, InstancePre, Linker, Module};

use super::engine::Runtime;
use super::instance::StoreData;
use super::sizes;
use crate::state::Amounts;

/// Machine code as the compiler left it, in heap memory.
pub(crate) struct Artifact(Vec<u8>);

/// Compiles in an engine that is thrown away with all that the compiler keeps.
pub(crate) fn compile(runtime: &Runtime, wasm: &[u8]) -> wasmtime::Result<Artifact> {
    runtime.throwaway()?.precompile_module(wasm).map(Artifact)
}

impl Artifact {
    /// What it will take when it is mapped.
    pub fn amounts(&self) -> Amounts {
        sizes::code_amounts(self.0.len() as u64)
    }

    fn load(&self, engine: &Engine) -> wasmtime::Result<Module> {
        // SAFETY: `deserialize` demands bytes that `precompile_module` of a compatible engine
        // produced. An `Artifact` is made by `compile` alone, from an engine with this one's
        // configuration, and its bytes have never left this process's heap or been written to.
        unsafe { Module::deserialize(engine, &self.0) }
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
        let image = (range.end as usize).saturating_sub(range.start as usize) as u64;
        debug_assert_eq!(sizes::code_amounts(image), artifact.amounts());
        let pre = linker.instantiate_pre(&module)?;
        Ok(Self(Arc::new(Loaded {
            pre,
            amounts: sizes::code_amounts(image),
        })))
    }

    pub fn pre(&self) -> &InstancePre<StoreData<T>> {
        &self.0.pre
    }

    /// What the kernel gave it.
    pub fn amounts(&self) -> Amounts {
        self.0.amounts
    }
}
