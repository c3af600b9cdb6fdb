//! Threads that compile and load for tasks, whose own threads must not be kept from other tasks.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use crate::pool::service::undelivered::Delivery;
use crate::pool::time::threads::Threads;
use crate::runtime::{WakerCell, guarded, wake};
use crate::sync::unchecked::Mutex;
use crate::sync::unchecked::channel::{Receiver, Sender, bounded};
use crate::sync::{AtomicBool, Ordering};

type Job = Box<dyn FnOnce() + Send>;

/// Says whether anybody waits for a piece of work.
pub(crate) type IsAwaited<'a> = &'a dyn Fn() -> bool;

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
    /// dropped when nobody works with it any more. The work may ask whether anybody waits for it still.
    pub fn run<R: Send + 'static>(
        &self,
        work: impl FnOnce(IsAwaited<'_>) -> R + Send + 'static,
    ) -> Outcome<R> {
        let desk = Arc::new(Desk::new());
        let outcome = Outcome(desk.clone());
        // A job that is not taken is dropped, and its worker with it: that says so, too.
        let worker = Worker {
            desk,
            threads: self.threads.clone(),
        };
        let job: Job = Box::new(move || {
            let desk = &worker.desk;
            let is_awaited = || Arc::strong_count(desk) > 1 && !desk.work.lock().closed;
            if is_awaited() {
                drop(desk.leave(work(&is_awaited)));
            }
        });
        let sender = self.sender.lock().clone();
        match sender {
            Some(sender) if self.has_threads() => drop(sender.send(job)),
            // The system has no thread for it, so it is done here.
            Some(_) => job(),
            None => {}
        }
        outcome
    }

    /// Starts one more, if there may be one more; whether there are any.
    fn has_threads(&self) -> bool {
        let (has_any, error) = self.start_one();
        if let Some(error) = error {
            guarded("a subscriber", || {
                tracing::error!(%error, "no thread to compile on");
            });
        }
        has_any
    }

    fn start_one(&self) -> (bool, Option<std::io::Error>) {
        let mut started = self.started.lock();
        if *started >= self.most {
            return (true, None);
        }
        let jobs = self.jobs.clone();
        let work = move || {
            be_nice();
            jobs.iter().for_each(|job| {
                guarded("a compilation", job);
            });
        };
        let error = self.threads.start("wasm-pool compiler", work).err();
        *started += usize::from(error.is_none());
        (*started > 0, error)
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
    work: Mutex<Work<R>>,
    /// Who waits for the result.
    waker: WakerCell,
}

struct Work<R> {
    result: Option<R>,
    done: bool,
    /// The deadline of whoever waits has come: what comes now is for nobody.
    closed: bool,
}

impl<R> Desk<R> {
    fn new() -> Self {
        Self {
            work: Mutex::new(Work {
                result: None,
                done: false,
                closed: false,
            }),
            waker: WakerCell::default(),
        }
    }

    /// Leaves the result; gives it back if nobody waits for it any more.
    fn leave(&self, result: R) -> Option<R> {
        let mut work = self.work.lock();
        if work.closed {
            return Some(result);
        }
        work.result = Some(result);
        None
    }
}

/// Says that the work is over when it goes, however it goes.
struct Worker<R> {
    desk: Arc<Desk<R>>,
    threads: Arc<Threads>,
}

impl<R> Drop for Worker<R> {
    fn drop(&mut self) {
        self.desk.work.lock().done = true;
        if let Some(waker) = self.desk.waker.take() {
            // If the pool is gone already, nobody waits for it.
            self.threads.aside(|| wake(waker));
        }
    }
}

/// What becomes of a job; see [`Workers::run`].
pub(crate) struct Outcome<R>(Arc<Desk<R>>);

impl<R: Send + 'static> Outcome<R> {
    /// To take back what is not read in time. With `slack`, the work takes as long as it takes, and its result is
    /// taken back when it has lain there for so many nanoseconds.
    pub fn delivery<P>(&self, slack: Option<u64>) -> Arc<dyn Delivery<P>> {
        Arc::new(Unread {
            desk: Arc::downgrade(&self.0),
            slack,
            was_done: AtomicBool::new(false),
        })
    }
}

/// A result that nobody has read yet.
struct Unread<R> {
    desk: Weak<Desk<R>>,
    slack: Option<u64>,
    /// Whether the work was done already when it was to be taken back last.
    was_done: AtomicBool,
}

impl<R: Send + 'static, P> Delivery<P> for Unread<R> {
    fn is_taken(&self) -> bool {
        let taken = |desk: Arc<Desk<R>>| {
            let work = desk.work.lock();
            work.done && work.result.is_none()
        };
        self.desk.upgrade().is_none_or(taken)
    }

    fn take_back(&self, _: &P) -> Option<u64> {
        let desk = self.desk.upgrade()?;
        let done = desk.work.lock().done;
        let was_done = self.was_done.swap(done, Ordering::Relaxed);
        if let Some(slack) = self.slack.filter(|_| !was_done) {
            return Some(slack);
        }
        let unread = {
            let mut work = desk.work.lock();
            work.closed = true;
            work.result.take()
        };
        drop(unread);
        None
    }
}

impl<R> Future for Outcome<R> {
    type Output = Option<R>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<R>> {
        self.0.waker.set(context.waker());
        let mut work = self.0.work.lock();
        match work.done {
            true => Poll::Ready(work.result.take()),
            false => Poll::Pending,
        }
    }
}

/// Lets other threads go first. On Linux, a thread has a priority of its own.
fn be_nice() {
    #[cfg(target_os = "linux")]
    let _ = rustix::process::nice(5);
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::sync::{unit_test, unit_test_of_threads};

    fn poll<R>(outcome: &mut Outcome<R>) -> Poll<Option<R>> {
        Pin::new(outcome).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn work_for_a_closed_pool_is_over_at_once() {
        unit_test(closed_pool);
    }

    fn closed_pool() {
        let workers = Workers::new(1);
        workers.stop();
        let owned = Arc::new(());
        let kept = owned.clone();
        let mut outcome = workers.run(move |_| drop(kept));
        assert_eq!(poll(&mut outcome), Poll::Ready(None));
        assert_eq!(Arc::strong_count(&owned), 1, "what it owned is dropped");
    }

    #[test]
    fn work_that_panics_is_over() {
        unit_test_of_threads(panicking_work);
    }

    fn panicking_work() {
        let workers = Workers::new(1);
        let mut outcome: Outcome<()> = workers.run(|_| panic!("on purpose"));
        workers.stop();
        workers.join();
        assert_eq!(poll(&mut outcome), Poll::Ready(None));
    }
}
