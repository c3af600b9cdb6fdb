//! A guest that runs as a task: each poll charges new stacks to its instance, and looks whether it is
//! cancelled or late, or its lease is to stop.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use crate::pool::hot::entry::Entry;
use crate::pool::hot::meter::Meter;
use crate::pool::hot::slots::Slot;
use crate::pool::service::suspended::Suspended;
use crate::pool::time::alarms::PollAlarm;
use crate::runtime::{CancelFlag, StackQuota};

/// Under what a guest's future is polled.
pub(crate) struct GuestPoll<'a, T: Send + 'static> {
    pub entry: &'a Entry<T>,
    pub slot: Option<&'a Slot<T>>,
    /// What the time of its polls is counted by, if it is.
    pub meter: Option<&'a Meter>,
    pub stack_quota: Arc<StackQuota>,
    pub cancel: &'a CancelFlag,
    /// Nanoseconds on the pool's clock.
    pub ends: u64,
}

/// Why a guest's future is dropped before it is ready.
pub(crate) enum Ended {
    Cancelled,
    Late,
}

impl<T: Send + 'static> GuestPoll<'_, T> {
    pub async fn run<F: Future>(&self, guest: impl FnOnce() -> F) -> Result<F::Output, Ended> {
        let mut future = pin!(guest());
        let mut alarm = PollAlarm::new(&self.entry.timekeeper);
        let mut suspension = None;
        let mut is_new = true;
        poll_fn(|context| {
            if self.is_cancelled() {
                return Poll::Ready(Err(Ended::Cancelled));
            }
            // A call that begins a beat too late is ended by the epoch, as it runs, or by its next poll: it need not
            // ask the system for the time.
            let now = match std::mem::take(&mut is_new) {
                true => self.entry.timekeeper.roughly_now(),
                false => self.entry.timekeeper.now(),
            };
            if now >= self.ends {
                return Poll::Ready(Err(Ended::Late));
            }
            let polled = {
                let _charged_to = self.stack_quota.open();
                let _calling = self.slot.map(Slot::begin_call);
                let clock = self.entry.guest_clock();
                let began = self.meter.map(|meter| (meter, clock.now()));
                let polled = future.as_mut().poll(context);
                if let Some((meter, began)) = began {
                    meter.add_time(began, clock);
                }
                polled
            };
            if polled.is_pending() {
                self.cancel.notify(context.waker());
                alarm.set(self.ends, context.waker());
                if suspension.is_none() {
                    suspension = self.suspension();
                }
                if let Some(suspension) = &suspension {
                    suspension.of.list(suspension.slot, context.waker());
                }
                // Whoever has said so before the task was listed wakes nobody.
                if self.is_cancelled() {
                    return Poll::Ready(Err(Ended::Cancelled));
                }
            }
            polled.map(Ok)
        })
        .await
    }

    fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled() || self.slot.is_some_and(Slot::is_stopped)
    }

    fn suspension(&self) -> Option<Suspension> {
        let pool = self.entry.pool.upgrade()?;
        Some(Suspension {
            slot: self.slot?.address(),
            of: pool.suspended.clone(),
        })
    }
}

/// The task waits, and is listed for that until it does not any more, however that ends.
struct Suspension {
    slot: usize,
    /// Not the pool, which ends with its handles.
    of: Arc<Suspended>,
}

impl Drop for Suspension {
    fn drop(&mut self) {
        self.of.unlist(self.slot);
    }
}
