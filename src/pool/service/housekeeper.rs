//! The thread that keeps house: it sweeps out what has been idle for too long, and tells metrics and
//! listeners. Host code may hold it up or panic on it: deadlines are kept elsewhere.

use std::sync::Weak;
use std::time::Duration;

use crate::pool::time::threads::Threads;
use crate::runtime::guarded;
use crate::sync::unchecked::Mutex;
use crate::sync::unchecked::channel::{Receiver, RecvTimeoutError, Sender, bounded};

/// What is swept.
pub(crate) trait KeepHouse: Send + Sync + 'static {
    /// Once in a period. A panic of host code in it ends nothing else.
    fn keep_house(&self);
}

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
    pub fn start<P: KeepHouse>(&self, pool: Weak<P>, period: Duration) -> std::io::Result<()> {
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

fn run<P: KeepHouse>(pool: &Weak<P>, until_dropped: &Receiver<()>, period: Duration) {
    while until_dropped.recv_timeout(period) == Err(RecvTimeoutError::Timeout) {
        let Some(pool) = pool.upgrade() else { return };
        pool.keep_house();
        // It may be the last handle.
        guarded("the end of a pool", || drop(pool));
    }
}
