//! What a peer is, the timed loop, and the statistics of rounds.

use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::workers::Seat;

/// Calls between two looks at the clock take about this long.
const BATCH: Duration = Duration::from_micros(50);

/// A way to call the guest.
pub trait Peer: Send + Sync + 'static {
    /// What one thread holds on to between calls.
    type Hand;

    /// Made before the clock starts. `group` is on whose behalf the thread calls.
    fn hand(&self, seat: &Seat, group: u64) -> Self::Hand;

    /// Acquire, call, release.
    fn call(&self, hand: &mut Self::Hand, a: i64, b: i64) -> i64;
}

/// A peer whose type is forgotten: dispatched once a measurement, not once a call.
pub trait Timed: Send + Sync {
    /// Nanoseconds per call of this thread, while all threads of the seat do the same.
    fn run(&self, seat: &Seat, group: u64, time: Duration) -> f64;
}

impl<P: Peer> Timed for P {
    fn run(&self, seat: &Seat, group: u64, time: Duration) -> f64 {
        let mut hand = self.hand(seat, group);
        let mut batch = 1;
        while spin(self, &mut hand, batch) < BATCH {
            batch *= 2;
        }
        seat.together.wait();
        let (mut calls, mut spent) = (0, Duration::ZERO);
        let began = Instant::now();
        while spent < time {
            spin(self, &mut hand, batch);
            calls += batch;
            spent = began.elapsed();
        }
        spent.as_nanos() as f64 / calls as f64
    }
}

/// Makes that many calls, and checks every sum.
fn spin<P: Peer>(peer: &P, hand: &mut P::Hand, calls: i64) -> Duration {
    let began = Instant::now();
    let b = black_box(7);
    let mut wrong = 0;
    for a in 0..calls {
        let sum = black_box(peer.call(hand, black_box(a), b));
        wrong |= sum ^ (a + b);
    }
    assert_eq!(wrong, 0, "a call returned something else than the sum");
    began.elapsed()
}

/// Median and spread over rounds.
#[derive(Debug, Clone, Copy)]
pub struct Summary {
    pub median: f64,
    /// Of the rounds: the middle half, and all.
    pub quartiles: [f64; 2],
    pub extremes: [f64; 2],
}

impl Summary {
    /// Of at least one round.
    pub fn of(mut sorted: Vec<f64>) -> Self {
        sorted.sort_by(f64::total_cmp);
        let at = |part: f64| sorted[((sorted.len() - 1) as f64 * part).round() as usize];
        Self {
            median: at(0.5),
            quartiles: [at(0.25), at(0.75)],
            extremes: [at(0.0), at(1.0)],
        }
    }

    /// The interquartile range in percent of the median.
    pub fn noise(&self) -> f64 {
        (self.quartiles[1] - self.quartiles[0]) / self.median * 100.0
    }
}
