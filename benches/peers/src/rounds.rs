//! Interleaved rounds: every row once in each, so that what the machine does hits all alike.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::measure::Summary;
use crate::peers::Row;
use crate::quiet;
use crate::workers::{Seat, Workers};

/// How a row is called.
#[derive(Clone, Copy)]
pub struct Mode {
    pub name: &'static str,
    pub threads: usize,
    /// Whether each thread has a group of its own.
    pub apart: bool,
}

pub const MODES: [Mode; 3] = [
    Mode {
        name: "1 thread",
        threads: 1,
        apart: false,
    },
    Mode {
        name: "2 threads, same group",
        threads: 2,
        apart: false,
    },
    Mode {
        name: "2 threads, a group each",
        threads: 2,
        apart: true,
    },
];

/// How much to measure.
#[derive(Clone, Copy)]
pub struct Plan {
    pub rounds: usize,
    /// As many as may be tried to get that many undisturbed ones.
    pub tries: usize,
    /// Of each row in each round.
    pub time: Duration,
}

/// What was measured: nanoseconds per call of one thread.
pub struct Measured {
    pub rows: Vec<(&'static str, [Option<Summary>; MODES.len()])>,
    /// A locked exchange of a word that no other thread touches.
    pub exchange: Summary,
    /// A cache line to the other thread and back.
    pub round_trip: Summary,
    /// How many rounds, of how many.
    pub rounds: String,
}

struct Round {
    rows: Vec<[Option<f64>; MODES.len()]>,
    exchange: f64,
    round_trip: f64,
}

pub fn measure(rows: &[Row], workers: &Workers, plan: Plan) -> Measured {
    let kept = quiet::rounds(plan.rounds, plan.tries, || {
        let cell = |row: &Row, mode: Mode| {
            (row.keyed || !mode.apart).then(|| once(row, workers, mode, plan.time))
        };
        Round {
            exchange: workers.run(1, |_| exchange())[0],
            round_trip: workers.run(2, round_trip())[0],
            rows: (rows.iter().map(|row| MODES.map(|mode| cell(row, mode)))).collect(),
        }
    });
    let rounds = &kept.rounds;
    let of = |pick: &dyn Fn(&Round) -> f64| Summary::of(rounds.iter().map(pick).collect());
    let cells = |row: usize| {
        std::array::from_fn(|mode| {
            let times: Option<_> = rounds.iter().map(|round| round.rows[row][mode]).collect();
            times.map(Summary::of)
        })
    };
    Measured {
        rows: (rows.iter().enumerate())
            .map(|(n, row)| (row.name, cells(n)))
            .collect(),
        exchange: of(&|round| round.exchange),
        round_trip: of(&|round| round.round_trip),
        rounds: kept.to_string(),
    }
}

/// The mean over the threads.
fn once(row: &Row, workers: &Workers, mode: Mode, time: Duration) -> f64 {
    let timed = row.timed.clone();
    let each = workers.run(mode.threads, move |seat: Seat| {
        let group = if mode.apart { seat.thread as u64 } else { 0 };
        timed.run(&seat, group, time)
    });
    each.iter().sum::<f64>() / each.len() as f64
}

fn exchange() -> f64 {
    const TIMES: u64 = 500_000;
    let word = AtomicU64::new(0);
    let began = Instant::now();
    for n in 0..TIMES {
        std::hint::black_box(word.swap(n, Ordering::AcqRel));
    }
    began.elapsed().as_nanos() as f64 / TIMES as f64
}

/// Thread 0 writes even numbers, thread 1 odd ones.
fn round_trip() -> impl Fn(Seat) -> f64 {
    const TIMES: u64 = 20_000;
    let word = Arc::new(AtomicU64::new(0));
    move |seat| {
        seat.together.wait();
        let began = Instant::now();
        for n in 0..TIMES {
            let turn = 2 * n + seat.thread as u64;
            while word.load(Ordering::Acquire) != turn {
                std::hint::spin_loop();
            }
            word.store(turn + 1, Ordering::Release);
        }
        began.elapsed().as_nanos() as f64 / TIMES as f64
    }
}
