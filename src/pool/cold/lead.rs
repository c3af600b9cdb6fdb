//! The leader of a module's flight: it brings the code, for all who need it. From an artifact if there is one, or
//! else it compiles, on its own thread (for a task, on a worker's).

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::artifacts::{Artifacts, Found};
use crate::pool::api::compiled::Compiled;
use crate::pool::api::error::{AcquireError, ModuleError, WaitingFor};
use crate::pool::api::prepared::CodeOrigin;
use crate::pool::api::target::Target;
use crate::pool::cold::acquire::closed;
use crate::pool::cold::request_guard::RequestGuard;
use crate::pool::cold::reserve::Need;
use crate::pool::defined::{Defined, Source};
use crate::pool::shared::Shared;
use crate::pool::time::alarms::until;
use crate::pool::time::clock::nanos;
use crate::pool::time::deadline::Deadline;
use crate::pool::wait::policy::WaitPolicy;
use crate::runtime::{
    Code, CodeNeeds, Facts, InstanceNeeds, LoadFailure, READ_BUFFERS, Relief, Unmapped,
    code_estimate, compile, guarded, is_scarce, load_estimate, refused_by_system, share,
};
use crate::state::{Amounts, Budget};

/// What an instance is to be made of; its code is loaded, and pinned by the request.
pub(crate) struct Ready {
    pub defined: Arc<Defined>,
    pub needs: InstanceNeeds,
    pub origin: CodeOrigin,
}

/// The module that is led.
pub(crate) struct Lead<T: Send + 'static> {
    pub source: Source<T>,
    pub defined: Arc<Defined>,
    /// What the code took last time, in bytes, when there was one.
    pub code_bytes: Option<u64>,
}

/// What a leader does next. Before each step it reserves what that takes.
enum Step {
    /// Looks for an artifact, and loads it; if there is none, it compiles.
    Find,
    /// Compiles, loads, and saves. What the compiler made takes another room than was thought: if that is not
    /// free, it loads when it is.
    Compile,
    /// Loads what it has already, now that there is room for it.
    Load(Waiting),
}

/// What a step has come to.
enum Taken {
    Loaded(CodeOrigin),
    Next(Step),
}

/// Code that has waited for room.
enum Waiting {
    /// It took so long to compile.
    Compiled(Unmapped, Duration),
    Found(Found, CodeNeeds),
}

