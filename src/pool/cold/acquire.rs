//! The slow path of an acquire: take what is idle after all, wait for a lease to end, or make an
//! instance.

use std::sync::Arc;
use std::time::Duration;

use crate::pool::api::acquire_options::AcquireOptions;
use crate::pool::api::error::{AcquireError, WaitingFor};
use crate::pool::api::group_limit::GroupLimit;
use crate::pool::api::target::Target;
use crate::pool::cold::in_queue::InQueue;
use crate::pool::hot::entry::Entry;
use crate::pool::hot::pooled_instance::PooledInstance;
use crate::pool::hot::thread::thread_number;
use crate::pool::shared::{Context, InstanceId, Locked, RequestId, Shared, Signal, State};
use crate::pool::time::clock::nanos;
use crate::pool::time::deadline::Deadline;
use crate::pool::wait::block_on::block_on;
use crate::pool::wait::policy::WaitPolicy;
use crate::pool::wakeup::{Waiter, Wakeup};
use crate::runtime::StackTooSmall;
use crate::state::{SeatOffer, SeatWait, Ticket, TooManyWait};

/// What to do once the lock is let go.
enum Step<T: Send + 'static> {
    Lease(Box<PooledInstance<T>>),
    Make(RequestId<T>),
    Wait(Arc<Waiter<T>>, Ticket, WaitingFor),
    Again,
    Fail(AcquireError),
}

impl<T: Send + 'static> Shared<T> {
    pub fn deadline(&self, wait: Duration) -> Deadline {
        let began = self.timekeeper.now();
        Deadline {
            began,
            ends: began.saturating_add(nanos(wait)),
            is_of_a_task: false,
            pauses: false,
        }
    }

    /// How long `acquire` waits.
    pub fn default_wait_policy(&self) -> WaitPolicy {
        self.wait_policy(AcquireOptions::new())
    }

    /// How an acquire with these options waits. What has no deadline of its own waits for compilations as long
    /// as they take.
    pub fn wait_policy(&self, options: AcquireOptions) -> WaitPolicy {
        let deadline = match options.deadline() {
            Some(timeout) => self.deadline(timeout),
            None => Deadline {
                pauses: true,
                ..self.deadline(self.settings.wait_timeout)
            },
        };
        match options.waits_for_room() {
            Some(true) => WaitPolicy::Room(deadline),
            None if self.settings.wait_for_room => WaitPolicy::Room(deadline),
            _ => WaitPolicy::Instance(deadline),
        }
    }

    /// Leases an instance of the entry, whatever it takes, on this thread. The caller has looked into
    /// the slots.
    pub fn acquire(
        self: &Arc<Self>,
        entry: &Arc<Entry<T>>,
        wait_policy: WaitPolicy,
    ) -> Result<Box<PooledInstance<T>>, AcquireError> {
        self.stack
            .check()
            .map_err(|source| stack_too_small(&entry.target, source))?;
        block_on(self.obtain(entry, wait_policy), &self.timekeeper)
    }

    /// The same, as a task or on a thread. Dropped before it is ready, it leaves nothing behind.
    pub async fn obtain(
        self: &Arc<Self>,
        entry: &Arc<Entry<T>>,
        wait_policy: WaitPolicy,
    ) -> Result<Box<PooledInstance<T>>, AcquireError> {
        loop {
            let wakeup = match self.find_seat(entry, wait_policy) {
                Step::Lease(pooled) => return Ok(pooled),
                Step::Make(request) => return self.make(entry, request, wait_policy).await,
                Step::Wait(waiter, ticket, what) => {
                    self.wait_for_seat(entry, &waiter, (ticket, what), wait_policy)
                        .await?
                }
                Step::Again => continue,
                Step::Fail(error) => return Err(error),
            };
            match wakeup {
                Wakeup::Instance(pooled) => return Ok(leased_again(entry, pooled)),
                Wakeup::Signal(Signal::Seat(request)) => {
                    return self.make(entry, request, wait_policy).await;
                }
                Wakeup::Signal(Signal::Gone) => return Err(removed(&entry.target)),
                Wakeup::Signal(Signal::Closed) => return Err(closed(&entry.target)),
                // `wait` has made an error of `Late` already.
                Wakeup::Signal(Signal::Retry | Signal::Late) => {}
            }
        }
    }

    fn find_seat(&self, entry: &Arc<Entry<T>>, wait_policy: WaitPolicy) -> Step<T> {
        let near = entry.preferred_seat();
        self.with_state(|locked, cx| {
            let idle = match locked.state.try_seat_near(entry.id, near, cx) {
                SeatOffer::Idle(id) => id,
                SeatOffer::Seat(request) => return Step::Make(request),
                SeatOffer::Quarantined(until) => {
                    let time_left = until.saturating_sub(locked.state.now());
                    return Step::Fail(AcquireError::Quarantined {
                        target: entry.target.clone(),
                        time_left: Duration::from_nanos(time_left),
                    });
                }
                SeatOffer::Gone => return Step::Fail(removed(&entry.target)),
                SeatOffer::Closed => return Step::Fail(closed(&entry.target)),
                SeatOffer::Barred => {
                    locked.state.count_refusal_of(entry.id);
                    return Step::Fail(beyond_limit(&entry.target, GroupLimit::Instances));
                }
                full @ (SeatOffer::Full | SeatOffer::GroupFull) => {
                    let waiting_for = match full {
                        SeatOffer::GroupFull => WaitingFor::GroupInstance,
                        _ => WaitingFor::Instance,
                    };
                    match self.queue_up(locked, cx, entry, wait_policy, waiting_for) {
                        Ok(id) => id,
                        Err(step) => return step,
                    }
                }
            };
            match cx.slots.take(idle) {
                Some(claimed) => Step::Lease(leased_again(entry, claimed.pooled)),
                // The core has just claimed it; nothing takes it out in between.
                None => Step::Fail(removed(&entry.target)),
            }
        })
    }

    /// Waits for an instance that somebody else has, unless that would be in vain; or an instance whose lease has ended just
    /// now.
    fn queue_up(
        &self,
        locked: &mut Locked<T>,
        cx: &mut Context<T>,
        entry: &Arc<Entry<T>>,
        wait_policy: WaitPolicy,
        waiting_for: WaitingFor,
    ) -> Result<InstanceId<T>, Step<T>> {
        let (thread, target) = (thread_number(), &entry.target);
        let Locked { state, blocked, .. } = locked;
        if wait_policy.deadline().is_none() {
            return Err(Step::Fail(would_block(target, waiting_for)));
        }
        if blocked.would_wait_for_itself(state, thread, entry.id) {
            let target = target.clone();
            return Err(Step::Fail(AcquireError::Deadlock { target }));
        }
        let waiter = Waiter::of(wait_policy, None);
        let (told, until) = (waiter.clone(), wait_policy.ends());
        match state.wait_for_seat(entry.id, told, until, cx) {
            SeatWait::Idle(id) => Ok(id),
            SeatWait::Queued(ticket) => {
                // A task has no thread that could wait for itself.
                if !wait_policy.is_of_a_task() {
                    blocked.begin(thread, entry.id);
                }
                Err(Step::Wait(waiter, ticket, waiting_for))
            }
            SeatWait::Again => Err(Step::Again),
            SeatWait::TooMany(TooManyWait(limit)) => {
                state.count_refusal_of(entry.id);
                Err(Step::Fail(beyond_limit(target, GroupLimit::Waiting(limit))))
            }
        }
    }

    async fn wait_for_seat(
        &self,
        entry: &Arc<Entry<T>>,
        waiter: &Waiter<T>,
        (ticket, waiting_for): (Ticket, WaitingFor),
        wait_policy: WaitPolicy,
    ) -> Result<Wakeup<T>, AcquireError> {
        let leave =
            || self.with_state(|locked, cx| locked.state.leave_seat_queue(entry.id, ticket, cx));
        let in_queue = InQueue {
            target: &entry.target,
            waiter,
            wait_policy,
            waiting_for,
        };
        let wakeup = self.wait(&in_queue, leave).await;
        if !wait_policy.is_of_a_task() {
            self.with_state(|locked, _| locked.blocked.end(thread_number()));
        }
        wakeup.map_err(|mut error| {
            if let AcquireError::Timeout { between_calls, .. } = &mut error {
                *between_calls = entry.leases_between_calls();
            }
            error
        })
    }
}

