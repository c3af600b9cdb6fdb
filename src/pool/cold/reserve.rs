//! Getting room: reserve, evict, wait in turn, or be refused.

use std::sync::Arc;

use crate::pool::api::budget_exceeded::BudgetExceeded;
use crate::pool::api::error::{AcquireError, WaitingFor};
use crate::pool::api::holders::IN_AN_ERROR;
use crate::pool::api::target::Target;
use crate::pool::cold::acquire::{closed, refuse_to_wait};
use crate::pool::cold::in_queue::InQueue;
use crate::pool::cold::request_guard::RequestGuard;
use crate::pool::shared::{Context, Locked, RequestId, Shared, Signal, State};
use crate::pool::wait::policy::WaitPolicy;
use crate::pool::wakeup::{Waiter, Wakeup};
use crate::state::{Amounts, ReserveOutcome, Shortage, Ticket};

/// What a request needs.
pub(crate) struct Need<'a, T: Send + 'static> {
    pub request: RequestId<T>,
    pub target: &'a Arc<Target>,
    /// All that it is to hold, with what it holds already.
    pub amounts: Amounts,
    /// Whether somebody reads why it was refused.
    pub explained: bool,
}

/// Where a reservation stands after one look at the budgets.
pub(crate) enum Reservation<T: Send + 'static> {
    /// The request holds all that it needs.
    Granted,
    /// The request does not hold it yet, and looks again at once: victims were evicted for it, and are
    /// destroyed by now, so that what they held is the request's; or a lease has ended just before it could
    /// queue.
    Evicted,
    /// There is no room now, and the request waits in a queue. It has given back what others may be waiting
    /// for, all but its compiler's work, and its pin on the code (see `State::release_to_wait`). Whoever made it
    /// lets go of the code too, waits ([`Shared::wait_for_room`]), and begins again.
    Queued(Queued<T>),
    /// There is no room, and the request does not wait for any; or there never can be. Nothing was evicted,
    /// and it holds what it held before.
    Refused(AcquireError),
}

/// A place in a queue.
pub(crate) struct Queued<T: Send + 'static> {
    waiter: Arc<Waiter<T>>,
    queue: WaitsIn,
    /// What is missing; `None` before its turn.
    shortage: Option<Shortage>,
}

enum WaitsIn {
    /// Those who wait for room, in turn.
    Room,
    /// Those who wait until something has been destroyed that is being destroyed already.
    Frees(Ticket),
}

