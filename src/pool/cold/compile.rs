//! Single flight: one caller compiles, on its own thread, and all who need the module get the code
//! or the same failure.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::pool::api::error::{AcquireError, ModuleError, WaitingFor};
use crate::pool::api::target::Target;
use crate::pool::cold::acquire::{closed, removed, would_block};
use crate::pool::cold::in_queue::InQueue;
use crate::pool::cold::request_guard::{RequestGuard, compiles_here};
use crate::pool::cold::reserve::Need;
use crate::pool::defined::{Defined, Source};
use crate::pool::hot::entry::Entry;
use crate::pool::shared::{Shared, Signal};
use crate::pool::time::alarms::until;
use crate::pool::time::clock::nanos;
use crate::pool::time::deadline::Deadline;
use crate::pool::wait::policy::WaitPolicy;
use crate::pool::wakeup::{Waiter, Wakeup};
use crate::runtime::{
    Artifact, Code, InstanceNeeds, LoadFailure, Relief, code_estimate, compile, compile_estimate,
    guarded, is_scarce, refused_by_system, share,
};
use crate::state::{Amounts, Budget, ModuleId, Prepare, Ticket};

/// What an instance is to be made of; its code is loaded, and pinned by the request.
pub(crate) struct Ready {
    pub defined: Arc<Defined>,
    pub needs: InstanceNeeds,
}

enum Step<T: Send + 'static> {
    Ready(Ready),
    Lead(Lead<T>),
    Follow(
        ModuleId<crate::pool::shared::ShellTypes<T>>,
        Arc<Waiter<T>>,
        Ticket,
    ),
    Queue(Arc<Waiter<T>>, Ticket),
    Again,
    Fail(AcquireError),
}

/// What comes back from compiling.
enum Compiled {
    Loaded,
    /// Room must be waited for first.
    LacksRoom(Artifact, Duration),
}

struct Lead<T: Send + 'static> {
    source: Source<T>,
    defined: Arc<Defined>,
    code_bytes: Option<u64>,
}

