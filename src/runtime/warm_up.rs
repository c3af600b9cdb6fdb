//! Warming up: an export runs once in a throwaway instance, and what its memories and globals hold then is what a
//! new module begins with. `wasmtime-wizer` reads and writes the modules; the instance is made and run here.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use wasmtime::{ExternType, Func, ImportType, Instance, Module, Store, Val};
use wasmtime_wizer::{InstanceState, ModuleContext, SnapshotVal, ValType, Wizer};

use super::code::Unmapped;
use super::engine::Runtime;
use super::failure::{CallFailure, SharedError, classify, share};
use super::inspect::{Facts, inspect};
use super::instance::{CallLimits, InstantiateFailure, StoreData, new_store};
use super::meter::{Meter, Refusal};
use super::module_limits::ModuleLimits;
use super::system::refused_by_system;

/// What makes a reactor ready, by the convention of WASI. Run before the export, if it is there.
const INITIALIZE: &str = "_initialize";
/// Wizer looks for data in such pieces.
const PIECE: usize = 64 << 10;
/// More segments of data than that are merged, with what lies between them.
const MOST_SEGMENTS: u64 = 10_000;
/// Zeros between two pieces of data that are taken along, since a segment takes more.
const SMALL_GAP: u64 = 4;

/// A module that is to be warmed up.
pub(crate) struct WarmUp<'a> {
    export: &'a str,
    wizer: Wizer,
    context: ModuleContext<'a>,
    /// The module, with its memories and globals exported.
    wasm: Vec<u8>,
    facts: Facts,
}

/// Why a warm-up came to nothing.
pub(crate) enum WarmUpFailure {
    /// The module is not valid.
    Invalid(wasmtime::Error),
    /// It cannot be snapshotted.
    Unsupported(SharedError),
    /// It called an import.
    CalledImport(CalledImport),
    /// It asked for more memory than it was given.
    Memory(Refusal),
    /// The operating system refused something.
    System(io::Error),
    /// The guest failed, or wasmtime did.
    Guest(CallFailure),
}

/// What a guest gets that calls an import before the snapshot is taken.
#[derive(Debug, Clone)]
pub(crate) struct CalledImport {
    pub module: String,
    pub name: String,
}

impl fmt::Display for CalledImport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "import {:?} {:?} was called", self.module, self.name)
    }
}

impl std::error::Error for CalledImport {}

/// The throwaway instance, warm.
pub(crate) struct WarmInstance {
    store: Store<StoreData<()>>,
    instance: Instance,
}

impl<'a> WarmUp<'a> {
    /// Reads the module, and looks whether anything in it rules out a snapshot: imports that are no functions,
    /// instructions that change tables or drop segments, globals that hold references.
    pub fn of(wasm: &'a [u8], export: &'a str, runtime: &Runtime) -> Result<Self, WarmUpFailure> {
        let mut wizer = Wizer::new();
        // What a module exports is part of what hosts know of it.
        wizer.init_func(export).keep_init_func(true);
        let (context, instrumented) = wizer.instrument(wasm).map_err(|unsupported| {
            match Module::validate(runtime.engine(), wasm) {
                Ok(()) => WarmUpFailure::Unsupported(share(unsupported)),
                Err(invalid) => WarmUpFailure::Invalid(invalid),
            }
        })?;
        let facts =
            inspect(&instrumented, &ModuleLimits::NONE).map_err(WarmUpFailure::unsupported)?;
        Ok(Self {
            export,
            wizer,
            context,
            wasm: instrumented,
            facts,
        })
    }

    /// What is to be compiled for the throwaway instance.
    pub fn wasm(&self) -> &[u8] {
        &self.wasm
    }

