//! How an acquire waits in a queue, whichever it is.

use std::sync::Arc;
use std::time::Duration;

use crate::pool::api::error::{AcquireError, WaitingFor};
use crate::pool::api::target::Target;
use crate::pool::shared::{Shared, Signal};
use crate::pool::time::clock::nanos;
use crate::pool::time::deadline::Deadline;
use crate::pool::wait::policy::WaitPolicy;
use crate::pool::wakeup::{Waiter, Wakeup};

/// Whoever waits for a compilation checks at its deadline whether that still goes on; not more often than
/// this.
const RECHECK: Duration = Duration::from_millis(100);

/// Who waits in a queue of the core's.
pub(crate) struct InQueue<'a, T: Send + 'static> {
    pub target: &'a Arc<Target>,
    pub waiter: &'a Waiter<T>,
    pub wait_policy: WaitPolicy,
    pub waiting_for: WaitingFor,
}

impl<T: Send + 'static> Shared<T> {
    /// Waits until there is a message or the deadline comes. `leave` takes the waiter out of its queue and says
    /// whether it was still in there; if not, its message is under way, and is awaited. If the future is dropped
    /// meanwhile, it leaves the queue, and passes on what the message brings.
    pub(crate) async fn wait(
        &self,
        in_queue: &InQueue<'_, T>,
        leave: impl Fn() -> bool,
    ) -> Result<Wakeup<T>, AcquireError> {
        self.wait_while(in_queue, leave, || false).await
    }

    /// As `wait`, but when the deadline comes while `goes_on`, waits as long again; and once more when that is over, since what
    /// comes of it may not have been told yet.
    pub(crate) async fn wait_while(
        &self,
        in_queue: &InQueue<'_, T>,
        leave: impl Fn() -> bool,
        goes_on: impl Fn() -> bool,
    ) -> Result<Wakeup<T>, AcquireError> {
        let began = self.timekeeper.now();
        let waiter = in_queue.waiter;
        let mut deadline = in_queue.wait_policy.deadline();
        let mut place = LeaveOnDrop {
            pool: self,
            waiter,
            leave: Some(&leave),
        };
        let mut went_on = goes_on();
        let wakeup = loop {
            let wakeup = waiter.next(deadline, &self.timekeeper).await;
            if wakeup.is_some() {
                break wakeup;
            }
            let still_goes_on = goes_on();
            if !still_goes_on && !went_on {
                break None;
            }
            went_on = still_goes_on;
            let again = self.settings.wait_timeout.max(RECHECK);
            let ends = self.timekeeper.now().saturating_add(nanos(again));
            deadline = deadline.map(|deadline| Deadline { ends, ..deadline });
        };
        let wakeup = match wakeup {
            Some(wakeup) => wakeup,
            None if leave() => {
                place.leave = None;
                return Err(self.timeout(in_queue, began));
            }
            None => loop {
                // It has no deadline, so it does not end without a message.
                if let Some(wakeup) = waiter.next(None, &self.timekeeper).await {
                    break wakeup;
                }
            },
        };
        place.leave = None;
        if let Wakeup::Signal(Signal::Late) = wakeup {
            return Err(self.timeout(in_queue, began));
        }
        self.observer.waited(self.since(began), "served");
        Ok(wakeup)
    }

    fn timeout(&self, in_queue: &InQueue<'_, T>, began: u64) -> AcquireError {
        self.observer.waited(self.since(began), "timeout");
        let deadline = in_queue.wait_policy.deadline();
        AcquireError::Timeout {
            target: in_queue.target.clone(),
            waited: self.since(deadline.map_or(began, |deadline| deadline.began)),
            waiting_for: in_queue.waiting_for,
            shortage: None,
            between_calls: 0,
        }
    }

    fn since(&self, then: u64) -> Duration {
        Duration::from_nanos(self.timekeeper.now().saturating_sub(then))
    }
}

/// A place in some queue, until the wait is over.
struct LeaveOnDrop<'a, T: Send + 'static, Leave: Fn() -> bool> {
    pool: &'a Shared<T>,
    waiter: &'a Waiter<T>,
    /// `None` when it is over.
    leave: Option<&'a Leave>,
}

impl<T: Send + 'static, Leave: Fn() -> bool> Drop for LeaveOnDrop<'_, T, Leave> {
    fn drop(&mut self) {
        if let Some(leave) = self.leave {
            leave();
            if let Some(undelivered) = self.waiter.close() {
                self.pool.redirect(undelivered);
            }
        }
    }
}
