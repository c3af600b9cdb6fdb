//! Compiling for the artifacts alone: no function, no code that is loaded, but room in the budgets.

use std::cell::OnceCell;
use std::sync::Arc;
use std::time::Instant;

use crate::artifacts::{ArtifactKey, Artifacts, module_hash};
use crate::compiler::Cap;
use crate::pool::api::acquire_options::AcquireOptions;
use crate::pool::api::error::ModuleError;
use crate::pool::api::precompile::{PrecompileError, PrecompileOutcome, Precompiled};
use crate::pool::api::target::Target;
use crate::pool::cold::acquire::{closed, stack_too_small};
use crate::pool::cold::compilation::{Compile, CompileFailure, ModuleSize, Shortfall};
use crate::pool::cold::request_guard::RequestGuard;
use crate::pool::cold::reserve::Need;
use crate::pool::shared::Shared;
use crate::pool::wait::block_on::block_on;
use crate::runtime::{Facts, READ_BUFFERS, Unmapped, compile_heap, inspect, load_estimate};
use crate::state::{Amounts, Budget, CompileNeed, Group};

/// A module that is to become an artifact.
struct Job<'a, T: Send + 'static> {
    pool: &'a Arc<Shared<T>>,
    artifacts: &'a Artifacts,
    wasm: &'a [u8],
    facts: Facts,
    key: ArtifactKey,
    target: Arc<Target>,
    guard: RequestGuard<T>,
    /// Bytes of heap that compiling it is thought to take: looked for when it is to be compiled.
    compile_heap: OnceCell<u64>,
}

/// What was done, and the bytes of the code.
type Done = (PrecompileOutcome, u64);

impl<T: Send + 'static> Shared<T> {
    /// Sees to it that a module is among the artifacts, on this thread.
    pub(crate) fn precompile(
        self: &Arc<Self>,
        name: Arc<str>,
        wasm: &[u8],
        index: usize,
    ) -> Precompiled {
        let began = Instant::now();
        let done = self.try_precompile(&name, wasm);
        let artifact_bytes = done.as_ref().map_or(0, |(_, bytes)| *bytes);
        Precompiled {
            name,
            index,
            wasm_bytes: wasm.len() as u64,
            artifact_bytes,
            time: began.elapsed(),
            outcome: done.map(|(outcome, _)| outcome),
        }
    }

    fn try_precompile(
        self: &Arc<Self>,
        name: &Arc<str>,
        wasm: &[u8],
    ) -> Result<Done, PrecompileError> {
        let artifacts = self.artifacts.as_ref();
        let artifacts = artifacts.ok_or(PrecompileError::NoArtifacts)?;
        let facts = inspect(wasm, &self.settings.modules).map_err(PrecompileError::Module)?;
        let target = Arc::new(Target {
            signature: name.clone(),
            group: Group::NOBODY,
        });
        self.stack
            .check()
            .map_err(|source| PrecompileError::Acquire(stack_too_small(&target, source)))?;
        let request = self.with_state(|locked, _| locked.state.begin_work());
        let job = Job {
            pool: self,
            artifacts,
            wasm,
            facts,
            key: ArtifactKey::new(*self.runtime.key(), module_hash(wasm)),
            target,
            guard: RequestGuard::new(self, request),
            compile_heap: OnceCell::new(),
        };
        job.run()
    }
}

impl<T: Send + 'static> Job<'_, T> {
    fn run(&self) -> Result<Done, PrecompileError> {
        if let Some(done) = self.find()? {
            return Ok(done);
        }
        self.take_turn()?;
        let mut cap = (self.pool)
            .first_cap(&self.size(), CompileNeed::default(), &Amounts::ZERO)
            .map_err(|verdict| self.failed(verdict))?;
        self.reserve(self.pool.room_to_compile(&self.size(), cap.as_ref()))?;
        // Of pools that share their artifacts, one compiles. Who has waited for that looks again, and holds up nobody
        // while it does.
        let _flight = loop {
            let compiling = self.guard.begin_compiling();
            let flight = self.artifacts.hold(&self.key, true);
            drop(compiling);
            if !flight.waited {
                break flight;
            }
            drop(flight);
            if let Some(done) = self.find()? {
                return Ok(done);
            }
        };
        let compiled = loop {
            match self.compile(cap)? {
                Ok(compiled) => break compiled,
                Err(shortfall) => cap = self.raise(cap, shortfall)?,
            }
        };
        let code = compiled.compiled().unwrap_or_default();
        match self.artifacts.save(&self.key, &code) {
            true => Ok((PrecompileOutcome::Compiled, code.len() as u64)),
            false => Err(PrecompileError::NotSaved),
        }
    }

