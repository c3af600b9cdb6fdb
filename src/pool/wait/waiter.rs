//! Somebody who waits until he is told something: a thread that sleeps, or a task that is polled.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::pool::hot::entry::Live;
use crate::pool::service::unread::Parcel;
use crate::pool::shared::{RequestId, Shared, Signal};
use crate::pool::time::alarms::Alarm;
use crate::pool::time::deadline::Deadline;
use crate::pool::time::timekeeper::Pulse;
use crate::pool::wait::block_on::poll_again_at;
use crate::pool::wait::policy::Patience;
use crate::runtime::{discard, wake};
use crate::sync::Mutex;

/// What a waiter is told, or handed.
pub(crate) enum Mail<T: Send + 'static> {
    Instance(Box<Live<T>>),
    Signal(Signal<T>),
}

pub(crate) struct Waiter<T: Send + 'static> {
    letterbox: Mutex<Letterbox<T>>,
    /// The deadline of a task, which nobody may ever poll again: what it has not read by then is taken back.
    /// `u64::MAX` for none, and for threads.
    expires: u64,
    /// Set if it waits for a compilation as long as that takes: nanoseconds that it has to read what it is told
    /// then.
    slack: Option<u64>,
    /// The request that waits.
    request: Option<RequestId<T>>,
}

struct Letterbox<T: Send + 'static> {
    mail: Option<Mail<T>>,
    /// Who reads it.
    reader: Option<Waker>,
    /// Nobody will ever read it.
    closed: bool,
}

impl<T: Send + 'static> Waiter<T> {
    pub fn new() -> Arc<Self> {
        Self::of(Patience::None, None)
    }

    /// Of an acquire, and of the request that it has, if it has one.
    pub fn of(patience: Patience, request: Option<RequestId<T>>) -> Arc<Self> {
        let deadline = patience.deadline().filter(Deadline::needs_an_alarm);
        Arc::new(Self {
            letterbox: Mutex::new(Letterbox {
                mail: None,
                reader: None,
                closed: false,
            }),
            expires: deadline.map_or(u64::MAX, |deadline| deadline.ends),
            slack: None,
            request,
        })
    }

    /// Of a request that waits for a compilation.
    pub fn of_compilation(
        patience: Patience,
        request: RequestId<T>,
        slack: Option<u64>,
    ) -> Arc<Self> {
        let mut waiter = Self::of(patience, Some(request));
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
    pub fn deliver(&self, mail: Mail<T>) -> Option<Mail<T>> {
        let reader = {
            let mut letterbox = self.letterbox.lock();
            if letterbox.closed {
                return Some(mail);
            }
            letterbox.mail = Some(mail);
            letterbox.reader.take()
        };
        if let Some(reader) = reader {
            wake(reader);
        }
        None
    }

    /// Waits no more. Mail that came, and was not read, is given back.
    pub fn close(&self) -> Option<Mail<T>> {
        let mut letterbox = self.letterbox.lock();
        letterbox.closed = true;
        letterbox.mail.take()
    }

    /// The next mail, or `None` when the deadline comes first.
    pub fn mail<'a>(&'a self, deadline: Option<Deadline>, pulse: &'a Pulse) -> Awaited<'a, T> {
        Awaited {
            waiter: self,
            deadline,
            pulse,
            alarm: None,
        }
    }
}

/// Mail, awaited; see [`Waiter::mail`].
pub(crate) struct Awaited<'a, T: Send + 'static> {
    waiter: &'a Waiter<T>,
    deadline: Option<Deadline>,
    pulse: &'a Pulse,
    /// Polls a task again when its deadline comes. A thread sees to that itself.
    alarm: Option<Alarm<'a>>,
}

impl<T: Send + 'static> Future for Awaited<'_, T> {
    type Output = Option<Mail<T>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // The clock may be the host's, and the waker is: neither under the lock.
        let is_late = |deadline: Deadline| self.pulse.now() >= deadline.ends;
        let late = self.deadline.is_some_and(is_late);
        let reader = cx.waker().clone();
        let before = {
            let mut letterbox = self.waiter.letterbox.lock();
            if letterbox.mail.is_some() || late {
                return Poll::Ready(letterbox.mail.take());
            }
            letterbox.reader.replace(reader)
        };
        discard(before);
        match self.deadline {
            Some(deadline) if deadline.needs_an_alarm() => {
                let pulse = self.pulse;
                self.alarm = None;
                self.alarm = Some(pulse.alarms.set(deadline.ends, cx.waker().clone(), pulse));
            }
            Some(deadline) => poll_again_at(deadline.ends),
            None => {}
        }
        Poll::Pending
    }
}

impl<T: Send + 'static> Parcel<T> for Waiter<T> {
    fn is_collected(&self) -> bool {
        self.letterbox.lock().mail.is_none()
    }

    fn take_back(&self, pool: &Shared<T>) {
        // Should it be polled after all, it is told that it is late.
        let unread = {
            let mut letterbox = self.letterbox.lock();
            match &mut letterbox.mail {
                Some(mail) => Some(std::mem::replace(mail, Mail::Signal(Signal::Late))),
                None => None,
            }
        };
        let Some(unread) = unread else {
            return;
        };
        pool.return_to_sender(unread);
        if let Some(request) = self.request {
            pool.with_state(|locked, _, out| locked.state.abandon(request, out));
        }
    }
}
