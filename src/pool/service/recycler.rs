//! The thread that ends instances which are leased once, and makes the next ones: where guests are not trusted, what it
//! takes to give each lease an instance of its own is done here, and not while somebody waits.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::pool::hot::spent::Spent;
use crate::pool::time::threads::Threads;
use crate::runtime::guarded;
use crate::sync::unchecked::Mutex;
use crate::sync::unchecked::channel::{Receiver, RecvTimeoutError, Sender, bounded};

/// To wake it is a system call of the one who wakes it. So for a while after the last lease, the recycler looks by itself.
const NAP: Duration = Duration::from_millis(1);
const NAPS: u32 = 50;
/// More than so many are not left to it to destroy.
const MOST: usize = 256;

/// What a recycler does.
pub(crate) trait Recycle: Send + Sync + 'static {
    /// Ends what is spent, and makes what is wanted; whether there was anything to do. A panic of host code in it
    /// ends nothing else.
    fn recycle(&self) -> bool;

    /// Whether there is anything to do.
    fn has_work(&self) -> bool;
}

/// The pool's hold on its recycler, if it has one.
pub(crate) struct Recycler<I, C> {
    /// Instances (`I`) whose one lease has ended.
    pub spent: Arc<Spent<I>>,
    threads: Threads,
    /// Dropped to end it.
    bell: Mutex<Option<Sender<()>>>,
    /// What was taken out of `spent`, with what there is to do about it (`C`): it is to be destroyed.
    condemned: Mutex<VecDeque<C>>,
}

impl<I: Send + 'static, C> Recycler<I, C> {
    /// No thread.
    pub fn none() -> Self {
        Self {
            spent: Arc::new(Spent::new()),
            threads: Threads::new(),
            bell: Mutex::new(None),
            condemned: Mutex::new(VecDeque::new()),
        }
    }

    /// Starts the thread, once; its guests may take so many bytes of its stack.
    ///
    /// # Errors
    /// The system's, which has no thread to give.
    pub fn start<P: Recycle>(&self, pool: Weak<P>, stack_bytes: usize) -> std::io::Result<()> {
        let (sender, rung) = bounded(1);
        *self.bell.lock() = Some(sender);
        let spent = self.spent.clone();
        spent.open();
        let work = move || run(&pool, &spent, &rung);
        let started = (self.threads).start_with_stack("wasm-pool recycler", stack_bytes, work);
        if started.is_err() {
            self.spent.close();
            self.bell.lock().take();
        }
        started
    }

    /// Wakes it, from a nap too.
    pub fn ring(&self) {
        if let Some(bell) = &*self.bell.lock() {
            // Once is enough.
            let _ = bell.try_send(());
        }
    }

    /// There is something to do, for which a nap is not too long.
    pub fn wake(&self) {
        if self.spent.wake_sleeper() {
            self.ring();
        }
    }

    /// Leaves it these to destroy.
    pub fn condemn(&self, condemned: Vec<C>) {
        self.condemned.lock().extend(condemned);
        self.wake();
    }

    /// The longest condemned. One at a time: whoever destroys it may be held up by it.
    pub fn next_condemned(&self) -> Option<C> {
        self.condemned.lock().pop_front()
    }

    pub fn has_condemned(&self) -> bool {
        !self.condemned.lock().is_empty()
    }

    /// Whether others have to help it: there is none, or it has too much to do.
    pub fn needs_help(&self) -> bool {
        let count = self.condemned.lock().len();
        count > MOST || (count > 0 && !self.spent.is_open())
    }

    /// Ends the thread, and waits for that. What was left to it stays to be taken.
    pub fn stop(&self) {
        self.spent.close();
        drop(self.bell.lock().take());
        self.threads.join();
    }
}

fn run<P: Recycle, I>(weak: &Weak<P>, spent: &Spent<I>, rung: &Receiver<()>) {
    let mut naps = 0;
    loop {
        let Some(pool) = weak.upgrade() else { return };
        let worked = guarded("the recycler", || pool.recycle());
        // It may be the last handle.
        guarded("the end of a pool", || drop(pool));
        naps = match worked {
            Some(true) => 0,
            Some(false) | None => naps + 1,
        };
        let is_long = naps > NAPS;
        if !spent.begin_rest(is_long) {
            continue;
        }
        // Who saw it work, and not asleep, has left something before this look.
        if is_long && weak.upgrade().is_some_and(|pool| has_work(pool)) {
            spent.end_rest();
            naps = 0;
            continue;
        }
        let rest = match is_long {
            false => rung.recv_timeout(NAP),
            true => rung.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        if rest == Err(RecvTimeoutError::Disconnected) {
            return;
        }
        naps = if is_long { 0 } else { naps };
        spent.end_rest();
    }
}

fn has_work<P: Recycle>(pool: Arc<P>) -> bool {
    let has_work = pool.has_work();
    guarded("the end of a pool", || drop(pool));
    has_work
}
