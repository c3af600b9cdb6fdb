//! Single flight: one caller compiles, on its own thread, and all who need the module get the code
//! or the same failure.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::pool::api::definition::{Defined, Source};
use crate::pool::api::error::{AcquireError, Asker, ModuleError, WaitingFor};
use crate::pool::cold::acquire::{closed, removed, would_block};
use crate::pool::cold::request::{Making, compiles_here};
use crate::pool::hot::entry::Entry;
use crate::pool::shared::{Shared, Signal};
use crate::pool::time::alarms::until;
use crate::pool::time::clock::nanos;
use crate::pool::time::deadline::Deadline;
use crate::pool::wait::policy::Patience;
use crate::pool::wait::waiter::{Mail, Waiter};
use crate::runtime::{
    Artifact, Code, InstanceNeeds, LoadFailure, Relief, code_estimate, compile, compile_estimate,
    guarded, is_scarce, refused_by_system, share,
};
use crate::state::{Amounts, Budget, ModuleId, Prepare, Ticket};

/// All that is needed to make an instance.
pub(crate) struct Ready<T: Send + 'static> {
    pub code: Code<T>,
    pub defined: Arc<Defined>,
    pub needs: InstanceNeeds,
}

enum Step<T: Send + 'static> {
    Ready(Ready<T>),
    Lead(Lead<T>),
    Follow(
        ModuleId<crate::pool::shared::Kept<T>>,
        Arc<Waiter<T>>,
        Ticket,
    ),
    Queue(Arc<Waiter<T>>, Ticket),
    Again,
    Fail(AcquireError),
}

/// What comes back from compiling.
enum Compiled<T: Send + 'static> {
    Loaded(Code<T>),
    /// Room must be waited for first.
    LacksRoom(Artifact, Duration),
}

struct Lead<T: Send + 'static> {
    source: Source<T>,
    defined: Arc<Defined>,
    code_bytes: Option<u64>,
}

