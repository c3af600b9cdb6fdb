//! A guest that runs as a task: polled with its purse open, stopped when asked or late.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use crate::pool::hot::slots::Slot;
use crate::pool::time::timekeeper::Pulse;
use crate::runtime::{Purse, Stop};

/// Under what a guest's future is polled.
pub(crate) struct Watch<'a, T: Send + 'static> {
    pub pulse: &'a Pulse,
    pub slot: Option<&'a Slot<T>>,
    pub purse: &'a Arc<Purse>,
    pub stop: &'a Stop,
    /// Nanoseconds on the pool's clock.
    pub ends: u64,
}

/// Why a guest's future is dropped before it is ready.
pub(crate) enum Ended {
    Cancelled,
    Late,
}

impl<T: Send + 'static> Watch<'_, T> {
    pub async fn run<F: Future>(&self, future: F) -> Result<F::Output, Ended> {
        let mut future = pin!(future);
        let mut alarm = None;
        poll_fn(|context| {
            if self.stop.is_asked() {
                return Poll::Ready(Err(Ended::Cancelled));
            }
            if self.pulse.now() >= self.ends {
                return Poll::Ready(Err(Ended::Late));
            }
            let polled = {
                let _purse = self.purse.open();
                let _calling = self.slot.map(Slot::begin_call);
                future.as_mut().poll(context)
            };
            if polled.is_pending() {
                let waker = context.waker();
                self.stop.listen(waker.clone());
                if self.ends != u64::MAX {
                    alarm = None;
                    alarm = Some(self.pulse.alarms.set(self.ends, waker.clone(), self.pulse));
                }
            }
            polled.map(Ok)
        })
        .await
    }
}