    /// Whether it is there, and as it was saved.
    fn find(&self) -> Result<Option<Done>, PrecompileError> {
        let load = load_estimate(self.wasm.len() as u64, &self.facts);
        self.reserve(load)?;
        let heap = load.get(Budget::Compile).saturating_sub(READ_BUFFERS);
        let mut tier = 0;
        let make_room = &mut *self.pool.room_maker();
        while let Some(found) = self.artifacts.find(&self.key, tier, heap, make_room) {
            tier = found.next_tier();
            if self.artifacts.is_whole(&found) {
                return Ok(Some((PrecompileOutcome::Present, found.mapped_bytes())));
            }
        }
        Ok(None)
    }

    /// As many compile at once as may. Nothing is held while others are waited for.
    fn take_turn(&self) -> Result<(), PrecompileError> {
        self.hold_nothing();
        let wait_policy = self.pool.wait_policy(AcquireOptions::new());
        let size = self.facts.compile_rank();
        let turn = (self.pool).turn_to_compile(&self.guard, &self.target, size, wait_policy);
        block_on(turn, &self.pool.timekeeper).map_err(PrecompileError::Acquire)
    }

    fn hold_nothing(&self) {
        self.pool.with_state(|locked, cx| {
            (locked.state).shrink_to(self.guard.id(), Amounts::ZERO, &mut cx.out);
        });
    }

    /// So much is held then, with what was held before.
    fn reserve(&self, amounts: Amounts) -> Result<(), PrecompileError> {
        let wait_policy = self.pool.wait_policy(AcquireOptions::new());
        let need = Need::of(&self.guard, &self.target, amounts);
        let reserved = self.pool.reserve(&need, wait_policy);
        block_on(reserved, &self.pool.timekeeper).map_err(PrecompileError::Acquire)
    }

    fn size(&self) -> ModuleSize<'_> {
        let wasm = self.wasm.len() as u64;
        ModuleSize {
            wasm,
            facts: &self.facts,
            estimate: *self
                .compile_heap
                .get_or_init(|| compile_heap(self.wasm, &self.facts, self.pool.runtime.engine())),
            code_bytes: None,
        }
    }

    /// Compiles; or says what its process lacked.
    fn compile(&self, cap: Option<Cap>) -> Result<Result<Unmapped, Shortfall>, PrecompileError> {
        // Not while room is waited for: whoever waits for a turn behind it has a deadline then.
        let _compiling = self.guard.begin_compiling();
        let compiled = self.pool.run_compiler(&Compile {
            target: &self.target,
            wasm: self.wasm,
            facts: &self.facts,
            key: self.key,
            cap,
            request: self.guard.id(),
            is_awaited: &|| true,
            measured: &|_| {},
        });
        match compiled {
            Ok((code, _)) => Ok(Ok(code)),
            Err(CompileFailure::Cap(shortfall)) => Ok(Err(shortfall)),
            // It is of no function, and is waited for here: so it is the end of the pool.
            Err(CompileFailure::Stopped) => Err(PrecompileError::Acquire(closed(&self.target))),
            Err(CompileFailure::Verdict(verdict)) => Err(self.failed(verdict)),
        }
    }

    fn raise(
        &self,
        cap: Option<Cap>,
        shortfall: Shortfall,
    ) -> Result<Option<Cap>, PrecompileError> {
        let Some(cap) = cap else { return Ok(None) };
        let raised = self
            .pool
            .raised_cap(&self.size(), cap, shortfall, &Amounts::ZERO);
        let raised = raised.map_err(|verdict| self.failed(verdict))?;
        // Nothing is held while more is waited for.
        self.hold_nothing();
        self.reserve(self.pool.room_to_compile(&self.size(), Some(&raised)))?;
        Ok(Some(raised))
    }

    fn failed(&self, verdict: ModuleError) -> PrecompileError {
        self.pool.observer.module_failed();
        (self.pool).with_state(|locked, _| locked.module_failures += 1);
        match verdict {
            ModuleError::System(refused) => PrecompileError::System(refused),
            ModuleError::Compile(error) => PrecompileError::Compile(error),
            other => PrecompileError::Refused(other.into()),
        }
    }
}