impl<T: Send + 'static> Shared<T> {
    /// Sees to it that the code of the request's module is loaded and pinned: it is, or is compiled here, or
    /// another compiles it. Returns how long the request may still wait: compiling does not count, and waiting
    /// for another's compilation only if that ends without code, or several in a row could hold this one up for
    /// ever.
    pub(crate) async fn code_for(
        self: &Arc<Self>,
        guard: RequestGuard<T>,
        entry: &Entry<T>,
        mut wait_policy: WaitPolicy,
    ) -> Result<(RequestGuard<T>, Ready, WaitPolicy), AcquireError> {
        let target = &entry.target;
        let mut followed = 0;
        loop {
            let began = self.timekeeper.now();
            let in_queue = |waiter, waiting_for| InQueue {
                target,
                waiter,
                wait_policy,
                waiting_for,
            };
            match self.prepare(&guard, target, wait_policy) {
                Step::Ready(ready) => return Ok((guard, ready, wait_policy.later(followed))),
                Step::Lead(lead) => return self.lead(guard, target, lead, wait_policy).await,
                Step::Follow(module, waiter, ticket) => {
                    let leave = || {
                        self.with_state(|locked, _| locked.state.leave_flight(module, ticket));
                        true
                    };
                    let goes_on =
                        || self.with_state(|locked, _| locked.compiling.contains(&module));
                    let in_queue = in_queue(&waiter, WaitingFor::Compilation);
                    self.wait_for_turn(&in_queue, leave, goes_on).await?;
                    followed += self.timekeeper.now().saturating_sub(began);
                }
                Step::Queue(waiter, ticket) => {
                    let leave = || {
                        self.with_state(|locked, cx| {
                            locked.state.leave_compilers(ticket, &mut cx.out);
                        });
                        true
                    };
                    let goes_on = || self.with_state(|locked, _| !locked.compiling.is_empty());
                    let in_queue = in_queue(&waiter, WaitingFor::Compiler);
                    self.wait_for_turn(&in_queue, leave, goes_on).await?;
                    wait_policy = wait_policy.later(self.timekeeper.now().saturating_sub(began));
                }
                Step::Again => {}
                Step::Fail(error) => return Err(error),
            }
        }
    }

    /// Whoever waits for a compilation as long as it takes has so much time to take what it is told.
    fn slack(&self, wait_policy: WaitPolicy) -> Option<u64> {
        let pauses = wait_policy.pauses();
        pauses.then(|| nanos(self.settings.wait_timeout))
    }

    fn waiter_for_compilation(
        &self,
        wait_policy: WaitPolicy,
        guard: &RequestGuard<T>,
    ) -> Arc<Waiter<T>> {
        Waiter::with_slack(wait_policy, Some(guard.id()), self.slack(wait_policy))
    }

    fn prepare(
        &self,
        guard: &RequestGuard<T>,
        target: &Arc<Target>,
        wait_policy: WaitPolicy,
    ) -> Step<T> {
        let waits = wait_policy.deadline().is_some();
        self.with_state(|locked, cx| {
            let state = &mut locked.state;
            match state.prepare(guard.id(), &mut cx.out) {
                Prepare::Ready { source, definition } => Step::Ready(Ready {
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
                Prepare::Collected(_, shortage) if !wait_policy.waits_for_room() => {
                    state.count_refusal();
                    let exceeded = Self::exceeded(state, shortage, target);
                    Step::Fail(AcquireError::BudgetExceeded(exceeded))
                }
                Prepare::Follow(_) if !waits => {
                    Step::Fail(would_block(target, WaitingFor::Compilation))
                }
                Prepare::Follow(module) | Prepare::Collected(module, _) => {
                    let waiter = self.waiter_for_compilation(wait_policy, guard);
                    let (told, until) = (waiter.clone(), wait_policy.ends_of_compilations());
                    match state.follow(module, guard.id(), told, until) {
                        Some(ticket) => Step::Follow(module, waiter, ticket),
                        None => Step::Again,
                    }
                }
                Prepare::Queue if !waits => Step::Fail(would_block(target, WaitingFor::Compiler)),
                Prepare::Queue => {
                    let waiter = self.waiter_for_compilation(wait_policy, guard);
                    let (told, until) = (waiter.clone(), wait_policy.ends_of_compilations());
                    let ticket = state.wait_for_compiler(guard.id(), told, until);
                    Step::Queue(waiter, ticket)
                }
                Prepare::Failed(source) => Step::Fail(module_error(target, source)),
                Prepare::Gone => Step::Fail(removed(target)),
                Prepare::Closed => Step::Fail(closed(target)),
            }
        })
    }

    async fn wait_for_turn(
        &self,
        in_queue: &InQueue<'_, T>,
        leave: impl Fn() -> bool,
        goes_on: impl Fn() -> bool,
    ) -> Result<(), AcquireError> {
        let goes_on = || in_queue.wait_policy.pauses() && !compiles_here() && goes_on();
        match self.wait_while(in_queue, leave, goes_on).await? {
            Wakeup::Signal(Signal::Closed) => Err(closed(in_queue.target)),
            _ => Ok(()),
        }
    }

    /// Compiles and loads for all. Room for the compiler, for the code and for the first instance
    /// is reserved before it starts, so that it does not start in vain. If this returns early, the
    /// flight ends with the request, and one of the followers leads the next.
    async fn lead(
        self: &Arc<Self>,
        guard: RequestGuard<T>,
        target: &Arc<Target>,
        lead: Lead<T>,
        mut wait_policy: WaitPolicy,
    ) -> Result<(RequestGuard<T>, Ready, WaitPolicy), AcquireError> {
        let facts = &lead.source.0.facts;
        let wasm = &lead.source.0.wasm;
        let needs = InstanceNeeds::of(facts, &self.runtime);
        let code = code_estimate(facts, lead.code_bytes);
        let first = self.needs(&needs, wait_policy);
        let compiling = sum(&[first, compile_estimate(wasm.len() as u64)]);
        let need = Need::of(&guard, target, sum(&[compiling, code]));
        self.reserve(&need, wait_policy).await?;

        let (pool, for_whom, source) = (self.clone(), target.clone(), lead.source.clone());
        let work = move |guard: &RequestGuard<T>| {
            pool.compile_and_load(guard, &for_whom, &source, compiling)
        };
        let began = self.timekeeper.now();
        let (guard, compiled) = self.work(guard, target, wait_policy, work).await?;
        wait_policy = wait_policy.later(self.timekeeper.now().saturating_sub(began));
        let guard = match compiled? {
            Compiled::Loaded => guard,
            Compiled::LacksRoom(artifact, compile_time) => {
                let need = Need::of(&guard, target, sum(&[compiling, artifact.amounts()]));
                self.reserve(&need, wait_policy).await?;
                let (pool, for_whom, source) = (self.clone(), target.clone(), lead.source.clone());
                let work = move |guard: &RequestGuard<T>| {
                    pool.load(guard, &for_whom, &source, artifact, compile_time)
                };
                let began = self.timekeeper.now();
                let (guard, loaded) = self.work(guard, target, wait_policy, work).await?;
                wait_policy = wait_policy.later(self.timekeeper.now().saturating_sub(began));
                loaded?;
                guard
            }
        };
        self.with_state(|locked, cx| {
            locked.state.shrink_to(guard.id(), first, &mut cx.out);
        });
        let ready = Ready {
            defined: lead.defined,
            needs,
        };
        Ok((guard, ready, wait_policy))
    }

    /// Works for a request: on this thread, or, if this is a task's, aside. The work keeps the request
    /// until it is done, even when nobody waits for it any more: what it has reserved is in use.
    async fn work<R: Send + 'static>(
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

    /// Compiles; and loads, if there is room for exactly this code. So what a task has begun and does
    /// not wait for is there for the next.
    fn compile_and_load(
        &self,
        guard: &RequestGuard<T>,
        target: &Arc<Target>,
        source: &Source<T>,
        compiling: Amounts,
    ) -> Result<Compiled, AcquireError> {
        let (artifact, compile_time) = self.compile(guard, target, source)?;
        // Now its size is known, and it is not mapped yet: the promise is kept to the byte.
        let code = artifact.amounts();
        self.with_state(|locked, _| {
            let bytes = code.get(Budget::Code);
            locked.state.note_code_bytes(guard.id(), bytes);
        });
        let need = Need::of(guard, target, sum(&[compiling, code]));
        if self.reserve_if_free(&need) {
            self.load(guard, target, source, artifact, compile_time)?;
            return Ok(Compiled::Loaded);
        }
        Ok(Compiled::LacksRoom(artifact, compile_time))
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

    fn compile(
        &self,
        guard: &RequestGuard<T>,
        target: &Arc<Target>,
        source: &Source<T>,
    ) -> Result<(Artifact, Duration), AcquireError> {
        let _span = tracing::info_span!(
            "compile",
            function = %target.signature,
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
                let time = began.elapsed();
                self.with_state(|locked, _| locked.compilations += 1);
                self.observer.compiled(time);
                Ok((artifact, time))
            }
            Err(error) => Err(match refused_by_system(&error) {
                Some(refused) => self.refused(guard, target, refused),
                None => self.fail(guard, target, ModuleError::Compile(share(error))),
            }),
        }
    }

    fn load(
        &self,
        guard: &RequestGuard<T>,
        target: &Arc<Target>,
        source: &Source<T>,
        artifact: Artifact,
        compile_time: Duration,
    ) -> Result<(), AcquireError> {
        let _span = tracing::info_span!("load", function = %target.signature).entered();
        let began = Instant::now();
        let code = match self.map(&artifact, source) {
            Ok(code) => code,
            Err(LoadFailure::Map(error)) => {
                return Err(match refused_by_system(&error) {
                    Some(refused) => self.refused(guard, target, refused),
                    None => self.fail(guard, target, ModuleError::Load(share(error))),
                });
            }
            Err(LoadFailure::Link(error)) => {
                let error = ModuleError::Link(share(error));
                return Err(self.fail_until(u64::MAX, guard, target, error));
            }
        };
        drop(artifact);
        let load_time = began.elapsed();
        self.observer.loaded(load_time);
        let cost = nanos(compile_time + load_time);
        let amounts = code.amounts();
        self.with_state(|locked, cx| {
            locked.loads += 1;
            let state = &mut locked.state;
            state.loaded(guard.id(), code, amounts, cost, &mut cx.out);
        });
        Ok(())
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
    fn refused(
        &self,
        guard: &RequestGuard<T>,
        target: &Arc<Target>,
        refused: io::Error,
    ) -> AcquireError {
        self.fail_until(0, guard, target, ModuleError::System(refused.into()))
    }

    /// All who wait get this failure, and so does whoever asks within the cool-down.
    fn fail(
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
    fn fail_until(
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

fn module_error(target: &Arc<Target>, source: Arc<ModuleError>) -> AcquireError {
    let target = target.clone();
    AcquireError::Module { target, source }
}

fn sum(parts: &[Amounts]) -> Amounts {
    let add = |sum: Amounts, part: &Amounts| sum.saturating_add(part);
    parts.iter().fold(Amounts::ZERO, add)
}
