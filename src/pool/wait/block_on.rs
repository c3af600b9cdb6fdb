//! Runs on a thread what tasks would run by being polled: the slow path of an acquire is written
//! once, for both.

use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use crate::pool::time::timekeeper::Timekeeper;
use crate::sync::{Condvar, Mutex, thread_local};

/// A thread that sleeps until it is woken.
struct Parker {
    woken: Mutex<bool>,
    bell: Condvar,
}

impl Wake for Parker {
    fn wake(self: Arc<Self>) {
        *self.woken.lock() = true;
        self.bell.notify_one();
    }
}

thread_local! {
    /// When this thread's future wants to be polled again, if nothing wakes it before.
    static AGAIN_AT: Cell<u64> = const { Cell::new(u64::MAX) };
}

/// Says, while it is polled and pending, that it wants to be polled again at this time at the latest
/// (nanoseconds on the pool's clock).
pub(crate) fn poll_again_at(time: u64) {
    AGAIN_AT.with(|at| at.set(at.get().min(time)));
}

/// What is polled may run host code, which may block on another future: that one leaves no trace.
struct Outer(u64);

impl Drop for Outer {
    fn drop(&mut self) {
        AGAIN_AT.with(|at| at.set(self.0));
    }
}

/// Polls the future whenever it is woken, and when it wants to be.
pub(crate) fn block_on<F: Future>(future: F, timekeeper: &Timekeeper) -> F::Output {
    let mut future = pin!(future);
    let parker = Arc::new(Parker {
        woken: Mutex::new(false),
        bell: Condvar::new(),
    });
    let waker = Waker::from(parker.clone());
    let mut context = Context::from_waker(&waker);
    let _outer = Outer(AGAIN_AT.with(Cell::get));
    loop {
        AGAIN_AT.with(|at| at.set(u64::MAX));
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        let until = AGAIN_AT.with(Cell::get);
        parker.sleep((until != u64::MAX).then_some(until), timekeeper);
    }
}

impl Parker {
    fn sleep(&self, until: Option<u64>, timekeeper: &Timekeeper) {
        loop {
            // The clock may be the host's: not under the lock.
            let remaining = until.map(|until| until.saturating_sub(timekeeper.now()));
            if remaining == Some(0) {
                return;
            }
            let slice = remaining.map(|remaining| timekeeper.sleep_for(remaining));
            let mut woken = self.woken.lock();
            if !*woken {
                match slice {
                    Some(slice) => {
                        self.bell.wait_for(&mut woken, slice);
                    }
                    None => self.bell.wait(&mut woken),
                }
            }
            if std::mem::take(&mut *woken) {
                return;
            }
        }
    }
}
