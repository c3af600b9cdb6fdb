//! Somebody who waits until it is told something: a thread that sleeps, or a task that is polled.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::pool::time::alarms::PollAlarm;
use crate::pool::time::deadline::Deadline;
use crate::pool::time::timekeeper::Timekeeper;
use crate::pool::wait::block_on::{may_come_soon, poll_again_at};
use crate::pool::wait::policy::WaitPolicy;
use crate::runtime::WakerCell;
use crate::sync::Mutex;

/// What waiters are told.
pub(crate) trait Message: Sized {
    /// On whose behalf one waits.
    type Request: Copy;

    /// What is left for a waiter whose message was taken back.
    fn too_late() -> Self;
}

pub(crate) struct Waiter<M: Message> {
    mailbox: Mutex<Mailbox<M>>,
    waker: WakerCell,
    /// The deadline of a task, which nobody may ever poll again: what it has not read by then is taken back.
    /// `u64::MAX` for none, and for threads.
    expires: u64,
    /// Set if it waits for a compilation as long as that takes: nanoseconds that it has to read what it is told
    /// then.
    slack: Option<u64>,
    /// The request that waits. Who has none waits for a lease to end, and those are short.
    request: Option<M::Request>,
}

struct Mailbox<M> {
    message: Option<M>,
    /// Nobody will ever read it.
    closed: bool,
}

impl<M: Message> Waiter<M> {
    pub fn new() -> Arc<Self> {
        Self::of(WaitPolicy::None, None)
    }

    /// Of an acquire, and of the request that it has, if it has one.
    pub fn of(wait_policy: WaitPolicy, request: Option<M::Request>) -> Arc<Self> {
        Self::with_slack(wait_policy, request, None)
    }

    /// As `of`, for a request that waits for a compilation.
    pub fn with_slack(
        wait_policy: WaitPolicy,
        request: Option<M::Request>,
        slack: Option<u64>,
    ) -> Arc<Self> {
        let deadline = wait_policy.deadline().filter(Deadline::needs_an_alarm);
        Arc::new(Self {
            mailbox: Mutex::new(Mailbox {
                message: None,
                closed: false,
            }),
            waker: WakerCell::default(),
            expires: deadline.map_or(u64::MAX, |deadline| deadline.ends),
            slack,
            request,
        })
    }

    pub fn request(&self) -> Option<M::Request> {
        self.request
    }

    /// Whether what it is told may have to be taken back.
    pub fn is_of_a_task(&self) -> bool {
        self.expires != u64::MAX
    }

    /// When what it is told now is to be taken back, if nobody has read it by then.
    pub fn expires(&self, now: u64) -> u64 {
        let later = |slack: u64| now.saturating_add(slack);
        self.slack.map_or(0, later).max(self.expires)
    }

    /// Never under the pool's lock: it wakes. A message that nobody will read comes back.
    pub fn deliver(&self, message: M) -> Option<M> {
        {
            let mut mailbox = self.mailbox.lock();
            if mailbox.closed {
                return Some(message);
            }
            mailbox.message = Some(message);
        }
        self.waker.wake();
        None
    }

    /// Waits no more. A message that came, and was not read, is given back.
    pub fn close(&self) -> Option<M> {
        let mut mailbox = self.mailbox.lock();
        mailbox.closed = true;
        mailbox.message.take()
    }

    /// Takes back a message that nobody has read. Whoever reads after all is told that it is too late.
    pub fn take_back(&self) -> Option<M> {
        let mut mailbox = self.mailbox.lock();
        let message = mailbox.message.as_mut()?;
        Some(std::mem::replace(message, M::too_late()))
    }

    /// Whether there is nothing to take back.
    pub fn is_empty(&self) -> bool {
        self.mailbox.lock().message.is_none()
    }

    /// The next message, or `None` when the deadline comes first.
    pub fn next<'a>(
        &'a self,
        deadline: Option<Deadline>,
        timekeeper: &'a Timekeeper,
    ) -> NextMessage<'a, M> {
        NextMessage {
            waiter: self,
            deadline,
            timekeeper,
            alarm: PollAlarm::new(timekeeper),
        }
    }
}

/// A message, awaited; see [`Waiter::next`].
pub(crate) struct NextMessage<'a, M: Message> {
    waiter: &'a Waiter<M>,
    deadline: Option<Deadline>,
    timekeeper: &'a Timekeeper,
    /// Polls a task again when its deadline comes. A thread sees to that itself.
    alarm: PollAlarm<'a>,
}

impl<M: Message> Future for NextMessage<'_, M> {
    type Output = Option<M>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.waiter.waker.set(cx.waker());
        // The clock may be the host's: not under the lock.
        let is_late = |deadline: Deadline| self.timekeeper.now() >= deadline.ends;
        let late = self.deadline.is_some_and(is_late);
        let message = self.waiter.mailbox.lock().message.take();
        if message.is_some() || late {
            return Poll::Ready(message);
        }
        match self.deadline {
            Some(deadline) if deadline.needs_an_alarm() => {
                self.alarm.set(deadline.ends, cx.waker());
            }
            Some(deadline) => {
                poll_again_at(deadline.ends);
                if self.waiter.request.is_none() {
                    may_come_soon();
                }
            }
            None => {}
        }
        Poll::Pending
    }
}
