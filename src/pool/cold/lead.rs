//! The leader of a module's flight: it brings the code, for all who need it. From an artifact if there is one, or
//! else it compiles, on its own thread (for a task, on a worker's).

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::artifacts::{Artifacts, Found, MakeRoom};
use crate::compiler::Cap;
use crate::pool::api::error::{AcquireError, ModuleError};
use crate::pool::api::prepared::CodeOrigin;
use crate::pool::api::target::Target;
use crate::pool::cold::compilation::{Compile, CompileFailure, ModuleSize, Shortfall};
use crate::pool::cold::request_guard::RequestGuard;
use crate::pool::cold::reserve::Need;
use crate::pool::defined::{Defined, Source};
use crate::pool::service::workers::IsAwaited;
use crate::pool::shared::Shared;
use crate::pool::time::clock::nanos;
use crate::pool::wait::policy::WaitPolicy;
use crate::runtime::{
    Code, CodeNeeds, InstanceNeeds, LoadFailure, READ_BUFFERS, Relief, Unmapped, code_estimate,
    is_scarce, load_estimate, refused_by_system, share,
};
use crate::state::{Amounts, Budget, CompileNeed};

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
    /// What is known of compiling it.
    pub compile_need: CompileNeed,
}

impl<T: Send + 'static> Lead<T> {
    fn size(&self) -> ModuleSize<'_> {
        ModuleSize {
            code_bytes: self.code_bytes,
            ..self.source.size()
        }
    }
}

impl<T: Send + 'static> Source<T> {
    pub(crate) fn size(&self) -> ModuleSize<'_> {
        ModuleSize {
            wasm: self.0.wasm.len() as u64,
            facts: &self.0.facts,
            estimate: self.compile_estimate().get(Budget::Compile),
            code_bytes: None,
        }
    }
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
    /// The process that compiles lacked something.
    Short(Shortfall),
    /// It was stopped, since nobody needs what it makes.
    Stopped,
}

/// How a step is taken.
#[derive(Clone, Copy)]
struct Turn<'a> {
    /// What is reserved for it beside the code.
    held: Amounts,
    /// Whether it waits for others' compilations as long as they take.
    waits: bool,
    /// What a process may take that compiles.
    cap: Option<Cap>,
    is_awaited: IsAwaited<'a>,
}

/// Code that has waited for room.
enum Waiting {
    /// It took so long to compile.
    Compiled(Unmapped, Duration),
    Found(Found, CodeNeeds),
}

