//! Getting room: reserve, evict, wait in turn, or be refused.

use std::sync::Arc;
use std::time::Duration;

use crate::pool::api::budget_exceeded::BudgetExceeded;
use crate::pool::api::error::{AcquireError, Target, WaitingFor};
use crate::pool::api::holders::IN_AN_ERROR;
use crate::pool::cold::acquire::closed;
use crate::pool::shared::{Context, RequestId, Shared, Signal, State};
use crate::pool::wait::policy::WaitPolicy;
use crate::pool::wakeup::{Waiter, Wakeup};
use crate::state::{Amounts, ReserveOutcome, Shortage, Ticket};

/// A request for room, on its way.
pub(crate) struct Asking<'a, T: Send + 'static> {
    pub request: RequestId<T>,
    pub target: &'a Arc<Target>,
    /// All that it wants to hold.
    pub wanted: Amounts,
    pub wait_policy: WaitPolicy,
    /// Whether it joins them when there is no room.
    pub queue: bool,
    /// Whether somebody reads why it was refused.
    pub explained: bool,
}

/// What became of asking for room.
pub(crate) enum Reserving<T: Send + 'static> {
    Done,
    /// Victims have been destroyed for it, or a lease has just ended.
    Again,
    /// It must wait; `None` if it did not want to queue for that.
    Wait(Option<Waiting<T>>),
    Fail(AcquireError),
}

pub(crate) struct Waiting<T: Send + 'static> {
    waiter: Arc<Waiter<T>>,
    /// What it waits for; `None` before its turn.
    shortage: Option<Shortage>,
    /// Set if it waits only for what is being destroyed already.
    soon: Option<Ticket>,
}

impl<T: Send + 'static> Asking<'_, T> {
    /// Steps back and queues for room. A lease may have ended between the look that found none and
    /// now, and told nobody: so look once more, and watch what is still leased at this last look.
    fn join_queue(&self, in_turn: bool, state: &mut State<T>, cx: &mut Context<T>) -> Reserving<T> {
        state.release_to_wait(self.request, &mut cx.out);
        let waiter = Waiter::of(self.wait_policy, Some(self.request));
        if !self.wait_policy.waits_for_room() {
            return self.wait_for_frees(waiter, state, cx);
        }
        if (state.wait_for_room(self.request, waiter.clone(), &mut cx.slots)).is_none() {
            return Reserving::Again;
        }
        cx.slots.notify_of_leased();
        let room = in_turn.then(|| state.reserve(self.request, self.wanted, cx));
        let shortage = match room {
            // Nobody reads what this waiter is told: the request looks after its turn itself.
            Some(ReserveOutcome::Granted) => {
                waiter.close();
                return Reserving::Done;
            }
            Some(ReserveOutcome::Evicting) => {
                waiter.close();
                return Reserving::Again;
            }
            Some(ReserveOutcome::AwaitFrees(short) | ReserveOutcome::Refused(short)) => Some(short),
            None => None,
        };
        state.sleep_for_room(self.request, self.wait_policy.ends());
        Reserving::Wait(Some(Waiting {
            waiter,
            shortage,
            soon: None,
        }))
    }

    /// Waits until something has been destroyed, if that is still what it takes.
    fn wait_for_frees(
        &self,
        waiter: Arc<Waiter<T>>,
        state: &mut State<T>,
        cx: &mut Context<T>,
    ) -> Reserving<T> {
        match state.reserve(self.request, self.wanted, cx) {
            ReserveOutcome::Granted => Reserving::Done,
            ReserveOutcome::Evicting => Reserving::Again,
            ReserveOutcome::Refused(short) => self.refuse(state, short),
            ReserveOutcome::AwaitFrees(short) => Reserving::Wait(Some(Waiting {
                soon: Some(state.wait_for_frees(
                    self.request,
                    waiter.clone(),
                    self.wait_policy.ends(),
                )),
                shortage: Some(short),
                waiter,
            })),
        }
    }

    fn refuse(&self, state: &mut State<T>, shortage: Shortage) -> Reserving<T> {
        state.count_refusal();
        let exceeded = self.explain(shortage, state);
        Reserving::Fail(AcquireError::BudgetExceeded(exceeded))
    }

    fn explain(&self, shortage: Shortage, state: &State<T>) -> BudgetExceeded {
        // Who holds what does not matter to what can never fit.
        if self.explained && shortage.requested <= shortage.limit {
            return Shared::exceeded(state, shortage, self.target);
        }
        BudgetExceeded::new(shortage, self.target.clone(), Vec::new())
    }
}