impl<T: Send + 'static> Shared<T> {
    /// The code of the request's module: at hand, or compiled here, or awaited from another. And the
    /// patience that is left, in which compiling does not count; but waiting for another's compilation
    /// does if that comes to nothing, or a row of them could hold this one up for ever.
    pub(crate) async fn code_for(
        self: &Arc<Self>,
        making: Making<T>,
        entry: &Entry<T>,
        mut patience: Patience,
    ) -> Result<(Making<T>, Ready<T>, Patience), AcquireError> {
        let asker = &entry.asker;
        let mut followed = 0;
        loop {
            let began = self.pulse.now();
            match self.prepare(&making, asker, patience) {
                Step::Ready(ready) => return Ok((making, ready, patience.later(followed))),
                Step::Lead(lead) => return self.lead(making, asker, lead, patience).await,
                Step::Follow(module, waiter, ticket) => {
                    let leave = || {
                        self.with_state(|locked, _, _| locked.state.leave_flight(module, ticket));
                        true
                    };
                    let goes_on =
                        || self.with_state(|locked, _, _| locked.compiling.contains(&module));
                    let waiting_for = WaitingFor::Compilation;
                    self.wait_for_turn(asker, &waiter, patience, waiting_for, leave, goes_on)
                        .await?;
                    followed += self.pulse.now().saturating_sub(began);
                }
                Step::Queue(waiter, ticket) => {
                    let leave = || {
                        self.with_state(|locked, _, out| locked.state.leave_compilers(ticket, out));
                        true
                    };
                    let goes_on = || self.with_state(|locked, _, _| !locked.compiling.is_empty());
                    let waiting_for = WaitingFor::Compiler;
                    self.wait_for_turn(asker, &waiter, patience, waiting_for, leave, goes_on)
                        .await?;
                    patience = patience.later(self.pulse.now().saturating_sub(began));
                }
                Step::Again => {}
                Step::Fail(error) => return Err(error),
            }
        }
    }

    /// Whoever waits for a compilation as long as it takes has so much time to take what it is told.
    fn slack(&self, patience: Patience) -> Option<u64> {
        let pauses = patience.pauses();
        pauses.then(|| nanos(self.settings.wait_timeout))
    }

    fn waiter_for_compilation(&self, patience: Patience, making: &Making<T>) -> Arc<Waiter<T>> {
        Waiter::of_compilation(patience, making.id(), self.slack(patience))
    }

    fn prepare(&self, making: &Making<T>, asker: &Arc<Asker>, patience: Patience) -> Step<T> {
        let waits = patience.deadline().is_some();
        self.with_state(|locked, _, out| {
            let state = &mut locked.state;
            match state.prepare(making.id(), out) {
                Prepare::Ready {
                    code,
                    source,
                    definition,
                } => Step::Ready(Ready {
                    code,
                    defined: definition,
                    needs: InstanceNeeds::of(&source.0.facts, &self.runtime),
                }),
                Prepare::Lead {
                    source,
                    definition,
                    code_bytes,
                } => Step::Lead(Lead {
                    source,
                    defined: definition,
                    code_bytes,
                }),
                Prepare::Leaving(_, shortage) if !patience.waits_for_room() => {
                    state.count_refusal();
                    let exceeded = Self::exceeded(state, shortage, asker);
                    Step::Fail(AcquireError::BudgetExceeded(exceeded))
                }
                Prepare::Follow(_) if !waits => {
                    Step::Fail(would_block(asker, WaitingFor::Compilation))
                }
                Prepare::Follow(module) | Prepare::Leaving(module, _) => {
                    let waiter = self.waiter_for_compilation(patience, making);
                    let (told, until) = (waiter.clone(), patience.ends_of_compilations());
                    match state.follow(module, making.id(), told, until) {
                        Some(ticket) => Step::Follow(module, waiter, ticket),
                        None => Step::Again,
                    }
                }
                Prepare::Queue if !waits => Step::Fail(would_block(asker, WaitingFor::Compiler)),
                Prepare::Queue => {
                    let waiter = self.waiter_for_compilation(patience, making);
                    let (told, until) = (waiter.clone(), patience.ends_of_compilations());
                    let ticket = state.wait_for_compiler(making.id(), told, until);
                    Step::Queue(waiter, ticket)
                }
                Prepare::Failed(source) => Step::Fail(module_error(asker, source)),
                Prepare::Gone => Step::Fail(removed(asker)),
                Prepare::Closed => Step::Fail(closed(asker)),
            }
        })
    }

    async fn wait_for_turn(
        &self,
        asker: &Arc<Asker>,
        waiter: &Waiter<T>,
        patience: Patience,
        waiting_for: WaitingFor,
        leave: impl Fn() -> bool,
        goes_on: impl Fn() -> bool,
    ) -> Result<(), AcquireError> {
        let goes_on = || patience.pauses() && !compiles_here() && goes_on();
        let mail = self.wait_while(asker, waiter, patience, waiting_for, leave, goes_on);
        match mail.await? {
            Mail::Signal(Signal::Closed) => Err(closed(asker)),
            _ => Ok(()),
        }
    }

    /// Compiles and loads for all. Room for the compiler, for the code and for the first instance
    /// is reserved before it starts, so that it does not start in vain. If this returns early, the
    /// flight ends with the request, and one of the followers leads the next.
    async fn lead(
        self: &Arc<Self>,
        making: Making<T>,
        asker: &Arc<Asker>,
        lead: Lead<T>,
        mut patience: Patience,
    ) -> Result<(Making<T>, Ready<T>, Patience), AcquireError> {
        let facts = &lead.source.0.facts;
        let wasm = &lead.source.0.wasm;
        let needs = InstanceNeeds::of(facts, &self.runtime);
        let code = code_estimate(facts, lead.code_bytes);
        let first = self.needs(&needs, patience);
        let compiling = sum(&[first, compile_estimate(wasm.len() as u64)]);
        self.reserve(making.id(), asker, sum(&[compiling, code]), patience)
            .await?;

        let (pool, for_whom, source) = (self.clone(), asker.clone(), lead.source.clone());
        let work =
            move |making: &Making<T>| pool.compile_and_load(making, &for_whom, &source, compiling);
        let began = self.pulse.now();
        let (making, compiled) = self.work(making, asker, patience, work).await?;
        patience = patience.later(self.pulse.now().saturating_sub(began));
        let (making, code) = match compiled? {
            Compiled::Loaded(code) => (making, code),
            Compiled::LacksRoom(artifact, compile_time) => {
                let exactly = sum(&[compiling, artifact.amounts()]);
                self.reserve(making.id(), asker, exactly, patience).await?;
                let (pool, for_whom, source) = (self.clone(), asker.clone(), lead.source.clone());
                let work = move |making: &Making<T>| {
                    pool.load(making, &for_whom, &source, artifact, compile_time)
                };
                let began = self.pulse.now();
                let (making, loaded) = self.work(making, asker, patience, work).await?;
                patience = patience.later(self.pulse.now().saturating_sub(began));
                (making, loaded?)
            }
        };
        self.with_state(|locked, _, out| {
            locked.state.settle(making.id(), first, out);
        });
        let ready = Ready {
            code,
            defined: lead.defined,
            needs,
        };
        Ok((making, ready, patience))
    }

    /// Works for a request: on this thread, or, if this is a task's, aside. The work keeps the request
    /// until it is done, even when nobody waits for it any more: what it has reserved is in use.
    async fn work<R: Send + 'static>(
        &self,
        making: Making<T>,
        asker: &Arc<Asker>,
        patience: Patience,
        work: impl FnOnce(&Making<T>) -> R + Send + 'static,
    ) -> Result<(Making<T>, R), AcquireError> {
        let work = move || {
            let compiling = making.begin_compiling();
            let result = work(&making);
            drop(compiling);
            (making, result)
        };
        if !patience.is_of_a_task() {
            return Ok(work());
        }
        let began = self.pulse.now();
        let done = self.workers.run(work);
        let deadline = patience.deadline().and_then(Deadline::of_compilations);
        let ends = patience.ends();
        if ends != u64::MAX {
            self.unread.add(ends, done.parcel(self.slack(patience)));
        }
        match until(done, deadline, &self.pulse).await {
            Some(Some(done)) => Ok(done),
            Some(None) if self.pulse.now() < ends => Err(self.nothing_came_back(asker)),
            // Late, and perhaps what came has been taken back.
            Some(None) | None => Err(AcquireError::Timeout {
                asker: asker.clone(),
                waited: Duration::from_nanos(self.pulse.now().saturating_sub(began)),
                waiting_for: WaitingFor::Compilation,
                shortage: None,
                between_calls: 0,
            }),
        }
    }

    /// Compiles; and loads, if there is room for exactly this code. So what a task has begun and does
    /// not wait for is there for the next.
    fn compile_and_load(
        &self,
        making: &Making<T>,
        asker: &Arc<Asker>,
        source: &Source<T>,
        compiling: Amounts,
    ) -> Result<Compiled<T>, AcquireError> {
        let (artifact, compile_time) = self.compile(making, asker, source)?;
        // Now its size is known, and it is not mapped yet: the promise is kept to the byte.
        let code = artifact.amounts();
        self.with_state(|locked, _, _| {
            let bytes = code.get(Budget::Code);
            locked.state.note_code_bytes(making.id(), bytes);
        });
        if self.has_room(making.id(), asker, sum(&[compiling, code])) {
            let loaded = self.load(making, asker, source, artifact, compile_time)?;
            return Ok(Compiled::Loaded(loaded));
        }
        Ok(Compiled::LacksRoom(artifact, compile_time))
    }

    /// From the workers: the pool is closed, or the compiler has panicked.
    fn nothing_came_back(&self, asker: &Arc<Asker>) -> AcquireError {
        if self.with_state(|locked, _, _| locked.state.is_closed()) {
            return closed(asker);
        }
        let panicked: Box<dyn std::error::Error + Send + Sync> = "the compiler panicked".into();
        AcquireError::Instantiate {
            asker: asker.clone(),
            source: panicked.into(),
        }
    }

    fn compile(
        &self,
        making: &Making<T>,
        asker: &Arc<Asker>,
        source: &Source<T>,
    ) -> Result<(Artifact, Duration), AcquireError> {
        let _span = tracing::info_span!(
            "compile",
            function = %asker.function,
            wasm_bytes = source.0.wasm.len(),
        )
        .entered();
        let began = Instant::now();
        // Some valid modules make the compiler panic: that is their failure, and nobody else's.
        let compiled = guarded("the compiler", || {
            compile(&self.runtime, &source.0.wasm, &source.0.facts)
        });
        let panicked = || Err(wasmtime::Error::msg("the compiler panicked"));
        match compiled.unwrap_or_else(panicked) {
            Ok(artifact) => {
                self.with_state(|locked, _, _| locked.compilations += 1);
                Ok((artifact, began.elapsed()))
            }
            Err(error) => Err(match refused_by_system(&error) {
                Some(refused) => self.refused(making, asker, refused),
                None => self.fail(making, asker, ModuleError::Compile(share(error))),
            }),
        }
    }

    fn load(
        &self,
        making: &Making<T>,
        asker: &Arc<Asker>,
        source: &Source<T>,
        artifact: Artifact,
        compile_time: Duration,
    ) -> Result<Code<T>, AcquireError> {
        let _span = tracing::info_span!("load", function = %asker.function).entered();
        let began = Instant::now();
        let code = match self.map(&artifact, source) {
            Ok(code) => code,
            Err(LoadFailure::Map(error)) => {
                return Err(match refused_by_system(&error) {
                    Some(refused) => self.refused(making, asker, refused),
                    None => self.fail(making, asker, ModuleError::Load(share(error))),
                });
            }
            Err(LoadFailure::Link(error)) => {
                let error = ModuleError::Link(share(error));
                return Err(self.fail_until(u64::MAX, making, asker, error));
            }
        };
        drop(artifact);
        let load_time = began.elapsed();
        self.observer.compiled(compile_time, load_time);
        let cost = nanos(compile_time + load_time);
        self.with_state(|locked, _, out| {
            locked.loads += 1;
            locked
                .state
                .loaded(making.id(), code.clone(), code.amounts(), cost, out);
        });
        Ok(code)
    }

    /// Maps the code, and links it. If the system refuses, idle instances and unused code make room.
    fn map(&self, artifact: &Artifact, source: &Source<T>) -> Result<Code<T>, LoadFailure> {
        let mut relief = Relief::default();
        loop {
            let failure = match Code::load(artifact, &source.0.imports) {
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
    fn refused(&self, making: &Making<T>, asker: &Arc<Asker>, refused: io::Error) -> AcquireError {
        self.fail_until(0, making, asker, ModuleError::System(refused.into()))
    }

    /// All who wait get this failure, and so does whoever asks within the cool-down.
    fn fail(&self, making: &Making<T>, asker: &Arc<Asker>, error: ModuleError) -> AcquireError {
        let cooldown = nanos(self.settings.compile_cooldown);
        let until = self.pulse.now().saturating_add(cooldown);
        self.fail_until(until, making, asker, error)
    }

    /// As `fail`, for whoever asks until then, in nanoseconds since the clock's origin.
    fn fail_until(
        &self,
        until: u64,
        making: &Making<T>,
        asker: &Arc<Asker>,
        error: ModuleError,
    ) -> AcquireError {
        self.observer.compile_failed();
        let failure = Arc::new(error);
        self.with_state(|locked, _, out| {
            locked
                .state
                .failed(making.id(), failure.clone(), until, out);
        });
        module_error(asker, failure)
    }
}

fn module_error(asker: &Arc<Asker>, source: Arc<ModuleError>) -> AcquireError {
    let asker = asker.clone();
    AcquireError::Module { asker, source }
}

fn sum(parts: &[Amounts]) -> Amounts {
    let add = |sum: Amounts, part: &Amounts| sum.saturating_add(part);
    parts.iter().fold(Amounts::ZERO, add)
}
