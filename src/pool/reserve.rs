//! Getting room: reserve, evict, wait in turn, or be refused.

use std::sync::Arc;

use super::acquire::{Patience, closed};
use super::error::{AcquireError, Asker, BudgetExceeded, WaitingFor};
use super::shared::{RequestId, Shared, Signal};
use super::waiter::{Mail, Waiter};
use crate::state::{Amounts, Room};

/// A request for room, on its way.
pub(super) struct Asking<'a, T: Send + 'static> {
    pub request: RequestId<T>,
    pub asker: &'a Arc<Asker>,
    /// All that it wants to hold.
    pub target: Amounts,
    pub patience: Patience,
    /// Whether it joins them when there is no room.
    pub queue: bool,
}

/// What became of asking for room.
pub(super) enum Reserving<T: Send + 'static> {
    Done,
    /// Victims have been destroyed for it, or a lease has just ended.
    Again,
    /// It must wait; in the queue, if it wanted to join.
    Wait(Option<Arc<Waiter<T>>>),
    Fail(AcquireError),
}

impl<T: Send + 'static> Shared<T> {
    /// Makes the request hold `target`, evicting what is idle, waiting as far as patience goes. While
    /// it waits it holds nothing but its compiler's work: see `State::step_back`.
    pub(super) fn reserve(
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
        };
        while !self.reserve_or_wait(&asking)? {}
        Ok(())
    }

    /// One try, and the wait that it may take; whether the request holds its target now.
    pub(super) fn reserve_or_wait(&self, asking: &Asking<'_, T>) -> Result<bool, AcquireError> {
        match self.try_reserve(asking) {
            Reserving::Done => Ok(true),
            Reserving::Fail(error) => Err(error),
            Reserving::Again | Reserving::Wait(None) => Ok(false),
            Reserving::Wait(Some(waiter)) => {
                self.wait_for_room(asking, &waiter)?;
                Ok(false)
            }
        }
    }

    pub(super) fn try_reserve(&self, asking: &Asking<'_, T>) -> Reserving<T> {
        let Asking {
            request,
            asker,
            target,
            patience,
            queue,
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
            if in_turn {
                let refused = match state.reserve(request, target, hands, out) {
                    Room::Granted => return Reserving::Done,
                    Room::Evicting => return Reserving::Again,
                    Room::Soon(shortage) => (patience.deadline().is_none()).then_some(shortage),
                    Room::Refused(shortage) => {
                        (!patience.waits_for_room() || !can_wait).then_some(shortage)
                    }
                };
                if let Some(shortage) = refused {
                    state.count_refusal();
                    let exceeded = BudgetExceeded::new(shortage, asker.clone());
                    return Reserving::Fail(AcquireError::BudgetExceeded(exceeded));
                }
            }
            if !queue {
                return Reserving::Wait(None);
            }
            state.step_back(request, out);
            let waiter = Waiter::new();
            match state.wait_for_room(request, waiter.clone(), hands) {
                // A lease may have ended between that look and the notices, and told nobody: look
                // once more, from behind them.
                Some(_) if in_turn => match state.reserve(request, target, hands, out) {
                    Room::Granted => Reserving::Done,
                    Room::Evicting => Reserving::Again,
                    Room::Soon(_) | Room::Refused(_) => Reserving::Wait(Some(waiter)),
                },
                Some(_) => Reserving::Wait(Some(waiter)),
                None => Reserving::Again,
            }
        })
    }

    fn wait_for_room(
        &self,
        asking: &Asking<'_, T>,
        waiter: &Waiter<T>,
    ) -> Result<(), AcquireError> {
        let Asking {
            request,
            asker,
            patience,
            ..
        } = *asking;
        let leave = || {
            // If it had been woken, the turn goes to the next: nobody has to wait for its mail.
            self.with_state(|locked, _, out| locked.state.leave_room(request, out));
            true
        };
        match self.wait(asker, waiter, patience, WaitingFor::Room, leave)? {
            Mail::Signal(Signal::Closed) => Err(closed(asker)),
            _ => Ok(()),
        }
    }
}
