//! Runs on a thread what tasks would run by being polled: the slow path of an acquire is written
//! once, for both.

use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use crate::pool::time::timekeeper::Timekeeper;
use crate::pool::wait::spin::Waiting;
use crate::sync::{AtomicBool, Condvar, Mutex, Ordering, thread_local};

/// A thread that sleeps until it is woken.
struct Parker {
    woken: AtomicBool,
    /// Until it is woken.
    waiting: Waiting,
    /// Held by the thread from its last look at `woken` until it sleeps.
    falling_asleep: Mutex<()>,
    bell: Condvar,
}

impl Wake for Parker {
    fn wake(self: Arc<Self>) {
        self.waiting.end();
        self.woken.store(true, Ordering::Release);
        // Whoever has seen it unset sleeps by the time that this has the lock, and hears the bell.
        drop(self.falling_asleep.lock());
        self.bell.notify_one();
    }
}

thread_local! {
    /// When this thread's future wants to be polled again, if nothing wakes it before.
    static AGAIN_AT: Cell<u64> = const { Cell::new(u64::MAX) };
    /// Whether what it waits for may come at any moment.
    static SOON: Cell<bool> = const { Cell::new(false) };
}

/// Says, while it is polled and pending, that it wants to be polled again at this time at the latest
/// (nanoseconds on the pool's clock).
pub(crate) fn poll_again_at(time: u64) {
    AGAIN_AT.with(|at| at.set(at.get().min(time)));
}

/// Says, while it is polled and pending, that what it waits for may come at any moment: not worth going to sleep.
pub(crate) fn may_come_soon() {
    SOON.with(|soon| soon.set(true));
}

/// What is polled may run host code, which may block on another future: that one leaves no trace.
struct Outer(u64, bool);

impl Drop for Outer {
    fn drop(&mut self) {
        AGAIN_AT.with(|at| at.set(self.0));
        SOON.with(|soon| soon.set(self.1));
    }
}

/// Polls the future whenever it is woken, and when it wants to be.
pub(crate) fn block_on<F: Future>(future: F, timekeeper: &Timekeeper) -> F::Output {
    let mut future = pin!(future);
    let parker = Arc::new(Parker {
        woken: AtomicBool::new(false),
        waiting: Waiting::new(),
        falling_asleep: Mutex::new(()),
        bell: Condvar::new(),
    });
    let waker = Waker::from(parker.clone());
    let mut context = Context::from_waker(&waker);
    let _outer = Outer(AGAIN_AT.with(Cell::get), SOON.with(Cell::get));
    loop {
        AGAIN_AT.with(|at| at.set(u64::MAX));
        SOON.with(|soon| soon.set(false));
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        let until = AGAIN_AT.with(Cell::get);
        if SOON.with(Cell::get) {
            parker.waiting.begin();
            (parker.waiting).spin_until(|| parker.woken.load(Ordering::Acquire));
        }
        parker.sleep((until != u64::MAX).then_some(until), timekeeper);
        parker.waiting.end();
    }
}

impl Parker {
    fn sleep(&self, until: Option<u64>, timekeeper: &Timekeeper) {
        loop {
            if self.woken.swap(false, Ordering::AcqRel) {
                return;
            }
            // The clock may be the host's: not under the lock.
            let remaining = until.map(|until| until.saturating_sub(timekeeper.now()));
            if remaining == Some(0) {
                return;
            }
            let slice = remaining.map(|remaining| timekeeper.sleep_for(remaining));
            let mut falling_asleep = self.falling_asleep.lock();
            if self.woken.load(Ordering::Acquire) {
                continue;
            }
            match slice {
                Some(slice) => {
                    self.bell.wait_for(&mut falling_asleep, slice);
                }
                None => self.bell.wait(&mut falling_asleep),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Or whoever waits for it in turn would see no processor for itself, for as long as it takes to wake up.
    #[test]
    fn who_is_woken_counts_no_more_while_it_wakes_up() {
        // The model checker, under which nobody spins, builds this file too, and has no execution here.
        if !crate::sync::SPINS {
            return;
        }
        let parker = Arc::new(Parker {
            woken: AtomicBool::new(false),
            waiting: Waiting::new(),
            falling_asleep: Mutex::new(()),
            bell: Condvar::new(),
        });
        parker.waiting.begin();
        assert!(parker.waiting.counts());
        parker.clone().wake();
        assert!(!parker.waiting.counts());
        parker.waiting.end();
        parker.waiting.begin();
        assert!(parker.waiting.counts());
    }
}