impl<T: Send + 'static> Shared<T> {
    /// With the largest holders of the budget.
    pub(crate) fn exceeded(
        state: &State<T>,
        shortage: Shortage,
        target: &Arc<Target>,
    ) -> BudgetExceeded {
        let holders = Self::holders(state, &[shortage.budget], IN_AN_ERROR);
        let holders = holders.into_iter().flatten().collect();
        BudgetExceeded::new(shortage, target.clone(), holders)
    }

    /// Makes the request hold `wanted`, evicting what is idle, waiting as far as patience goes. While
    /// it waits it holds nothing but its compiler's work: see `State::release_to_wait`.
    pub(crate) async fn reserve(
        &self,
        request: RequestId<T>,
        target: &Arc<Target>,
        wanted: Amounts,
        wait_policy: WaitPolicy,
    ) -> Result<(), AcquireError> {
        let asking = Asking {
            request,
            target,
            wanted,
            wait_policy,
            queue: true,
            explained: true,
        };
        self.reserve_as(asking).await
    }

    /// The same, in full.
    pub(crate) async fn reserve_as(&self, asking: Asking<'_, T>) -> Result<(), AcquireError> {
        while !self.reserve_or_wait(&asking).await? {}
        Ok(())
    }

    /// Makes the request hold `wanted` if that takes no waiting.
    pub(crate) fn has_room(
        &self,
        request: RequestId<T>,
        target: &Arc<Target>,
        wanted: Amounts,
    ) -> bool {
        let asking = Asking {
            request,
            target,
            wanted,
            // It would wait, but does not queue.
            wait_policy: WaitPolicy::Room(self.deadline(Duration::ZERO)),
            queue: false,
            explained: false,
        };
        // A refusal is for whoever asks for good.
        let possible = self.with_state(|locked, _| locked.state.can_ever_hold(&wanted));
        loop {
            match possible.then(|| self.try_reserve(&asking)) {
                Some(Reserving::Done) => return true,
                Some(Reserving::Again) => {}
                Some(Reserving::Wait(_) | Reserving::Fail(_)) | None => return false,
            }
        }
    }

    /// One try, and the wait that it may take; whether the request holds its target now.
    pub(crate) async fn reserve_or_wait(
        &self,
        asking: &Asking<'_, T>,
    ) -> Result<bool, AcquireError> {
        match self.try_reserve(asking) {
            Reserving::Done => Ok(true),
            Reserving::Fail(error) => Err(error),
            Reserving::Again | Reserving::Wait(None) => Ok(false),
            Reserving::Wait(Some(waiting)) => {
                self.wait_for_room(asking, waiting).await?;
                Ok(false)
            }
        }
    }

    pub(crate) fn try_reserve(&self, asking: &Asking<'_, T>) -> Reserving<T> {
        let Asking {
            request,
            target,
            wanted,
            wait_policy,
            queue,
            ..
        } = *asking;
        self.with_state(|locked, cx| {
            let state = &mut locked.state;
            if state.is_closed() {
                return Reserving::Fail(closed(target));
            }
            let can_wait = state.can_ever_hold(&wanted);
            // Whoever would wait for room queues behind those who wait already; but not if it holds
            // some already, which they may be waiting for.
            let in_turn = !can_wait
                || state.has_waited_for_room(request)
                || state.holds_anything(request)
                || !wait_policy.waits_for_room()
                || !state.is_room_awaited();
            match in_turn.then(|| state.reserve(request, wanted, cx)) {
                Some(ReserveOutcome::Granted) => Reserving::Done,
                Some(ReserveOutcome::Evicting) => Reserving::Again,
                Some(ReserveOutcome::AwaitFrees(short)) if wait_policy.deadline().is_none() => {
                    asking.refuse(state, short)
                }
                Some(ReserveOutcome::Refused(short))
                    if !(can_wait && wait_policy.waits_for_room()) =>
                {
                    asking.refuse(state, short)
                }
                _ if !queue => Reserving::Wait(None),
                _ => asking.join_queue(in_turn, state, cx),
            }
        })
    }

    async fn wait_for_room(
        &self,
        asking: &Asking<'_, T>,
        waiting: Waiting<T>,
    ) -> Result<(), AcquireError> {
        let Asking {
            request,
            target,
            wait_policy,
            ..
        } = *asking;
        let leave = || {
            // If it had been woken, the turn goes to the next: nobody has to wait for its mail.
            self.with_state(|locked, cx| match waiting.soon {
                Some(ticket) => locked.state.leave_frees_queue(ticket),
                None => locked.state.leave_room(request, &mut cx.out),
            });
            true
        };
        let waiting_for = WaitingFor::Room;
        let wakeup = self.wait(target, &waiting.waiter, wait_policy, waiting_for, leave);
        match wakeup.await {
            Ok(Wakeup::Signal(Signal::Closed)) => Err(closed(target)),
            Ok(_) => Ok(()),
            Err(mut error) => {
                if let AcquireError::Timeout { shortage: why, .. } = &mut error {
                    *why = waiting.shortage.map(|short| {
                        let explain = |state: &State<T>| asking.explain(short, state);
                        Box::new(self.with_state(|locked, _| explain(&locked.state)))
                    });
                }
                Err(error)
            }
        }
    }
}
