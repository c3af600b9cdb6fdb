//! Compiling and loading.

use std::borrow::Cow;
use std::sync::Arc;

use wasmtime::{Engine, Module};

use super::engine::Runtime;
use super::heap::RegisteredTypes;
use super::imports::HostImports;
use super::inspect::Facts;
use super::link::Linked;
use super::raw::MachineCode;
use super::sizes::{self, InstanceNeeds};
use crate::artifacts::VerifiedArtifact;
use crate::state::Amounts;

/// Code that is not mapped yet: compiled, or found among artifacts.
pub(crate) struct Unmapped {
    code: MachineCode,
    needs: CodeNeeds,
    /// Bytes of code, if another process has compiled it, and nobody has saved it yet.
    made_elsewhere: Option<u64>,
}

/// What code takes when it is mapped.
#[derive(Clone)]
pub(crate) struct CodeNeeds {
    amounts: Amounts,
    /// What an instance of it takes.
    instance: InstanceNeeds,
    types: Arc<RegisteredTypes>,
}

impl CodeNeeds {
    /// Of a module of these facts, whose code is so long.
    pub fn of(runtime: &Runtime, facts: &Facts, bytes: u64) -> Self {
        let image = if runtime.keeps_images(facts) {
            facts.image_bytes
        } else {
            0
        };
        let types = Arc::new(runtime.types().register(facts.type_count));
        let heap = runtime.heap(facts).module.saturating_add(types.list);
        let amounts = sizes::code_amounts(bytes, image, heap);
        Self {
            amounts,
            instance: InstanceNeeds::of(facts, runtime),
            types,
        }
    }

    pub fn amounts(&self) -> Amounts {
        self.amounts
    }
}

/// The compiler does not recurse into what a module nests: it takes 128 to 256 KiB of stack, whatever it compiles.
const COMPILER_STACK: usize = 1 << 20;

/// Compiles in an engine that is thrown away with all that the compiler keeps. On a stack of its own where this thread has
/// too little left: an overflow would end the process.
pub(crate) fn compile(runtime: &Runtime, wasm: &[u8], facts: &Facts) -> wasmtime::Result<Unmapped> {
    let compile = || MachineCode::compile(runtime, wasm);
    let code = stacker::maybe_grow(COMPILER_STACK, 2 * COMPILER_STACK, compile)?;
    let needs = CodeNeeds::of(runtime, facts, code.len() as u64);
    Ok(Unmapped {
        code,
        needs,
        made_elsewhere: None,
    })
}

impl Unmapped {
    /// An artifact's code, which takes this.
    pub fn stored(verified: VerifiedArtifact, bytes: u64, needs: CodeNeeds) -> Self {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let code = MachineCode::Stored(verified, bytes);
        Self {
            code,
            needs,
            made_elsewhere: None,
        }
    }

    /// What another process has compiled: so many bytes of code.
    pub fn made_elsewhere(verified: VerifiedArtifact, code: u64, needs: (u64, CodeNeeds)) -> Self {
        let (bytes, needs) = needs;
        Self {
            made_elsewhere: Some(code),
            ..Self::stored(verified, bytes, needs)
        }
    }

    /// What it will take when it is mapped.
    pub fn amounts(&self) -> Amounts {
        self.needs.amounts
    }

    /// Maps it.
    pub(super) fn map(&self, engine: &Engine) -> wasmtime::Result<Module> {
        let module = self.code.load(engine)?;
        let range = module.image_range();
        let mapped = range.end.addr() - range.start.addr();
        debug_assert!(
            mapped <= self.code.len(),
            "more is mapped than was reserved"
        );
        // Now, and not at the first instantiation: its room is reserved.
        module.initialize_copy_on_write_image()?;
        Ok(module)
    }

    /// What it comes from, if that is an artifact.
    pub fn artifact(&self) -> Option<&VerifiedArtifact> {
        match &self.code {
            MachineCode::Compiled(_) => None,
            MachineCode::Stored(verified, _) => Some(verified),
        }
    }

    /// To be saved; `None` for what was. What another process has made is copied: into as much heap as is reserved for
    /// it in that process, which is gone.
    pub fn compiled(&self) -> Option<Cow<'_, [u8]>> {
        match (&self.code, self.made_elsewhere) {
            (MachineCode::Compiled(code), _) => Some(code.into()),
            (MachineCode::Stored(made, _), Some(bytes)) => Some(made.read_code(bytes).ok()?.into()),
            (MachineCode::Stored(..), None) => None,
        }
    }
}

/// Loaded code, its imports resolved. Mapped until the last clone and the last store that ran it
/// are gone.
pub(crate) struct Code<T: 'static>(Arc<Loaded<T>>);

struct Loaded<T: 'static> {
    linked: Linked<T>,
    amounts: Amounts,
    instance: InstanceNeeds,
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
    /// Maps the code and links it.
    pub fn load(code: &Unmapped, imports: &Arc<HostImports<T>>) -> Result<Self, LoadFailure> {
        let module = code.map(imports.engine()).map_err(LoadFailure::Map)?;
        let linked = Linked::new(imports, &module).map_err(LoadFailure::Link)?;
        let needs = code.needs.clone();
        Ok(Self(Arc::new(Loaded {
            linked,
            amounts: needs.amounts,
            instance: needs.instance,
            _types: needs.types,
        })))
    }

    pub fn linked(&self) -> &Linked<T> {
        &self.0.linked
    }

    /// What an instance of it takes: its module may begin with more than the wasm declares that it was defined with.
    pub fn instance_needs(&self) -> InstanceNeeds {
        self.0.instance
    }

    /// What the kernel and the heap gave it.
    pub fn amounts(&self) -> Amounts {
        self.0.amounts
    }
}
