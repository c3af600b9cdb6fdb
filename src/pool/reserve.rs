//! Getting room: reserve, evict, wait in turn, or be refused.

use std::sync::Arc;

use super::acquire::{Patience, closed};
use super::error::{AcquireError, Asker, BudgetExceeded, WaitingFor};
use super::shared::{RequestId, Shared, Signal};
use super::waiter::{Mail, Waiter};
use crate::state::{Amounts, Room, Ticket};

enum Reserving<T: Send + 'static> {
    Done,
    /// Victims have been destroyed for it, or a lease has just ended.
    Again,
    Wait(Arc<Waiter<T>>, Ticket),
    Fail(AcquireError),
}

impl<T: Send + 'static> Shared<T> {
    /// Makes the request hold `target`, evicting what is idle, waiting as far as patience goes.
    pub(super) fn reserve(
        &self,
        request: RequestId<T>,
        asker: &Arc<Asker>,
        target: Amounts,
        patience: Patience,
    ) -> Result<(), AcquireError> {
        let mut place = None;
        loop {
            match self.try_reserve(request, asker, target, patience, place) {
                Reserving::Done => return Ok(()),
                Reserving::Again => {}
                Reserving::Fail(error) => return Err(error),
                Reserving::Wait(waiter, ticket) => {
                    place = Some(ticket);
                    self.wait_for_room(asker, &waiter, ticket, patience)?;
                }
            }
        }
    }

    fn try_reserve(
        &self,
        request: RequestId<T>,
        asker: &Arc<Asker>,
        target: Amounts,
        patience: Patience,
        place: Option<Ticket>,
    ) -> Reserving<T> {
        self.with_state(|locked, hands, out| {
            let state = &mut locked.state;
            if state.is_closed() {
                return Reserving::Fail(closed(asker));
            }
            let can_wait = state.can_ever_hold(&target);
            // Whoever would wait for room queues behind those who wait already.
            let in_turn = !can_wait
                || place.is_some()
                || !patience.waits_for_room()
                || !state.is_room_awaited();
            if in_turn {
                let room = state.reserve(request, target, hands, out);
                let shortage = match room {
                    Room::Granted => {
                        if place.is_some() {
                            state.wake_room(out);
                        }
                        return Reserving::Done;
                    }
                    Room::Evicting => return Reserving::Again,
                    Room::Soon(shortage) => (patience.deadline().is_none()).then_some(shortage),
                    Room::Refused(shortage) => {
                        (!patience.waits_for_room() || !can_wait).then_some(shortage)
                    }
                };
                if let Some(shortage) = shortage {
                    state.count_refusal();
                    if place.is_some() {
                        state.wake_room(out);
                    }
                    let exceeded = BudgetExceeded::new(shortage, asker.clone());
                    return Reserving::Fail(AcquireError::BudgetExceeded(exceeded));
                }
            }
            let waiter = Waiter::new();
            match state.wait_for_room(place, waiter.clone(), hands) {
                Some(ticket) => Reserving::Wait(waiter, ticket),
                None => Reserving::Again,
            }
        })
    }

    fn wait_for_room(
        &self,
        asker: &Arc<Asker>,
        waiter: &Waiter<T>,
        ticket: Ticket,
        patience: Patience,
    ) -> Result<(), AcquireError> {
        let leave = || {
            // If it had been woken, the turn goes to the next: nobody has to wait for its mail.
            self.with_state(|locked, _, out| locked.state.leave_room(ticket, out));
            true
        };
        match self.wait(asker, waiter, patience, WaitingFor::Room, leave)? {
            Mail::Signal(Signal::Closed) => Err(closed(asker)),
            _ => Ok(()),
        }
    }
}
