//! Threads that compile and load for tasks, whose own threads must not be kept from other tasks.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;

use crate::pool::service::undelivered::Delivery;
use crate::pool::shared::Shared;
use crate::pool::time::threads::Threads;
use crate::runtime::{discard, guarded, wake};

type Job = Box<dyn FnOnce() + Send>;

/// As many threads as compilations may run at once, started when they are first needed.
pub(crate) struct Workers {
    jobs: Receiver<Job>,
    /// `None` when the pool is closed.
    sender: Mutex<Option<Sender<Job>>>,
    threads: Arc<Threads>,
    /// Threads that were started.
    started: Mutex<usize>,
    most: usize,
}

impl Workers {
    /// A module in flight has one job at most, so there is always place for one more.
    pub fn new(most: usize) -> Self {
        let (sender, jobs) = bounded(most);
        Self {
            jobs,
            sender: Mutex::new(Some(sender)),
            threads: Arc::new(Threads::new()),
            started: Mutex::new(0),
            most,
        }
    }

    /// Does the work on one of the threads. `None` if it panicked, or the pool is closed. If the
    /// future is dropped before the work has begun, it is not begun; either way what it owns is
    /// dropped when nobody works with it any more.
    pub fn run<R: Send + 'static>(&self, work: impl FnOnce() -> R + Send + 'static) -> Outcome<R> {
        let shared = Arc::new(Mutex::new(Desk {
            result: None,
            waker: None,
            done: false,
            closed: false,
        }));
        let outcome = Outcome(shared.clone());
        // A job that is not taken is dropped, and its desk with it: that says so, too.
        let desk = Worker {
            desk: shared,
            threads: self.threads.clone(),
        };
        let job: Job = Box::new(move || {
            if Arc::strong_count(&desk.desk) > 1 && !desk.desk.lock().closed {
                let mut result = Some(work());
                let mut desk = desk.desk.lock();
                if !desk.closed {
                    desk.result = result.take();
                }
                // What nobody waits for any more is dropped when the desk is free again.
                drop(desk);
            }
        });
        let sender = self.sender.lock().clone();
        match sender {
            Some(sender) if self.has_threads() => drop(sender.send(job)),
            // The system has no thread for it: rather here than never.
            Some(_) => job(),
            None => {}
        }
        outcome
    }

    /// Starts one more, if there may be one more; whether there are any.
    fn has_threads(&self) -> bool {
        let mut started = self.started.lock();
        if *started >= self.most {
            return true;
        }
        let jobs = self.jobs.clone();
        let work = move || {
            be_nice();
            jobs.iter().for_each(|job| {
                guarded("a compilation", job);
            });
        };
        match self.threads.start("wasm-pool compiler", work) {
            Ok(()) => *started += 1,
            Err(error) => {
                guarded("a subscriber", || {
                    tracing::error!(%error, "no thread to compile on");
                });
            }
        }
        *started > 0
    }

    /// No more jobs; those that are queued are still done.
    pub fn stop(&self) {
        self.sender.lock().take();
    }

    /// Waits until every thread has ended, but for one that is in host code.
    pub fn join(&self) {
        self.threads.join();
    }
}

/// Where a worker leaves the result.
struct Desk<R> {
    result: Option<R>,
    waker: Option<Waker>,
    done: bool,
    /// Its reader's deadline has come: what comes now is for nobody.
    closed: bool,
}

/// Says that the work is over when it goes, however it goes.
struct Worker<R> {
    desk: Arc<Mutex<Desk<R>>>,
    threads: Arc<Threads>,
}

impl<R> Drop for Worker<R> {
    fn drop(&mut self) {
        let waker = {
            let mut desk = self.desk.lock();
            desk.done = true;
            desk.waker.take()
        };
        if let Some(waker) = waker {
            // If the pool is gone already, nobody reads it.
            self.threads.aside(|| wake(waker));
        }
    }
}

/// What becomes of a job; see [`Workers::run`].
pub(crate) struct Outcome<R>(Arc<Mutex<Desk<R>>>);

impl<R: Send + 'static> Outcome<R> {
    /// To take back what is not read in time. With `slack`, the work takes as long as it takes, and its result is
    /// taken back when it has lain there for so many nanoseconds.
    pub fn delivery<T: Send + 'static>(&self, slack: Option<u64>) -> Arc<dyn Delivery<T>> {
        Arc::new(Awaited {
            desk: Arc::downgrade(&self.0),
            slack,
            was_done: false,
        })
    }
}

/// A result that is awaited.
struct Awaited<R> {
    desk: Weak<Mutex<Desk<R>>>,
    slack: Option<u64>,
    /// Whether the work was done already at the last look.
    was_done: bool,
}

impl<R: Send + 'static, T: Send + 'static> Delivery<T> for Awaited<R> {
    fn is_taken(&self) -> bool {
        let taken = |desk: Arc<Mutex<Desk<R>>>| {
            let desk = desk.lock();
            desk.done && desk.result.is_none()
        };
        self.desk.upgrade().is_none_or(taken)
    }

    fn take_back(&self, pool: &Shared<T>) {
        let Some(desk) = self.desk.upgrade() else {
            return;
        };
        if let Some(slack) = self.slack.filter(|_| !self.was_done) {
            let again = Self {
                desk: self.desk.clone(),
                slack: self.slack,
                was_done: desk.lock().done,
            };
            let at = pool.timekeeper.now().saturating_add(slack);
            return pool.undelivered.add(at, Arc::new(again));
        }
        let undelivered = {
            let mut desk = desk.lock();
            desk.closed = true;
            desk.result.take()
        };
        drop(undelivered);
    }
}

impl<R> Future for Outcome<R> {
    type Output = Option<R>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<R>> {
        let waker = context.waker().clone();
        let before = {
            let mut desk = self.0.lock();
            if desk.done {
                return Poll::Ready(desk.result.take());
            }
            desk.waker.replace(waker)
        };
        // The host's: not dropped under the lock.
        discard(before);
        Poll::Pending
    }
}

/// Lets other threads go first. On Linux, a thread has a priority of its own.
fn be_nice() {
    #[cfg(target_os = "linux")]
    let _ = rustix::process::nice(5);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll<R>(outcome: &mut Outcome<R>) -> Poll<Option<R>> {
        Pin::new(outcome).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn work_for_a_closed_pool_is_over_at_once() {
        let workers = Workers::new(1);
        workers.stop();
        let owned = Arc::new(());
        let kept = owned.clone();
        let mut outcome = workers.run(move || drop(kept));
        assert_eq!(poll(&mut outcome), Poll::Ready(None));
        assert_eq!(Arc::strong_count(&owned), 1, "what it owned is dropped");
    }

    #[test]
    fn work_that_panics_is_over() {
        let workers = Workers::new(1);
        let mut outcome: Outcome<()> = workers.run(|| panic!("on purpose"));
        workers.stop();
        workers.join();
        assert_eq!(poll(&mut outcome), Poll::Ready(None));
    }
}
