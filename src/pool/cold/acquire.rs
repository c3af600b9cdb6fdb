//! The slow path of an acquire: take what is idle after all, wait for a lease to end, or make an
//! instance.

use std::sync::Arc;
use std::time::Duration;

use crate::pool::api::error::{AcquireError, Asker, WaitingFor};
use crate::pool::hot::entry::{Entry, Live, thread_number};
use crate::pool::shared::{RequestId, Shared, Signal};
use crate::pool::time::clock::nanos;
use crate::pool::time::deadline::Deadline;
use crate::pool::wait::block_on::block_on;
use crate::pool::wait::policy::Patience;
use crate::pool::wait::waiter::{Mail, Waiter};
use crate::runtime::StackTooSmall;
use crate::state::{Enter, SeatWait, Ticket};

/// Who waits for a compilation looks whether it still goes on, each time that its deadline comes; not more
/// often than this.
const LOOKS_AGAIN: Duration = Duration::from_millis(100);

/// What to do once the lock is let go.
enum Step<T: Send + 'static> {
    Lease(Box<Live<T>>),
    Make(RequestId<T>),
    Wait(Arc<Waiter<T>>, Ticket),
    Fail(AcquireError),
}

impl<T: Send + 'static> Shared<T> {
    pub fn deadline(&self, wait: Duration) -> Deadline {
        let began = self.pulse.now();
        Deadline {
            began,
            ends: began.saturating_add(nanos(wait)),
            is_of_a_task: false,
            pauses: false,
        }
    }

    /// The patience of `acquire`.
    pub fn usual_patience(&self) -> Patience {
        let deadline = Deadline {
            pauses: true,
            ..self.deadline(self.settings.wait_timeout)
        };
        if self.settings.wait_for_room {
            Patience::Room(deadline)
        } else {
            Patience::Instance(deadline)
        }
    }

    /// Leases an instance of the entry, whatever it takes, on this thread. The caller has looked into
    /// the slots.
    pub fn acquire(
        self: &Arc<Self>,
        entry: &Arc<Entry<T>>,
        patience: Patience,
    ) -> Result<Box<Live<T>>, AcquireError> {
        self.stack
            .check()
            .map_err(|source| stack_too_small(&entry.asker, source))?;
        block_on(self.obtain(entry, patience), &self.pulse)
    }

    /// The same, as a task or on a thread. Dropped before it is ready, it leaves nothing behind.
    pub async fn obtain(
        self: &Arc<Self>,
        entry: &Arc<Entry<T>>,
        patience: Patience,
    ) -> Result<Box<Live<T>>, AcquireError> {
        loop {
            let mail = match self.enter(entry, patience) {
                Step::Lease(live) => return Ok(live),
                Step::Make(request) => return self.make(entry, request, patience).await,
                Step::Wait(waiter, ticket) => {
                    self.wait_for_seat(entry, &waiter, ticket, patience).await?
                }
                Step::Fail(error) => return Err(error),
            };
            match mail {
                Mail::Instance(live) => return Ok(leased_again(entry, live)),
                Mail::Signal(Signal::Seat(request)) => {
                    return self.make(entry, request, patience).await;
                }
                Mail::Signal(Signal::Gone) => return Err(removed(&entry.asker)),
                Mail::Signal(Signal::Closed) => return Err(closed(&entry.asker)),
                // Whoever is late has not come here.
                Mail::Signal(Signal::Retry | Signal::Late) => {}
            }
        }
    }

    fn enter(&self, entry: &Arc<Entry<T>>, patience: Patience) -> Step<T> {
        let (thread, near) = (thread_number(), entry.preferred_seat());
        self.with_state(|locked, hands, out| {
            let idle = match locked.state.enter_near(entry.id, near, hands, out) {
                Enter::Idle(id) => id,
                Enter::Seat(request) => return Step::Make(request),
                Enter::Gone => return Step::Fail(removed(&entry.asker)),
                Enter::Closed => return Step::Fail(closed(&entry.asker)),
                Enter::Full if patience.deadline().is_none() => {
                    return Step::Fail(would_block(&entry.asker, WaitingFor::Instance));
                }
                Enter::Full if locked.blocked.would_wait_for_itself(thread, entry) => {
                    let asker = entry.asker.clone();
                    return Step::Fail(AcquireError::Deadlock { asker });
                }
                Enter::Full => {
                    let waiter = Waiter::of(patience, None);
                    let (told, until) = (waiter.clone(), patience.ends());
                    match (locked.state).wait_for_seat(entry.id, told, until, hands) {
                        SeatWait::Idle(id) => id,
                        SeatWait::Queued(ticket) => {
                            // A task has no thread that could wait for itself.
                            if !patience.is_of_a_task() {
                                locked.blocked.begin(thread, entry.clone());
                            }
                            return Step::Wait(waiter, ticket);
                        }
                    }
                }
            };
            match hands.take(idle) {
                Some(held) => Step::Lease(leased_again(entry, held.live)),
                // The core has claimed it into these hands; nothing takes it out in between.
                None => Step::Fail(removed(&entry.asker)),
            }
        })
    }

    async fn wait_for_seat(
        &self,
        entry: &Arc<Entry<T>>,
        waiter: &Waiter<T>,
        ticket: Ticket,
        patience: Patience,
    ) -> Result<Mail<T>, AcquireError> {
        let leave = || {
            self.with_state(|locked, hands, _| {
                locked.state.leave_seat_queue(entry.id, ticket, hands)
            })
        };
        let waiting_for = WaitingFor::Instance;
        let mail = self.wait(&entry.asker, waiter, patience, waiting_for, leave);
        let mail = mail.await;
        if !patience.is_of_a_task() {
            self.with_state(|locked, _, _| locked.blocked.end(thread_number()));
        }
        mail.map_err(|mut error| {
            if let AcquireError::Timeout { between_calls, .. } = &mut error {
                *between_calls = entry.leases_between_calls();
            }
            error
        })
    }

    /// Waits until there is mail or the deadline comes. `leave` takes the waiter out of its queue
    /// and says whether it was still in there; if not, its mail is under way, and is taken. Dropped
    /// meanwhile, it leaves the queue, and passes on what the mail brings.
    pub(crate) async fn wait(
        &self,
        asker: &Arc<Asker>,
        waiter: &Waiter<T>,
        patience: Patience,
        waiting_for: WaitingFor,
        leave: impl Fn() -> bool,
    ) -> Result<Mail<T>, AcquireError> {
        let never = || false;
        self.wait_while(asker, waiter, patience, waiting_for, leave, never)
            .await
    }

    /// As `wait`, but when the deadline comes while `goes_on`, waits as long again.
    pub(crate) async fn wait_while(
        &self,
        asker: &Arc<Asker>,
        waiter: &Waiter<T>,
        patience: Patience,
        waiting_for: WaitingFor,
        leave: impl Fn() -> bool,
        goes_on: impl Fn() -> bool,
    ) -> Result<Mail<T>, AcquireError> {
        let began = self.pulse.now();
        let mut deadline = patience.deadline();
        let since = |then| Duration::from_nanos(self.pulse.now().saturating_sub(then));
        let mut place = InQueue {
            pool: self,
            waiter,
            leave: Some(&leave),
        };
        let timeout = || {
            self.observer.waited(since(began), "timeout");
            AcquireError::Timeout {
                asker: asker.clone(),
                waited: since(patience.deadline().map_or(began, |deadline| deadline.began)),
                waiting_for,
                shortage: None,
                between_calls: 0,
            }
        };
        let mail = loop {
            let mail = waiter.mail(deadline, &self.pulse).await;
            if mail.is_some() || !goes_on() {
                break mail;
            }
            let again = self.settings.wait_timeout.max(LOOKS_AGAIN);
            let ends = self.pulse.now().saturating_add(nanos(again));
            deadline = deadline.map(|deadline| Deadline { ends, ..deadline });
        };
        let mail = match mail {
            Some(mail) => mail,
            None if leave() => {
                place.leave = None;
                return Err(timeout());
            }
            None => loop {
                // It has no deadline, so it does not end without mail.
                if let Some(mail) = waiter.mail(None, &self.pulse).await {
                    break mail;
                }
            },
        };
        place.leave = None;
        if let Mail::Signal(Signal::Late) = mail {
            return Err(timeout());
        }
        self.observer.waited(since(began), "served");
        Ok(mail)
    }
}

