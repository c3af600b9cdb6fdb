//! Futures polled by hand, and host functions that keep their guests waiting.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use wasm_pool::{CallError, PoolBuilder};

/// Anything that a task does with a pool.
pub type Work<X = Result<(), CallError>> = Pin<Box<dyn Future<Output = X> + Send>>;

/// Counts how often it was woken.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Panics when it is woken.
pub struct Bomb;

impl Wake for Bomb {
    fn wake(self: Arc<Self>) {
        panic!("a waker that panics, on purpose");
    }
}

/// A future that is polled when the test says so.
pub struct ByHand<X> {
    future: Work<X>,
    wakes: Arc<Wakes>,
    seen: usize,
}

impl<X> ByHand<X> {
    pub fn new(future: impl Future<Output = X> + Send + 'static) -> Self {
        Self {
            future: Box::pin(future),
            wakes: Arc::default(),
            seen: 0,
        }
    }

    /// Polls once.
    pub fn poll(&mut self) -> Option<X> {
        self.seen = self.wakes.0.load(Ordering::SeqCst);
        let waker = Waker::from(self.wakes.clone());
        match self.future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }

    /// Whether it was woken since it was polled last.
    pub fn is_woken(&self) -> bool {
        self.wakes.0.load(Ordering::SeqCst) > self.seen
    }

    /// Returns when it has been woken since it was polled last.
    #[track_caller]
    pub fn wait_until_woken(&self) {
        let began = Instant::now();
        while !self.is_woken() {
            assert!(began.elapsed() < MINUTE, "nobody wakes it");
            std::thread::yield_now();
        }
    }

    /// Polls it whenever it is woken, and only then, until it is ready.
    #[track_caller]
    pub fn finish(mut self) -> X {
        loop {
            if let Some(output) = self.poll() {
                return output;
            }
            self.wait_until_woken();
        }
    }
}

pub const MINUTE: Duration = Duration::from_secs(60);

/// Pending so often; wakes itself, as `yield_now` does.
pub async fn pause(mut polls: usize) {
    poll_fn(move |context| {
        if polls == 0 {
            return Poll::Ready(());
        }
        polls -= 1;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Keeps whoever comes waiting, until it is opened.
#[derive(Clone, Default)]
pub struct Gate(Arc<Mutex<Inside>>);

#[derive(Default)]
struct Inside {
    open: bool,
    came: usize,
    left: usize,
    waiting: Vec<Waker>,
}

impl Gate {
    pub fn open(&self) {
        let waiting = {
            let mut inside = self.0.lock().unwrap();
            inside.open = true;
            std::mem::take(&mut inside.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    /// How many have come so far.
    pub fn came(&self) -> usize {
        self.0.lock().unwrap().came
    }

    /// How many have gone again: through, or dropped.
    pub fn left(&self) -> usize {
        self.0.lock().unwrap().left
    }

    pub async fn pass(self) {
        struct Left(Gate);
        impl Drop for Left {
            fn drop(&mut self) {
                self.0.0.lock().unwrap().left += 1;
            }
        }
        self.0.lock().unwrap().came += 1;
        let left = Left(self);
        poll_fn(|context| {
            let mut inside = left.0.0.lock().unwrap();
            if inside.open {
                return Poll::Ready(());
            }
            inside.waiting.push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// Adds the async imports `env.pause` (pending so many polls) and `env.gate` (until it is opened).
pub fn waiting_host<T: Send + 'static>(builder: PoolBuilder<T>) -> (PoolBuilder<T>, Gate) {
    let gate = Gate::default();
    let inner = gate.clone();
    let builder = builder.imports(move |linker| {
        linker.func_wrap_async("env", "pause", |_, (polls,): (i32,)| {
            Box::new(pause(polls as usize))
        })?;
        linker.func_wrap_async("env", "gate", move |_, (): ()| {
            Box::new(inner.clone().pass())
        })?;
        Ok(())
    });
    (builder, gate)
}
