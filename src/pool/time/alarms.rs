//! Tasks that are to be polled again at some time, whatever else happens. The ringers see to it, which are
//! threads of the pool's own; without a housekeeper there are none, and whoever calls `Pool::sweep` rings.
//!
//! A waker is host code, and may keep its ringer for ever. So before a ringer calls one, another is the
//! **sentry**: it sleeps until the next alarm, but while somebody rings no longer than [`PATROL`], and rings
//! itself if it finds that those who ring make no progress. There are two ringers at rest, and one more for each that
//! is kept, up to [`RINGERS`].

use std::collections::BTreeMap;
use std::task::Waker;
use std::time::Duration;

use crate::pool::time::timekeeper::Timekeeper;
use crate::runtime::{discard, guarded, wake};
use crate::sync::{Condvar, Mutex};

/// Ringers, at most: as many wakers less one may block at the same time before alarms are late.
const RINGERS: usize = 16;

/// How long those who ring may be stuck before the sentry takes over.
const PATROL: Duration = Duration::from_millis(2);

pub(crate) struct Alarms {
    book: Mutex<Book>,
    /// The first alarm is another one now, or all is over. For the sentry.
    sentry: Condvar,
    /// There is no sentry. For the ringer in reserve.
    standby: Condvar,
}

#[derive(Default)]
struct Book {
    /// By time, in nanoseconds on the pool's clock, and number.
    due: BTreeMap<(u64, u64), Waker>,
    set: u64,
    /// Alarms that were taken to be rung: while this grows, those who ring make progress.
    rung: u64,
    ringers: usize,
    /// Ringers that call a waker.
    ringing: usize,
    /// Whether a ringer is the sentry, and whether another is in reserve.
    has_sentry: bool,
    has_standby: bool,
    /// The pool is gone: only leases that outlived it have alarms.
    ending: bool,
}

/// What a ringer has seen before it takes the lock. Both clocks may be the host's.
struct Look {
    first: Option<u64>,
    now: u64,
    /// Until the first is due.
    sleep: Option<Duration>,
}

/// What a ringer does next.
enum Duty {
    Ring(Waker),
    /// The same, with a new ringer as sentry.
    RingAndStart(Waker),
    LookAgain,
    Leave,
}

impl Book {
    fn first(&self) -> Option<u64> {
        self.due.first_key_value().map(|((at, _), _)| *at)
    }

    fn take_due(&mut self, now: u64) -> Option<Waker> {
        if self.first()? > now {
            return None;
        }
        self.rung += 1;
        self.due.pop_first().map(|(_, waker)| waker)
    }

    fn leave(&mut self) -> Duty {
        self.ringers -= 1;
        Duty::Leave
    }
}

/// An alarm that is set; dropping it takes it back.
pub(crate) struct Alarm<'a> {
    alarms: &'a Alarms,
    key: (u64, u64),
}

impl Alarms {
    pub fn new() -> Self {
        Self {
            book: Mutex::new(Book::default()),
            sentry: Condvar::new(),
            standby: Condvar::new(),
        }
    }

