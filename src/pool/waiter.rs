//! Somebody who waits until he is told something: a thread that sleeps, or a task that is polled.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::acquire::Deadline;
use super::alarms::Alarm;
use super::block_on::poll_again_at;
use super::clock::Pulse;
use super::entry::Live;
use super::shared::Signal;
use crate::runtime::{discard, wake};
use crate::sync::Mutex;

/// What a waiter is told, or handed.
pub(crate) enum Mail<T: Send + 'static> {
    Instance(Box<Live<T>>),
    Signal(Signal<T>),
}

pub(crate) struct Waiter<T: Send + 'static>(Mutex<Letterbox<T>>);

struct Letterbox<T: Send + 'static> {
    mail: Option<Mail<T>>,
    /// Who reads it.
    reader: Option<Waker>,
    /// Nobody will ever read it.
    closed: bool,
}

impl<T: Send + 'static> Waiter<T> {
    pub fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Letterbox {
            mail: None,
            reader: None,
            closed: false,
        })))
    }

    /// Never under the pool's lock: it wakes. Mail that nobody will read comes back.
    pub fn deliver(&self, mail: Mail<T>) -> Option<Mail<T>> {
        let reader = {
            let mut letterbox = self.0.lock();
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
        let mut letterbox = self.0.lock();
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
            let mut letterbox = self.waiter.0.lock();
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
