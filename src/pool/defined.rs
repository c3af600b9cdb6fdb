//! What the pool keeps of a definition, and of the module that it is of.

use std::any::TypeId;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use wasmparser::FuncType;

use crate::artifacts::{ArtifactKey, EngineKey};
use crate::pool::api::error::CallLimit;
use crate::pool::time::timekeeper::Timekeeper;
use crate::runtime::{CallLimits, Facts, HostImports, compile_heap};
use crate::state::{Amounts, ModuleKey};
use crate::sync::{AtomicU64, OnceLock, StaticCounter};

/// A number for a function, or for imports, from 1. Of all pools: threads' tables are shared by all.
pub(crate) fn fresh_uid() -> u64 {
    static UIDS: StaticCounter = StaticCounter::new();
    UIDS.next()
}

/// What the pool keeps of a definition.
pub(crate) struct Defined {
    /// What every lease of it has of fuel and ticks.
    pub limits: CallLimits,
    /// Names the function among all functions of all pools; survives a `replace` by the same type.
    pub uid: u64,
    /// The `uid` of the function that was first defined and has become this one by `replace`.
    pub origin: u64,
    pub export: Arc<str>,
    pub declared: FuncType,
    /// The types of the handle that it was defined with, which are known to match.
    pub types: TypeId,
    /// Leases that an instance of it may have, its own or the pool's. The end of a lease looks at it.
    /// [`Self::PRISTINE`], if each lease has one of its own, of which spares are made.
    pub max_uses: u64,
    /// Bytes of linear memory and GC heap that an instance of it may grow to, likewise.
    pub max_memory: u64,
    /// Nanoseconds of a lease, likewise; all there are for no limit.
    pub timeout: u64,
    /// Hits of entries that are gone; survives `replace`.
    pub past_hits: Arc<AtomicU64>,
}

impl Defined {
    /// In `max_uses`: a lease is the only one that its instance has. (The record is as small as it can be.)
    pub const PRISTINE: u64 = 0;

    pub fn is_pristine(&self) -> bool {
        self.max_uses == Self::PRISTINE
    }

    /// For reports about a lease that ran out of fuel.
    pub fn fuel_limit(&self) -> CallLimit {
        CallLimit::Fuel(self.limits.fuel.map_or(u64::MAX, NonZeroU64::get))
    }

    /// For reports about a lease that ran out of time.
    pub fn time_limit(&self) -> CallLimit {
        CallLimit::Time(match self.timeout {
            u64::MAX => Duration::MAX,
            limit => Duration::from_nanos(limit),
        })
    }

    /// When the time of a task's lease is over that begins now.
    pub fn end_of_time(&self, timekeeper: &Timekeeper) -> u64 {
        match self.timeout {
            u64::MAX => u64::MAX,
            limit => timekeeper.now().saturating_add(limit),
        }
    }
}

/// Bytes that a module is compiled from, what they declare, and what it is linked with; shared by every
/// function of it.
pub(crate) struct Source<T: 'static>(pub Arc<SourceParts<T>>);

pub(crate) struct SourceParts<T: 'static> {
    pub wasm: Arc<[u8]>,
    /// Of these bytes.
    pub hash: [u8; 32],
    pub facts: Facts,
    pub imports: Arc<HostImports<T>>,
    /// The export that is run before its instances are snapshotted.
    pub warm_up: Option<Arc<str>>,
    pub compile_heap: CompileHeap,
    pub warmed: Warmed,
}

/// Bytes of wasm whose operators are counted in about a millisecond.
const QUICK_BYTES: usize = 32 << 10;

/// What is known of the heap that compiling takes, in bytes.
#[derive(Debug, Default)]
pub(crate) struct CompileHeap {
    /// By a look at its operators, once it is to be compiled.
    estimate: OnceLock<u64>,
    /// As the host has measured it, the first time.
    measured: OnceLock<u64>,
}

/// What is known of wasm that a warm-up has made; nothing, of other wasm.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Warmed {
    /// What making it took.
    pub time: Duration,
    /// Whether it was kept, or found: then it need not be made again.
    pub is_kept: bool,
}

impl Warmed {
    /// What it takes to have it again.
    pub fn time_to_repeat(&self) -> Duration {
        match self.is_kept {
            true => Duration::ZERO,
            false => self.time,
        }
    }
}

impl<T> Clone for Source<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// What one instance may have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InstanceLimits {
    pub memory: u64,
    pub table_elements: u64,
}

impl<T: 'static> Source<T> {
    /// The module's identity: its bytes, hashed once, all that affects their compilation, and what it is
    /// linked with.
    pub fn key(&self, engine: &EngineKey) -> ModuleKey {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0.hash);
        hasher.update(engine.as_bytes());
        hasher.update(&self.0.imports.uid().to_le_bytes());
        if let Some(export) = &self.0.warm_up {
            // An export may have no name at all.
            hasher.update(&[1]);
            hasher.update(export.as_bytes());
        }
        hasher.finalize().into()
    }

    /// Heap that compiling it takes: what it has taken, where that was measured, or else an estimate.
    pub fn compile_estimate(&self) -> Amounts {
        let SourceParts {
            wasm,
            facts,
            imports,
            compile_heap: known,
            ..
        } = &*self.0;
        let estimate = || compile_heap(wasm, facts, imports.engine());
        let measured = known.measured.get();
        Amounts::ZERO.compile(*measured.unwrap_or_else(|| known.estimate.get_or_init(estimate)))
    }

    /// Whether `compile_estimate` knows already, or soon will: by a look at so few operators that anybody may wait
    /// for it.
    pub fn is_quickly_estimated(&self) -> bool {
        let known = &self.0.compile_heap;
        known.measured.get().is_some()
            || known.estimate.get().is_some()
            || self.0.wasm.len() <= QUICK_BYTES
    }

    /// Compiling it has taken so much, beside what others took.
    pub fn note_compile_heap(&self, measured: u64) {
        // Maps of the compiler's are in another order each time: that is a little more, or less.
        let with_slack = measured.saturating_add(measured / 32).max(64 << 10);
        let _ = self.0.compile_heap.measured.set(with_slack);
    }

    /// What its compiled code is kept under.
    pub fn artifact_key(&self, engine: &EngineKey) -> ArtifactKey {
        ArtifactKey::new(*engine, self.0.hash)
    }
}
