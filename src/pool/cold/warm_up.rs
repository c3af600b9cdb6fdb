//! Warming up: before the code of a definition is compiled that asks for it, its export runs in an instance that is
//! thrown away, and what is compiled is the snapshot of that. Part of the module's flight: its leader does it.

use std::sync::Arc;
use std::time::Instant;

use crate::artifacts::{ArtifactKey, Artifacts, EngineKey, module_hash, snapshot_hash};
use crate::compiler::Cap;
use crate::pool::api::error::{AcquireError, ModuleError, WarmUpError};
use crate::pool::api::target::Target;
use crate::pool::cold::compilation::{Compile, CompileFailure, Shortfall};
use crate::pool::cold::growth::ThrowawayAccount;
use crate::pool::cold::request_guard::RequestGuard;
use crate::pool::cold::reserve::Need;
use crate::pool::defined::{CompileHeap, Defined, Source, SourceParts, Warmed};
use crate::pool::service::workers::IsAwaited;
use crate::pool::shared::Shared;
use crate::pool::wait::policy::WaitPolicy;
use crate::runtime::{
    CallFailure, GrowthAccount, InstanceNeeds, Meter, ModuleLimits, READ_BUFFERS, Refusal, Relief,
    Unmapped, WarmUp, WarmUpFailure, code_estimate, guarded, inspect, is_scarce, load_estimate,
    share,
};
use crate::state::{Amounts, Budget, CompileNeed};

/// For whom a module is warmed up.
struct Job<T: Send + 'static> {
    /// Whether it waits for others' compilations as long as they take.
    waits: bool,
    target: Arc<Target>,
    source: Source<T>,
    export: Arc<str>,
    defined: Arc<Defined>,
}

impl<T: Send + 'static> Job<T> {
    /// What the snapshot is kept under.
    fn artifact_key(&self, engine: &EngineKey) -> ArtifactKey {
        let module = snapshot_hash(&self.source.0.hash, &self.export);
        ArtifactKey::from_parts(*engine, module)
    }

    /// This wasm in place of what it was made from.
    fn snapshot(&self, wasm: Vec<u8>) -> Result<Source<T>, WarmUpFailure> {
        let before = &self.source.0;
        let mut facts = inspect(&wasm, &ModuleLimits::NONE).map_err(WarmUpFailure::unsupported)?;
        facts.forget_exports();
        let snapshot = SourceParts {
            hash: module_hash(&wasm),
            facts,
            imports: before.imports.clone(),
            warm_up: None,
            compile_heap: CompileHeap::default(),
            warmed: Warmed::default(),
            wasm: wasm.into(),
        };
        Ok(Source(Arc::new(snapshot)))
    }
}

/// What is done next. Before each step it is reserved what that takes.
enum Step {
    /// Looks for a snapshot among the artifacts.
    Find,
    /// Makes one; with the throwaway code, if that was compiled already.
    Run(Option<Unmapped>),
}

/// What comes back from a step.
enum Outcome<T: 'static> {
    Done(Source<T>),
    /// No artifact.
    NotFound,
    /// The throwaway code is there, and takes more room than was thought.
    LacksRoom(Unmapped, Amounts),
    /// The process that was to compile the throwaway code lacked something.
    Short(Shortfall),
    /// It was stopped, since nobody needs what it makes.
    Stopped,
    /// The throwaway code does not compile.
    Failed(ModuleError),
}

