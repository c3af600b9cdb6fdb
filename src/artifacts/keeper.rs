//! The thread that keeps up the stores, in the background: told of by events, of which it may miss some, and waited
//! for by nobody.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::key::ArtifactKey;
use crate::sync::unchecked::channel::{
    Receiver, RecvTimeoutError, Sender, TrySendError, bounded, never,
};
use crate::sync::unchecked::{AtomicBool, AtomicU64, Ordering};
use crate::sync::unchecked::{Mutex, thread};

/// Events that may wait; what comes while there are so many is dropped.
const EVENTS: usize = 1024;

/// How long the end of the last `Artifacts` waits for the thread, which may be in a store that never returns.
const GRACE: Duration = Duration::from_millis(100);

/// How long nothing happens before stores are looked through all the same.
const PERIOD: Duration = Duration::from_secs(3600);

/// The time, of both kinds: what is stored is older than this process.
#[derive(Clone, Copy)]
pub(super) struct Now {
    pub at: Instant,
    pub wall: SystemTime,
}

impl Now {
    pub fn read() -> Self {
        Self {
            at: Instant::now(),
            wall: SystemTime::now(),
        }
    }
}

/// What keeps up its stores. Panics of host code in it end nothing else.
pub(super) trait Housework: Send + Sync + 'static {
    fn note(&self, event: Event, now: Now);

    /// Cleans up what has too much, or has not been looked at for long; or all, if `all`. When it is over, it leaves
    /// the rest as it is.
    fn keep_up(&self, now: Now, all: bool, is_over: &AtomicBool);
}

/// What happened to an artifact.
pub(super) enum Event {
    /// It was found, verified and given to a pool.
    Used {
        tier: usize,
        key: ArtifactKey,
        is_compressed: bool,
    },
    /// It was saved, of so many bytes.
    Saved { tier: usize, bytes: u64 },
}

/// The hold on the thread, if there is one. Dropped with the last `Artifacts`, which ends it.
pub(super) struct Keeper {
    /// `None` at the end.
    events: Option<Sender<Event>>,
    waiting: Receiver<Event>,
    has_thread: bool,
    is_started: AtomicBool,
    /// Nobody has these artifacts any more: what is not begun is left undone.
    is_over: Arc<AtomicBool>,
    /// The thread has ended when the other side is gone.
    ended: Mutex<Receiver<()>>,
    dropped: AtomicU64,
}

impl Keeper {
    /// Its thread starts with the first event. Without a thread, events wait for [`Self::catch_up`].
    pub fn new(has_thread: bool) -> Self {
        let (events, waiting) = bounded(EVENTS);
        Self {
            events: Some(events),
            waiting,
            has_thread,
            is_started: AtomicBool::new(false),
            is_over: Arc::new(AtomicBool::new(false)),
            ended: Mutex::new(never()),
            dropped: AtomicU64::new(0),
        }
    }

    /// Events that nobody had time for.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Tells of it, and waits for nobody.
    pub fn tell<H: Housework>(&self, house: &Arc<H>, event: Event) {
        let sent = self.events.as_ref().map(|events| events.try_send(event));
        if let Some(Err(TrySendError::Full(_))) = sent {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        if self.has_thread && !self.is_started.swap(true, Ordering::Relaxed) {
            self.start(house.clone());
        }
    }

    fn start<H: Housework>(&self, house: Arc<H>) {
        let (until_dropped, ended) = bounded(0);
        let (waiting, is_over) = (self.waiting.clone(), self.is_over.clone());
        let work = move || {
            run(&*house, &waiting, &is_over);
            // Stores of the host's may go with it.
            crate::runtime::guarded("an artifact store", || drop(house));
            drop::<Sender<()>>(until_dropped);
        };
        let thread = thread::Builder::new().name("wasm-pool artif".into());
        match thread.spawn(work) {
            Ok(_) => *self.ended.lock() = ended,
            Err(error) => {
                // The next event tries again.
                self.is_started.store(false, Ordering::Relaxed);
                crate::runtime::guarded("a subscriber", || {
                    tracing::error!(%error, "no thread to keep artifacts on");
                });
            }
        }
    }

    /// Does what the thread would do, here and now: all of it.
    pub fn catch_up<H: Housework>(&self, house: &H) {
        let now = Now::read();
        for event in self.waiting.try_iter().take(EVENTS) {
            house.note(event, now);
        }
        house.keep_up(now, true, &self.is_over);
    }
}

fn run<H: Housework>(house: &H, events: &Receiver<Event>, is_over: &AtomicBool) {
    loop {
        let first = match events.recv_timeout(PERIOD) {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        // All uses are known before anything is removed.
        let now = Now::read();
        for event in first.into_iter().chain(events.try_iter().take(EVENTS)) {
            if is_over.load(Ordering::Relaxed) {
                return;
            }
            house.note(event, now);
        }
        house.keep_up(now, false, is_over);
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        drop(self.events.take());
        if *self.is_started.get_mut() {
            // It says nothing: it goes, or it takes too long.
            let _ = self.ended.get_mut().recv_timeout(GRACE);
        }
    }
}