/// A place in some queue, until the wait is over.
struct InQueue<'a, T: Send + 'static, Leave: Fn() -> bool> {
    pool: &'a Shared<T>,
    waiter: &'a Waiter<T>,
    /// `None` when it is over.
    leave: Option<&'a Leave>,
}

impl<T: Send + 'static, Leave: Fn() -> bool> Drop for InQueue<'_, T, Leave> {
    fn drop(&mut self) {
        if let Some(leave) = self.leave {
            leave();
            if let Some(unread) = self.waiter.close() {
                self.pool.return_to_sender(unread);
            }
        }
    }
}

/// A lease begins, of an instance that was idle or changes hands.
fn leased_again<T: Send + 'static>(entry: &Entry<T>, live: Box<Live<T>>) -> Box<Live<T>> {
    entry.slot(live.seat).lease();
    live
}

pub(crate) fn removed(asker: &Arc<Asker>) -> AcquireError {
    let function = asker.function.clone();
    AcquireError::Removed { function }
}

pub(crate) fn closed(asker: &Arc<Asker>) -> AcquireError {
    let asker = asker.clone();
    AcquireError::Closed { asker }
}

pub(crate) fn stack_too_small(asker: &Arc<Asker>, source: StackTooSmall) -> AcquireError {
    let asker = asker.clone();
    AcquireError::StackTooSmall { asker, source }
}

pub(crate) fn would_block(asker: &Arc<Asker>, waiting_for: WaitingFor) -> AcquireError {
    let asker = asker.clone();
    AcquireError::WouldBlock { asker, waiting_for }
}
