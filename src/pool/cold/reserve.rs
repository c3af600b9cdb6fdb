//! Getting room: reserve, evict, wait in turn, or be refused.

use std::sync::Arc;
use std::time::Duration;

use crate::pool::api::budget_exceeded::BudgetExceeded;
use crate::pool::api::error::{AcquireError, Asker, WaitingFor};
use crate::pool::api::holders::IN_AN_ERROR;
use crate::pool::cold::acquire::closed;
use crate::pool::hands::Hands;
use crate::pool::shared::{Effects, RequestId, Shared, Signal, State};
use crate::pool::wait::policy::Patience;
use crate::pool::wait::waiter::{Mail, Waiter};
use crate::state::{Amounts, Room, Shortage, Ticket};

/// A request for room, on its way.
pub(crate) struct Asking<'a, T: Send + 'static> {
    pub request: RequestId<T>,
    pub asker: &'a Arc<Asker>,
    /// All that it wants to hold.
    pub target: Amounts,
    pub patience: Patience,
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
    fn join_queue(
        &self,
        in_turn: bool,
        state: &mut State<T>,
        hands: &mut Hands<T>,
        out: &mut Effects<T>,
    ) -> Reserving<T> {
        state.step_back(self.request, out);
        let waiter = Waiter::of(self.patience, Some(self.request));
        if !self.patience.waits_for_room() {
            return self.wait_soon(waiter, state, hands, out);
        }
        if (state.wait_for_room(self.request, waiter.clone(), hands)).is_none() {
            return Reserving::Again;
        }
        hands.watch_what_is_leased();
        let room = in_turn.then(|| state.reserve(self.request, self.target, hands, out));
        let shortage = match room {
            // Nobody reads what this waiter is told: the request looks after its turn itself.
            Some(Room::Granted) => {
                waiter.close();
                return Reserving::Done;
            }
            Some(Room::Evicting) => {
                waiter.close();
                return Reserving::Again;
            }
            Some(Room::Soon(short) | Room::Refused(short)) => Some(short),
            None => None,
        };
        state.sleep_for_room(self.request, self.patience.ends());
        Reserving::Wait(Some(Waiting {
            waiter,
            shortage,
            soon: None,
        }))
    }

    /// Waits until something has been destroyed, if that is still what it takes.
    fn wait_soon(
        &self,
        waiter: Arc<Waiter<T>>,
        state: &mut State<T>,
        hands: &mut Hands<T>,
        out: &mut Effects<T>,
    ) -> Reserving<T> {
        match state.reserve(self.request, self.target, hands, out) {
            Room::Granted => Reserving::Done,
            Room::Evicting => Reserving::Again,
            Room::Refused(short) => self.refuse(state, short),
            Room::Soon(short) => Reserving::Wait(Some(Waiting {
                soon: Some(state.wait_soon(self.request, waiter.clone(), self.patience.ends())),
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
            return Shared::exceeded(state, shortage, self.asker);
        }
        BudgetExceeded::new(shortage, self.asker.clone(), Vec::new())
    }
}

impl<T: Send + 'static> Shared<T> {
    /// With the largest holders of the budget.
    pub(crate) fn exceeded(
        state: &State<T>,
        shortage: Shortage,
        asker: &Arc<Asker>,
    ) -> BudgetExceeded {
        let holders = Self::holders(state, &[shortage.budget], IN_AN_ERROR);
        let holders = holders.into_iter().flatten().collect();
        BudgetExceeded::new(shortage, asker.clone(), holders)
    }

    /// Makes the request hold `target`, evicting what is idle, waiting as far as patience goes. While
    /// it waits it holds nothing but its compiler's work: see `State::step_back`.
    pub(crate) async fn reserve(
        &self,
        request: RequestId<T>,
        asker: &Arc<Asker>,
        target: Amounts,
        patience: Patience,
    ) -> Result<(), AcquireError> {
        let asking = Asking {
            request,
            asker,
            target,
            patience,
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

    /// Makes the request hold `target` if that takes no waiting.
    pub(crate) fn has_room(
        &self,
        request: RequestId<T>,
        asker: &Arc<Asker>,
        target: Amounts,
    ) -> bool {
        let asking = Asking {
            request,
            asker,
            target,
            // It would wait, but does not queue.
            patience: Patience::Room(self.deadline(Duration::ZERO)),
            queue: false,
            explained: false,
        };
        // A refusal is for whoever asks for good.
        let possible = self.with_state(|locked, _, _| locked.state.can_ever_hold(&target));
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
            asker,
            target,
            patience,
            queue,
            ..
        } = *asking;
        self.with_state(|locked, hands, out| {
            let state = &mut locked.state;
            if state.is_closed() {
                return Reserving::Fail(closed(asker));
            }
            let can_wait = state.can_ever_hold(&target);
            // Whoever would wait for room queues behind those who wait already; but not if it holds
            // some already, which they may be waiting for.
            let in_turn = !can_wait
                || state.has_waited_for_room(request)
                || state.holds_anything(request)
                || !patience.waits_for_room()
                || !state.is_room_awaited();
            match in_turn.then(|| state.reserve(request, target, hands, out)) {
                Some(Room::Granted) => Reserving::Done,
                Some(Room::Evicting) => Reserving::Again,
                Some(Room::Soon(short)) if patience.deadline().is_none() => {
                    asking.refuse(state, short)
                }
                Some(Room::Refused(short)) if !(can_wait && patience.waits_for_room()) => {
                    asking.refuse(state, short)
                }
                _ if !queue => Reserving::Wait(None),
                _ => asking.join_queue(in_turn, state, hands, out),
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
            asker,
            patience,
            ..
        } = *asking;
        let leave = || {
            // If it had been woken, the turn goes to the next: nobody has to wait for its mail.
            self.with_state(|locked, _, out| match waiting.soon {
                Some(ticket) => locked.state.leave_soon(ticket),
                None => locked.state.leave_room(request, out),
            });
            true
        };
        let waiting_for = WaitingFor::Room;
        let mail = self.wait(asker, &waiting.waiter, patience, waiting_for, leave);
        match mail.await {
            Ok(Mail::Signal(Signal::Closed)) => Err(closed(asker)),
            Ok(_) => Ok(()),
            Err(mut error) => {
                if let AcquireError::Timeout { shortage: why, .. } = &mut error {
                    *why = waiting.shortage.map(|short| {
                        let explain = |state: &State<T>| asking.explain(short, state);
                        Box::new(self.with_state(|locked, _, _| explain(&locked.state)))
                    });
                }
                Err(error)
            }
        }
    }
}