    /// Of that.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Makes the instance, and runs what is to be run: the start function, `_initialize` of a reactor, the export.
    pub fn run(
        &self,
        runtime: &Runtime,
        code: &Unmapped,
        meter: Meter,
        limits: CallLimits,
    ) -> Result<WarmInstance, WarmUpFailure> {
        let module = code.map(runtime.engine()).map_err(WarmUpFailure::of_host)?;
        let mut store =
            new_store(runtime, (), meter, limits, None).map_err(|failure| match failure {
                InstantiateFailure::System(refused) => WarmUpFailure::System(refused),
                InstantiateFailure::Start(failure) => WarmUpFailure::Guest(failure),
                InstantiateFailure::Refused(refusal) => WarmUpFailure::Memory(refusal),
                InstantiateFailure::Other(error) => WarmUpFailure::Guest(CallFailure::Host(error)),
            })?;
        let result = self.run_in(&mut store, &module);
        // A guest may go on without the memory that it was refused, and then another is snapshotted than was meant.
        let meter = store.data_mut().meter();
        if let Some(refusal) = meter.refusal() {
            return Err(WarmUpFailure::Memory(refusal));
        }
        if meter.was_refused_by_system() {
            let refused = io::ErrorKind::OutOfMemory.into();
            return Err(WarmUpFailure::System(refused));
        }
        match result {
            Ok(instance) => Ok(WarmInstance { store, instance }),
            Err(error) => Err(WarmUpFailure::of(error)),
        }
    }

    fn run_in(
        &self,
        store: &mut Store<StoreData<()>>,
        module: &Module,
    ) -> wasmtime::Result<Instance> {
        let mut imports = Vec::with_capacity(module.imports().len());
        for import in module.imports() {
            imports.push(refusing(store, &import)?.into());
        }
        let instance = Instance::new(&mut *store, module, &imports)?;
        let initializes = instance.get_func(&mut *store, INITIALIZE).is_some();
        let initialize = initializes.then_some(INITIALIZE);
        let export = Some(self.export).filter(|export| Some(*export) != initialize);
        for name in initialize.into_iter().chain(export) {
            let function = instance.get_typed_func::<(), ()>(&mut *store, name)?;
            function.call(&mut *store, ())?;
        }
        Ok(instance)
    }

    /// Heap that taking the snapshot takes at its peak.
    pub fn snapshot_heap(&self, warm: &mut WarmInstance) -> u64 {
        let (mut pieces, mut bytes) = (0, 0);
        for memory in warm.memories() {
            let found = Found::of(memory);
            pieces += found.pieces;
            bytes += found.segment_bytes();
        }
        // A list of pieces that grows (it is there one and a half times for a moment, and half empty at worst), another
        // that does not, and one of gaps.
        let lists = pieces * (3 * 24 + 24 + 8);
        // Segments; the section that is made of them, and the module, both of which grow.
        lists + bytes * 6
    }

    /// The module that begins with what the instance holds. It may be called as the one that it was made from,
    /// without a start function and without `_initialize`.
    pub fn snapshot(&self, warm: &mut WarmInstance) -> Result<Vec<u8>, WarmUpFailure> {
        let snapshot = pin!(self.wizer.snapshot(&self.context, warm));
        let mut context = Context::from_waker(Waker::noop());
        match snapshot.poll(&mut context) {
            Poll::Ready(Ok(wasm)) => Ok(wasm),
            Poll::Ready(Err(error)) => Err(WarmUpFailure::Unsupported(share(error))),
            // Nothing in it waits for anything.
            Poll::Pending => Err(WarmUpFailure::of_host(wasmtime::Error::msg(
                "the snapshot is not ready",
            ))),
        }
    }
}

/// An import that may not be called.
fn refusing(store: &mut Store<StoreData<()>>, import: &ImportType<'_>) -> wasmtime::Result<Func> {
    let called = CalledImport {
        module: import.module().into(),
        name: import.name().into(),
    };
    let ExternType::Func(ty) = import.ty() else {
        let message = format!("{:?} {:?} is no function", called.module, called.name);
        return Err(wasmtime::Error::msg(message));
    };
    Ok(Func::new(store, ty, move |_, _, _| {
        Err(called.clone().into())
    }))
}

/// Data in a memory.
#[derive(Default)]
struct Found {
    /// Stretches without a zero.
    pieces: u64,
    /// Bytes that are not zero.
    bytes: u64,
    /// From the first to the last of them.
    extent: u64,
}