impl<'a, T: Send + 'static> Need<'a, T> {
    /// Of an acquire, which reports why it is refused.
    pub fn of(guard: &RequestGuard<T>, target: &'a Arc<Target>, amounts: Amounts) -> Self {
        Self {
            request: guard.id(),
            target,
            amounts,
            explained: true,
        }
    }

    /// Whether the request may be served now. Whoever would wait for room queues behind those who wait already;
    /// but not if it holds some already, which they may be waiting for.
    fn is_in_turn(&self, state: &State<T>) -> bool {
        state.has_waited_for_room(self.request)
            || state.holds_anything(self.request)
            || !state.is_room_awaited()
    }

    fn look(
        &self,
        wait_policy: WaitPolicy,
        state: &mut State<T>,
        cx: &mut Context<T>,
    ) -> Reservation<T> {
        if state.is_closed() {
            return Reservation::Refused(closed(self.target));
        }
        let waits_for_room = wait_policy.waits_for_room()
            && state.can_ever_hold(&self.amounts)
            && !state.is_kept_out_by_pins(self.request, &self.amounts);
        let in_turn = !waits_for_room || self.is_in_turn(state);
        match in_turn.then(|| state.reserve(self.request, self.amounts, cx)) {
            Some(ReserveOutcome::Granted) => Reservation::Granted,
            Some(ReserveOutcome::Evicting) => Reservation::Evicted,
            Some(ReserveOutcome::AwaitFrees(short)) if wait_policy.deadline().is_none() => {
                self.refuse(state, short)
            }
            // What a group lacks of its own, nobody frees for it: it does not stand in the way of others.
            Some(ReserveOutcome::Refused(short)) if !waits_for_room || short.of_group => {
                self.refuse(state, short)
            }
            // What is being destroyed already is waited for in any case.
            Some(ReserveOutcome::AwaitFrees(_)) if state.begin_to_wait(self.request).is_err() => {
                self.queue_for_frees(wait_policy, state, cx)
            }
            _ if waits_for_room => self.queue_for_room(in_turn, wait_policy, state, cx),
            _ => self.queue_for_frees(wait_policy, state, cx),
        }
    }

    /// A lease may have ended between the look that found no room and now, without anybody being told. So the
    /// request queues, asks all leases to report their end, and looks once more.
    fn queue_for_room(
        &self,
        in_turn: bool,
        wait_policy: WaitPolicy,
        state: &mut State<T>,
        cx: &mut Context<T>,
    ) -> Reservation<T> {
        if let Some(error) = refuse_to_wait(state, self.request, self.target) {
            return Reservation::Refused(error);
        }
        state.release_to_wait(self.request, &mut cx.out);
        let waiter = Waiter::of(wait_policy, Some(self.request));
        if (state.wait_for_room(self.request, waiter.clone(), &mut cx.slots)).is_none() {
            return Reservation::Evicted;
        }
        cx.slots.notify_of_leased();
        let room = in_turn.then(|| state.reserve(self.request, self.amounts, cx));
        let shortage = match room {
            // Nobody reads what this waiter is told: the request keeps its turn without it.
            Some(ReserveOutcome::Granted) => {
                waiter.close();
                return Reservation::Granted;
            }
            Some(ReserveOutcome::Evicting) => {
                waiter.close();
                return Reservation::Evicted;
            }
            Some(ReserveOutcome::Refused(short)) if short.of_group => {
                waiter.close();
                state.leave_room(self.request, &mut cx.out);
                return self.refuse(state, short);
            }
            Some(ReserveOutcome::AwaitFrees(short) | ReserveOutcome::Refused(short)) => Some(short),
            None => None,
        };
        state.sleep_for_room(self.request, wait_policy.ends());
        Reservation::Queued(Queued {
            waiter,
            queue: WaitsIn::Room,
            shortage,
        })
    }

    /// Waits until something has been destroyed, if that is still what it takes when the request holds
    /// nothing.
    fn queue_for_frees(
        &self,
        wait_policy: WaitPolicy,
        state: &mut State<T>,
        cx: &mut Context<T>,
    ) -> Reservation<T> {
        state.release_to_wait(self.request, &mut cx.out);
        let shortage = match state.reserve(self.request, self.amounts, cx) {
            ReserveOutcome::Granted => return Reservation::Granted,
            ReserveOutcome::Evicting => return Reservation::Evicted,
            ReserveOutcome::Refused(short) => return self.refuse(state, short),
            ReserveOutcome::AwaitFrees(short) => short,
        };
        let waiter = Waiter::of(wait_policy, Some(self.request));
        let ticket = state.wait_for_frees(self.request, waiter.clone(), wait_policy.ends());
        Reservation::Queued(Queued {
            waiter,
            queue: WaitsIn::Frees(ticket),
            shortage: Some(shortage),
        })
    }

    fn refuse(&self, state: &mut State<T>, shortage: Shortage) -> Reservation<T> {
        state.count_refusal(self.request);
        let exceeded = self.explain(shortage, state);
        Reservation::Refused(AcquireError::BudgetExceeded(exceeded))
    }

    fn explain(&self, shortage: Shortage, state: &State<T>) -> BudgetExceeded {
        // Who holds what does not matter to what can never fit.
        if self.explained && shortage.requested <= shortage.limit {
            return Shared::exceeded(state, shortage, self.target, self.request);
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
        request: RequestId<T>,
    ) -> BudgetExceeded {
        let share = shortage
            .of_group
            .then(|| state.share_group_of(request).clone());
        let of = share.as_ref();
        let holders = Self::holders(state, &[shortage.budget], IN_AN_ERROR, of);
        let holders = holders.into_iter().flatten().collect();
        BudgetExceeded::new(shortage, target.clone(), holders)
    }

    /// Makes the request hold what it needs: evicts what is idle, waits as far as the policy goes.
    pub(crate) async fn reserve(
        &self,
        need: &Need<'_, T>,
        wait_policy: WaitPolicy,
    ) -> Result<(), AcquireError> {
        loop {
            match self.look_for_room(need, wait_policy) {
                Reservation::Granted => return Ok(()),
                Reservation::Evicted => {}
                Reservation::Queued(queued) => {
                    self.wait_for_room(need, wait_policy, queued).await?;
                }
                Reservation::Refused(error) => return Err(error),
            }
        }
    }

    /// Makes the request hold what it needs if that takes no waiting; whether it does. Nobody is refused
    /// anything by that, and nobody is overtaken who waits.
    pub(crate) fn reserve_if_free(&self, need: &Need<'_, T>) -> bool {
        loop {
            let room = self.look_with_room(need, |locked, cx| {
                let state = &mut locked.state;
                let may = !state.is_closed()
                    && state.can_ever_hold(&need.amounts)
                    && need.is_in_turn(state);
                may.then(|| state.reserve(need.request, need.amounts, cx))
            });
            match room {
                Some(ReserveOutcome::Granted) => return true,
                Some(ReserveOutcome::Evicting) => {}
                Some(ReserveOutcome::AwaitFrees(_) | ReserveOutcome::Refused(_)) | None => {
                    return false;
                }
            }
        }
    }

    /// One look at the budgets.
    pub(crate) fn look_for_room(
        &self,
        need: &Need<'_, T>,
        wait_policy: WaitPolicy,
    ) -> Reservation<T> {
        self.look_with_room(need, |locked, cx| {
            need.look(wait_policy, &mut locked.state, cx)
        })
    }

    /// Asks the core for room. What only waits for the recycler to be destroyed is no reason to be without: it is
    /// destroyed here then.
    fn look_with_room<R>(
        &self,
        need: &Need<'_, T>,
        mut look: impl FnMut(&mut Locked<T>, &mut Context<T>) -> R,
    ) -> R {
        loop {
            let looked = self.with_state(|locked, cx| {
                let may_help = locked.recycles && self.recycler.has_condemned();
                let helps = may_help && !locked.state.has_room_for(need.request, &need.amounts);
                (!helps).then(|| look(locked, cx))
            });
            match looked {
                Some(looked) => return looked,
                // One may be enough.
                None => _ = self.destroy_condemned(),
            }
        }
    }

    /// Waits in the queue, until it is worth another look.
    pub(crate) async fn wait_for_room(
        &self,
        need: &Need<'_, T>,
        wait_policy: WaitPolicy,
        queued: Queued<T>,
    ) -> Result<(), AcquireError> {
        let leave = || {
            // If it had been woken, the turn goes to the next: nobody has to wait for its message.
            self.with_state(|locked, cx| match queued.queue {
                WaitsIn::Frees(ticket) => locked.state.leave_frees_queue(ticket),
                WaitsIn::Room => locked.state.leave_room(need.request, &mut cx.out),
            });
            true
        };
        let in_queue = InQueue {
            target: need.target,
            waiter: &queued.waiter,
            wait_policy,
            waiting_for: WaitingFor::Room,
        };
        match self.wait(&in_queue, leave).await {
            Ok(Wakeup::Signal(Signal::Closed)) => Err(closed(need.target)),
            Ok(_) => Ok(()),
            Err(mut error) => {
                if let AcquireError::Timeout { shortage: why, .. } = &mut error {
                    *why = queued.shortage.map(|short| {
                        let explain = |state: &State<T>| need.explain(short, state);
                        Box::new(self.with_state(|locked, _| explain(&locked.state)))
                    });
                }
                Err(error)
            }
        }
    }
}
