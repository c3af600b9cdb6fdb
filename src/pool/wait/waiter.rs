//! Somebody who waits until he is told something: a thread that sleeps, or a task that is polled.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::pool::hot::entry::PooledInstance;
use crate::pool::service::undelivered::Delivery;
use crate::pool::shared::{RequestId, Shared, Signal};
use crate::pool::time::alarms::Alarm;
use crate::pool::time::deadline::Deadline;
use crate::pool::time::timekeeper::Timekeeper;
use crate::pool::wait::block_on::poll_again_at;
use crate::pool::wait::policy::WaitPolicy;
use crate::runtime::{discard, wake};
use crate::sync::Mutex;

/// What a waiter is told, or handed.
pub(crate) enum Wakeup<T: Send + 'static> {
    Instance(Box<PooledInstance<T>>),
    Signal(Signal<T>),
}

pub(crate) struct Waiter<T: Send + 'static> {
    mailbox: Mutex<Mailbox<T>>,
    /// The deadline of a task, which nobody may ever poll again: what it has not read by then is taken back.
    /// `u64::MAX` for none, and for threads.
    expires: u64,
    /// Set if it waits for a compilation as long as that takes: nanoseconds that it has to read what it is told
    /// then.
    slack: Option<u64>,
    /// The request that waits.
    request: Option<RequestId<T>>,
}

struct Mailbox<T: Send + 'static> {
    wakeup: Option<Wakeup<T>>,
    /// Who reads it.
    waker: Option<Waker>,
    /// Nobody will ever read it.
    closed: bool,
}

impl<T: Send + 'static> Waiter<T> {
    pub fn new() -> Arc<Self> {
        Self::of(WaitPolicy::None, None)
    }

    /// Of an acquire, and of the request that it has, if it has one.
    pub fn of(wait_policy: WaitPolicy, request: Option<RequestId<T>>) -> Arc<Self> {
        let deadline = wait_policy.deadline().filter(Deadline::needs_an_alarm);
        Arc::new(Self {
            mailbox: Mutex::new(Mailbox {
                wakeup: None,
                waker: None,
                closed: false,
            }),
            expires: deadline.map_or(u64::MAX, |deadline| deadline.ends),
            slack: None,
            request,
        })
    }

    /// Of a request that waits for a compilation.
    pub fn of_compilation(
        wait_policy: WaitPolicy,
        request: RequestId<T>,
        slack: Option<u64>,
    ) -> Arc<Self> {
        let mut waiter = Self::of(wait_policy, Some(request));
        if let Some(waiter) = Arc::get_mut(&mut waiter) {
            waiter.slack = slack;
        }
        waiter
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

    /// Never under the pool's lock: it wakes. Mail that nobody will read comes back.
    pub fn deliver(&self, wakeup: Wakeup<T>) -> Option<Wakeup<T>> {
        let waker = {
            let mut mailbox = self.mailbox.lock();
            if mailbox.closed {
                return Some(wakeup);
            }
            mailbox.wakeup = Some(wakeup);
            mailbox.waker.take()
        };
        if let Some(waker) = waker {
            wake(waker);
        }
        None
    }

    /// Waits no more. Mail that came, and was not read, is given back.
    pub fn close(&self) -> Option<Wakeup<T>> {
        let mut mailbox = self.mailbox.lock();
        mailbox.closed = true;
        mailbox.wakeup.take()
    }

    /// The next mail, or `None` when the deadline comes first.
    pub fn wakeup<'a>(
        &'a self,
        deadline: Option<Deadline>,
        timekeeper: &'a Timekeeper,
    ) -> Awaited<'a, T> {
        Awaited {
            waiter: self,
            deadline,
            timekeeper,
            alarm: None,
        }
    }
}

/// Mail, awaited; see [`Waiter::wakeup`].
pub(crate) struct Awaited<'a, T: Send + 'static> {
    waiter: &'a Waiter<T>,
    deadline: Option<Deadline>,
    timekeeper: &'a Timekeeper,
    /// Polls a task again when its deadline comes. A thread sees to that itself.
    alarm: Option<Alarm<'a>>,
}

impl<T: Send + 'static> Future for Awaited<'_, T> {
    type Output = Option<Wakeup<T>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // The clock may be the host's, and the waker is: neither under the lock.
        let is_late = |deadline: Deadline| self.timekeeper.now() >= deadline.ends;
        let late = self.deadline.is_some_and(is_late);
        let waker = cx.waker().clone();
        let before = {
            let mut mailbox = self.waiter.mailbox.lock();
            if mailbox.wakeup.is_some() || late {
                return Poll::Ready(mailbox.wakeup.take());
            }
            mailbox.waker.replace(waker)
        };
        discard(before);
        match self.deadline {
            Some(deadline) if deadline.needs_an_alarm() => {
                let timekeeper = self.timekeeper;
                self.alarm = None;
                self.alarm = Some(timekeeper.alarms.set(
                    deadline.ends,
                    cx.waker().clone(),
                    timekeeper,
                ));
            }
            Some(deadline) => poll_again_at(deadline.ends),
            None => {}
        }
        Poll::Pending
    }
}

impl<T: Send + 'static> Delivery<T> for Waiter<T> {
    fn is_taken(&self) -> bool {
        self.mailbox.lock().wakeup.is_none()
    }

    fn take_back(&self, pool: &Shared<T>) {
        // Should it be polled after all, it is told that it is late.
        let undelivered = {
            let mut mailbox = self.mailbox.lock();
            match &mut mailbox.wakeup {
                Some(wakeup) => Some(std::mem::replace(wakeup, Wakeup::Signal(Signal::Late))),
                None => None,
            }
        };
        let Some(undelivered) = undelivered else {
            return;
        };
        pool.redirect(undelivered);
        if let Some(request) = self.request {
            pool.with_state(|locked, _, out| locked.state.abandon(request, out));
        }
    }
}
