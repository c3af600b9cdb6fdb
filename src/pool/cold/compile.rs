//! Single flight: one request leads, and brings the code (`lead.rs`); all who need the module get it, or the same
//! failure.

use std::sync::Arc;

use crate::pool::api::error::{AcquireError, WaitingFor};
use crate::pool::api::prepared::CodeOrigin;
use crate::pool::api::target::Target;
use crate::pool::cold::acquire::{closed, refuse_to_wait, removed, would_block};
use crate::pool::cold::in_queue::InQueue;
use crate::pool::cold::lead::{Lead, Ready};
use crate::pool::cold::request_guard::{RequestGuard, compiles_here};
use crate::pool::cold::verdict::module_error;
use crate::pool::shared::{RequestId, Shared, Signal};
use crate::pool::time::clock::nanos;
use crate::pool::wait::policy::WaitPolicy;
use crate::pool::wakeup::{Waiter, Wakeup};
use crate::runtime::InstanceNeeds;
use crate::state::{ModuleId, Prepare, Ticket};

enum Step<T: Send + 'static> {
    Ready(Ready),
    Lead(Lead<T>),
    Follow(
        ModuleId<crate::pool::shared::ShellTypes<T>>,
        Arc<Waiter<T>>,
        Ticket,
    ),
    Queue(Arc<Waiter<T>>),
    Again,
    Fail(AcquireError),
}