impl Found {
    fn of(memory: &[u8]) -> Self {
        let mut found = Self::default();
        let (mut first, mut end) = (None, 0);
        for (at, piece) in memory.chunks(PIECE).enumerate() {
            let Some(from) = piece.iter().position(|byte| *byte != 0) else {
                continue;
            };
            first.get_or_insert(at * PIECE + from);
            let mut before = 0;
            for (place, byte) in piece.iter().enumerate().skip(from) {
                if *byte != 0 {
                    found.bytes += 1;
                    found.pieces += u64::from(before == 0);
                    end = at * PIECE + place + 1;
                }
                before = *byte;
            }
        }
        found.extent = first.map_or(0, |first| (end - first) as u64);
        found
    }

    /// Bytes of the segments that are made of it, at most.
    fn segment_bytes(&self) -> u64 {
        match self.pieces < MOST_SEGMENTS {
            true => self.extent.min(self.bytes + self.pieces * SMALL_GAP),
            false => self.extent,
        }
    }
}

impl WarmInstance {
    fn memories(&mut self) -> Vec<&[u8]> {
        let memories: Vec<_> = (0..)
            .map_while(|n| {
                let name = format!("__wizer_memory_{n}");
                self.instance.get_memory(&mut self.store, &name)
            })
            .collect();
        let data = |memory: wasmtime::Memory| memory.data(&self.store);
        memories.into_iter().map(data).collect()
    }
}

impl InstanceState for WarmInstance {
    async fn global_get(&mut self, name: &str, _: ValType) -> SnapshotVal {
        let global = self.instance.get_global(&mut self.store, name);
        match global.map(|global| global.get(&mut self.store)) {
            Some(Val::I32(value)) => SnapshotVal::I32(value),
            Some(Val::I64(value)) => SnapshotVal::I64(value),
            Some(Val::F32(bits)) => SnapshotVal::F32(bits),
            Some(Val::F64(bits)) => SnapshotVal::F64(bits),
            Some(Val::V128(value)) => SnapshotVal::V128(value.as_u128()),
            // `WarmUp::of` has exported all that are asked for, and refused those that hold references.
            other => panic!("global {name} holds {other:?}"),
        }
    }

    async fn memory_contents(&mut self, name: &str, contents: impl FnOnce(&[u8]) + Send) {
        let memory = self.instance.get_memory(&mut self.store, name);
        contents(memory.expect("all memories are exported").data(&self.store));
    }
}

impl WarmUpFailure {
    pub fn unsupported(reason: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Unsupported(Arc::new(reason))
    }

    fn of(error: wasmtime::Error) -> Self {
        if let Some(called) = error.downcast_ref::<CalledImport>() {
            return Self::CalledImport(called.clone());
        }
        if let Some(refused) = refused_by_system(&error) {
            return Self::System(refused);
        }
        Self::Guest(classify(error))
    }

    fn of_host(error: wasmtime::Error) -> Self {
        match refused_by_system(&error) {
            Some(refused) => Self::System(refused),
            None => Self::Guest(CallFailure::Host(share(error))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_counted_as_it_is_cut_into_segments() {
        let found = |memory: &[u8]| {
            let Found {
                pieces,
                bytes,
                extent,
            } = Found::of(memory);
            (pieces, bytes, extent)
        };
        assert_eq!(found(&[]), (0, 0, 0));
        assert_eq!(found(&[0; 100]), (0, 0, 0));
        assert_eq!(found(&[0, 0, 1, 2, 0, 3]), (2, 3, 4));
        // A stretch that goes over the end of a piece is two.
        assert_eq!(found(&[1; PIECE + 1]), (2, 65_537, 65_537));
        let alternating: Vec<u8> = (0..PIECE).map(|n| (n % 2) as u8).collect();
        assert_eq!(found(&alternating), (32_768, 32_768, 65_535));
        assert_eq!(Found::of(&alternating).segment_bytes(), 65_535);
    }
}
