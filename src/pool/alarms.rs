//! Tasks that are to be polled again at some time, whatever else happens. The housekeeper sees to it;
//! without one, whoever calls `Pool::sweep` or `Pool::tick`.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Poll, Waker};

use super::acquire::Deadline;
use super::clock::Pulse;
use super::housekeeper::Control;
use crate::runtime::{discard, wake};
use crate::sync::Mutex;

pub(crate) struct Alarms(Mutex<Book>);

#[derive(Default)]
struct Book {
    /// By time, in nanoseconds on the pool's clock, and number.
    due: BTreeMap<(u64, u64), Waker>,
    set: u64,
}

/// An alarm that is set; dropping it takes it back.
pub(crate) struct Alarm<'a> {
    alarms: &'a Alarms,
    key: (u64, u64),
}

impl Alarms {
    pub fn new() -> Self {
        Self(Mutex::new(Book::default()))
    }

    pub fn set(&self, at: u64, waker: Waker, pulse: &Pulse) -> Alarm<'_> {
        let (key, is_first) = {
            let mut book = self.0.lock();
            book.set += 1;
            let key = (at, book.set);
            let is_first = book
                .due
                .first_key_value()
                .is_none_or(|(first, _)| key < *first);
            book.due.insert(key, waker);
            (key, is_first)
        };
        if is_first {
            pulse.send(Control::Alarm);
        }
        Alarm { alarms: self, key }
    }

    /// When the next one is due.
    pub fn next(&self) -> Option<u64> {
        let book = self.0.lock();
        book.due.first_key_value().map(|((at, _), _)| *at)
    }

    /// Wakes all that are due.
    pub fn ring(&self, now: u64) {
        let due = {
            let mut book = self.0.lock();
            let later = book.due.split_off(&(now.saturating_add(1), 0));
            std::mem::replace(&mut book.due, later)
        };
        due.into_values().for_each(wake);
    }
}

/// The future's output, or `None` when the deadline comes first.
pub(crate) async fn until<F: Future>(
    future: F,
    deadline: Option<Deadline>,
    pulse: &Pulse,
) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut alarm = None;
    poll_fn(|context| {
        if let Poll::Ready(output) = future.as_mut().poll(context) {
            return Poll::Ready(Some(output));
        }
        let Some(deadline) = deadline.filter(Deadline::needs_an_alarm) else {
            return Poll::Pending;
        };
        if pulse.now() >= deadline.ends {
            return Poll::Ready(None);
        }
        alarm = None;
        alarm = Some(
            pulse
                .alarms
                .set(deadline.ends, context.waker().clone(), pulse),
        );
        Poll::Pending
    })
    .await
}

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        // A waker is the host's: it is dropped outside of the lock.
        let waker = self.alarms.0.lock().due.remove(&self.key);
        discard(waker);
    }
}