impl<T: Send + 'static> Shared<T> {
    /// Sees to it that the code of the request's module is loaded and pinned: it is, or is compiled here, or
    /// another compiles it. Returns how long the request may still wait: compiling does not count, and waiting
    /// for another's compilation only if that ends without code, or several in a row could hold this one up for
    /// ever.
    pub(crate) async fn code_for(
        self: &Arc<Self>,
        guard: RequestGuard<T>,
        target: &Arc<Target>,
        mut wait_policy: WaitPolicy,
    ) -> Result<(RequestGuard<T>, Ready, WaitPolicy), AcquireError> {
        let mut followed = 0;
        let mut origin = CodeOrigin::Present;
        let mut guard = guard;
        loop {
            let began = self.timekeeper.now();
            let in_queue = |waiter, waiting_for| InQueue {
                target,
                waiter,
                wait_policy,
                waiting_for,
            };
            match self.find_code(&guard, target, wait_policy) {
                Step::Ready(ready) => {
                    let ready = Ready { origin, ..ready };
                    return Ok((guard, ready, wait_policy.later(followed)));
                }
                Step::Lead(lead) => {
                    let ready;
                    (guard, ready, wait_policy) =
                        self.lead(guard, target, lead, wait_policy).await?;
                    if let Some(ready) = ready {
                        return Ok((guard, ready, wait_policy));
                    }
                }
                Step::Follow(module, waiter, ticket) => {
                    let leave = || {
                        self.with_state(|locked, _| locked.state.leave_flight(module, ticket));
                        true
                    };
                    let goes_on =
                        || self.with_state(|locked, _| locked.compiling.contains(&module));
                    let in_queue = in_queue(&waiter, WaitingFor::Compilation);
                    self.wait_for_turn(&in_queue, leave, goes_on).await?;
                    origin = CodeOrigin::Awaited;
                    followed += self.timekeeper.now().saturating_sub(began);
                }
                Step::Queue(waiter) => {
                    let in_queue = in_queue(&waiter, WaitingFor::Compiler);
                    self.wait_to_compile(&in_queue, guard.id()).await?;
                    wait_policy = wait_policy.later(self.timekeeper.now().saturating_sub(began));
                }
                Step::Again => {}
                Step::Fail(error) => return Err(error),
            }
        }
    }

    /// Whoever waits for a compilation as long as it takes has so much time to take what it is told.
    pub(crate) fn slack(&self, wait_policy: WaitPolicy) -> Option<u64> {
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

    fn find_code(
        &self,
        guard: &RequestGuard<T>,
        target: &Arc<Target>,
        wait_policy: WaitPolicy,
    ) -> Step<T> {
        let waits = wait_policy.deadline().is_some();
        self.with_state(|locked, cx| {
            let state = &mut locked.state;
            match state.prepare(guard.id(), &mut cx.out) {
                Prepare::Ready { source, definition } => {
                    let code = state.code_of(guard.id());
                    let needs = code.map(|code| code.instance_needs());
                    let declared = || InstanceNeeds::of(&source.0.facts, &self.runtime);
                    Step::Ready(Ready {
                        defined: definition,
                        needs: needs.unwrap_or_else(declared),
                        origin: CodeOrigin::Present,
                    })
                }
                Prepare::Lead {
                    source,
                    definition,
                    code_bytes,
                    compile_need,
                } => Step::Lead(Lead {
                    source,
                    defined: definition,
                    code_bytes,
                    compile_need,
                }),
                Prepare::Collected(_, shortage) if !wait_policy.waits_for_room() => {
                    state.count_refusal(guard.id());
                    let exceeded = Self::exceeded(state, shortage, target, guard.id());
                    Step::Fail(AcquireError::BudgetExceeded(exceeded))
                }
                Prepare::Follow(_) if !waits => {
                    Step::Fail(would_block(target, WaitingFor::Compilation))
                }
                Prepare::Follow(module) | Prepare::Collected(module, _) => {
                    if let Some(error) = refuse_to_wait(state, guard.id(), target) {
                        return Step::Fail(error);
                    }
                    let waiter = self.waiter_for_compilation(wait_policy, guard);
                    let (told, until) = (waiter.clone(), wait_policy.ends_of_compilations());
                    match state.follow(module, guard.id(), told, until) {
                        Some(ticket) => Step::Follow(module, waiter, ticket),
                        None => Step::Again,
                    }
                }
                Prepare::Queue { .. } if !waits => {
                    Step::Fail(would_block(target, WaitingFor::Compiler))
                }
                Prepare::Queue { source } => {
                    if let Some(error) = refuse_to_wait(state, guard.id(), target) {
                        return Step::Fail(error);
                    }
                    let waiter = self.waiter_for_compilation(wait_policy, guard);
                    let (told, until) = (waiter.clone(), wait_policy.ends_of_compilations());
                    let size = source.0.facts.compile_rank();
                    state.wait_for_compiler(guard.id(), size, told, until);
                    Step::Queue(waiter)
                }
                Prepare::Failed(source) => Step::Fail(module_error(target, source)),
                Prepare::Gone => Step::Fail(removed(target)),
                Prepare::Closed => Step::Fail(closed(target)),
            }
        })
    }

    /// A turn to compile for work that has no function, with a module of this size; in bytes.
    pub(crate) async fn turn_to_compile(
        &self,
        guard: &RequestGuard<T>,
        target: &Arc<Target>,
        size: u64,
        wait_policy: WaitPolicy,
    ) -> Result<(), AcquireError> {
        loop {
            let waiter = self.waiter_for_compilation(wait_policy, guard);
            let (told, until) = (waiter.clone(), wait_policy.ends_of_compilations());
            let has_turn = self.with_state(|locked, cx| {
                let state = &mut locked.state;
                let has_turn = state.ask_for_turn(guard.id(), &mut cx.out);
                if !has_turn && !state.is_closed() {
                    state.wait_for_compiler(guard.id(), size, told, until);
                }
                has_turn.then_some(()).ok_or(state.is_closed())
            });
            match has_turn {
                Ok(()) => return Ok(()),
                Err(true) => return Err(closed(target)),
                Err(false) => {}
            }
            let in_queue = InQueue {
                target,
                waiter: &waiter,
                wait_policy,
                waiting_for: WaitingFor::Compiler,
            };
            self.wait_to_compile(&in_queue, guard.id()).await?;
        }
    }

    async fn wait_to_compile(
        &self,
        in_queue: &InQueue<'_, T>,
        request: RequestId<T>,
    ) -> Result<(), AcquireError> {
        let leave = || {
            self.with_state(|locked, cx| locked.state.leave_compilers(request, &mut cx.out));
            true
        };
        let goes_on = || self.with_state(|locked, _| locked.is_compiling());
        self.wait_for_turn(in_queue, leave, goes_on).await
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
}
