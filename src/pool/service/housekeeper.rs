//! The thread that keeps house: it sweeps out what has been idle for too long, and tells metrics and
//! listeners. Host code may hold it up or panic on it: deadlines are kept elsewhere.

use std::sync::{Arc, Weak};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use parking_lot::Mutex;

use crate::pool::shared::Shared;
use crate::pool::time::threads::Threads;
use crate::runtime::guarded;

/// The pool's hold on its housekeeper, if it has one.
pub(crate) struct Housekeeper {
    threads: Threads,
    /// Dropped to end it.
    running: Mutex<Option<Sender<()>>>,
}

impl Housekeeper {
    /// No thread: the host sweeps by hand.
    pub fn none() -> Self {
        Self {
            threads: Threads::new(),
            running: Mutex::new(None),
        }
    }

    /// Starts the thread, which sweeps once in a period.
    ///
    /// # Errors
    /// The system's, which has no thread to give.
    pub fn start<T: Send + 'static>(
        &self,
        pool: Weak<Shared<T>>,
        period: Duration,
    ) -> std::io::Result<()> {
        let (sender, until_dropped) = bounded(0);
        *self.running.lock() = Some(sender);
        (self.threads).start("wasm-pool", move || run(&pool, &until_dropped, period))
    }

    /// Ends the thread, and waits for that. It holds the pool while it runs host code, so whoever drops the
    /// last handle waits for none.
    pub fn stop(&self) {
        drop(self.running.lock().take());
        self.threads.join();
    }
}

fn run<T: Send + 'static>(pool: &Weak<Shared<T>>, until_dropped: &Receiver<()>, period: Duration) {
    while until_dropped.recv_timeout(period) == Err(RecvTimeoutError::Timeout) {
        let Some(pool) = pool.upgrade() else { return };
        keep_house(&pool);
        // It may be the last handle.
        guarded("the end of a pool", || drop(pool));
    }
}

fn keep_house<T: Send + 'static>(pool: &Arc<Shared<T>>) {
    // A lease that slipped through the pause is found here at the latest.
    if pool.is_anything_leased() {
        pool.timekeeper.keep_ticking();
    }
    guarded("a sweep", || pool.evict_and_report());
    pool.rest_if_idle();
}