impl<T: Send + 'static> Shared<T> {
    /// Brings the code. Room for the work, for the code and for the first instance (if one is to be made) is
    /// reserved before it starts, so that it does not start in vain. If this returns early, the flight ends with
    /// the request, and one of the followers leads the next.
    pub(crate) async fn lead(
        self: &Arc<Self>,
        mut guard: RequestGuard<T>,
        target: &Arc<Target>,
        lead: Lead<T>,
        mut wait_policy: WaitPolicy,
    ) -> Result<(RequestGuard<T>, Ready, WaitPolicy), AcquireError> {
        #[cfg(feature = "warm-up")]
        let lead = {
            let (defined, asked) = (lead.defined.clone(), lead.source);
            let warm = self.warmed_up(guard, target, asked, &defined, wait_policy);
            let source;
            (guard, source, wait_policy) = warm.await?;
            Lead { source, ..lead }
        };
        let needs = InstanceNeeds::of(&lead.source.0.facts, &self.runtime);
        let first = self.first_instance(&guard, &needs, wait_policy);
        let mut next = match &self.artifacts {
            Some(_) => Step::Find,
            None => Step::Compile,
        };
        let origin = loop {
            let code = next.code(&lead);
            let held = first.saturating_add(&self.work_of(&next, &lead, &first, &code));
            let need = Need::of(&guard, target, held.saturating_add(&code));
            self.reserve(&need, wait_policy).await?;
            let (pool, for_whom, source) = (self.clone(), target.clone(), lead.source.clone());
            let waits = wait_policy.pauses();
            let work = move |guard: &RequestGuard<T>| {
                pool.take_step(guard, &for_whom, &source, next, held, waits)
            };
            let began = self.timekeeper.now();
            let done = self.work(guard, target, wait_policy, work).await?;
            wait_policy = wait_policy.later(self.timekeeper.now().saturating_sub(began));
            guard = done.0;
            match done.1? {
                Taken::Loaded(origin) => break origin,
                Taken::Next(step) => next = step,
            }
        };
        self.with_state(|locked, cx| {
            locked.state.shrink_to(guard.id(), first, &mut cx.out);
        });
        let ready = Ready {
            defined: lead.defined,
            needs,
            origin,
        };
        Ok((guard, ready, wait_policy))
    }

    /// What the instance takes that is made of the code; nothing, if the request has no seat for one.
    fn first_instance(
        &self,
        guard: &RequestGuard<T>,
        needs: &InstanceNeeds,
        wait_policy: WaitPolicy,
    ) -> Amounts {
        let seat = self.with_state(|locked, _| locked.state.seat_of(guard.id()));
        seat.map_or(Amounts::ZERO, |_| self.needs(needs, wait_policy))
    }

    /// The heap that a step works in. Where a budget is too small for it, an artifact that is a file is still
    /// loaded.
    fn work_of(&self, step: &Step, lead: &Lead<T>, first: &Amounts, code: &Amounts) -> Amounts {
        let wasm = lead.source.0.wasm.len() as u64;
        if !step.is_of_artifacts() {
            return lead.source.compile_estimate();
        }
        let work = load_estimate(wasm, &lead.source.0.facts);
        let all = work.saturating_add(first).saturating_add(code);
        match self.with_state(|locked, _| locked.state.can_ever_hold(&all)) {
            true => work,
            false => Amounts::ZERO.compile(READ_BUFFERS),
        }
    }

    /// Works for a request: on this thread, or, if this is a task's, aside. The work keeps the request
    /// until it is done, even when nobody waits for it any more: what it has reserved is in use.
    pub(crate) async fn work<R: Send + 'static>(
        &self,
        guard: RequestGuard<T>,
        target: &Arc<Target>,
        wait_policy: WaitPolicy,
        work: impl FnOnce(&RequestGuard<T>) -> R + Send + 'static,
    ) -> Result<(RequestGuard<T>, R), AcquireError> {
        let work = move || {
            let compiling = guard.begin_compiling();
            let result = work(&guard);
            drop(compiling);
            (guard, result)
        };
        if !wait_policy.is_of_a_task() {
            return Ok(work());
        }
        let began = self.timekeeper.now();
        let done = self.workers.run(work);
        let deadline = wait_policy.deadline().and_then(Deadline::of_compilations);
        let ends = wait_policy.ends();
        if ends != u64::MAX {
            self.undelivered
                .add(ends, done.delivery(self.slack(wait_policy)));
        }
        match until(done, deadline, &self.timekeeper).await {
            Some(Some(done)) => Ok(done),
            Some(None) if self.timekeeper.now() < ends => Err(self.worker_failed(target)),
            // Its deadline has come: what the worker left may have been taken back.
            Some(None) | None => Err(AcquireError::Timeout {
                target: target.clone(),
                waited: Duration::from_nanos(self.timekeeper.now().saturating_sub(began)),
                waiting_for: WaitingFor::Compilation,
                shortage: None,
                between_calls: 0,
            }),
        }
    }

    /// From the workers: the pool is closed, or the compiler has panicked.
    fn worker_failed(&self, target: &Arc<Target>) -> AcquireError {
        if self.with_state(|locked, _| locked.state.is_closed()) {
            return closed(target);
        }
        let panicked: Box<dyn std::error::Error + Send + Sync> = "the compiler panicked".into();
        AcquireError::Instantiate {
            target: target.clone(),
            source: panicked.into(),
        }
    }

    /// Takes the step, for which `held` is reserved, and the code.
    fn take_step(
        &self,
        guard: &RequestGuard<T>,
        target: &Arc<Target>,
        source: &Source<T>,
        step: Step,
        held: Amounts,
        waits: bool,
    ) -> Result<Taken, AcquireError> {
        let waiting = match step {
            Step::Find => return self.find(guard, target, source, held, 0),
            Step::Compile => return self.compile_and_load(guard, target, source, held, waits),
            Step::Load(waiting) => waiting,
        };
        match waiting {
            Waiting::Compiled(code, compile_time) => {
                self.load(guard, target, source, &code, compile_time)?;
                Ok(Taken::Loaded(CodeOrigin::Compiled))
            }
            Waiting::Found(found, needs) => {
                let next_tier = found.next_tier();
                match self.load_found(guard, target, source, found, needs)? {
                    true => Ok(Taken::Loaded(CodeOrigin::Loaded)),
                    false => self.find(guard, target, source, held, next_tier),
                }
            }
        }
    }

    /// Looks for an artifact, from a tier on. What is not what was saved is as if it were not there.
    fn find(
        &self,
        guard: &RequestGuard<T>,
        target: &Arc<Target>,
        source: &Source<T>,
        held: Amounts,
        mut tier: usize,
    ) -> Result<Taken, AcquireError> {
        let Some(artifacts) = &self.artifacts else {
            return Ok(Taken::Next(Step::Compile));
        };
        let key = source.artifact_key(self.runtime.key());
        let heap = held.get(Budget::Compile).saturating_sub(READ_BUFFERS);
        while let Some(found) = artifacts.find(&key, tier, heap) {
            tier = found.next_tier();
            let needs = CodeNeeds::of(&self.runtime, &source.0.facts, found.mapped_bytes());
            if !self.reserve_exactly(guard, target, held, needs.amounts()) {
                let waiting = Waiting::Found(found, needs);
                return Ok(Taken::Next(Step::Load(waiting)));
            }
            if self.load_found(guard, target, source, found, needs)? {
                return Ok(Taken::Loaded(CodeOrigin::Loaded));
            }
        }
        Ok(Taken::Next(Step::Compile))
    }

    /// Its size is known now, and it is not mapped yet: the promise is kept to the byte.
    fn reserve_exactly(
        &self,
        guard: &RequestGuard<T>,
        target: &Arc<Target>,
        held: Amounts,
        code: Amounts,
    ) -> bool {
        self.with_state(|locked, _| {
            let bytes = code.get(Budget::Code);
            locked.state.note_code_bytes(guard.id(), bytes);
        });
        let need = Need::of(guard, target, held.saturating_add(&code));
        self.reserve_if_free(&need)
    }

    /// Verifies an artifact, and maps it; `false` if it does not do.
    fn load_found(
        &self,
        guard: &RequestGuard<T>,
        target: &Arc<Target>,
        source: &Source<T>,
        found: Found,
        needs: CodeNeeds,
    ) -> Result<bool, AcquireError> {
        let Some(artifacts) = &self.artifacts else {
            return Ok(false);
        };
        let _span = tracing::info_span!("load", function = %target.signature).entered();
        let began = Instant::now();
        let Some(verified) = artifacts.verify(&found) else {
            return Ok(false);
        };
        let code = Unmapped::stored(verified, found.mapped_bytes(), needs);
        match self.map(&code, source) {
            Ok(code) => {
                self.loaded(guard, code, began.elapsed(), Duration::ZERO);
                Ok(true)
            }
            Err(LoadFailure::Map(error)) if refused_by_system(&error).is_none() => {
                artifacts.reject(&found, format!("{error:#}"));
                Ok(false)
            }
            Err(failure) => Err(self.load_failed(guard, target, failure)),
        }
    }

    /// Compiles; and loads, if there is room for exactly this code. So what a task has begun and does
    /// not wait for is there for the next. Of pools that share their artifacts, one compiles, unless who asks does not
    /// wait for others' compilations as long as they take.
    fn compile_and_load(
        &self,
        guard: &RequestGuard<T>,
        target: &Arc<Target>,
        source: &Source<T>,
        held: Amounts,
        waits: bool,
    ) -> Result<Taken, AcquireError> {
        let key = source.artifact_key(self.runtime.key());
        let flight = self.artifacts.as_ref().map(|all| all.hold(&key, waits));
        if flight.as_ref().is_some_and(|flight| flight.waited) {
            match self.find(guard, target, source, held, 0)? {
                Taken::Next(Step::Compile) => {}
                loaded_or_waiting => return Ok(loaded_or_waiting),
            }
        }
        let (code, compile_time) = self.compile(guard, target, source)?;
        let has_room = self.reserve_exactly(guard, target, held, code.amounts());
        if !has_room {
            self.save(source, &code);
            let waiting = Waiting::Compiled(code, compile_time);
            return Ok(Taken::Next(Step::Load(waiting)));
        }
        let load_time = self.load(guard, target, source, &code, compile_time)?;
        // Whoever has waited for the code goes on already.
        if self.save(source, &code) {
            self.with_state(|locked, _| {
                locked.state.note_cost(guard.id(), nanos(load_time));
            });
        }
        Ok(Taken::Loaded(CodeOrigin::Compiled))
    }

    /// Keeps what was compiled for others; whether that is done.
    fn save(&self, source: &Source<T>, code: &Unmapped) -> bool {
        let key = source.artifact_key(self.runtime.key());
        let save = |artifacts: &Artifacts| Some(artifacts.save(&key, code.compiled()?));
        self.artifacts.as_ref().and_then(save).unwrap_or(false)
    }

    fn compile(
        &self,
        guard: &RequestGuard<T>,
        target: &Arc<Target>,
        source: &Source<T>,
    ) -> Result<(Unmapped, Duration), AcquireError> {
        let reserved = source.compile_estimate().get(Budget::Compile);
        let compiled = self.run_compiler(target, &source.0.wasm, &source.0.facts, reserved);
        let note = |heap| source.note_compile_heap(heap);
        let compiled = compiled.inspect(|(.., heap)| heap.iter().copied().for_each(note));
        let compiled = compiled.map(|(code, time, _)| (code, time));
        compiled.map_err(|error| match refused_by_system(&error) {
            Some(refused) => self.refused(guard, target, refused),
            None => self.fail(guard, target, ModuleError::Compile(share(error))),
        })
    }

    /// Compiles, and counts it; how long it took, and how many bytes of heap if the host knows. The room is reserved.
    pub(crate) fn run_compiler(
        &self,
        target: &Target,
        wasm: &[u8],
        facts: &Facts,
        reserved: u64,
    ) -> wasmtime::Result<(Unmapped, Duration, Option<u64>)> {
        let _span = tracing::info_span!(
            "compile",
            function = %target.signature,
            wasm_bytes = wasm.len(),
        )
        .entered();
        let began = Instant::now();
        // Some valid modules make the compiler panic: that is their failure, and nobody else's.
        let hooks = &self.compile_hooks;
        let measured = || hooks.measure(|| compile(&self.runtime, wasm, facts));
        let panicked = || (Err(wasmtime::Error::msg("the compiler panicked")), None);
        let (compiled, heap) = guarded("the compiler", measured).unwrap_or_else(panicked);
        let time = began.elapsed();
        hooks.tell(&Compiled {
            signature: target.signature.clone(),
            group: target.group.clone(),
            wasm_bytes: wasm.len() as u64,
            reserved_bytes: reserved,
            heap_bytes: heap,
            time,
            succeeded: compiled.is_ok(),
        });
        let code = compiled?;
        self.with_state(|locked, _| locked.compilations += 1);
        self.observer.compiled(time);
        Ok((code, time, heap))
    }

    /// Loads what was compiled; returns how long that took.
    fn load(
        &self,
        guard: &RequestGuard<T>,
        target: &Arc<Target>,
        source: &Source<T>,
        code: &Unmapped,
        compile_time: Duration,
    ) -> Result<Duration, AcquireError> {
        let _span = tracing::info_span!("load", function = %target.signature).entered();
        let began = Instant::now();
        match self.map(code, source) {
            Ok(code) => {
                let load_time = began.elapsed();
                self.loaded(guard, code, load_time, compile_time);
                Ok(load_time)
            }
            Err(failure) => Err(self.load_failed(guard, target, failure)),
        }
    }

    /// The code is there, for all.
    fn loaded(
        &self,
        guard: &RequestGuard<T>,
        code: Code<T>,
        load_time: Duration,
        compile_time: Duration,
    ) {
        self.observer.loaded(load_time);
        let cost = nanos(compile_time + load_time);
        let amounts = code.amounts();
        self.with_state(|locked, cx| {
            locked.loads += 1;
            let state = &mut locked.state;
            state.loaded(guard.id(), code, amounts, cost, &mut cx.out);
        });
    }

    fn load_failed(
        &self,
        guard: &RequestGuard<T>,
        target: &Arc<Target>,
        failure: LoadFailure,
    ) -> AcquireError {
        match failure {
            LoadFailure::Map(error) => match refused_by_system(&error) {
                Some(refused) => self.refused(guard, target, refused),
                None => self.fail(guard, target, ModuleError::Load(share(error))),
            },
            LoadFailure::Link(error) => {
                let error = ModuleError::Link(share(error));
                self.fail_until(u64::MAX, guard, target, error)
            }
        }
    }

    /// Maps the code, and links it. If the system refuses, idle instances and unused code make room.
    fn map(&self, code: &Unmapped, source: &Source<T>) -> Result<Code<T>, LoadFailure> {
        let mut relief = Relief::default();
        loop {
            let failure = match Code::load(code, &source.0.imports) {
                Err(LoadFailure::Map(error)) => error,
                other => return other,
            };
            let refused = refused_by_system(&failure);
            let count = relief
                .next()
                .filter(|_| refused.as_ref().is_some_and(is_scarce));
            if !count.is_some_and(|count| self.relieve(count)) {
                return Err(LoadFailure::Map(failure));
            }
        }
    }

    /// All who wait are told what the system said; whoever asks next tries again.
    pub(crate) fn refused(
        &self,
        guard: &RequestGuard<T>,
        target: &Arc<Target>,
        refused: io::Error,
    ) -> AcquireError {
        self.fail_until(0, guard, target, ModuleError::System(refused.into()))
    }

    /// All who wait get this failure, and so does whoever asks within the cool-down.
    pub(crate) fn fail(
        &self,
        guard: &RequestGuard<T>,
        target: &Arc<Target>,
        error: ModuleError,
    ) -> AcquireError {
        let cooldown = nanos(self.settings.compile_cooldown);
        let until = self.timekeeper.now().saturating_add(cooldown);
        self.fail_until(until, guard, target, error)
    }

    /// As `fail`, for whoever asks until then, in nanoseconds since the clock's origin.
    pub(crate) fn fail_until(
        &self,
        until: u64,
        guard: &RequestGuard<T>,
        target: &Arc<Target>,
        error: ModuleError,
    ) -> AcquireError {
        self.observer.module_failed();
        let failure = Arc::new(error);
        self.with_state(|locked, cx| {
            locked.module_failures += 1;
            locked
                .state
                .failed(guard.id(), failure.clone(), until, &mut cx.out);
        });
        module_error(target, failure)
    }
}

impl Step {
    /// Nothing is compiled in it.
    fn is_of_artifacts(&self) -> bool {
        match self {
            Self::Find => true,
            Self::Compile => false,
            Self::Load(waiting) => matches!(waiting, Waiting::Found(..)),
        }
    }

    /// The room that its code takes, as far as that is known.
    fn code<T: Send + 'static>(&self, lead: &Lead<T>) -> Amounts {
        match self {
            Self::Find | Self::Compile => code_estimate(&lead.source.0.facts, lead.code_bytes),
            Self::Load(waiting) => match waiting {
                Waiting::Compiled(code, _) => code.amounts(),
                Waiting::Found(_, needs) => needs.amounts(),
            },
        }
    }
}

pub(crate) fn module_error(target: &Arc<Target>, source: Arc<ModuleError>) -> AcquireError {
    let target = target.clone();
    AcquireError::Module { target, source }
}
