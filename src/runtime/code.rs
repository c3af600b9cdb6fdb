//! Compiling and loading.

use std::sync::Arc;

use wasmtime::{Engine, Module};

use super::engine::Runtime;
use super::heap::RegisteredTypes;
use super::imports::HostImports;
use super::inspect::Facts;
use super::link::Linked;
use super::raw::MachineCode;
use super::sizes;
use crate::state::Amounts;

/// Compiled code that is not mapped yet.
pub(crate) struct Artifact {
    code: MachineCode,
    amounts: Amounts,
    types: Arc<RegisteredTypes>,
}

/// Compiles in an engine that is thrown away with all that the compiler keeps.
pub(crate) fn compile(runtime: &Runtime, wasm: &[u8], facts: &Facts) -> wasmtime::Result<Artifact> {
    let code = MachineCode::compile(runtime, wasm)?;
    let image = if runtime.keeps_images(facts) {
        facts.image_bytes
    } else {
        0
    };
    let types = Arc::new(runtime.types().register(facts.type_count));
    let heap = runtime.heap(facts).module.saturating_add(types.list);
    let amounts = sizes::code_amounts(code.len() as u64, image, heap);
    Ok(Artifact {
        code,
        amounts,
        types,
    })
}

impl Artifact {
    /// What it will take when it is mapped.
    pub fn amounts(&self) -> Amounts {
        self.amounts
    }
}

/// Loaded code, its imports resolved. Mapped until the last clone and the last store that ran it
/// are gone.
pub(crate) struct Code<T: 'static>(Arc<Loaded<T>>);

struct Loaded<T: 'static> {
    linked: Linked<T>,
    amounts: Amounts,
    /// Dropped after the code.
    _types: Arc<RegisteredTypes>,
}

impl<T> Clone for Code<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// Why compiled code could not be had.
pub(crate) enum LoadFailure {
    /// It could not be mapped.
    Map(wasmtime::Error),
    /// It does not link, and never will: the host's imports do not change.
    Link(wasmtime::Error),
}

impl<T: 'static> Code<T> {
    /// Maps the artifact and links it.
    pub fn load(artifact: &Artifact, imports: &Arc<HostImports<T>>) -> Result<Self, LoadFailure> {
        let module = Self::map(artifact, imports.engine()).map_err(LoadFailure::Map)?;
        let linked = Linked::new(imports, &module).map_err(LoadFailure::Link)?;
        let amounts = artifact.amounts();
        Ok(Self(Arc::new(Loaded {
            linked,
            amounts,
            _types: artifact.types.clone(),
        })))
    }

    fn map(artifact: &Artifact, engine: &Engine) -> wasmtime::Result<Module> {
        let module = artifact.code.load(engine)?;
        let range = module.image_range();
        let mapped = range.end.addr() - range.start.addr();
        debug_assert!(
            mapped <= artifact.code.len(),
            "more is mapped than was reserved"
        );
        // Now, and not at the first instantiation: its room is reserved.
        module.initialize_copy_on_write_image()?;
        Ok(module)
    }

    pub fn linked(&self) -> &Linked<T> {
        &self.0.linked
    }

    /// What the kernel and the heap gave it.
    pub fn amounts(&self) -> Amounts {
        self.0.amounts
    }
}
