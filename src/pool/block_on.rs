//! Runs on a thread what tasks would run by being polled: the slow path of an acquire is written
//! once, for both.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use super::clock::Pulse;
use crate::sync::{Condvar, Mutex};

/// A thread that sleeps until it is woken.
struct Sleeper {
    woken: Mutex<bool>,
    bell: Condvar,
}

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        *self.woken.lock() = true;
        self.bell.notify_one();
    }
}

/// Polls the future whenever it is woken, and when `until` comes (nanoseconds on the pool's clock).
pub(crate) fn block_on<F: Future>(future: F, until: Option<u64>, pulse: &Pulse) -> F::Output {
    let mut future = pin!(future);
    let sleeper = Arc::new(Sleeper {
        woken: Mutex::new(false),
        bell: Condvar::new(),
    });
    let waker = Waker::from(sleeper.clone());
    let mut context = Context::from_waker(&waker);
    loop {
        let is_late = until.is_some_and(|until| pulse.now() >= until);
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        // What has seen that it is late and still is not ready waits for something certain.
        sleeper.sleep(until.filter(|_| !is_late), pulse);
    }
}

impl Sleeper {
    fn sleep(&self, until: Option<u64>, pulse: &Pulse) {
        loop {
            // The clock may be the host's: not under the lock.
            let remaining = until.map(|until| until.saturating_sub(pulse.now()));
            if remaining == Some(0) {
                return;
            }
            let slice = remaining.map(|remaining| pulse.sleep_for(remaining));
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