impl<T: Send + 'static> Shared<T> {
    /// Brings the code; `None` if nobody needed it any more, as it was looked for: then it is to be seen what is needed.
    /// Room for the work, for the code and for the first instance (if one is to be made) is
    /// reserved before it starts, so that it does not start in vain. If this returns early, the flight ends with
    /// the request, and one of the followers leads the next.
    pub(crate) async fn lead(
        self: &Arc<Self>,
        mut guard: RequestGuard<T>,
        target: &Arc<Target>,
        lead: Lead<T>,
        mut wait_policy: WaitPolicy,
    ) -> Result<(RequestGuard<T>, Option<Ready>, WaitPolicy), AcquireError> {
        #[cfg(feature = "warm-up")]
        let lead = {
            let (defined, asked) = (lead.defined.clone(), lead.source);
            let warm = self.warmed_up(guard, target, asked.clone(), &defined, wait_policy);
            let source;
            (guard, source, wait_policy) = warm.await?;
            let Some(source) = source else {
                self.with_state(|locked, cx| locked.state.end_lead(guard.id(), &mut cx.out));
                return Ok((guard, None, wait_policy));
            };
            // What compiling takes is known of what is compiled, and that is another wasm each time.
            let compile_need = match Arc::ptr_eq(&source.0, &asked.0) {
                true => lead.compile_need,
                false => CompileNeed::default(),
            };
            Lead {
                source,
                compile_need,
                ..lead
            }
        };
        let needs = InstanceNeeds::of(&lead.source.0.facts, &self.runtime);
        let first = self.first_instance(&guard, &needs, wait_policy);
        let mut next = match &self.artifacts {
            Some(_) => Step::Find,
            None => Step::Compile,
        };
        let mut cap = None;
        let origin = loop {
            // What compiling takes is looked for in all of the wasm: not where an artifact does.
            if matches!(next, Step::Compile) && cap.is_none() {
                (guard, wait_policy) =
                    (self.estimated(guard, target, &lead.source, wait_policy)).await?;
                cap = self.first_cap_of(&guard, target, &lead, &first)?;
            }
            let code = next.code(&lead);
            let work = self.work_of(&next, &lead, &first, &code, cap.as_ref());
            let held = first.saturating_add(&work);
            let need = Need::of(&guard, target, held.saturating_add(&code));
            self.reserve(&need, wait_policy).await?;
            let (pool, for_whom, source) = (self.clone(), target.clone(), lead.source.clone());
            let waits = wait_policy.pauses();
            let aside = cap.is_some() && !next.is_of_artifacts();
            let work = move |guard: &RequestGuard<T>, is_awaited: IsAwaited<'_>| {
                let turn = Turn {
                    held,
                    waits,
                    cap,
                    is_awaited,
                };
                pool.take_step(guard, &for_whom, &source, next, turn)
            };
            let began = self.timekeeper.now();
            let done = self.work(guard, target, wait_policy, aside, work).await?;
            wait_policy = wait_policy.later(self.timekeeper.now().saturating_sub(began));
            guard = done.0;
            match done.1? {
                Taken::Loaded(origin) => break origin,
                Taken::Next(step) => next = step,
                Taken::Short(shortfall) => {
                    let (size, lacked) = (lead.size(), cap.zip(Some(shortfall)));
                    let beside = first.saturating_add(&Step::Compile.code(&lead));
                    cap = self.raise(&guard, target, &size, lacked, &beside)?;
                    next = Step::Compile;
                }
                Taken::Stopped => {
                    self.with_state(|locked, cx| locked.state.end_lead(guard.id(), &mut cx.out));
                    return Ok((guard, None, wait_policy));
                }
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
        Ok((guard, Some(ready), wait_policy))
    }

    /// Sees to it that what compiling takes is known: that can be a look at megabytes, which no task's thread takes.
    pub(crate) async fn estimated(
        self: &Arc<Self>,
        guard: RequestGuard<T>,
        target: &Arc<Target>,
        source: &Source<T>,
        wait_policy: WaitPolicy,
    ) -> Result<(RequestGuard<T>, WaitPolicy), AcquireError> {
        if !wait_policy.is_of_a_task() || source.is_quickly_estimated() {
            return Ok((guard, wait_policy));
        }
        let (source, signature) = (source.clone(), target.signature.clone());
        let look = move |_: &RequestGuard<T>, _: IsAwaited<'_>| {
            let _span = tracing::debug_span!("estimate", function = %signature).entered();
            source.compile_estimate();
        };
        let began = self.timekeeper.now();
        let (guard, ()) = self.work(guard, target, wait_policy, false, look).await?;
        let took = self.timekeeper.now().saturating_sub(began);
        Ok((guard, wait_policy.later(took)))
    }

    /// What its process may take at first, if one compiles; `beside` what is reserved for the instance.
    fn first_cap_of(
        &self,
        guard: &RequestGuard<T>,
        target: &Arc<Target>,
        lead: &Lead<T>,
        first: &Amounts,
    ) -> Result<Option<Cap>, AcquireError> {
        let beside = first.saturating_add(&Step::Compile.code(lead));
        let cap = self.first_cap(&lead.size(), lead.compile_need, &beside);
        cap.map_err(|error| self.fail_until(0, guard, target, error))
    }

    /// What it may take after it has lacked something. The request holds nothing meanwhile: two that want more do
    /// not wait for each other's parts.
    pub(crate) fn raise(
        &self,
        guard: &RequestGuard<T>,
        target: &Arc<Target>,
        size: &ModuleSize<'_>,
        lacked: Option<(Cap, Shortfall)>,
        beside: &Amounts,
    ) -> Result<Option<Cap>, AcquireError> {
        let Some((cap, shortfall)) = lacked else {
            return Ok(None);
        };
        self.with_state(|locked, cx| {
            locked
                .state
                .shrink_to(guard.id(), Amounts::ZERO, &mut cx.out);
        });
        let raised = self.raised_cap(size, cap, shortfall, beside);
        let raised = raised.map_err(|error| self.fail_until(0, guard, target, error));
        raised.map(Some)
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
    fn work_of(
        &self,
        step: &Step,
        lead: &Lead<T>,
        first: &Amounts,
        code: &Amounts,
        cap: Option<&Cap>,
    ) -> Amounts {
        let wasm = lead.source.0.wasm.len() as u64;
        if !step.is_of_artifacts() {
            return self.room_to_compile(&lead.size(), cap);
        }
        let work = load_estimate(wasm, &lead.source.0.facts);
        let all = work.saturating_add(first).saturating_add(code);
        match self.with_state(|locked, _| locked.state.can_ever_hold(&all)) {
            true => work,
            false => Amounts::ZERO.compile(READ_BUFFERS),
        }
    }

    /// Takes the step, for which `held` is reserved, and the code.
    fn take_step(
        &self,
        guard: &RequestGuard<T>,
        target: &Arc<Target>,
        source: &Source<T>,
        step: Step,
        turn: Turn<'_>,
    ) -> Result<Taken, AcquireError> {
        let held = turn.held;
        let waiting = match step {
            Step::Find => return self.find(guard, target, source, held, 0),
            Step::Compile => return self.compile_and_load(guard, target, source, turn),
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
        while let Some(found) = artifacts.find(&key, tier, heap, &mut *self.room_maker()) {
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
        let Some(verified) = artifacts.verify(&found, &mut *self.room_maker()) else {
            return Ok(false);
        };
        let stored = Unmapped::stored(verified, found.mapped_bytes(), needs);
        match self.map(&stored, source) {
            Ok(code) => {
                let cost = began.elapsed() + source.0.warmed.time_to_repeat();
                self.loaded(guard, code, began.elapsed(), cost);
                // Whoever has waited for the code goes on already.
                if let Some(verified) = stored.artifact() {
                    artifacts.offer(&found, verified);
                }
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
        turn: Turn<'_>,
    ) -> Result<Taken, AcquireError> {
        let Turn { held, waits, .. } = turn;
        let key = source.artifact_key(self.runtime.key());
        let flight = self.artifacts.as_ref().map(|all| all.hold(&key, waits));
        if flight.as_ref().is_some_and(|flight| flight.waited) {
            match self.find(guard, target, source, held, 0)? {
                Taken::Next(Step::Compile) => {}
                loaded_or_waiting => return Ok(loaded_or_waiting),
            }
        }
        let compiled = self.compile(guard, target, source, turn)?;
        let (code, compile_time) = match compiled {
            Ok(compiled) => compiled,
            Err(otherwise) => return Ok(otherwise),
        };
        let has_room = self.reserve_exactly(guard, target, held, code.amounts());
        if !has_room {
            self.save(source, &code);
            let waiting = Waiting::Compiled(code, compile_time);
            return Ok(Taken::Next(Step::Load(waiting)));
        }
        let load_time = self.load(guard, target, source, &code, compile_time)?;
        // Whoever has waited for the code goes on already.
        if self.save(source, &code) {
            let cost = load_time + source.0.warmed.time_to_repeat();
            self.with_state(|locked, _| {
                locked.state.note_cost(guard.id(), nanos(cost));
            });
        }
        Ok(Taken::Loaded(CodeOrigin::Compiled))
    }

    /// Keeps what was compiled for others; whether that is done.
    fn save(&self, source: &Source<T>, code: &Unmapped) -> bool {
        let key = source.artifact_key(self.runtime.key());
        let save = |artifacts: &Artifacts| Some(artifacts.save(&key, &code.compiled()?));
        self.artifacts.as_ref().and_then(save).unwrap_or(false)
    }

    /// Compiles; or what else is to be done, if its process may not go on, or needs more.
    fn compile(
        &self,
        guard: &RequestGuard<T>,
        target: &Arc<Target>,
        source: &Source<T>,
        turn: Turn<'_>,
    ) -> Result<Result<(Unmapped, Duration), Taken>, AcquireError> {
        let order = Compile {
            target,
            wasm: &source.0.wasm,
            facts: &source.0.facts,
            key: source.artifact_key(self.runtime.key()),
            cap: turn.cap,
            request: guard.id(),
            is_awaited: turn.is_awaited,
            measured: &|heap| source.note_compile_heap(heap),
        };
        let failure = match self.run_compiler(&order) {
            Ok(compiled) => return Ok(Ok(compiled)),
            Err(CompileFailure::Cap(shortfall)) => return Ok(Err(Taken::Short(shortfall))),
            Err(CompileFailure::Stopped) => return Ok(Err(Taken::Stopped)),
            Err(CompileFailure::Verdict(verdict)) => verdict,
        };
        Err(self.module_failed(guard, target, failure))
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
                let cost = compile_time + load_time + source.0.warmed.time_to_repeat();
                self.loaded(guard, code, load_time, cost);
                Ok(load_time)
            }
            Err(failure) => Err(self.load_failed(guard, target, failure)),
        }
    }

    /// The code is there, for all. It cost so much in all.
    fn loaded(&self, guard: &RequestGuard<T>, code: Code<T>, load_time: Duration, cost: Duration) {
        self.observer.loaded(load_time);
        let cost = nanos(cost);
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

    /// Where the system has no file or no memory left: idle instances and unused code make room, a few times.
    pub(crate) fn room_maker(&self) -> Box<MakeRoom<'_>> {
        let mut relief = Relief::default();
        // A store that is full is not what they could make room in.
        let is_scarce = |error: &_| is_scarce(error) && error.kind() != io::ErrorKind::StorageFull;
        Box::new(move |refused| {
            is_scarce(refused) && relief.next().is_some_and(|count| self.relieve(count))
        })
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
