//! A guest that runs as a task: each poll charges new stacks to its instance, and looks whether it is
//! cancelled or late.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use crate::pool::hot::slots::Slot;
use crate::pool::time::alarms::PollAlarm;
use crate::pool::time::timekeeper::Timekeeper;
use crate::runtime::{CancelFlag, StackQuota};

/// Under what a guest's future is polled.
pub(crate) struct GuestPoll<'a, T: Send + 'static> {
    pub timekeeper: &'a Timekeeper,
    pub slot: Option<&'a Slot<T>>,
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
        let mut alarm = PollAlarm::new(self.timekeeper);
        let mut is_new = true;
        poll_fn(|context| {
            if self.cancel.is_cancelled() {
                return Poll::Ready(Err(Ended::Cancelled));
            }
            // A call that begins a beat too late is ended by the epoch, as it runs, or by its next poll: it need not
            // ask the system for the time.
            let now = match std::mem::take(&mut is_new) {
                true => self.timekeeper.roughly_now(),
                false => self.timekeeper.now(),
            };
            if now >= self.ends {
                return Poll::Ready(Err(Ended::Late));
            }
            let polled = {
                let _charged_to = self.stack_quota.open();
                let _calling = self.slot.map(Slot::begin_call);
                future.as_mut().poll(context)
            };
            if polled.is_pending() {
                self.cancel.notify(context.waker());
                alarm.set(self.ends, context.waker());
            }
            polled.map(Ok)
        })
        .await
    }
}
