//! What is awaited until a deadline, by a thread or a task.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use crate::pool::time::alarms::PollAlarm;
use crate::pool::time::deadline::Deadline;
use crate::pool::time::timekeeper::Timekeeper;
use crate::pool::wait::block_on::poll_again_at;

/// The future's output, or `None` when the deadline comes first.
pub(crate) async fn until<F: Future>(
    future: F,
    deadline: Option<Deadline>,
    timekeeper: &Timekeeper,
) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut alarm = PollAlarm::new(timekeeper);
    poll_fn(|context| {
        if let Poll::Ready(output) = future.as_mut().poll(context) {
            return Poll::Ready(Some(output));
        }
        let Some(deadline) = deadline else {
            return Poll::Pending;
        };
        if timekeeper.now() >= deadline.ends {
            return Poll::Ready(None);
        }
        match deadline.needs_an_alarm() {
            true => alarm.set(deadline.ends, context.waker()),
            false => poll_again_at(deadline.ends),
        }
        Poll::Pending
    })
    .await
}