/// A lease begins, of an instance that was idle or is handed on.
fn leased_again<T: Send + 'static>(
    entry: &Entry<T>,
    pooled: Box<PooledInstance<T>>,
) -> Box<PooledInstance<T>> {
    entry.slot(pooled.seat).begin_lease(&entry.timekeeper);
    pooled
}

pub(crate) fn removed(target: &Arc<Target>) -> AcquireError {
    let target = target.clone();
    AcquireError::Removed { target }
}

pub(crate) fn closed(target: &Arc<Target>) -> AcquireError {
    let target = target.clone();
    AcquireError::Closed { target }
}

pub(crate) fn stack_too_small(target: &Arc<Target>, source: StackTooSmall) -> AcquireError {
    let target = target.clone();
    AcquireError::StackTooSmall { target, source }
}

pub(crate) fn beyond_limit(target: &Arc<Target>, limit: GroupLimit) -> AcquireError {
    let target = target.clone();
    AcquireError::GroupLimit { target, limit }
}

/// Why a request may not wait, if too many of its group do already.
pub(crate) fn refuse_to_wait<T: Send + 'static>(
    state: &mut State<T>,
    request: RequestId<T>,
    target: &Arc<Target>,
) -> Option<AcquireError> {
    let TooManyWait(limit) = state.begin_to_wait(request).err()?;
    state.count_refusal(request);
    Some(beyond_limit(target, GroupLimit::Waiting(limit)))
}

pub(crate) fn would_block(target: &Arc<Target>, waiting_for: WaitingFor) -> AcquireError {
    let target = target.clone();
    AcquireError::WouldBlock {
        target,
        waiting_for,
    }
}
