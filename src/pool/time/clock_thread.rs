//! The thread that keeps time. It moves the epoch while something is leased, and publishes a coarse clock;
//! nothing else. It runs nobody's code and takes no lock that is held for long, so nothing that a host, a guest
//! or the pool does elsewhere makes a deadline late.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::pool::time::ticker::Ticker;
use crate::pool::time::timekeeper::{Control, Timekeeper};
use crate::runtime::Epoch;
use crate::sync::unchecked::channel::{Receiver, RecvTimeoutError, Sender, unbounded};

pub(crate) struct ClockThread {
    pub epoch: Arc<Epoch>,
    /// How often the epoch moves, if calls have deadlines.
    pub period: Option<Duration>,
    /// How often the coarse clock is published at least.
    pub beat: Duration,
    pub control: Receiver<Control>,
}

pub(crate) fn channel() -> (Sender<Control>, Receiver<Control>) {
    unbounded()
}

impl ClockThread {
    pub fn run(self, timekeeper: &Timekeeper) {
        let mut ticker = None;
        let mut ending = false;
        while !(ending && timekeeper.orphans() == 0) {
            let period = self.period.filter(|_| ending || timekeeper.is_ticking());
            let start = |period| Ticker::new(period, Instant::now());
            ticker = period.map(|period| ticker.take().unwrap_or_else(|| start(period)));
            let next = ticker.as_ref().map(|t| t.until_next(Instant::now()));
            let sleep = next.map_or(self.beat, |next| next.min(self.beat));
            match self.control.recv_timeout(sleep) {
                Ok(Control::End) | Err(RecvTimeoutError::Disconnected) => ending = true,
                Ok(Control::Look) | Err(RecvTimeoutError::Timeout) => {}
            }
            timekeeper.beat();
            if let Some(ticker) = &mut ticker {
                self.epoch.advance(ticker.due(Instant::now()));
            }
        }
    }
}