    pub fn set(&self, at: u64, waker: Waker, timekeeper: &Timekeeper) -> Alarm<'_> {
        let mut book = self.book.lock();
        book.set += 1;
        let key = (at, book.set);
        let first = book.due.first_key_value();
        let is_first = first.is_none_or(|(first, _)| key < *first);
        book.due.insert(key, waker);
        if is_first {
            self.sentry.notify_one();
        }
        let no_sentry = !book.has_sentry && !book.has_standby && book.ringing == book.ringers;
        let start = no_sentry && book.ringers < RINGERS && timekeeper.has_threads();
        book.ringers += usize::from(start);
        drop(book);
        if start {
            self.start(timekeeper);
        }
        Alarm { alarms: self, key }
    }

    /// Wakes all that are due, on this thread.
    pub fn ring(&self, now: u64) {
        loop {
            let due = self.book.lock().take_due(now);
            match due {
                Some(waker) => wake(waker),
                None => return,
            }
        }
    }

    /// The pool is gone: ringers leave as soon as no lease is left that outlived it.
    pub fn end(&self) {
        let mut book = self.book.lock();
        book.ending = true;
        self.sentry.notify_all();
        self.standby.notify_all();
    }

    /// One more, that has been counted.
    fn start(&self, timekeeper: &Timekeeper) {
        let Some(timekeeper) = timekeeper.this.upgrade() else {
            return;
        };
        let threads = timekeeper.clone();
        let ring = move || timekeeper.alarms.run(&timekeeper);
        if let Err(error) = threads.threads.start("wasm-pool alarm", ring) {
            self.book.lock().ringers -= 1;
            guarded("a subscriber", || {
                tracing::error!(%error, "no thread to ring alarms on");
            });
        }
    }

    fn run(&self, timekeeper: &Timekeeper) {
        // What had been rung when this one last went to sleep; `None` while it rings.
        let mut seen = Some(u64::MAX);
        loop {
            let first = self.book.lock().first();
            let now = timekeeper.now();
            let sleep = first.map(|at| timekeeper.sleep_for(at.saturating_sub(now)));
            let waker = match self.next_duty(&Look { first, now, sleep }, &mut seen, timekeeper) {
                Duty::Leave => return,
                Duty::LookAgain => continue,
                Duty::Ring(waker) => waker,
                Duty::RingAndStart(waker) => {
                    self.start(timekeeper);
                    waker
                }
            };
            timekeeper.threads.aside(|| wake(waker));
            self.book.lock().ringing -= 1;
        }
    }

    fn next_duty(&self, look: &Look, seen: &mut Option<u64>, timekeeper: &Timekeeper) -> Duty {
        let mut book = self.book.lock();
        if book.ending && (book.due.is_empty() || timekeeper.orphans() == 0) {
            return book.leave();
        }
        if book.first() != look.first {
            return Duty::LookAgain;
        }
        let others_ring = book.ringing > 0 && seen.is_some_and(|seen| seen != book.rung);
        if !others_ring && let Some(waker) = book.take_due(look.now) {
            *seen = None;
            return self.ring_with_a_sentry(&mut book, waker);
        }
        if book.has_sentry && book.has_standby {
            return book.leave();
        }
        *seen = Some(book.rung);
        let is_due = look.first.is_some_and(|at| at <= look.now);
        if book.has_sentry {
            book.has_standby = true;
            self.standby.wait(&mut book);
            book.has_standby = false;
        } else {
            book.has_sentry = true;
            match look.sleep.map(|sleep| if is_due { PATROL } else { sleep }) {
                Some(sleep) => {
                    self.sentry.wait_for(&mut book, sleep);
                }
                None => self.sentry.wait(&mut book),
            }
            book.has_sentry = false;
        }
        Duty::LookAgain
    }

    /// Before a ringer calls host code, somebody else is the sentry.
    fn ring_with_a_sentry(&self, book: &mut Book, waker: Waker) -> Duty {
        book.ringing += 1;
        if book.has_sentry || book.ringers == RINGERS {
            return Duty::Ring(waker);
        }
        if book.has_standby {
            self.standby.notify_one();
            return Duty::Ring(waker);
        }
        book.ringers += 1;
        Duty::RingAndStart(waker)
    }
}

/// The alarm of a future that is polled: set anew by each poll that leaves it pending.
pub(crate) struct PollAlarm<'a> {
    timekeeper: &'a Timekeeper,
    alarm: Option<Alarm<'a>>,
}

impl<'a> PollAlarm<'a> {
    pub fn new(timekeeper: &'a Timekeeper) -> Self {
        Self {
            timekeeper,
            alarm: None,
        }
    }

    /// Polls again at this time, in nanoseconds on the pool's clock; never for `u64::MAX`.
    pub fn set(&mut self, at: u64, waker: &Waker) {
        // The one before goes first: it may be the only one that is set.
        self.alarm = None;
        if at != u64::MAX {
            let alarms = &self.timekeeper.alarms;
            self.alarm = Some(alarms.set(at, waker.clone(), self.timekeeper));
        }
    }
}

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        // A waker is the host's: it is dropped outside of the lock.
        let waker = self.alarms.book.lock().due.remove(&self.key);
        discard(waker);
    }
}