impl<T: Send + 'static> Shared<T> {
    /// What is to be compiled: the snapshot, if the definition is to be warmed up. Room for the throwaway
    /// instance, for its code and for compiling that is reserved before; afterwards the request holds
    /// only what the snapshot itself takes while it is compiled. `None` if nobody needs it any more.
    pub(crate) async fn warmed_up(
        self: &Arc<Self>,
        mut guard: RequestGuard<T>,
        target: &Arc<Target>,
        source: Source<T>,
        defined: &Arc<Defined>,
        mut wait_policy: WaitPolicy,
    ) -> Result<(RequestGuard<T>, Option<Source<T>>, WaitPolicy), AcquireError> {
        let Some(export) = source.0.warm_up.clone() else {
            return Ok((guard, Some(source), wait_policy));
        };
        let facts = &source.0.facts;
        let beside = InstanceNeeds::of(facts, &self.runtime)
            .declared()
            .saturating_add(&code_estimate(facts, None));
        let of_module = source.clone();
        let mut cap = None;
        let to_find = self.room_to_find(&source);
        let (mut step, mut room) = match &self.artifacts {
            Some(_) => (Step::Find, Some(to_find)),
            None => (Step::Run(None), None),
        };
        let job = Arc::new(Job {
            waits: wait_policy.pauses(),
            target: target.clone(),
            source,
            export,
            defined: defined.clone(),
        });
        loop {
            // What compiling takes is looked for in all of the wasm: not where a snapshot is found.
            if room.is_none() && cap.is_none() {
                (guard, wait_policy) =
                    (self.estimated(guard, target, &of_module, wait_policy)).await?;
                let first = self.first_cap(&of_module.size(), CompileNeed::default(), &beside);
                cap = first.map_err(|error| self.fail_until(0, &guard, target, error))?;
            }
            let room_to_run = || {
                let compiling = self.room_to_compile(&of_module.size(), cap.as_ref());
                compiling.saturating_add(&beside)
            };
            let need = Need::of(&guard, target, room.unwrap_or_else(room_to_run));
            self.reserve(&need, wait_policy).await?;
            let (pool, job) = (self.clone(), job.clone());
            let aside = cap.is_some() && matches!(step, Step::Run(_));
            let work = move |guard: &RequestGuard<T>, is_awaited: IsAwaited<'_>| match step {
                Step::Find => {
                    let found = pool.find_snapshot(guard, &job, to_find);
                    Ok(found.map_or(Outcome::NotFound, Outcome::Done))
                }
                Step::Run(code) => pool.warm_up(guard, &job, code, (cap, is_awaited)),
            };
            let began = self.timekeeper.now();
            let done = self.work(guard, target, wait_policy, aside, work).await?;
            wait_policy = wait_policy.later(self.timekeeper.now().saturating_sub(began));
            guard = done.0;
            (step, room) = match done.1? {
                Outcome::Done(snapshot) => return Ok((guard, Some(snapshot), wait_policy)),
                Outcome::NotFound => (Step::Run(None), None),
                Outcome::LacksRoom(compiled, needed) => (Step::Run(Some(compiled)), Some(needed)),
                Outcome::Short(shortfall) => {
                    let lacked = cap.map(|cap| (cap, shortfall));
                    cap = self.raise(&guard, target, &of_module.size(), lacked, &beside)?;
                    (Step::Run(None), None)
                }
                Outcome::Stopped | Outcome::Failed(_) => return Ok((guard, None, wait_policy)),
            }
        }
    }

    /// Heap that looking for a snapshot takes: as much as one that fills the memories that are declared, if that can
    /// be had; otherwise, and for longer ones, stores have to give files.
    fn room_to_find(&self, source: &Source<T>) -> Amounts {
        let wasm = source.0.wasm.len() as u64;
        let memory = Amounts::ZERO.compile(source.0.facts.memory_bytes);
        let room = load_estimate(wasm, &source.0.facts).saturating_add(&memory);
        match self.with_state(|locked, _| locked.state.can_ever_hold(&room)) {
            true => room,
            false => Amounts::ZERO.compile(READ_BUFFERS),
        }
    }

    /// The snapshot, if it is among the artifacts. Room for it is reserved when its length is known; a store that
    /// does not give files has to fit it into what is held already.
    fn find_snapshot(
        self: &Arc<Self>,
        guard: &RequestGuard<T>,
        job: &Job<T>,
        held: Amounts,
    ) -> Option<Source<T>> {
        let artifacts = self.artifacts.as_ref()?;
        let key = job.artifact_key(self.runtime.key());
        let (held, mut tier) = (held.get(Budget::Compile), 0);
        while let Some(found) = artifacts.find(&key, tier, held, &mut *self.room_maker()) {
            tier = found.next_tier();
            let beyond = Amounts::ZERO.compile(found.bytes_to_read().saturating_sub(held));
            if beyond != Amounts::ZERO && !self.account(guard, job).charge(beyond) {
                return None;
            }
            let wasm = (artifacts.verify(&found, &mut *self.room_maker())).and_then(|verified| {
                artifacts.offer(&found, &verified);
                verified.read(found.saved_bytes()).ok()
            });
            // It is copied once more, to be shared.
            drop(found);
            let snapshot = wasm.and_then(|wasm| job.snapshot(wasm).ok());
            // Another pool, whose instances may be larger, may have made it.
            let limits = self.settings.instance;
            if let Some(snapshot) = snapshot.filter(|it| it.0.facts.memory_bytes <= limits.memory) {
                return Some(snapshot);
            }
        }
        None
    }

    /// Charges what is taken for the job to the request that it is done for.
    fn account(self: &Arc<Self>, guard: &RequestGuard<T>, job: &Job<T>) -> ThrowawayAccount<T> {
        ThrowawayAccount {
            pool: self.clone(),
            target: job.target.clone(),
            request: guard.id(),
        }
    }

    fn warm_up(
        self: &Arc<Self>,
        guard: &RequestGuard<T>,
        job: &Job<T>,
        code: Option<Unmapped>,
        compile: (Option<Cap>, IsAwaited<'_>),
    ) -> Result<Outcome<T>, AcquireError> {
        let _span = tracing::info_span!(
            "warm up",
            function = %job.target.signature,
            export = %job.export,
        )
        .entered();
        // Of pools that share their artifacts, one warms up.
        let key = job.artifact_key(self.runtime.key());
        let flight = self.artifacts.as_ref().map(|all| all.hold(&key, job.waits));
        if flight.as_ref().is_some_and(|flight| flight.waited) {
            let held = job.source.compile_estimate();
            if let Some(snapshot) = self.find_snapshot(guard, job, held) {
                return Ok(Outcome::Done(snapshot));
            }
        }
        let began = Instant::now();
        // What reads and writes modules may panic, as the compiler may.
        let outcome = guarded("a warm-up", || self.try_warm_up(guard, job, code, compile));
        let panicked = || {
            let error = wasmtime::Error::msg("it panicked");
            Err(WarmUpFailure::Unsupported(share(error)))
        };
        match outcome.unwrap_or_else(panicked) {
            Ok(Outcome::Done(mut snapshot)) => {
                let time = began.elapsed();
                let keep = snapshot.compile_estimate();
                self.with_state(|locked, cx| {
                    locked.warm_ups += 1;
                    locked.state.shrink_to(guard.id(), keep, &mut cx.out);
                });
                self.observer.warmed_up();
                let save = |artifacts: &Artifacts| artifacts.save(&key, &snapshot.0.wasm);
                let is_kept = self.artifacts.as_ref().is_some_and(save);
                if let Some(parts) = Arc::get_mut(&mut snapshot.0) {
                    (parts.warmed.time, parts.warmed.is_kept) = (time, is_kept);
                }
                Ok(Outcome::Done(snapshot))
            }
            Ok(Outcome::Failed(verdict)) => Err(self.module_failed(guard, &job.target, verdict)),
            Ok(other) => Ok(other),
            Err(failure) => Err(self.warm_up_failed(guard, job, failure)),
        }
    }

    fn try_warm_up(
        self: &Arc<Self>,
        guard: &RequestGuard<T>,
        job: &Job<T>,
        code: Option<Unmapped>,
        (cap, is_awaited): (Option<Cap>, IsAwaited<'_>),
    ) -> Result<Outcome<T>, WarmUpFailure> {
        let parts = &*job.source.0;
        let warm_up = WarmUp::of(&parts.wasm, &job.export, &self.runtime)?;
        let compiling = self.room_to_compile(&job.source.size(), cap.as_ref());
        let needs = InstanceNeeds::of(warm_up.facts(), &self.runtime);
        let compile = || {
            self.compile_uncounted(&Compile {
                target: &job.target,
                wasm: warm_up.wasm(),
                facts: warm_up.facts(),
                key: ArtifactKey::new(*self.runtime.key(), module_hash(warm_up.wasm())),
                cap,
                request: guard.id(),
                is_awaited,
                measured: &|_| {},
            })
        };
        let code = match code.map_or_else(compile, Ok) {
            Ok(code) => code,
            Err(CompileFailure::Cap(shortfall)) => return Ok(Outcome::Short(shortfall)),
            Err(CompileFailure::Stopped) => return Ok(Outcome::Stopped),
            Err(CompileFailure::Verdict(verdict)) => return Ok(Outcome::Failed(verdict)),
        };
        // Now its size is known, and it is not mapped yet.
        let room = compiling
            .saturating_add(&needs.declared())
            .saturating_add(&code.amounts());
        if !self.reserve_if_free(&Need::of(guard, &job.target, room)) {
            return Ok(Outcome::LacksRoom(code, room));
        }
        let account = || self.account(guard, job);
        let limits = job.defined.limits;
        if limits.have_an_end() {
            self.timekeeper.keep_ticking();
        }
        let mut relief = Relief::default();
        let mut warm = loop {
            let instance = self.settings.instance;
            let (memory, elements) = (instance.memory, instance.table_elements);
            let meter = Meter::new(Box::new(account()), memory, elements, needs.metered);
            let run = || warm_up.run(&self.runtime, &code, meter, limits);
            match self.stack.with_room(run) {
                Err(WarmUpFailure::System(refused))
                    if is_scarce(&refused) && relief.next().is_some_and(|n| self.relieve(n)) => {}
                ran => break ran?,
            }
        };
        drop(code);
        let requested = warm_up.snapshot_heap(&mut warm);
        let beyond = requested.saturating_sub(compiling.get(Budget::Compile));
        if beyond > 0 && !account().charge(Amounts::ZERO.compile(beyond)) {
            return Err(WarmUpFailure::Memory(Refusal::Budget { requested }));
        }
        let wasm = warm_up.snapshot(&mut warm)?;
        drop(warm);
        job.snapshot(wasm).map(Outcome::Done)
    }

    fn warm_up_failed(
        &self,
        guard: &RequestGuard<T>,
        job: &Job<T>,
        failure: WarmUpFailure,
    ) -> AcquireError {
        let target = &job.target;
        let source = match failure {
            WarmUpFailure::System(refused) => return self.refused(guard, target, refused),
            WarmUpFailure::Invalid(error) => {
                return self.fail(guard, target, ModuleError::Compile(share(error)));
            }
            WarmUpFailure::Unsupported(reason) => WarmUpError::Unsupported(reason),
            WarmUpFailure::CalledImport(called) => WarmUpError::CalledImport {
                module: called.module,
                name: called.name,
            },
            WarmUpFailure::Memory(refusal) => WarmUpError::Memory(Arc::new(refusal)),
            WarmUpFailure::Guest(failure) => {
                self.observer.guest_failed(failure.kind());
                self.explain_warm_up(job, failure)
            }
        };
        // What the module does, it will do again. What it may have is another matter: another function of the same
        // module has other limits, and other budgets will be free.
        let lasts = matches!(
            source,
            WarmUpError::Unsupported(_)
                | WarmUpError::CalledImport { .. }
                | WarmUpError::Trapped(_)
        );
        let export = job.export.clone();
        let error = ModuleError::WarmUp { export, source };
        match lasts {
            true => self.fail_until(u64::MAX, guard, target, error),
            false => self.fail(guard, target, error),
        }
    }

    fn explain_warm_up(&self, job: &Job<T>, failure: CallFailure) -> WarmUpError {
        match failure {
            CallFailure::Fuel => WarmUpError::Limit(job.defined.fuel_limit()),
            CallFailure::Deadline => WarmUpError::Limit(job.defined.time_limit()),
            CallFailure::Trap(trap) => WarmUpError::Trapped(trap),
            CallFailure::Host(error) => WarmUpError::Failed(error),
            // Nobody has anything to cancel it by.
            CallFailure::Cancelled => {
                let error = wasmtime::Error::msg("it was cancelled");
                WarmUpError::Failed(share(error))
            }
        }
    }
}
