//! The thread that keeps time: it moves the epoch while something is leased, publishes a coarse
//! clock, and sweeps out what has been idle for too long.

use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::clock::Pulse;
use super::shared::Shared;
use super::ticker::Ticker;
use crossbeam_channel::{Receiver, Sender, after, never, select, tick, unbounded};
use parking_lot::Mutex;

/// What the housekeeper is told.
pub(crate) enum Control {
    /// Something is leased: move the epoch.
    Resume,
    /// The first alarm is another one now.
    Alarm,
    /// The pool is gone; move the epoch for the leases that are left, then end.
    Stop,
}

/// The pool's hold on its housekeeper, if it has one.
pub(crate) struct Housekeeper {
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What a housekeeper needs to begin.
pub(crate) struct Duties {
    /// How often the epoch moves, when calls have deadlines and nobody else moves it.
    pub epoch_tick: Option<Duration>,
    pub sweep_period: Duration,
}

/// How often the time of leases is looked at that outlived the pool, where the epoch has no period.
const ORPHANS_TICK: Duration = Duration::from_millis(10);

/// How many ticks of the epoch pass between two looks whether anything is leased still.
const TICKS_PER_LOOK: u32 = 16;

pub(crate) fn channel() -> (Sender<Control>, Receiver<Control>) {
    unbounded()
}

impl Housekeeper {
    /// No thread: the host sweeps by hand.
    pub fn none() -> Self {
        Self {
            thread: Mutex::new(None),
        }
    }

    pub fn start<T: Send + 'static>(
        &self,
        pool: Weak<Shared<T>>,
        pulse: Arc<Pulse>,
        control: Receiver<Control>,
        duties: Duties,
    ) -> std::io::Result<()> {
        let rounds = Rounds {
            pool,
            pulse,
            control,
            duties,
        };
        let thread = thread::Builder::new()
            .name("wasm-pool".into())
            .spawn(move || rounds.run())?;
        *self.thread.lock() = Some(thread);
        Ok(())
    }

    /// Tells the thread to end, and waits for that when nothing keeps it.
    pub fn stop(&self, pulse: &Pulse, wait: bool) {
        pulse.send(Control::Stop);
        let thread = self.thread.lock().take();
        // The housekeeper itself may be the one who drops the last handle.
        let own = |thread: &JoinHandle<()>| thread.thread().id() == thread::current().id();
        if let Some(thread) = thread.filter(|thread| wait && !own(thread)) {
            // An error is a panic in a listener on that thread: reported there, nothing to add.
            let _ = thread.join();
        }
    }
}

struct Rounds<T: Send + 'static> {
    pool: Weak<Shared<T>>,
    pulse: Arc<Pulse>,
    control: Receiver<Control>,
    duties: Duties,
}

impl<T: Send + 'static> Rounds<T> {
    fn run(self) {
        let sweep = tick(self.duties.sweep_period);
        let (mut ticker, mut epoch) = (None, never());
        let mut alarm = never();
        let mut looks = 0;
        loop {
            select! {
                recv(self.control) -> told => match told {
                    Ok(Control::Resume) => {
                        let now = Instant::now();
                        ticker = self.duties.epoch_tick.map(|period| Ticker::new(period, now));
                        epoch = next_tick(ticker.as_ref(), now);
                    }
                    Ok(Control::Alarm) => alarm = self.next_alarm(),
                    Ok(Control::Stop) | Err(_) => return self.outlast_orphans(),
                },
                recv(alarm) -> _ => {
                    self.pulse.ring();
                    alarm = self.next_alarm();
                }
                recv(epoch) -> _ => {
                    let now = Instant::now();
                    self.pulse.epoch.advance(ticker.as_mut().map_or(0, |ticker| ticker.due(now)));
                    self.pulse.beat();
                    looks += 1;
                    epoch = match looks % TICKS_PER_LOOK == 0 && !self.is_anything_leased() {
                        true => self.rest(),
                        false => next_tick(ticker.as_ref(), now),
                    };
                }
                recv(sweep) -> _ => if let Some(pool) = self.pool.upgrade() {
                    pool.sweep();
                    // A lease that slipped through the pause is found here at the latest.
                    if pool.is_anything_leased() {
                        self.pulse.keep_ticking();
                    }
                },
            }
        }
    }

    fn next_alarm(&self) -> Receiver<Instant> {
        self.pulse.next_alarm().map_or_else(never, after)
    }

    fn is_anything_leased(&self) -> bool {
        self.pool
            .upgrade()
            .is_some_and(|pool| pool.is_anything_leased())
    }

    /// Lets the epoch stand still. A lease that began just now may have missed that: so look once
    /// more after saying it. (A lease announces itself before it looks; if this look missed even
    /// that, the next lease resumes the epoch for both.)
    fn rest(&self) -> Receiver<Instant> {
        self.pulse.pause();
        if self.is_anything_leased() {
            self.pulse.keep_ticking();
        }
        never()
    }

    /// Leases may outlive every handle of the pool; an endless guest must still come to its end, and so
    /// must a task that waits for its host.
    fn outlast_orphans(&self) {
        let period = self.duties.epoch_tick.unwrap_or(ORPHANS_TICK);
        let mut ticker = Ticker::new(period, Instant::now());
        let epoch = tick(period);
        while self.pulse.orphans() > 0 && epoch.recv().is_ok() {
            self.pulse.epoch.advance(ticker.due(Instant::now()));
            self.pulse.ring();
        }
    }
}

fn next_tick(ticker: Option<&Ticker>, now: Instant) -> Receiver<Instant> {
    ticker.map_or_else(never, |ticker| after(ticker.until_next(now)))
}
